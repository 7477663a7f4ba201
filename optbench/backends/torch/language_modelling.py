"""Language modelling in PyTorch: its loss and its prediction."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor


def token_cross_entropy(
    outputs: Tensor, targets: Tensor, *, reduction: Literal["mean", "sum", "none"]
) -> Tensor:
    """Mean cross-entropy over a window's places, of outputs [n, context, tokens] and tokens [n, context]."""
    flat, wanted = outputs.flatten(0, 1), targets.flatten()
    if reduction == "mean":
        return F.cross_entropy(flat, wanted)
    losses = F.cross_entropy(flat, wanted, reduction="none").view(targets.shape).mean(1)
    return losses.sum() if reduction == "sum" else losses


def predicted_tokens(outputs: Tensor) -> Tensor:
    """The likeliest token at each place, [n, context]."""
    return outputs.argmax(-1)
