"""A part of a report that fails is named, and keeps no other from being made."""

from __future__ import annotations

import json
import os
import signal

import pandas as pd
import pytest
from typer.testing import CliRunner

from optbench.cli import app
from optbench.environment import pip_hint
from optbench.report.build import DEFAULT_FORMATS, write_report
from optbench.report.failures import FILE_NAME, Failures, ReportError
from optbench.report.parallel import map_forked
from optbench.suite.load import load_suite
from tests import made_store

#: What fails, how the report names it, and a file without it (None where every file is there).
FAULTS = {
    "optbench.report.analysis.times_table": ("table targets", None),
    "optbench.report.analysis.leaderboard_table": ("table first", None),
    "optbench.report.analysis.methods_paragraph": ("paragraph on the method", None),
    "optbench.report.analysis.with_fair_times": ("times", None),
    "optbench.report.leaderboard.epochs_to_target": ("time to target: first", None),
    "optbench.report.leaderboard._rows": ("leaderboard second", None),
    "optbench.report.analysis.pairs_table": ("table of every comparison", "comparisons.csv"),
    "optbench.report.build.latex_tables": ("format latex", "leaderboard.tex"),
    "optbench.report.exports.json_text": ("format json", "report.json"),
    "optbench.report.exports.csv_text": ("leaderboard.csv", "leaderboard.csv"),
    "optbench.report.build.markdown_text": ("format markdown", "leaderboard.md"),
    "optbench.report.html.render": ("format html", "index.html"),
    "optbench.report.plots.success_over_time": ("plot success: first", "success_first.png"),
    "optbench.report.analysis.analyse": ("analysis", "comparisons.csv"),
}
WHOLE = ("index.html", "leaderboard.md", "leaderboard.tex", "leaderboard.csv", "report.json", "trials.csv")
SUITE = """
suite: failing
workloads:
  - {name: first, dataset: digits, model: mlp, batch_size: 64, epochs: 4, targets: {val_accuracy: 0.5}}
  - {name: second, dataset: iris, model: mlp, batch_size: 64, epochs: 4, targets: {val_accuracy: 0.5}}
optimizers: {wame: {lr: 0.05}, adam: {lr: 0.01}}
seeds: 6
device: cpu
"""


@pytest.fixture
def filled(tmp_path):
    """A suite's file, and its store with every trial."""
    path = tmp_path / "failing.yaml"
    path.write_text(SUITE)
    return path, made_store.fill(load_suite(path), tmp_path / "results" / "failing")


def stumble(*args, **kwargs):
    raise ValueError("Buffer dtype mismatch")


def few_plots(monkeypatch):
    """Draw the plot of successes only: the others take time and are the same here."""
    from optbench.report import figures

    every = figures.report_plots
    monkeypatch.setattr(
        figures, "report_plots", lambda report: [p for p in every(report) if p.name == "success"]
    )
    monkeypatch.setattr("optbench.report.plots.common.ENDINGS", ("png",))


@pytest.mark.parametrize("fault", FAULTS)
def test_one_part_of_a_report_fails(fault, filled, monkeypatch):
    part, absent = FAULTS[fault]
    few_plots(monkeypatch)
    monkeypatch.setattr(fault, stumble)
    folder = filled[1].parent
    every = [word for name in (*DEFAULT_FORMATS, "plots") for word in ("--format", name)]
    done = CliRunner().invoke(app, ["report", str(folder), *every])
    assert done.exit_code == 5, done.output
    assert f"{part}: ValueError: Buffer dtype mismatch" in done.stderr
    assert f"optbench report {folder}" in done.stderr
    trace = folder / "report" / FILE_NAME
    assert str(trace) in done.stderr
    assert "in stumble" in trace.read_text()
    found = {path.name for path in (folder / "report").rglob("*")}
    lost = {absent} | ({"comparisons.csv"} if part == "analysis" else set())
    assert set(WHOLE) - found <= lost
    assert absent is None or absent not in found or part == "analysis"
    if absent != "index.html":
        page = (folder / "report" / "index.html").read_text()
        assert f"Missing from this report: {part} (ValueError: Buffer dtype mismatch)." in page
    if part not in ("analysis", "leaderboard second"):  # the second stands for both
        assert "wame" in done.stdout, "the tables that are left are shown"


