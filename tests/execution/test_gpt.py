"""A small GPT through the protocol: alone, stacked, cut off and gone on with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from optbench.backends import engine
from optbench.datasets import registry
from optbench.datasets.base import network, trial_data
from optbench.execution.checkpoint import Checkpoints
from optbench.execution.protocol import run_trial
from optbench.execution.stacks import run_stack
from optbench.matching import initial_weights
from optbench.models import zoo
from optbench.models.layers import Model
from optbench.optimizers import AdamW
from optbench.optimizers.schedules import WarmupStableDecay
from optbench.trial import Seeds, Split, TrialSpec, Workload

pytest.importorskip("torch")

GPT = Model(name="gpt", layers=zoo.gpt(depth=2, width=16, heads=2, dropout=0.1))
TEXT = registry.load("shakespeare")
FEW = replace(
    TEXT,
    x_train=TEXT.x_train[:8000],
    y_train=TEXT.x_train[:8000],
    x_test=TEXT.x_test[:1000],
    y_test=TEXT.x_test[:1000],
)


def trial(seed=0, **workload):
    fields = {
        "dataset": "shakespeare",
        "task": "language_modelling",
        "model": GPT,
        "batch_size": 16,
        "epochs": 4,
        "steps": 40,
        "evaluate_every": 10,
        "context": 16,
        "split": Split(how="tail"),
        "monitor": "val_bits_per_byte",
        "train_eval": 20,
        **workload,
    }
    seeds = Seeds(split=seed, init=seed, order=seed, dropout=seed)
    return TrialSpec(
        workload=Workload(**fields),
        optimizer=AdamW(lr=0.01),
        seeds=seeds,
        backend="torch",
        device="cpu",
        precision="float64",
    )


def test_it_learns_and_records_bits_a_byte():
    record = run_trial(trial(), engine("torch"), FEW, environment={})
    bits = record.history["val_bits_per_byte"]
    assert bits[0] == pytest.approx(np.log2(76), abs=0.1)
    assert bits[-1] < bits[0] - 0.5
    assert record.metrics["test_perplexity"] == pytest.approx(np.exp(record.metrics["test_loss"]))
    assert record.metrics["test_bits_per_byte"] == pytest.approx(record.metrics["test_loss"] / np.log(2))
    assert record.predictions["last"].dtype == np.uint8


def test_stacked_trials_agree_with_those_alone():
    specs = [
        trial(seed, model=Model(name="gpt", layers=zoo.gpt(depth=2, width=16, heads=2))) for seed in (0, 1)
    ]
    alone = [run_trial(spec, engine("torch"), FEW, environment={}) for spec in specs]
    together = run_stack(specs, engine("torch"), FEW, environment={})
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_allclose(a.history["val_loss"], b.history["val_loss"], rtol=1e-9)
        assert a.fingerprints == b.fingerprints


class Killed(BaseException):
    pass


def test_a_trial_cut_off_between_steps_goes_on_to_the_same_bits(tmp_path):
    """With averaged weights, accumulated gradients, dropout and a schedule by step."""
    spec = trial(ema=0.9, accumulate=4, schedule=WarmupStableDecay(warmup=5))
    whole = run_trial(spec, engine("torch"), FEW, environment={})
    checkpoints = Checkpoints(tmp_path, minutes=1e-9)

    def kill(epoch, row):
        if epoch == 3:
            raise Killed

    with pytest.raises(Killed):
        run_trial(spec, engine("torch"), FEW, environment={}, on_epoch=kill, checkpoints=checkpoints)
    resumed = run_trial(spec, engine("torch"), FEW, environment={}, checkpoints=checkpoints)
    assert resumed.environment["checkpoint"] == "resumed"
    for name in ("val_loss", "val_loss_ema", "batch_loss", "lr"):
        assert np.array_equal(whole.history[name], resumed.history[name], equal_nan=True), name
    assert whole.metrics["test_loss_ema"] == resumed.metrics["test_loss_ema"]


def test_the_compiled_and_the_eager_forward_see_the_same_windows():
    """What a batch is made of: the windows that its rows name, and the token after each of their places."""
    spec = trial()
    data = trial_data(FEW, spec.workload, spec.seeds)
    built = network(spec.workload, FEW.info)
    opened = engine("torch").open(spec, built, data, initial_weights(built, 0, "float64"))
    x, y = opened.train_state.pool_x, opened.train_state.pool_y
    rows = data.rows_of(spec.workload, 0, 1)[:5]
    assert np.array_equal(x[rows].numpy(), data.train.x[rows])
    assert np.array_equal(y[rows].numpy(), data.train.y[rows])
