"""What classification measures, from predictions and outputs: accuracy, precision, recall, F1, top-k."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optbench.backends.base import Evaluation
from optbench.datasets.base import DatasetInfo, Part
from optbench.trial import Workload


@dataclass(frozen=True, kw_only=True)
class PerClass:
    """Precision, recall and F1 of each class, [classes]; ``macro_f1`` is their plain mean.

    A ratio over nothing is 0, as in scikit-learn, but a class that neither occurs nor is predicted has NaN
    and is left out of the mean.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    macro_f1: float


def per_class(
    labels: NDArray[np.integer[Any]], predictions: NDArray[np.integer[Any]], classes: int
) -> PerClass:
    """Compute precision, recall and F1 from true and predicted classes.

    Parameters
    ----------
    labels, predictions : array of int, [n]
        A prediction may lie beyond the classes, where the model has more outputs; it is then simply wrong.
    classes : int
        Number of classes.
    """
    hits = np.bincount(labels[labels == predictions], minlength=classes)[:classes].astype(np.float64)
    true = np.bincount(labels, minlength=classes)[:classes]
    predicted = np.bincount(predictions, minlength=classes)[:classes]
    seen = true + predicted > 0
    precision, recall, f1 = (
        np.where(seen, hits / np.where(total > 0, total, 1), np.nan)
        for total in (predicted, true, (true + predicted) / 2)
    )
    return PerClass(precision=precision, recall=recall, f1=f1, macro_f1=float(f1[seen].mean()))


def ranks(logits: NDArray[Any], labels: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Count the outputs placed before the true class, [n]; 0 is a right prediction.

    Among equal outputs the first comes first, so that a model which has collapsed to a constant does not get
    every answer right. An example with an output that is not a number ranks last.
    """
    n, outputs = logits.shape
    true = logits[np.arange(n), labels][:, None]
    before = (logits > true) | ((logits == true) & (np.arange(outputs) < labels[:, None]))
    found: NDArray[np.int64] = before.sum(axis=1)
    found[np.isnan(logits).any(axis=1)] = outputs
    return found


def probabilities(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Softmax of the outputs in float64, [n, outputs]."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=1, keepdims=True)
    return shifted


def scored(evaluation: Evaluation) -> NDArray[np.float64]:
    """What a custom metric is called with: the probabilities of the classes, [n, outputs]."""
    assert evaluation.outputs is not None
    return probabilities(evaluation.outputs)


def accuracy(evaluation: Evaluation, part: Part, info: DatasetInfo) -> float:
    """Share of the examples whose class is predicted."""
    return float(np.mean(evaluation.predictions == part.targets))


def macro_f1(evaluation: Evaluation, part: Part, info: DatasetInfo) -> float:
    """Mean F1 of the classes, see :class:`PerClass`."""
    return per_class(part.targets, evaluation.predictions, len(info.classes)).macro_f1


#: Functions of the task's metrics by name.
METRICS: Mapping[str, Callable[[Evaluation, Part, DatasetInfo], float]] = MappingProxyType(
    {"accuracy": accuracy, "f1": macro_f1}
)


def needs_outputs(workload: Workload) -> bool:
    """Whether the options of a workload are computed from the model's outputs."""
    return workload.top_k is not None


def from_outputs(evaluation: Evaluation, part: Part, workload: Workload) -> dict[str, float]:
    """Top-k accuracies that a workload asks for, by ``top<k>_accuracy``."""
    if evaluation.outputs is None or workload.top_k is None:
        return {}
    found = ranks(evaluation.outputs, part.targets)
    return {f"top{k}_accuracy": float((found < k).mean()) for k in workload.top_k}


def details(evaluation: Evaluation, part: Part, info: DatasetInfo, workload: Workload) -> dict[str, float]:
    """Scores of each class if a workload asks for them, by ``<metric>[<class>]``; none that is no number.

    With ``top_k`` the recall among the k likeliest classes too, by ``top<k>_recall[<class>]``.
    """
    if not workload.per_class:
        return {}
    scores = per_class(part.targets, evaluation.predictions, len(info.classes))
    found: dict[str, float] = {}
    for name in ("precision", "recall", "f1"):
        values = zip(info.classes, getattr(scores, name), strict=True)
        found |= {f"{name}[{c}]": float(value) for c, value in values if math.isfinite(value)}
    if evaluation.outputs is not None and workload.top_k is not None:
        places = ranks(evaluation.outputs, part.targets)
        for label, name in enumerate(info.classes):
            own = places[part.targets == label]
            found |= {f"top{k}_recall[{name}]": float((own < k).mean()) for k in workload.top_k if len(own)}
    return found


def recorded(predictions: Iterable[NDArray[Any]]) -> list[NDArray[Any]]:
    """Bring predicted classes into the smallest type that holds them all, as records store them."""
    arrays = list(predictions)
    small = np.uint8 if max(array.max() for array in arrays) < 256 else np.uint16
    return [array.astype(small) for array in arrays]
