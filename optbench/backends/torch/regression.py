"""Regression in PyTorch: its losses, of standardised targets, and its prediction."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Reduction = Literal["mean", "sum", "none"]


def mse(outputs: Tensor, targets: Tensor, *, reduction: Reduction) -> Tensor:
    """Squared error of outputs [n, 1 or more] and targets [n]."""
    return F.mse_loss(outputs[:, 0], targets, reduction=reduction)


def mae(outputs: Tensor, targets: Tensor, *, reduction: Reduction) -> Tensor:
    """Absolute error."""
    return F.l1_loss(outputs[:, 0], targets, reduction=reduction)


def huber(outputs: Tensor, targets: Tensor, *, reduction: Reduction) -> Tensor:
    """Huber's loss, half the square up to an error of 1 and straight beyond."""
    return F.huber_loss(outputs[:, 0], targets, reduction=reduction)


def predicted_value(outputs: Tensor) -> Tensor:
    """The first output, [n]."""
    return outputs[:, 0]
