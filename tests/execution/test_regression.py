"""Regression: targets standardised on the training part, errors in the targets' unit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optbench.backends.base import Evaluation
from optbench.datasets import registry
from optbench.datasets.base import Part, cut
from optbench.execution import regression
from optbench.trial import Seeds, Split


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
