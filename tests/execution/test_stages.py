"""Seeds block by block until all is decided: real runs, interrupted and killed, and their reports."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optbench import api
from optbench.execution import local
from optbench.records.frames import load_results
from optbench.records.store import Store
from optbench.report.analysis import analyse
from optbench.report.build import write_report
from optbench.suite.load import load_suite
from optbench.suite.spec import SuiteError

DESIGN = "{baseline: wame, sequential: {design: pocock, looks: [6, 9, 12]}}"


def suite_file(write_suite, *more, name="tiny.yaml"):
    """WAME is far better than Adam after two epochs: decided at the second look."""
    changes = [("seeds: 2", "seeds: 20"), ("{baseline: wame}", DESIGN), *more]
    return write_suite(*changes, name=name)


def content(store):
    """Ids, statuses and scores of a store's trials."""
    with Store(store) as opened:
        return {t.trial_id: (t.status, t.metrics.get("test_accuracy")) for t in opened.trials()}


def test_a_run_stops_at_the_look_that_decides_and_every_format_says_at_which(write_suite, tmp_path):
    path = suite_file(write_suite)
    outcome = api.run(path, results=tmp_path / "results", until_decided=True)
    assert (outcome.run, outcome.planned, outcome.completed) == (18, 18, 18)
    again = api.run(path, results=tmp_path / "results", until_decided=True)
    assert (again.run, again.planned) == (0, 18)
    spec, results, _ = api.gather_results(outcome.store)
    report = analyse(results, spec)
    (c,) = report.boards[0].family.comparisons
    assert (c.sequential.number, c.sequential.look.n, c.verdict.word) == (2, 9, "worse")
    assert c.p_adjusted == c.sequential.p_adjusted
    assert report.warnings == ()
    assert "Decided after 9 of 20 seeds: adam worse at look 2 of 4." in report.declared.sentences
    write_report(results, spec, tmp_path / "out", formats=("html", "markdown", "latex", "csv", "json"))
    for name in ("index.html", "leaderboard.md", "leaderboard.tex", "tables/leaderboard.csv"):
        assert "look 2 of 4, 9 pairs" in (tmp_path / "out" / name).read_text("utf-8"), name
    plain = json.loads((tmp_path / "out" / "report.json").read_text())
    kept = plain["leaderboards"][0]["rows"][1]["comparison"]["sequential"]
    assert (kept["number"], kept["look"]["n"]) == (2, 9)


def test_what_was_decided_stays_when_the_other_seeds_are_run_all_the_same(write_suite, tmp_path):
    path = suite_file(write_suite)
    store = api.run(path, results=tmp_path / "results", until_decided=True).store
    before = analyse(load_results(store), load_suite(path).report_spec).boards[0].family.comparisons[0]
    outcome = api.run(path, results=tmp_path / "results")
    assert (outcome.planned, outcome.run) == (40, 22)
    after = analyse(load_results(store), load_suite(path).report_spec).boards[0].family.comparisons[0]
    assert repr(after.sequential) == repr(before.sequential)  # e is NaN: unequal from Python 3.13 on


def test_equals_use_up_the_budget_and_are_left_undecided(write_suite, tmp_path):
    path = suite_file(
        write_suite,
        ("adam: {lr: 0.01}", "twin: {optimizer: wame, lr: 0.05000001}"),
        ("seeds: 20", "seeds: 12"),
        ("[6, 9, 12]", "[6, 9]"),
    )
    outcome = api.run(path, results=tmp_path / "results", until_decided=True)
    assert outcome.planned == 24
    spec, results, _ = api.gather_results(outcome.store)
    assert any(
        "All 12 seeds are spent; undecided: twin." in t for t in analyse(results, spec).declared.sentences
    )


def test_over_workloads_a_pair_is_the_average_of_a_seed(write_suite, tmp_path):
    second = (
        "optimizers:",
        "  - {dataset: digits, name: other, model: {name: mlp, hidden: [4]}, batch_size: 256, epochs: 2}\n"
        "optimizers:",
    )
    path = suite_file(write_suite, second)
    outcome = api.run(path, results=tmp_path / "results", until_decided=True)
    assert outcome.planned == 36
    spec, results, _ = api.gather_results(outcome.store)
    report = analyse(results, spec)
    row = next(r for r in report.overall[0].rows if r.these is not None)
    assert row.these.sequential.look.n == 9
    assert row.these.verdict.word == "worse"
    assert (row.these.low, row.these.high) == (
        row.these.sequential.look.interval.low,
        row.these.sequential.look.interval.high,
    )
    assert all(c.sequential is None for board in report.boards for c in board.family.comparisons)


def test_looks_at_a_sequential_suite_warn_of_nothing_and_a_new_budget_does(write_suite, tmp_path):
    path = suite_file(write_suite)
    store = api.run(path, results=tmp_path / "results", until_decided=True).store
    api.report(store, out=tmp_path / "out", formats=("json",))
    more = suite_file(write_suite, ("seeds: 20", "seeds: 25"), name="more.yaml")
    api.run(more, results=tmp_path / "results", until_decided=True)
    spec, results, _ = api.gather_results(store)
    assert any("no longer hold" in text for text in analyse(results, spec).warnings)


def test_an_interrupted_run_goes_on_and_ends_with_the_same_store(write_suite, tmp_path):
    path = suite_file(write_suite)
    whole = api.run(path, results=tmp_path / "whole", until_decided=True).store

    class Stopper:
        count = 0

        def planned(self, plan, statuses):
            pass

        started = epoch = lambda self, *arguments: None

        def finished(self, trial, record):
            self.count += 1
            if self.count == 7:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.run(path, results=tmp_path / "cut", until_decided=True, observer=Stopper())
    outcome = api.run(path, results=tmp_path / "cut", until_decided=True)
    assert outcome.run == 11
    assert content(outcome.store) == content(whole)


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_with_the_same_store(write_suite, tmp_path):
    path = suite_file(write_suite, ("epochs: 2", "epochs: 20"))
    command = [sys.executable, "-m", "optbench.cli", "run", str(path), "--until-decided", "--results"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    for seconds in (3.0, 4.0):
        process = subprocess.Popen([*command, str(tmp_path / "cut")], stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, str(tmp_path / "cut")], check=True, capture_output=True)
    stores = [Path(tmp_path / name / "tiny" / "store.sqlite") for name in ("whole", "cut")]
    assert content(stores[0]) == content(stores[1])


def test_it_needs_a_design_and_the_whole_suite(write_suite, tmp_path):
    with pytest.raises(SuiteError, match=r"analysis\.sequential: is missing"):
        api.run(write_suite(), results=tmp_path / "results", until_decided=True)
    with pytest.raises(SuiteError, match="run all"):
        api.run(suite_file(write_suite), results=tmp_path / "r", until_decided=True, only=lambda trial: True)
    assert not (tmp_path / "results").exists()


def test_a_part_of_the_seeds_changes_no_look(write_suite, tmp_path):
    path = suite_file(write_suite)
    part = local.smoke(load_suite(path))
    assert part.report_spec.analysis.sequential.planned(len(part.report_spec.seeds)) == (1, 2)
    suite = load_suite(path)
    from dataclasses import replace

    store = local.run_suite(replace(suite, seeds=suite.seeds[:9]), results=tmp_path / "results").store
    spec, results, _ = api.gather_results(store)
    (c,) = analyse(results, spec).boards[0].family.comparisons
    assert c.sequential.of == 4
