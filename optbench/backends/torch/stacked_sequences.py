"""Layers of sequences of several trials at once; part of the table in ``stacked_layers.py``.

Sequences are [trials, batch, places, features], tokens [trials, batch, places].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from optbench.backends.torch.layers import Plain, activation
from optbench.backends.torch.sequences import Attend
from optbench.backends.torch.stacked_weights import StackedWeights, affine
from optbench.models import layers as spec
from optbench.models.layers import BuiltLayer

Builder = Callable[[Any, BuiltLayer, StackedWeights], Plain]


def _each(weight: Tensor, x: Tensor) -> Tensor:
    """A vector of each trial, [trials, features], in the axes of x [trials, ..., features]."""
    return weight.view(len(weight), *[1] * (x.ndim - 2), -1)


def _of_last(function: Plain, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    """Apply a function of the last axis to the channels of images."""
    if len(built.input_shape) != 3:
        return function
    return lambda x: stacked.as_images(function(stacked.by_trial(x)))


def _layer_norm(layer: spec.LayerNorm, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    gamma, beta = stacked.weights[f"{built.name}/gamma"], stacked.of(f"{built.name}/beta")

    def function(x: Tensor) -> Tensor:
        z = F.layer_norm(x, x.shape[-1:], eps=layer.epsilon) * _each(gamma, x)
        return z if beta is None else z + _each(beta, x)

    return _of_last(function, built, stacked)


def _rms_norm(layer: spec.RMSNorm, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    gamma = stacked.weights[f"{built.name}/gamma"]
    return _of_last(
        lambda x: F.rms_norm(x, x.shape[-1:], eps=layer.epsilon) * _each(gamma, x), built, stacked
    )


def _embedding(layer: spec.Embedding, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    table = stacked.weights[f"{built.name}/table"]
    first = torch.arange(len(table), device=table.device)[:, None, None] * table.shape[1]
    return lambda x: F.embedding(x + first, table.flatten(0, 1))


def _positions(layer: spec.Positions, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    table, places = stacked.weights[f"{built.name}/table"], built.input_shape[0]
    return lambda x: x + table[:, None, :places]


def _attention(layer: spec.Attention, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    attend = Attend(layer, built)

    def function(x: Tensor) -> Tensor:
        heads = [
            affine(x, f"{built.name}/{part}", stacked)
            .unflatten(-1, (layer.heads, -1))
            .flatten(0, 1)
            .transpose(1, 2)
            for part in ("query", "key", "value")
        ]
        mixed = attend(*heads).transpose(1, 2).flatten(2).unflatten(0, x.shape[:2])
        return affine(mixed, f"{built.name}/output", stacked)

    return function


def _gated_dense(layer: spec.GatedDense, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    activate, name = activation(layer.activation), built.name
    return lambda x: activate(affine(x, f"{name}/gate", stacked)) * affine(x, f"{name}/value", stacked)


def _unembedding(layer: spec.Unembedding, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    assert built.tied is not None
    table = stacked.weights[built.tied]
    return lambda x: (x.flatten(1, 2) @ table.transpose(1, 2)).unflatten(1, x.shape[1:3])


def _to_sequence(layer: spec.ToSequence, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    return lambda x: stacked.by_trial(x).flatten(2, 3)


def _class_token(layer: spec.ClassToken, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    token = stacked.weights[f"{built.name}/token"]
    return lambda x: torch.cat((token[:, None].expand(-1, x.shape[1], -1, -1), x), 2)


def _pool_sequence(layer: spec.PoolSequence, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    return (lambda x: x[:, :, 0]) if layer.how == "first" else (lambda x: x.mean(2))


LAYERS: Mapping[str, Builder] = MappingProxyType(
    {
        "layer_norm": _layer_norm,
        "rms_norm": _rms_norm,
        "embedding": _embedding,
        "positions": _positions,
        "attention": _attention,
        "gated_dense": _gated_dense,
        "unembedding": _unembedding,
        "to_sequence": _to_sequence,
        "class_token": _class_token,
        "pool_sequence": _pool_sequence,
    }
)
