"""What regression measures, in the unit of the targets: RMSE, MAE, R2."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optbench.backends.base import Evaluation
from optbench.datasets.base import DatasetInfo, Part
from optbench.trial import Workload


def errors(evaluation: Evaluation, part: Part) -> NDArray[np.float64]:
    """Prediction minus target of each example, [n]."""
    found: NDArray[np.float64] = evaluation.predictions.astype(np.float64) - part.targets
    return found


def rmse(evaluation: Evaluation, part: Part, info: DatasetInfo) -> float:
    """Root of the mean squared error."""
    return math.sqrt(float(np.mean(np.square(errors(evaluation, part)))))


def mae(evaluation: Evaluation, part: Part, info: DatasetInfo) -> float:
    """Mean absolute error."""
    return float(np.mean(np.abs(errors(evaluation, part))))


def r2(evaluation: Evaluation, part: Part, info: DatasetInfo) -> float:
    """1 minus the squared errors over those of the part's own mean; NaN where all targets are alike."""
    centred = part.targets - np.mean(part.targets)
    total = float(np.sum(np.square(centred)))
    return 1 - float(np.sum(np.square(errors(evaluation, part)))) / total if total > 0 else math.nan


#: Functions of the task's metrics by name.
METRICS: Mapping[str, Callable[[Evaluation, Part, DatasetInfo], float]] = MappingProxyType(
    {"rmse": rmse, "mae": mae, "r2": r2}
)


def needs_outputs(workload: Workload) -> bool:
    """Whether the options of a workload are computed from the model's outputs: none is."""
    return False


def from_outputs(evaluation: Evaluation, part: Part, workload: Workload) -> dict[str, float]:
    """Metrics of a workload's options: there are none."""
    return {}


def details(evaluation: Evaluation, part: Part, info: DatasetInfo, workload: Workload) -> dict[str, float]:
    """Further metrics of the final model: there are none."""
    return {}


def scored(evaluation: Evaluation) -> NDArray[np.float64]:
    """What a custom metric is called with: the predictions in the unit of the targets, [n]."""
    return evaluation.predictions.astype(np.float64)


def recorded(predictions: Iterable[NDArray[Any]]) -> list[NDArray[Any]]:
    """Bring predictions into the type that records store."""
    return [array.astype(np.float32) for array in predictions]
