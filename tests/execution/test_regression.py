"""Regression: targets standardised on the training part, errors in the targets' unit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optbench.backends.base import Evaluation
from optbench.datasets import registry
from optbench.datasets.base import Part, cut
from optbench.execution import regression
from optbench.optimizers import Adam
from optbench.trial import Seeds, Split
from tests.backends.contract import record, session, spec

DIABETES = {"dataset": "diabetes", "task": "regression", "split": Split(how="random"), "monitor": "val_rmse"}


def part_of(values):
    y = np.asarray(values, np.float64)
    return Part(x=np.zeros((len(y), 1)), y=y, rows=np.arange(len(y)), pool="p")


def test_metrics_are_those_of_their_definitions():
    truth, predicted = np.array([1.0, 2.0, 4.0]), np.array([2.0, 2.0, 1.0])
    found = Evaluation(loss=0.0, predictions=predicted)
    part = part_of(truth)
    assert regression.rmse(found, part, None) == pytest.approx(math.sqrt(10 / 3))
    assert regression.mae(found, part, None) == pytest.approx(4 / 3)
    assert regression.r2(found, part, None) == pytest.approx(1 - 10 / (14 / 3))
    assert math.isnan(regression.r2(found, part_of([2.0, 2.0, 2.0]), None))


def test_targets_are_standardised_by_the_training_part_alone():
    data = cut(registry.load("diabetes"), Split(how="random"), Seeds(), train_eval=10)
    values = data.train.targets
    assert data.standard == (values.mean(), values.std())
    assert abs(data.standard.mean - data.train.y.mean()) > 1e-9


@pytest.mark.parametrize("loss", [None, "mae", "huber"])
def test_a_loss_is_of_standardised_targets_and_errors_are_in_their_unit(backend, loss):
    trial = spec(backend, Adam(lr=0.01), **DIABETES, loss=loss)
    opened, _, data = session(trial)
    found = opened.evaluate("test")
    error = found.predictions - (data.test.targets - data.standard.mean) / data.standard.sd
    small = np.abs(error) <= 1
    losses = {
        None: error**2,
        "mae": np.abs(error),
        "huber": np.where(small, error**2 / 2, np.abs(error) - 0.5),
    }
    assert found.loss == pytest.approx(losses[loss].mean(), rel=1e-12)
    trained = record(trial)
    assert trained.status == "completed"
    assert trained.history["val_rmse"][-1] < trained.history["val_rmse"][0]
    if loss is None:
        assert trained.metrics["val_rmse"] == pytest.approx(
            data.standard.sd * math.sqrt(trained.metrics["val_loss"]), rel=1e-12
        )
    predictions = trained.predictions["last"].astype(np.float64)
    assert trained.metrics["test_rmse"] == pytest.approx(
        math.sqrt(np.mean((predictions - data.test.targets) ** 2)), rel=1e-6
    )
