"""Every metric of every task against another library's, so that none is without a check of its numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics

from optbench.backends.base import Evaluation
from optbench.datasets import registry
from optbench.datasets.base import Part
from optbench.execution.evaluation import MEASURES, declared
from optbench.task import TASKS, known

#: What a metric is, of targets, predictions and the mean loss; a new one is added here.
WANTED = {
    "accuracy": lambda y, p, loss: metrics.accuracy_score(y, p),
    "f1": lambda y, p, loss: metrics.f1_score(y, p, average="macro"),
    "rmse": lambda y, p, loss: math.sqrt(metrics.mean_squared_error(y, p)),
    "mae": lambda y, p, loss: metrics.mean_absolute_error(y, p),
    "r2": lambda y, p, loss: metrics.r2_score(y, p),
    "bits_per_byte": lambda y, p, loss: loss / math.log(2) / 1.25,
    "perplexity": lambda y, p, loss: math.exp(loss),
}
DATA = {"label": "digits", "value": "diabetes", "token": "shakespeare"}


def test_every_metric_is_checked_and_none_is_left_over():
    assert {name for task in TASKS.values() for name in task.metrics} == set(WANTED)
    assert {task.name: set(MEASURES[task.name].metrics) for task in TASKS.values()} == {
        task.name: set(task.metrics) for task in TASKS.values()
    }


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_a_metric_is_the_number_of_its_name(task):
    generator = np.random.default_rng(2)
    info = replace(registry.info(DATA[task.targets]), bytes_per_token=1.25)
    classes = len(info.classes) or 1000
    y, p = generator.integers(0, classes, (2, 300))
    p = np.where(generator.random(300) < 0.6, y, p)
    part = Part(x=np.zeros((400, 1)), y=np.r_[y, y[:100]], rows=np.arange(300), pool="p")
    found = declared(task, Evaluation(loss=1.5, predictions=p), part, info, names=task.metrics)
    assert list(found) == ["loss", *task.metrics]
    assert found["loss"] == 1.5
    for name in task.metrics:
        assert found[name] == pytest.approx(WANTED[name](y, p, 1.5), rel=1e-12), name
        assert known(name).low <= found[name] <= known(name).high
