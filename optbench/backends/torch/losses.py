"""The losses and predictions of all tasks in PyTorch, by name, and the objective that training minimises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import Tensor

from optbench.backends.base import LossSpec, entry
from optbench.backends.torch import classification, language_modelling, regression
from optbench.backends.torch.layers import Draw, Weights
from optbench.backends.torch.model import Network
from optbench.backends.torch.own_network import OwnModel

#: (outputs, targets, reduction="mean", "sum" or "none", options of the loss) -> loss.
LOSSES: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {
        "cross_entropy": classification.cross_entropy,
        "mse": regression.mse,
        "mae": regression.mae,
        "huber": regression.huber,
        "token_cross_entropy": language_modelling.token_cross_entropy,
    }
)
#: Outputs [n, outputs] -> prediction of each example, by the task's kind of target.
PREDICTIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "label": classification.predicted_label,
        "value": regression.predicted_value,
        "token": language_modelling.predicted_tokens,
    }
)
#: Losses written out for :mod:`optbench.backends.torch.dense`.
WRITTEN_OUT: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"cross_entropy": classification.WrittenOutCrossEntropy}
)


def loss_function(loss: LossSpec, *, reduction: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Training loss of a trial, with its options; (outputs, targets) -> loss."""
    return partial(entry(LOSSES, loss.name, "torch losses"), reduction=reduction, **dict(loss.options))


class Objective:
    """What training minimises: the mean loss of a batch in training mode, with penalties.

    Parameters
    ----------
    network : Network
    loss : LossSpec
    half : str, optional
        See :meth:`Network.outputs`.
    """

    def __init__(self, network: Network | OwnModel, loss: LossSpec, half: str | None) -> None:
        self._network, self._half = network, half
        self._loss = loss_function(loss, reduction="mean")

    def __call__(self, weights: Weights, x: Tensor, y: Tensor, *, draw: Draw) -> Tensor:
        """Objective at these weights on inputs x and targets y."""
        outputs = self._network.outputs(weights, x, training=True, draw=draw, half=self._half)
        loss = self._loss(outputs, y)
        penalty = self._network.penalty(weights)
        return loss if penalty is None else loss + penalty
