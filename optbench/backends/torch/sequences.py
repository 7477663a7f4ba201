"""Layers of sequences and their norms as PyTorch functions; part of the table in ``layers.py``.

A sequence is [n, places, features], tokens are [n, places].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from optbench.backends import rotary
from optbench.models import layers as spec
from optbench.models.layers import BuiltLayer

Tensor = torch.Tensor
Plain = Callable[[Tensor], Tensor]


def affine(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """``x @ kernel + bias`` for x [..., in]."""
    if bias is None:
        return x @ kernel
    if x.ndim == 2:
        return torch.addmm(bias, x, kernel)
    return torch.addmm(bias, x.flatten(0, -2), kernel).unflatten(0, x.shape[:-1])


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor | None, epsilon: float) -> Tensor:
    """Normalise the last axis, in the precision of the weights."""
    return F.layer_norm(x.to(gamma.dtype), gamma.shape, gamma, beta, epsilon).to(x.dtype)


def rms_norm(x: Tensor, gamma: Tensor, epsilon: float) -> Tensor:
    """Divide the last axis by its root mean square, in the precision of the weights."""
    return F.rms_norm(x.to(gamma.dtype), gamma.shape, gamma, epsilon).to(x.dtype)


class Attend:
    """Attention of heads [n, heads, places, features], by PyTorch's own kernel."""

    def __init__(self, layer: spec.Attention, built: BuiltLayer) -> None:
        self._causal, self._rotary = layer.causal, layer.rotary
        places, width = built.input_shape
        self._angles = (places, width // layer.heads)
        self._tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Mix the values."""
        if self._rotary:
            query, key = self._turned(query), self._turned(key)
        return F.scaled_dot_product_attention(query, key, value, is_causal=self._causal)

    def _turned(self, x: Tensor) -> Tensor:
        where = (x.device, x.dtype)
        if where not in self._tables:
            tables = rotary.table(*self._angles)
            self._tables[where] = tuple(  # type: ignore[assignment]
                torch.from_numpy(part).to(device=x.device, dtype=x.dtype) for part in tables
            )
        cos, sin = self._tables[where]
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)
