"""Budgets in steps, schedules by step, averaged weights and accumulated gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from optbench.backends import engine
from optbench.datasets import registry
from optbench.datasets.base import trial_data
from optbench.execution.protocol import run_trial
from optbench.models.layers import Dense, Dropout, Model
from optbench.optimizers import SGD, Adam
from optbench.optimizers.schedules import CosineSteps, factor
from optbench.suite.load import load_suite
from optbench.suite.spec import SuiteError
from optbench.trial import Seeds
from tests.backends.contract import BACKENDS, session, spec

MLP = Model(name="m", layers=(Dense(units=8, activation="tanh"), Dense()))
STEPS = {"steps": 50, "evaluate_every": 20, "epochs": 3}


@pytest.fixture(params=BACKENDS)
def backend(request):
    pytest.importorskip({"jax": "optax"}.get(request.param, request.param))
    return request.param


def record(trial):
    return run_trial(trial, engine(trial.backend), registry.load("digits"), environment={})


def test_a_budget_in_steps_takes_full_batches_over_the_ends_of_passes():
    trial = spec("torch", model=MLP, batch_size=200, **STEPS)
    data = trial_data(registry.load("digits"), trial.workload, Seeds())
    rounds = [data.rows_of(trial.workload, 0, number) for number in (1, 2, 3)]
    assert [len(rows) for rows in rounds] == [4000, 4000, 2000]
    stream = np.concatenate(rounds)
    n = len(data.train)
    for number in range(len(stream) // n):
        part = stream[number * n : (number + 1) * n]
        assert np.array_equal(part, data.epoch_rows(0, number + 1, shuffle=True))


def test_every_step_has_the_rate_that_its_schedule_says(backend):
    """SGD on a loss: the change of the bias of a step is its rate times its gradient."""
    schedule = CosineSteps(warmup=5)
    trial = spec(backend, SGD(lr=0.1), MLP, batch_size=200, **STEPS, schedule=schedule)
    by_hand, _, _ = session(trial)
    rows = trial_data(registry.load("digits"), trial.workload, Seeds()).rows_of(trial.workload, 0, 1)
    rates = 0.1 * np.array([factor(schedule, k, 50) for k in range(20)])
    for k in range(20):
        by_hand.set_lr(rates[k])
        by_hand.train_epoch(rows[k * 200 : (k + 1) * 200], 1)
    at_once, _, _ = session(trial)
    at_once.train_epoch(rows, 1, None, rates)
    for name, value in by_hand.weights().items():
        np.testing.assert_allclose(at_once.weights()[name], value, rtol=1e-12, atol=1e-14)
    trained = record(trial)
    assert trained.metrics["steps"] == 50
    assert trained.history["lr"][1] == pytest.approx(rates[-1])


def test_accumulated_gradients_take_the_steps_of_whole_batches(backend):
    whole = spec(backend, Adam(lr=0.01), MLP, batch_size=200, epochs=2)
    parts = replace(whole, workload=replace(whole.workload, accumulate=4))
    a, b = record(whole), record(parts)
    np.testing.assert_allclose(a.history["val_loss"], b.history["val_loss"], rtol=1e-12)
    assert a.trial_id != b.trial_id


def test_averaged_weights_are_the_moving_average_of_those_of_each_step(backend):
    trial = spec(backend, SGD(lr=0.1), MLP, batch_size=200, epochs=1, ema=0.9)
    opened, weights, data = session(trial)
    rows = data.epoch_rows(0, 1, shuffle=True)
    average = {name: value.astype(np.float64) for name, value in weights.items()}
    plain, _, _ = session(replace(trial, workload=replace(trial.workload, ema=None)))
    for start in range(0, len(rows), 200):
        plain.train_epoch(rows[start : start + 200], 1)
        average = {n: 0.9 * average[n] + 0.1 * w for n, w in plain.weights().items()}
    opened.train_epoch(rows, 1)
    found = opened.evaluate("validation", outputs=True, averaged=True).outputs
    x = (data.validation.x[data.validation.rows] / 255).reshape(len(data.validation), -1)
    hidden = np.tanh(x @ average["dense_1/kernel"] + average["dense_1/bias"])
    wanted = hidden @ average["dense_2/kernel"] + average["dense_2/bias"]
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)
    trained = record(trial)
    assert trained.history["val_loss_ema"][-1] != trained.history["val_loss"][-1]
    assert {"test_accuracy_ema", "test_loss_ema", "val_accuracy_ema"} <= set(trained.metrics)


def test_a_state_with_averages_goes_on_to_the_same_bits(backend):
    model = Model(name="m", layers=(Dense(units=8, activation="tanh"), Dropout(rate=0.3), Dense()))
    trial = spec(backend, Adam(lr=0.01), model, batch_size=200, epochs=1, ema=0.9, accumulate=2)
    opened, _, data = session(trial)
    rows = data.epoch_rows(0, 1, shuffle=True)
    opened.train_epoch(rows[:800], 1)
    state = opened.state()
    after = opened.train_epoch(rows[800:], 1)
    other, _, _ = session(trial)
    other.restore(state)
    assert np.array_equal(other.train_epoch(rows[800:], 1), after)
    a, b = (s.evaluate("validation", averaged=True).loss for s in (opened, other))
    assert a == b


SUITE = """
suite: steps
workloads:
  - dataset: digits
    model: {{name: mlp, hidden: [4]}}
    batch_size: 32
    {budget}
optimizers: {{adam: {{lr: 0.01}}}}
seeds: 1
"""


def loaded(folder, budget):
    (folder / "s.yaml").write_text(SUITE.format(budget=budget))
    return load_suite(folder / "s.yaml").workloads[0].workload


def test_a_suite_gives_steps_or_epochs(tmp_path):
    workload = loaded(tmp_path, "steps: 100")
    assert (workload.steps, workload.evaluate_every, workload.epochs) == (100, 5, 20)
    workload = loaded(tmp_path, "steps: 100\n    evaluate_every: 30\n    schedule: {kind: wsd, warmup: 5}")
    assert (workload.evaluate_every, workload.epochs, workload.schedule.kind) == (30, 4, "wsd")
    for budget, said in (
        ("steps: 100\n    epochs: 3", "epochs: cannot be given together with steps"),
        ("epochs: 3\n    evaluate_every: 3", "evaluate_every: is for a budget in steps"),
        ("steps: 0", "steps: found 0; a whole number from 1"),
        ("epochs: 3\n    accumulate: 5", "accumulate: found 5 parts of a batch of 32"),
        ("shuffle: true", "epochs or steps"),
    ):
        with pytest.raises(SuiteError, match=said):
            loaded(tmp_path, budget)
