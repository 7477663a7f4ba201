"""Classification metrics from arrays: precision, recall, F1, ranks behind top-k accuracy, probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
