"""What cannot be trained is said before anything is trained, in a line that names what is too much."""

from __future__ import annotations

import pytest

from optbench.environment import Context
from optbench.execution import estimate, preflight
from optbench.execution.preflight import BatchError, MemoryNeedError
from optbench.suite.expand import trials
from optbench.suite.load import load_suite
from optbench.suite.spec import SuiteError

pytest.importorskip("torch", reason="plans with PyTorch")


def spec_of(path):
    return trials(load_suite(path), lambda backend, device: "cpu")[0].spec


def test_a_model_beyond_the_memory_is_refused_with_both_numbers(write_suite, monkeypatch):
    monkeypatch.setattr(preflight, "available_bytes", lambda: 2**30)
    spec = spec_of(write_suite(("hidden: [8]", "hidden: [8000, 40000]")))
    with pytest.raises(
        MemoryNeedError, match=r"3.21e\+08 parameters.*need at least 3.\d+ GB, and 1 GB are free"
    ):
        estimate.calibrate(spec, Context())


@pytest.mark.parametrize("batch", ["1", "38"])
def test_a_batch_of_one_example_before_batch_normalisation_is_refused(write_suite, batch):
    changes = (
        ("hidden: [8]", "hidden: [8], batch_norm: hidden"),
        ("batch_size: 256", f"batch_size: {batch}"),
    )
    spec = spec_of(write_suite(*changes))
    facts = estimate.registry.info("digits")
    rows = facts.train - estimate.validation_count(spec.workload.split, facts.train)
    assert batch == "1" or rows % 38 == 1, rows
    with pytest.raises(BatchError, match="batch normalisation needs two at least"):
        estimate.calibrate(spec, Context())


def test_a_plan_of_many_learning_rates_is_calibrated_once(write_suite, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(estimate, "calibrate", lambda spec, context: asked.append(spec) or 1.0)
    path = write_suite(("adam: {lr: 0.01}", "adam: {grid: {lr: [0.1, 0.01, 0.001]}}"))
    assert len(estimate.estimate(load_suite(path), results=tmp_path)) == 4
    assert len(asked) == 2


def test_calibrations_end_after_their_seconds_and_the_rest_is_scaled(write_suite, monkeypatch, tmp_path):
    monkeypatch.setattr(estimate, "calibrate", lambda spec, context: 10.0)
    monkeypatch.setattr(estimate, "CALIBRATION_SECONDS", 0.0)
    path = write_suite(("epochs: 2", "epochs: 2\n    grid: {epochs: [1, 3]}"))
    seconds = {g.epochs: g.estimate.seconds for g in estimate.estimate(load_suite(path), results=tmp_path)}
    assert seconds == {1: 10.0, 3: pytest.approx(30.0)}


def test_a_model_too_large_to_time_is_guessed(write_suite, monkeypatch, tmp_path):
    monkeypatch.setattr(estimate, "MOST_PARAMETERS", 100)
    sources = {g.estimate.source for g in estimate.estimate(load_suite(write_suite()), results=tmp_path)}
    assert sources == {"guess"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("batch_size: 256", "batch_size: 1" + "0" * 30, r"workloads\[0\].batch_size: found 1000.*63 bits"),
        ("adam: {lr: 0.01}", "adam: {lr: .inf}", "optimizers.adam.lr: found inf; write a finite number"),
        ("adam: {lr: 0.01}", "adam: {lr: 0.01, grid: {lr: [.nan]}}", r"grid.lr\[0\]: found nan"),
        ("seeds: 2", "seeds: {init: [0], order: [1" + "0" * 20 + "]}", "seeds.order"),
        ("epochs: 2", "epochs: 2\n    split: {validation: 100000}", "asks for 100000 of the"),
    ],
)
def test_numbers_beyond_every_meaning_are_refused_with_file_line_and_field(write_suite, old, new, said):
    with pytest.raises(SuiteError, match=said) as caught:
        load_suite(write_suite((old, new)))
    assert "tiny.yaml:" in str(caught.value)


def test_a_suite_of_more_than_a_million_trials_is_refused(write_suite):
    grid = f"epochs: 2\n    grid: {{epochs: {list(range(1, 11))}}}"
    path = write_suite(("seeds: 2", "seeds: 100000"), ("epochs: 2", grid))
    with pytest.raises(SuiteError, match=r"2,000,000 trials; at most 1,000,000"):
        load_suite(path)
