"""Display names, and the settings of a grid compared with each other."""

from __future__ import annotations

import csv

import pytest

from optbench.records.frames import load_results
from optbench.report.analysis import analyse, side_tables
from optbench.report.build import write_report
from optbench.suite.load import load_suite
from optbench.suite.spec import SuiteError
from tests.report.conftest import FACTS, fill_store

GRID = ("batch_size: 256", "grid: {batch_size: [32, 64]}\n    title: Digits")
NAMED = ("adam: {lr: 0.01}", "adam: {lr: 0.01, title: Adam (theirs)}")


def report_of(write_suite, tmp_path, score, *changes):
    suite = load_suite(write_suite(("seeds: 2", "seeds: 8"), *changes))
    folder = fill_store(suite, tmp_path / "store", score)
    return load_results(folder), suite.report_spec


def by_batch(trial):
    better = 0.05 if trial.spec.workload.batch_size == 32 else 0.0
    return 0.8 + better + trial.spec.seeds.init / 200 + (0.001 if trial.optimizer == "adam" else 0.0)


def test_every_format_calls_things_by_their_titles(write_suite, tmp_path):
    results, spec = report_of(
        write_suite, tmp_path, by_batch, NAMED, ("batch_size: 256", "batch_size: 32\n    title: Digits")
    )
    report = analyse(results, spec)
    assert "On Digits (main question) Adam (theirs) is better than wame" in report.answer.text
    folder = write_report(results, spec, tmp_path / "r", formats=("html", "markdown", "csv", "latex")).folder
    for name in ("index.html", "leaderboard.md", "leaderboard.tex"):
        assert "Adam (theirs)" in (folder / name).read_text("utf-8").replace("\\", "")
    with (folder / "tables" / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["optimizer"] for row in rows} == {"wame", "Adam (theirs)"}
    assert {row["workload"] for row in rows} == {"Digits"}
    assert set(results.trials["optimizer"]) == {"wame", "adam"}


def test_titles_retrain_nothing(write_suite, tmp_path):
    from optbench.suite.expand import trials
    from optbench.trial import trial_id

    plans = [trials(load_suite(write_suite(*changes)), lambda *_: "cpu") for changes in ((), (NAMED,))]
    assert [trial_id(t.spec) for t in plans[0]] == [trial_id(t.spec) for t in plans[1]]


def test_two_things_of_one_name_are_refused(write_suite):
    with pytest.raises(SuiteError, match="'wame' and 'adam' would both be called 'wame' in the report"):
        load_suite(write_suite(("adam: {lr: 0.01}", "adam: {lr: 0.01, title: wame}")))


def test_the_settings_of_a_grid_have_verdicts(write_suite, tmp_path):
    results, spec = report_of(write_suite, tmp_path, by_batch, GRID)
    report = analyse(results, spec)
    table = side_tables(report)["grids"]
    assert [row[:3] for row in table.rows] == [
        ("Digits", "wame", "batch_size=64 vs batch_size=32"),
        ("Digits", "adam", "batch_size=64 vs batch_size=32"),
    ]
    for row in table.rows:
        cells = dict(zip(table.columns, row, strict=True))
        assert cells["n"] == "8"
        assert cells["test accuracy, % [CI]"].startswith("-5.00")
        assert row[-1] == "worse"


def test_a_crash_in_a_grid_is_a_missing_pair(write_suite, tmp_path):
    def score(trial):
        lost = trial.spec.seeds.init == 3 and trial.spec.workload.batch_size == 64
        return "crashed" if lost else by_batch(trial)

    report = analyse(*report_of(write_suite, tmp_path, score, GRID))
    assert [(c.n, c.n_missing) for item in report.grids for c in item.family.comparisons] == [(7, 1), (7, 1)]


def test_settings_that_ran_on_different_machines_are_said_to(write_suite, tmp_path):
    suite = load_suite(write_suite(("seeds: 2", "seeds: 8"), GRID))
    for size, processor in ((32, "one"), (64, "another")):
        fill_store(
            suite,
            tmp_path / "store",
            lambda t, size=size: by_batch(t) if t.spec.workload.batch_size == size else None,
            facts={**FACTS, "processor": processor},
        )
    report = analyse(load_results(tmp_path / "store"), suite.report_spec)
    assert [item.mixed.mixed for item in report.grids] == [8, 8]
    notes = " ".join(side_tables(report)["grids"].notes)
    assert "Digits, wame: 8 of 8 pairs mix processor another (batch_size=64) and one (batch_size=32)" in notes
    assert "Digits, adam: 8 of 8" in notes


def test_a_suite_without_a_grid_has_no_such_table(two_workloads):
    results, spec, _ = two_workloads
    report = analyse(results, spec)
    assert report.grids == ()
    assert "grids" not in side_tables(report)
