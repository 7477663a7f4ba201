"""Compiled programs are made once for a configuration, and shared by its trials."""

from dataclasses import replace

import numpy as np
import pytest

from optbench import backends
from optbench.backends.functional import Configuration
from optbench.models.layers import build
from optbench.optimizers import SGD, WAME, Adam
from optbench.trial import Seeds
from tests.backends.contract import CNN, MLP, session, spec


@pytest.fixture(params=["tensorflow", "jax"])
def compiling(request):
    if request.param not in backends.installed():
        pytest.skip(f"backend {request.param}: its framework is not installed")
    return request.param


def configuration(trial):
    return Configuration.of(trial, build(trial.workload.model, (8, 8, 1), 10))


def test_seeds_rates_and_epochs_share_a_configuration_and_nothing_else_does():
    trial = spec("jax", SGD(lr=0.1))
    same = [
        replace(trial, seeds=Seeds(init=3)),
        replace(trial, optimizer=SGD(lr=0.7)),
        replace(trial, workload=replace(trial.workload, epochs=9, batch_size=7)),
    ]
    assert {configuration(other) for other in same} == {configuration(trial)}
    others = [
        spec("jax", SGD(lr=0.1), CNN),
        spec("jax", SGD(lr=0.1, momentum=0.9)),
        spec("jax", SGD(lr=0.1), precision="float32"),
        spec("jax", SGD(lr=0.1), clip_norm=1.0),
        spec("jax", SGD(lr=0.1), label_smoothing=0.1),
    ]
    assert configuration(trial) not in {configuration(other) for other in others}


def test_nothing_is_compiled_after_the_first_trials_warm_up(compiling):
    trial = spec(compiling, Adam(lr=0.01), MLP, batch_size=50)
    engine = backends.engine(compiling)
    live, _, data = session(trial)
    live.warm_up()
    programs = live.programs
    before = programs.compiled
    assert before > 0
    for other in (
        trial,
        replace(trial, seeds=Seeds(init=1, order=1, dropout=1)),
        replace(trial, optimizer=Adam(lr=0.1)),
    ):
        live, _, data = session(other)
        assert live.programs is programs
        live.warm_up()
        for lr in (0.1, 0.02):
            live.set_lr(lr)
            live.train_epoch(data.train.rows, 1)
        live.evaluate("train_eval")
        live.evaluate("validation")
        live.evaluate("test")
    assert programs.compiled == before
    assert engine._programs.cache_info().currsize > 0


def test_sessions_of_one_program_do_not_touch_each_other(compiling):
    trial = spec(compiling, WAME(), MLP)
    alone, _, data = session(trial)
    expected = [alone.train_epoch(data.train.rows, epoch) for epoch in (1, 2)]
    first, _, _ = session(trial)
    second, _, _ = session(replace(trial, seeds=Seeds(init=5)))
    found = [first.train_epoch(data.train.rows, 1)]
    second.train_epoch(data.train.rows, 1)
    found.append(first.train_epoch(data.train.rows, 2))
    np.testing.assert_array_equal(found, expected)


def test_float32_and_float64_trials_take_turns_in_one_process(compiling):
    losses = {}
    for precision in ("float32", "float64", "float32", "float64"):
        live, _, data = session(spec(compiling, precision=precision))
        found = live.train_epoch(data.train.rows[:256], 1)
        np.testing.assert_array_equal(found, losses.setdefault(precision, found))
    assert 0 < np.abs(losses["float32"] / losses["float64"] - 1).max() < 1e-5
