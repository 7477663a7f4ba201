"""The protocol against a session whose losses are written down, so that every rule can be checked by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from optbench.backends.base import Evaluation
from optbench.datasets import registry
from optbench.datasets.base import Dataset
from optbench.execution.protocol import run_trial
from optbench.models.layers import Dense, Model
from optbench.optimizers import Adam
from optbench.trial import Divergence, EarlyStopping, Seeds, Split, TrialSpec, Workload


def round_numbers():
    """Data whose parts have 1000 validation and 100 test examples, so that scripted shares are exact."""
    x, y = np.zeros((1100, 8, 8, 1), np.uint8), np.arange(1100) % 10
    info = replace(registry.info("digits"), train=1100, test=100)
    return Dataset(info=info, x_train=x, y_train=y, x_test=x[:100], y_test=y[:100])


class ScriptedSession:
    """Plays back validation accuracies and batch losses by epoch, and notes what it is asked."""

    def __init__(self, accuracies, batch_losses):
        self.accuracies, self.batch_losses = accuracies, batch_losses
        self.epoch, self.remembered, self.calls = 0, None, []

    def facts(self):
        return {"kernel": "scripted"}

    def warm_up(self):
        self.calls.append("warm_up")

    def train_epoch(self, rows, epoch, x=None):
        self.epoch = epoch
        self.calls.append(f"train {epoch}")
        return np.array(self.batch_losses[epoch - 1], dtype=float)

    def evaluate(self, part, *, outputs=False):
        if part == "test":
            self.calls.append(f"test {self.epoch}")
        accuracy = self.accuracies[self.epoch] if part == "validation" else self.epoch / 100
        targets = getattr(self.data, part).targets
        right = np.arange(len(targets)) < round(accuracy * len(targets))
        return Evaluation(loss=1 - accuracy, predictions=np.where(right, targets, (targets + 1) % 10))

    def set_lr(self, lr):
        pass

    def weights(self):
        return {}

    def remember(self):
        self.remembered = self.epoch

    def recall(self):
        self.epoch = self.remembered

    def state(self):
        return {"epoch": np.array(self.epoch), "remembered": np.array(self.remembered)}

    def restore(self, state):
        self.epoch, self.remembered = int(state["epoch"]), int(state["remembered"])

    def state_bytes(self):
        return 8


class ScriptedEngine:
    name = "scripted"

    def __init__(self, session):
        self.session = session

    def describe(self, device):
        return {"framework": "script"}

    def open(self, spec, built, data, weights):
        self.session.data = data
        return self.session


def run(accuracies, batch_losses=None, *, split=Split(validation=1000), **workload):  # noqa: B008
    epochs = len(accuracies) - 1
    session = ScriptedSession(accuracies, batch_losses or [[1.0, 0.5]] * epochs)
    spec = TrialSpec(
        workload=Workload(
            dataset="digits",
            model=Model(name="m", layers=(Dense(),)),
            batch_size=64,
            epochs=epochs,
            split=split,
            **workload,
        ),
        optimizer=Adam(),
        seeds=Seeds(),
        backend="torch",
        device="cpu",
        precision="float32",
    )
    seen = []
    record = run_trial(
        spec,
        ScriptedEngine(session),
        round_numbers(),
        environment={},
        on_epoch=lambda epoch, row: seen.append(epoch),
    )
    return record, session, seen


def test_history_has_epoch_zero_and_the_test_part_is_looked_at_last():
    record, session, seen = run([0.1, 0.5, 0.9, 0.7])
    assert record.environment["kernel"] == "scripted"
    assert seen == [0, 1, 2, 3]
    np.testing.assert_array_equal(record.history["val_accuracy"], [0.1, 0.5, 0.9, 0.7])
    assert math.isnan(record.history["batch_loss"][0])
    assert record.history["batch_loss"][1] == 0.75
    assert session.calls == ["warm_up", "train 1", "train 2", "train 3", "test 3", "test 2"]
    assert record.metrics["best_epoch"] == 2
    assert record.metrics["test_accuracy_last"] == 0.03
    assert record.metrics["test_accuracy_best"] == 0.02
    assert record.metrics["test_accuracy"] == 0.03, "without early stopping the final model is the last"


def test_early_stopping_waits_its_patience_and_restores_the_best():
    record, _, _ = run(
        [0.1, 0.5, 0.5, 0.4, 0.9, 0.9],
        early_stopping=EarlyStopping(patience=2),
    )
    assert record.metrics["epochs"] == 3
    assert record.metrics["test_accuracy"] == record.metrics["test_accuracy_best"] == 0.01


def test_min_delta_ignores_small_gains():
    record, _, _ = run(
        [0.1, 0.5, 0.505, 0.509, 0.6],
        early_stopping=EarlyStopping(patience=2, min_delta=0.01),
    )
    assert record.metrics["epochs"] == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_diverges_at_once(bad):
    record, session, _ = run([0.1, 0.5, 0.5, 0.5], [[1, 1], [1, bad], [1, 1]])
    assert record.status == "diverged"
    assert record.metrics["epochs"] == 2
    assert "test_accuracy" not in record.metrics
    assert not any(call.startswith("test") for call in session.calls)


def test_a_huge_loss_diverges_after_the_declared_epochs_in_a_row():
    losses = [[2.0, 1.0], [30.0, 30.0], [1.0, 1.0], [30.0, 30.0], [30.0, 30.0], [1.0, 1.0]]
    rule = Divergence(factor=10, epochs=2)
    record, _, _ = run([0.1] * 7, losses, divergence=rule)
    assert record.status == "diverged"
    assert record.metrics["epochs"] == 5
    record, _, _ = run([0.1] * 7, losses, divergence=Divergence(factor=10, epochs=3))
    assert record.status == "completed"


def test_a_training_that_ends_on_a_huge_loss_diverged():
    record, _, _ = run([0.1] * 3, [[2.0, 1.0], [30.0, 30.0]])
    assert record.status == "diverged"
    assert record.metrics["epochs"] == 2


def test_without_validation_there_is_no_best_epoch():
    record, _, _ = run([0.1, 0.5], split=Split(validation=0))
    assert "best_epoch" not in record.metrics
    assert "test_accuracy_best" not in record.metrics
    assert np.isnan(record.history["val_loss"]).all()
