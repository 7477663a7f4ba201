"""Results from which little follows: the report says what can and cannot be said."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from optbench.records.frames import Results, load_results
from optbench.report.analysis import analyse, main_tables
from optbench.report.build import markdown_text, write_report
from optbench.suite.load import load_suite
from tests.report.conftest import fill_store

ALL = ("html", "markdown", "latex", "csv", "json")


def page_of(results, suite, folder):
    return write_report(results, suite, folder, formats=ALL).index.read_text("utf-8")


def verdicts(report):
    return {c.verdict.word for board in report.boards for c in board.family.comparisons}


def test_one_optimizer(made_results, tmp_path):
    results, suite = made_results({"wame": [0.8, 0.9]}, ("  adam: {lr: 0.01}\n", ""))
    assert "One optimizer: there is nothing to compare it with" in page_of(results, suite, tmp_path / "r")
    assert analyse(results, suite).boards[0].rows[0].letters == "a"


def test_one_seed(made_results, tmp_path):
    results, suite = made_results({"wame": [0.8], "adam": [0.9]})
    page = page_of(results, suite, tmp_path / "r")
    assert "One seed: a difference on it cannot be told from chance" in page
    assert verdicts(analyse(results, suite)) == {"inconclusive"}


@pytest.mark.parametrize("status", ["diverged", "crashed"])
def test_nothing_completed(made_results, tmp_path, status):
    results, suite = made_results({"wame": [status] * 3, "adam": [status] * 3})
    page = page_of(results, suite, tmp_path / "r")
    said = {"diverged": "No trial completed", "crashed": "nothing can be said about any optimizer"}
    assert said[status] in page
    assert verdicts(analyse(results, suite)) == {"crashed" if status == "crashed" else "inconclusive"}


def test_everything_of_one_optimizer_diverged(made_results):
    results, suite = made_results({"wame": [0.8 + i / 50 for i in range(7)], "adam": ["diverged"] * 7})
    report = analyse(results, suite)
    assert verdicts(report) == {"worse"}
    assert [row.optimizer for row in report.boards[0].rows] == ["wame", "adam"]


def test_no_trial_yet(made_results, tmp_path):
    results, suite = made_results({"wame": [None], "adam": [None]})
    page = page_of(results, suite, tmp_path / "r")
    assert "No trial of this suite has been run" in page
    assert "There is nothing to say yet" in page


def test_partly_run(made_results):
    results, suite = made_results({"wame": [0.8, 0.9, None], "adam": [0.9, None, None]})
    report = analyse(results, suite)
    (missing,) = (s for s in report.answer.sentences if s.kind == "missing")
    assert missing.caution
    assert missing.text.startswith("Of 6 planned trials 3 completed, 3 have not been run")
    assert report.boards[0].family.comparisons[0].n == 1
    notes = report.boards[0].notes
    assert "Pairs that are missing (not run yet, crashed, or refused): adam 2." in notes


def test_mixed_backends_and_devices_are_never_pooled(write_suite, tmp_path):
    suite = load_suite(write_suite(("seeds: 2", "seeds: 6\nbackends: [torch, jax]")))

    def score(trial):
        return 0.8 + trial.spec.seeds.init / 100 + 0.02 * (trial.spec.backend == "jax")

    a = fill_store(suite, tmp_path / "a", score)
    b = fill_store(replace(suite, backends=("torch",)), tmp_path / "b", score, device="cuda")
    results = load_results(a, b)
    report = analyse(results, suite.report_spec)
    titles = [board.title for board in report.boards]
    assert titles == ["digits/mlp (torch, cpu)", "digits/mlp (jax, cpu)", "digits/mlp (torch, cuda)"]
    assert all(board.family.comparisons[0].n == 6 for board in report.boards)
    factor = {
        (item.optimizer, c.candidate, c.baseline): c
        for item in report.settings
        for c in item.family.comparisons
    }
    jax = factor["wame", "jax cpu", "torch cpu"]
    assert jax.n == 6
    assert jax.mean.estimate == pytest.approx(0.02)
    assert "Backend, device and precision as a factor" in markdown_text(report)


def test_a_crash_in_one_backend_is_a_missing_pair_of_the_comparison_of_backends(write_suite, tmp_path):
    suite = load_suite(
        write_suite(
            ("seeds: 2", "seeds: 6\nbackends: [torch, jax]"),
            ("adam: {lr: 0.01}", "adam: {lr: 0.01}\n  sgd: {lr: 0.1}"),
        )
    )

    def score(trial):
        jax, seed = trial.spec.backend == "jax", trial.spec.seeds.init
        if trial.optimizer != "wame":
            return "crashed" if jax or trial.optimizer == "sgd" else 0.9
        return "crashed" if jax and seed == 3 else 0.8 + seed / 100

    report = analyse(load_results(fill_store(suite, tmp_path / "a", score)), suite.report_spec)
    (wame,), (adam,) = (item.family.comparisons for item in report.settings)
    assert (wame.n, wame.n_missing) == (5, 1)
    assert (adam.n, adam.n_missing) == (0, 6)
    assert not report.failures


def test_times_of_different_machines_are_not_shown(made_results):
    results, suite = made_results({"wame": [0.8, 0.9], "adam": [0.85, 0.95]})
    other = {**results.environments[0], "processor": "another"}
    trials = results.trials.assign(environment=[0, 0, 1, 1])
    moved = replace(results, trials=trials, environments=(results.environments[0], other))
    same, mixed = (analyse(r, suite).boards[0] for r in (results, moved))
    assert all(row.step_ms > 0 for row in same.rows)
    assert all(pd.isna(row.step_ms) and pd.isna(row.seconds_per_epoch) for row in mixed.rows)
    assert any("different machines" in note for note in mixed.notes)


def test_workloads_on_one_dataset_are_called_so(two_workloads):
    results, suite, _ = two_workloads
    (found,) = analyse(results, suite).overall
    assert any("2 workloads cannot generalise" in note for note in found.notes)
    assert any("use 1 dataset" in note for note in found.notes)
    assert {row.new.verdict.word for row in found.rows if row.new} == {"inconclusive"}


def test_verdicts_are_the_four_words_and_never_no_difference(two_workloads):
    results, suite, _ = two_workloads
    report = analyse(results, suite)
    text = markdown_text(report)
    assert verdicts(report) <= {"better", "worse", "equivalent", "inconclusive"}
    assert "no difference" not in text.lower()
    assert "no significant" not in text.lower()
    assert [table.title for table in main_tables(report)][-1] == "Epochs to target"


def test_the_methods_paragraph_says_what_was_done(two_workloads):
    results, suite, _ = two_workloads
    text = analyse(results, suite).methods
    assert "36 of 36 planned trials were run in 12 blocks: 32 completed and 4 diverged" in text.replace(
        "32 completed, 4 diverged", "32 completed and 4 diverged"
    )
    assert "Wilcoxon signed-rank" in text
    assert "Holm's step-down procedure" in text
    assert "used 6 pairs" in text
    assert "torch 2, made, 1 thread" in text


def test_empty_results_have_a_report(write_suite, tmp_path):
    suite = load_suite(write_suite())
    nothing = Results(
        trials=pd.DataFrame(), epochs=pd.DataFrame(), refusals=(), planned=4, meta=(), environments=()
    )
    assert "nothing to report yet" in page_of(nothing, suite.report_spec, tmp_path / "r")
