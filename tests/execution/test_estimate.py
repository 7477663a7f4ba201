from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="times steps with PyTorch")

from optbench import api
from optbench.environment import Context
from optbench.execution import estimate as estimates
from optbench.execution.estimate import calibrate, estimate
from optbench.records.frames import load_results
from optbench.suite.expand import trials
from optbench.suite.load import load_suite


def test_the_store_s_own_timings_come_first(write_suite, tmp_path):
    path = write_suite()
    api.run(path, results=tmp_path, only=lambda trial: trial.optimizer == "adam")
    groups = {group.optimizer: group for group in estimate(load_suite(path), results=tmp_path)}
    assert groups["adam"].estimate.source == "store"
    assert groups["adam"].missing == 0
    seconds = load_results(tmp_path / "tiny").trials["total_seconds"].median()
    assert groups["adam"].estimate.seconds == seconds
    assert groups["wame"].estimate.source == "calibration"
    assert (groups["wame"].trials, groups["wame"].missing) == (2, 2)


@pytest.fixture
def a_second_each(monkeypatch):
    """Let every step and every evaluation take a second, whatever this machine is doing."""

    def measured(work):
        work()
        return 1.0

    monkeypatch.setattr(estimates, "_seconds", measured)


@pytest.mark.usefixtures("a_second_each")
def test_a_calibration_grows_with_the_budget(write_suite):
    short, medium, long = (
        calibrate(spec_of(write_suite(("epochs: 2", f"epochs: {epochs}"))), Context())
        for epochs in (10, 11, 1000)
    )
    epoch = medium - short
    assert epoch > 6, "six steps and the evaluations"
    assert long - short == pytest.approx(990 * epoch)


@pytest.mark.usefixtures("a_second_each")
def test_a_calibration_counts_the_steps_and_the_evaluated_examples(write_suite):
    spec = spec_of(write_suite())
    assert spec.workload.train_eval == 1000
    # digits has 1437 training examples, 144 of them for validation, and 360 for testing. An epoch is 6
    # batches of 256 and 1144 evaluated examples. A calibration evaluates 1000 made ones in its second.
    assert calibrate(spec, Context()) == pytest.approx(2 * (6 + 1.144) + 0.36)


def spec_of(path):
    return trials(load_suite(path), lambda backend, device: "cpu")[0].spec


def test_imports_of_a_first_step_are_no_time_of_a_step(write_suite, monkeypatch):
    spec = spec_of(write_suite())
    taken = iter([30.0, *[1.0] * 9])

    def measured(work):
        work()
        return next(taken)

    monkeypatch.setattr(estimates, "_seconds", measured)
    assert calibrate(spec, Context()) == pytest.approx(2 * (6 + 1.144) + 0.36)


def test_the_seeds_of_a_config_with_groups_are_one_group(write_suite, tmp_path):
    grouped = "{optimizer: adamw, lr: 0.002, groups: [{match: bias, weight_decay: 0}]}"
    path = write_suite()
    text = path.read_text()
    path.write_text(text.replace("optimizers:\n", f"optimizers:\n  grouped: {grouped}\n"))
    found = [g for g in estimate(load_suite(path), results=tmp_path) if g.optimizer == "grouped"]
    assert [group.trials for group in found] == [2]
