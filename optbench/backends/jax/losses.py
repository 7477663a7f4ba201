"""The losses and predictions of all tasks in JAX, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from optbench.backends.base import LossSpec, entry
from optbench.backends.jax import classification, language_modelling, regression

#: (outputs [n, outputs], targets [n, ...], options of the loss) -> loss of each example, [n].
LOSSES: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "cross_entropy": classification.cross_entropy,
        "mse": regression.mse,
        "mae": regression.mae,
        "huber": regression.huber,
        "token_cross_entropy": language_modelling.token_cross_entropy,
    }
)
#: Outputs [n, outputs] -> prediction of each example, [n, ...], by the task's kind of target.
PREDICTIONS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "label": classification.predicted_label,
        "value": regression.predicted_value,
        "token": language_modelling.predicted_tokens,
    }
)


def evaluated_loss(loss: LossSpec) -> Callable[[Any, Any], Any]:
    """Loss of an evaluation: (outputs, targets) -> loss of each example."""
    return entry(LOSSES, loss.name, "jax losses")


def training_loss(loss: LossSpec) -> Callable[[Any, Any], Any]:
    """Loss of the training, with its options."""
    return partial(evaluated_loss(loss), **dict(loss.options))


def prediction(targets: str) -> Callable[[Any], Any]:
    """Prediction for a kind of target."""
    return entry(PREDICTIONS, targets, "jax predictions")