@pytest.mark.parametrize(
    "fault", ["optbench.report.analysis.analyse", "optbench.records.frames.load_results"]
)
def test_after_a_run_the_store_is_named_before_anything_can_fail(fault, filled, monkeypatch, tmp_path):
    path, store = filled
    monkeypatch.setattr(fault, stumble)
    done = CliRunner().invoke(app, ["run", str(path), "--results", str(tmp_path / "results")])
    assert done.exit_code == 5
    assert f"Store: {store}" in done.stdout
    assert "0 trials run, 24 planned: " in done.stdout
    assert "Buffer dtype mismatch" in done.stderr
    assert f"optbench report {store.parent}" in done.stderr
    assert "no record is lost" in done.stderr
    assert "in stumble" in (store.parent / FILE_NAME).read_text()


def test_after_a_run_the_other_tables_are_shown(filled, monkeypatch, tmp_path):
    path, _ = filled
    monkeypatch.setattr("optbench.report.leaderboard.epochs_to_target", stumble)
    done = CliRunner().invoke(app, ["run", str(path), "--results", str(tmp_path / "results")])
    assert done.exit_code == 5
    before, _, after = done.stdout.partition("Store: ")
    assert "verdict" not in before
    assert "verdict" in after
    assert "Missing from this report: time to target: second" in after


def test_a_report_that_works_again_takes_the_old_tracebacks_away(filled, monkeypatch):
    folder = filled[1].parent
    with monkeypatch.context() as patch:
        patch.setattr("optbench.report.exports.csv_text", stumble)
        assert CliRunner().invoke(app, ["report", str(folder), "--format", "csv"]).exit_code == 5
    assert (folder / "report" / FILE_NAME).exists()
    done = CliRunner().invoke(app, ["report", str(folder), "--format", "csv"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert not (folder / "report" / FILE_NAME).exists()


def test_across_workloads_nothing_is_claimed_without_one_of_them(two_workloads, tmp_path, monkeypatch):
    results, suite, _ = two_workloads
    from optbench.report import leaderboard

    whole = leaderboard._board

    def one_fails(entry, *args, **kwargs):
        return stumble() if entry.label == "second" else whole(entry, *args, **kwargs)

    monkeypatch.setattr(leaderboard, "_board", one_fails)
    with pytest.raises(ReportError, match="leaderboard second") as caught:
        write_report(results, suite, tmp_path, formats=("csv", "json"))
    assert {found.part for found in caught.value.failures} == {
        "leaderboard second",
        "tables across workloads",
    }
    assert set(pd.read_csv(tmp_path / "tables" / "leaderboard.csv")["workload"]) == {"digits/mlp"}
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["across"] == []
    assert content["missing"][0] == {
        "part": "leaderboard second",
        "reason": "ValueError: Buffer dtype mismatch",
    }


def test_what_the_user_can_mend_is_no_fault_and_keeps_its_exit_code(filled, monkeypatch):
    monkeypatch.setattr("optbench.report.exports.find_spec", lambda name: None)
    folder = filled[1].parent
    done = CliRunner().invoke(app, ["report", str(folder), "--format", "parquet", "--format", "csv"])
    assert done.exit_code == 2
    assert pip_hint("parquet") in done.stderr
    assert "fault of optbench" not in done.stderr
    assert (folder / "report" / "tables" / "leaderboard.csv").exists()


def test_a_folder_that_cannot_be_made_is_named(filled, tmp_path):
    (tmp_path / "taken").write_text("a file")
    done = CliRunner().invoke(app, ["report", str(filled[1].parent), "--out", str(tmp_path / "taken" / "r")])
    assert done.exit_code == 2
    assert "taken" in done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_a_process_that_dies_costs_its_own_items_only(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    parent = os.getpid()

    def work(item):
        if os.getpid() != parent and item == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    found = map_forked(work, list(range(6)), lost=lambda item, how: (item, how))
    assert found[::2] == [0, 2, 4]
    how = "a process of the report ended early (exit code -9)"
    assert found[1::2] == [(1, how), (3, how), (5, how)]


def test_the_end_of_a_pipe_is_no_failure():
    def closed():
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        Failures().attempt("table", closed)
