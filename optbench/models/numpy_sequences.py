"""Norms, attention and the other layers of sequences in NumPy; part of the table in ``numpy_layers.py``.

One example at a time: a sequence is [places, features], an image [height, width, channels], a text [places].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optbench.models.layers import (
    Attention,
    BuiltLayer,
    GroupNorm,
    LayerNorm,
    Positions,
    RMSNorm,
)

Array = NDArray[np.float64]
Weights = Mapping[str, NDArray[Any]]


def affine(x: Array, name: str, weights: Weights) -> Array:
    """``x @ kernel + bias``, the bias where there is one."""
    bias = weights.get(f"{name}/bias", np.zeros(()))
    found: Array = x @ weights[f"{name}/kernel"].astype(np.float64) + bias
    return found


def rotated(x: Array) -> Array:
    """Turn pair (i, i + n/2) of the vector at place t, as a complex number, by t * 10000^(-2i/n)."""
    places, n = x.shape
    angle = np.arange(places)[:, None] * 10000.0 ** (-2 * np.arange(n // 2) / n)
    z = (x[:, : n // 2] + 1j * x[:, n // 2 :]) * np.exp(1j * angle)
    return np.concatenate([z.real, z.imag], axis=1)


def _attention(layer: Attention, place: BuiltLayer, weights: Weights, x: Array) -> Array:
    """Head by head and place by place."""
    query, key, value = (affine(x, f"{place.name}/{part}", weights) for part in ("query", "key", "value"))
    size = x.shape[-1] // layer.heads
    mixed = np.empty_like(query)
    for head in range(layer.heads):
        part = slice(head * size, (head + 1) * size)
        q, k = (rotated(z[:, part]) if layer.rotary else z[:, part] for z in (query, key))
        for t in range(len(x)):
            seen = t + 1 if layer.causal else len(x)
            scores = k[:seen] @ q[t] / np.sqrt(size)
            shares = np.exp(scores - scores.max())
            mixed[t, part] = shares / shares.sum() @ value[:seen, part]
    return affine(mixed, f"{place.name}/output", weights)


def _layer_norm(layer: LayerNorm, place: BuiltLayer, weights: Weights, x: Array) -> Array:
    z = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + layer.epsilon)
    found: Array = z * weights[f"{place.name}/gamma"] + weights.get(f"{place.name}/beta", np.zeros(()))
    return found


def _rms_norm(layer: RMSNorm, place: BuiltLayer, weights: Weights, x: Array) -> Array:
    found: Array = (
        x / np.sqrt((x**2).mean(-1, keepdims=True) + layer.epsilon) * weights[f"{place.name}/gamma"]
    )
    return found


def _group_norm(layer: GroupNorm, place: BuiltLayer, weights: Weights, x: Array) -> Array:
    out, size = np.empty_like(x), x.shape[-1] // layer.groups
    for group in range(layer.groups):
        part = slice(group * size, (group + 1) * size)
        z = x[:, :, part]
        out[:, :, part] = (z - z.mean()) / np.sqrt(z.var() + layer.epsilon)
    found: Array = out * weights[f"{place.name}/gamma"] + weights[f"{place.name}/beta"]
    return found


def _embedding(layer: Any, place: BuiltLayer, weights: Weights, x: Array) -> Array:
    return weights[f"{place.name}/table"].astype(np.float64)[x.astype(np.int64)]


def _positions(layer: Positions, place: BuiltLayer, weights: Weights, x: Array) -> Array:
    found: Array = x + weights[f"{place.name}/table"][: len(x)]
    return found


def _unembedding(layer: Any, place: BuiltLayer, weights: Weights, x: Array) -> Array:
    assert place.tied is not None
    found: Array = x @ weights[place.tied].astype(np.float64).T
    return found


def _class_token(layer: Any, place: BuiltLayer, weights: Weights, x: Array) -> Array:
    return np.concatenate([weights[f"{place.name}/token"].astype(np.float64), x])


#: See :data:`optbench.models.numpy_layers.LAYERS`.
LAYERS: Mapping[str, Callable[[Any, BuiltLayer, Weights, Array], Array]] = MappingProxyType(
    {
        "attention": _attention,
        "layer_norm": _layer_norm,
        "rms_norm": _rms_norm,
        "group_norm": _group_norm,
        "embedding": _embedding,
        "positions": _positions,
        "unembedding": _unembedding,
        "class_token": _class_token,
        "to_sequence": lambda layer, place, weights, x: x.reshape(-1, x.shape[-1]),
        "pool_sequence": lambda layer, place, weights, x: x[0] if layer.how == "first" else x.mean(0),
    }
)
