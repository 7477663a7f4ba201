"""Which times a report shows, and what it says about them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from optbench.records.frames import load_results
from optbench.records.machines import machine_id
from optbench.records.step_times import PassTimes, config_id
from optbench.records.store import Store
from optbench.report.analysis import analyse, side_tables
from optbench.report.build import DEFAULT_FORMATS, write_report
from optbench.report.combine import gather
from optbench.report.fair_times import step_ways
from optbench.report.paper import cost_table
from optbench.suite.expand import trials
from optbench.suite.load import load_suite
from optbench.trial import to_plain
from tests.report.conftest import FACTS, fill_store, made_record

STEPS = {"wame": 0.002, "adam": 0.001}
TARGET = ("epochs: 2", "epochs: 4\n    targets: {val_accuracy: 0.5}")


def put_pass(folder, suite, *, facts=FACTS, optimizers=STEPS, measured="2024-01-01", busy=0.0, factor=1.0):
    """A pass of 5 steps an epoch, whose median steps are those of ``STEPS``."""
    with Store(folder, write=True) as store:
        for trial in trials(suite, lambda *_: "cpu"):
            if trial.optimizer not in optimizers:
                continue
            step = STEPS[trial.optimizer] * factor
            entry = PassTimes(
                config=config_id(to_plain(trial.spec)),
                machine=machine_id(facts),
                facts=facts,
                measured=measured,
                steps=5,
                steps_per_epoch=5,
                step_seconds=(step, 0.9 * step, 1.1 * step),
                eval_seconds=(0.01,) * 3,
                warm_up_seconds=2.0,
                state_bytes=1000,
                host_bytes=500_000_000,
                host_start_bytes=400_000_000,
                busy=busy,
            )
            store.set_meta(**{entry.key: entry.to_json()})


@pytest.fixture
def stored(write_suite, tmp_path):
    """A store whose trials ran under the facts of ``facts(trial)``."""

    def make(facts, name="store"):
        suite = load_suite(write_suite(TARGET))
        folder = fill_store(suite, tmp_path / name, lambda trial: None)
        with Store(folder, write=True) as store:
            for trial in trials(suite, lambda *_: "cpu"):
                store.add(made_record(trial.spec, 0.9, facts={**FACTS, **facts(trial)}))
        return suite, folder

    return make


def board_of(suite, *folders):
    report = analyse(load_results(*folders), suite.report_spec)
    (board,) = report.boards
    return report, board, {row.optimizer: row for row in board.rows}


def test_trials_that_ran_alone_keep_their_own_times(stored):
    suite, folder = stored(lambda trial: {"concurrent": 1})
    put_pass(folder, suite)
    report, board, rows = board_of(suite, folder)
    assert rows["wame"].seconds_per_epoch == pytest.approx(0.59)
    assert not any("timing pass" in note for note in board.notes)
    assert side_tables(report)["timing"].rows[0][:3] == ("digits/mlp", "wame", "2.0000")


@pytest.mark.parametrize("facts", [{"concurrent": 2}, {"concurrent": True}, {"checkpoint": "resumed"}])
def test_trials_that_did_not_run_alone_take_the_times_of_the_pass(stored, facts):
    suite, folder = stored(lambda trial: facts)
    put_pass(folder, suite)
    report, board, rows = board_of(suite, folder)
    for name, step in STEPS.items():
        assert rows[name].step_ms == pytest.approx(1000 * step)
        assert rows[name].seconds_per_epoch == pytest.approx(5 * step)
        assert rows[name].target_epoch == 2
        assert rows[name].target_seconds == pytest.approx(2 * 5 * step)
    assert any("Times are from the timing pass" in note for note in board.notes)
    epochs = report.results.epochs
    mine = epochs[epochs["optimizer"] == "wame"]
    np.testing.assert_allclose(mine["seconds"], 0.01 * mine["epoch"])


def test_trials_without_any_times_take_those_of_the_pass(stored):
    suite, folder = stored(lambda trial: {})
    with Store(folder, write=True) as store:
        for trial in trials(suite, lambda *_: "cpu"):
            record = made_record(trial.spec, 0.9)
            record.history["step_seconds"][:] = math.nan
            store.add(replace(record, timings={}))
    _, _, rows = board_of(suite, folder)
    assert all(math.isnan(row.target_seconds) for row in rows.values())
    put_pass(folder, suite)
    _, _, rows = board_of(suite, folder)
    assert rows["wame"].target_seconds == pytest.approx(0.02)
    assert rows["wame"].step_ms == pytest.approx(2)
    assert rows["wame"].state_bytes == 1000


def test_without_a_pass_they_have_no_times(stored):
    suite, folder = stored(lambda trial: {"concurrent": 2} if trial.optimizer == "adam" else {})
    report, board, rows = board_of(suite, folder)
    assert math.isnan(rows["adam"].seconds_per_epoch)
    assert math.isnan(rows["adam"].target_seconds)
    assert rows["wame"].seconds_per_epoch == pytest.approx(0.59)
    assert any("2 trials ran side by side" in note and "--time" in note for note in board.notes)
    assert "timing" not in side_tables(report)


def test_a_pass_that_lacks_an_optimizer_is_not_mixed_with_trials(stored):
    suite, folder = stored(lambda trial: {"concurrent": 2})
    put_pass(folder, suite, optimizers=["adam"])
    _, _, rows = board_of(suite, folder)
    assert all(math.isnan(row.step_ms) for row in rows.values())


def test_passes_of_two_machines_are_never_pooled(stored):
    suite, folder = stored(lambda trial: {"concurrent": 2})
    put_pass(folder, suite, optimizers=["wame"])
    put_pass(folder, suite, optimizers=["adam"], facts={**FACTS, "processor": "other"}, factor=0.1)
    report, _, rows = board_of(suite, folder)
    assert all(math.isnan(row.step_ms) for row in rows.values())
    assert [row[2] for row in side_tables(report)["timing"].rows] == [
        "torch 2, made, 1 thread",
        "torch 2, other, 1 thread",
    ]
    put_pass(folder, suite, facts={**FACTS, "processor": "third"}, measured="2024-02-01", factor=3, busy=0.5)
    _, board, rows = board_of(suite, folder)
    assert rows["adam"].step_ms == pytest.approx(3)
    assert any("50% of the machine" in note for note in board.notes)


def test_trials_of_two_machines_are_timed_by_the_pass_of_one(stored):
    suite, folder = stored(lambda trial: {"processor": trial.optimizer})
    assert all(math.isnan(row.step_ms) for row in board_of(suite, folder)[2].values())
    put_pass(folder, suite)
    _, board, rows = board_of(suite, folder)
    assert rows["wame"].step_ms == pytest.approx(2)
    assert not any("different machines: their times" in note for note in board.notes)


def test_several_stores_find_their_passes_under_new_labels(stored):
    suite, one = stored(lambda trial: {"concurrent": 2}, "one")
    _, two = stored(lambda trial: {"concurrent": 2}, "two")
    put_pass(one, suite)
    combined, results = gather([(suite.report_spec, one), (suite.report_spec, two)])
    rows = {row.optimizer: row for row in analyse(results, combined).boards[0].rows}
    assert rows["wame"].step_ms == pytest.approx(2)


def test_every_format_shows_the_pass_and_top_k(stored, tmp_path):
    suite, folder = stored(lambda trial: {"concurrent": 2})
    put_pass(folder, suite)
    with Store(folder, write=True) as store:
        for number, trial in enumerate(trials(suite, lambda *_: "cpu")):
            record = made_record(trial.spec, 0.9, facts={**FACTS, "concurrent": 2})
            record.metrics.update(test_top2_accuracy=0.9 + number / 100, test_top10_accuracy=0.99, steps=20.0)
            store.add(record)
    report, _, _ = board_of(suite, folder)
    table = side_tables(report)["top_k"]
    assert table.columns == ("workload", "optimizer", "test top-2, %", "test top-10, %")
    # Seeds 0 and 1 of wame are the first and the third trial.
    assert dict(zip(table.columns, next(r for r in table.rows if r[1] == "wame"), strict=True)) == {
        "workload": "digits/mlp",
        "optimizer": "wame",
        "test top-2, %": "91.00 ± 1.41",
        "test top-10, %": "99.00 ± 0.00",
    }
    formats = (*DEFAULT_FORMATS, "plots")
    files = write_report(load_results(folder), suite.report_spec, tmp_path / "out", formats=formats).files
    names = {path.name for path in files}
    assert {"timing.csv", "top_k.csv", "steps_digits_mlp.png", "loss_time_digits_mlp.svg"} <= names
    for name in ("index.html", "leaderboard.md"):
        text = (tmp_path / "out" / name).read_text()
        assert "Timing pass" in text
        assert "Top-k accuracy" in text
    assert "digits/mlp,adam,1.0,0.9" in (tmp_path / "out" / "tables" / "timing.csv").read_text()
    (entry, _) = json.loads((tmp_path / "out" / "report.json").read_text())["timing"]
    assert entry["entry"]["steps_per_epoch"] == 5
    assert entry["step"]["value"] in STEPS.values()


def test_steps_and_state_of_any_data_come_from_the_records(stored):
    suite, folder = stored(lambda trial: {})
    with Store(folder, write=True) as store:
        for trial in trials(suite, lambda *_: "cpu"):
            record = made_record(trial.spec, 0.9)
            record.metrics.update(steps=4 * 59.0, state_bytes=1234.0)
            store.add(record)
    _, _, rows = board_of(suite, folder)
    assert rows["wame"].step_ms == pytest.approx(10)
    assert rows["wame"].state_bytes == 1234


#: What is known where a framework never started.
BARE = {"processor": "made", "cores": 2}


def crashed_trial(spec, facts=BARE):
    return replace(made_record(spec, "crashed"), environment=facts)


@pytest.mark.parametrize("facts", [BARE, {}, {**FACTS, "processor": "other", "concurrent": 4}])
@pytest.mark.parametrize("which", [("adam", {0}), ("adam", {0, 1}), ("wame", {1})])
def test_a_crash_hides_no_time_of_those_that_ran(stored, facts, which):
    suite, folder = stored(lambda trial: {"concurrent": 1})
    optimizer, seeds = which
    with Store(folder, write=True) as store:
        for trial in trials(suite, lambda *_: "cpu"):
            if trial.optimizer == optimizer and trial.spec.seeds.init in seeds:
                store.add(crashed_trial(trial.spec, facts))
    _, board, rows = board_of(suite, folder)
    for name, row in rows.items():
        gone = name == optimizer and len(seeds) == 2
        assert row.seconds_per_epoch == pytest.approx(math.nan if gone else 0.59, nan_ok=True)
    assert not any("machines" in note or "side by side" in note for note in board.notes)


def test_a_crashed_optimizer_without_a_pass_hides_no_pass_of_the_others(stored, tmp_path):
    suite, folder = stored(lambda trial: {"concurrent": 2})
    put_pass(folder, suite, optimizers=["wame"])
    with Store(folder, write=True) as store:
        for trial in trials(suite, lambda *_: "cpu"):
            if trial.optimizer == "adam":
                store.add(crashed_trial(trial.spec))
    report, board, rows = board_of(suite, folder)
    assert rows["wame"].step_ms == pytest.approx(2)
    assert math.isnan(rows["adam"].step_ms)
    assert any("Times are from the timing pass" in note for note in board.notes)
    assert board.verdict(rows["adam"]) == "crashed"
    write_report(report.results, suite.report_spec, tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text("utf-8")
    assert "Measured in rounds of the timing pass" in page


def test_machines_that_lack_a_fact_are_one_unless_another_fact_differs(stored):
    suite, folder = stored(lambda trial: {"memory_gb": None if trial.optimizer == "adam" else 8.0})
    assert not math.isnan(board_of(suite, folder)[2]["adam"].seconds_per_epoch)
    suite, folder = stored(lambda trial: {"memory_gb": 4.0 if trial.optimizer == "adam" else 8.0}, "two")
    _, board, rows = board_of(suite, folder)
    assert math.isnan(rows["adam"].seconds_per_epoch)
    assert any("different machines" in note for note in board.notes)


def test_steps_that_were_taken_in_another_way_are_said_beside_the_cost(stored, tmp_path):
    steps = {"wame": "hand-written", "adam": "autograd"}
    suite, folder = stored(lambda trial: {**FACTS, "step": steps[trial.optimizer]})
    results = load_results(folder)
    report = analyse(results, suite.report_spec)
    said = "Steps were not all taken in one way (wame: hand-written; adam: autograd)"
    (cost,) = [sentence.text for sentence in report.answer.sentences if sentence.kind == "cost"]
    assert "adam 1.00; " in cost
    assert said in cost
    assert any(said in note for note in report.boards[0].notes)
    assert said in cost_table(report.boards, results).notes[1]
    assert step_ways(results, results.trials, "wame").endswith("takes all alike.")
    on_a_gpu = step_ways(results, results.trials.assign(device="cuda"), "wame")
    assert on_a_gpu.endswith("takes all alike, but for custom classes on dense models.")
    suite, folder = stored(
        lambda trial: {**FACTS, "step": ("graph", "autograd")[trial.spec.seeds.init % 2]}, name="each both"
    )
    said = "in one way (wame: autograd and graph; adam: autograd and graph)"
    results = load_results(folder)
    assert said in analyse(results, suite.report_spec).answer.text
    apart = results.trials["environment"].map(lambda number: results.environments[number]["step"])
    assert step_ways(results, results.trials.assign(workload=apart), "wame") == ""
    suite, folder = stored(lambda trial: {**FACTS, "step": "autograd"}, name="alike")
    assert "in one way" not in analyse(load_results(folder), suite.report_spec).answer.text
