"""What each task's loss and predictions are, in every backend."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optbench.optimizers import Adam
from optbench.trial import Split
from tests.backends.contract import record, session, spec

DIABETES = {"dataset": "diabetes", "task": "regression", "split": Split(how="random"), "monitor": "val_rmse"}


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
