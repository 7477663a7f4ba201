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


def test_a_calibration_grows_with_the_budget(write_suite, monkeypatch):
    """By a made clock: each piece of work that is timed takes as long as the others."""
    timed = []
    monkeypatch.setattr(estimates, "_seconds", lambda work: timed.append(work()) or 0.01)
    short, long = (
        trials(load_suite(write_suite(("epochs: 2", f"epochs: {epochs}"))), lambda b, d: "cpu")[0].spec
        for epochs in (10, 1000)
    )
    few, many = calibrate(short, Context()), calibrate(long, Context())
    assert timed, "nothing was timed"
    assert 90 < many / few < 100  # 100 times the epochs, and one test evaluation in each
