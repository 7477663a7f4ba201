"""What a report says of optimizers that crashed."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pandas as pd
import pytest

from optbench import api
from optbench.records.frames import load_results
from optbench.report.analysis import analyse, main_tables
from optbench.report.side_tables import pairs_table
from optbench.suite.load import load_suite
from tests.conftest import write_changed
from tests.report.conftest import fill_store

CRASHES = ("adam: {lr: 0.01}", 'adam: {lr: 0.01}\n  muon: {class: "torch.optim:Muon", lr: 0.02}')


@pytest.fixture(scope="module")
def crashed_run(tmp_path_factory):
    """Two seeds of three optimizers, really run; torch's Muon refuses biases, so it crashes in every seed."""
    torch = pytest.importorskip("torch")
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this PyTorch has no Muon")
    folder = tmp_path_factory.mktemp("crashed")
    store = api.run(write_changed(folder, CRASHES), results=folder).store
    written = api.report(store, out=folder / "report", formats=("html", "csv", "json", "latex", "markdown"))
    return written.folder


def test_one_crashed_optimizer_hides_no_time_of_the_others(crashed_run):
    folder = crashed_run
    table = pd.read_csv(folder / "tables" / "leaderboard.csv").set_index("optimizer")
    assert (table.loc[["wame", "adam"], "seconds_per_epoch"] > 0).all()
    assert (table.loc[["wame", "adam"], "step_ms"] > 0).all()
    assert math.isnan(table.loc["muon", "seconds_per_epoch"])
    assert table.loc["muon", "crashed"] == 2
    assert "different machines" not in (folder / "index.html").read_text("utf-8")


def test_what_crashed_in_every_seed_is_called_crashed_in_every_format(crashed_run):
    folder = crashed_run
    table = pd.read_csv(folder / "tables" / "leaderboard.csv").set_index("optimizer")
    assert table.loc["muon", "verdict"] == "crashed"
    assert table.loc["adam", "verdict"] == "inconclusive"
    pairs = pd.read_csv(folder / "tables" / "comparisons.csv")
    assert set(pairs.loc[pairs["comparison"].str.contains("muon"), "verdict"]) == {"crashed"}
    (board,) = json.loads((folder / "report.json").read_text("utf-8"))["leaderboards"]
    words = {c["candidate"]: c["verdict"]["word"] for c in board["family"]["comparisons"]}
    assert words == {"adam": "inconclusive", "muon": "crashed"}
    for name in ("leaderboard.tex", "leaderboard.md", "index.html"):
        text = (folder / name).read_text("utf-8")
        assert "crashed" in text, name
    assert "muon crashed in every trial" in (folder / "leaderboard.md").read_text("utf-8")


def test_machines_are_named_once_though_a_crash_knows_less_of_its_own(crashed_run):
    folder = crashed_run
    methods = json.loads((folder / "report.json").read_text("utf-8"))["methods"]
    assert methods.count("Trials were run with optbench") == 1
    assert ";" not in methods.partition("Trials were run with optbench")[2]


def test_a_baseline_that_crashed_leaves_nothing_to_compare_with(made_results):
    results, suite = made_results({"wame": ["crashed"] * 3, "adam": [0.8, 0.81, 0.82]})
    report = analyse(results, suite)
    (board,) = report.boards
    assert {row.optimizer: board.verdict(row) for row in board.rows} == {
        "wame": "crashed",
        "adam": "inconclusive",
    }
    assert report.answer.sentences[0].text == (
        "digits/mlp: the baseline wame crashed in every trial: nothing to compare with."
    )


def test_one_crash_among_several_trials_is_missing_and_no_verdict(made_results):
    results, suite = made_results({"wame": [0.8, 0.81, 0.82], "adam": [0.8, "crashed", 0.82]})
    report = analyse(results, suite)
    (board,) = report.boards
    assert {board.verdict(row) for row in board.rows} == {"baseline", "inconclusive"}
    assert not any("every trial crashed" in note for note in board.notes)


def test_a_crash_is_missing_from_its_block_once(made_results):
    results, suite = made_results({"wame": [0.8, 0.81, "crashed"], "adam": ["crashed", 0.9, "crashed"]})
    (board,) = analyse(results, suite).boards
    (found,) = board.family.comparisons
    assert (board.family.n_blocks, found.n, found.n_missing) == (3, 1, 2)
    (whole,) = api.compare(results, baseline="wame").within[0].comparisons
    assert (whole.n, whole.n_missing) == (1, 2)


def test_a_crash_in_one_of_two_backends_is_missing_once(write_suite, tmp_path):
    suite = load_suite(write_suite(("seeds: 2", "seeds: 3\nbackends: [torch, jax]")))

    def score(trial):
        lost = trial.optimizer == "adam" and trial.spec.backend == "jax" and trial.spec.seeds.init == 1
        return "crashed" if lost else 0.8 + trial.spec.seeds.init / 100

    report = analyse(load_results(fill_store(suite, tmp_path / "store", score)), suite.report_spec)
    counts = {item.optimizer: item.family.comparisons[0] for item in report.settings}
    assert {name: (c.n, c.n_missing) for name, c in counts.items()} == {"wame": (3, 0), "adam": (2, 1)}


def test_a_crash_and_a_divergence_are_no_crashed_optimizer(made_results):
    results, suite = made_results({"wame": [0.8, 0.81], "adam": ["crashed", "diverged"]})
    (board,) = analyse(results, suite).boards
    assert board.crashed == frozenset()


def test_crashed_on_every_workload_is_crashed_across_them(two_workloads):
    results, suite, _ = two_workloads
    gone = results.trials["optimizer"] == "sgd"
    trials = results.trials.assign(status=results.trials["status"].mask(gone, "crashed"))
    report = analyse(replace(results, trials=trials), suite)
    (found,) = report.overall
    rows = {row.optimizer: row for row in found.rows}
    assert rows["sgd"].these.verdict.word == rows["sgd"].new.verdict.word == "crashed"
    assert rows["sgd"].verdicts == ("crashed", "crashed")
    assert rows["adam"].these.verdict.word != "crashed"
    words = {c.verdict.word for c in found.all_pairs.comparisons if "sgd" in (c.candidate, c.baseline)}
    assert words == {"crashed"}
    assert all("sgd" in row[2] for row in pairs_table(report.boards).rows if row[-1] == "crashed")
    assert any("2 crashed" in cell for table in main_tables(report) for row in table.rows for cell in row)
