"""Layers as PyTorch functions over a dictionary of weights: one table by kind, one of activations.

Images travel as NCHW in channels-last memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F

from optbench.backends.arrays import relu_after_pool
from optbench.backends.base import entry
from optbench.backends.torch.sequences import Attend, affine, layer_norm, rms_norm
from optbench.models import layers as spec
from optbench.models.layers import BuiltLayer, same_padding

Tensor = torch.Tensor
Weights = Mapping[str, Tensor]
#: Draws a dropout mask for a tensor: 1 / keep with probability keep, else 0.
Draw = Callable[[Tensor, float], Tensor]
Forward = Callable[[Weights, Tensor, Draw], Tensor]
Plain = Callable[[Tensor], Tensor]
#: (layer, its place in the model) -> its functions in training and in evaluation mode.
Builder = Callable[[Any, BuiltLayer], tuple[Forward, Forward]]


def identity(x: Tensor) -> Tensor:
    """Give the input back."""
    return x


ACTIVATIONS: Mapping[str, Plain] = MappingProxyType(
    {
        "linear": identity,
        "relu": F.relu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "elu": F.elu,
        "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
        "silu": F.silu,
    }
)


def activation(name: str) -> Plain:
    """Look up an activation; ``NotImplementedError`` where PyTorch's table lacks it."""
    return entry(ACTIVATIONS, name, "torch activations")


def forward(built: BuiltLayer) -> tuple[Forward, Forward]:
    """Make the functions of a layer in training and in evaluation mode."""
    return entry(LAYERS, built.layer.kind, "torch layers")(built.layer, built)


def plain(function: Plain) -> Forward:
    """Take a function of the input alone as a layer's."""
    return lambda weights, x, draw: function(x)


def padding(built: BuiltLayer, window: int, stride: int, how: str) -> tuple[int, int, int, int]:
    """Left, right, top and bottom padding, in the order of ``F.pad``."""
    if how == "valid":
        return 0, 0, 0, 0
    height, width = built.input_shape[:2]
    return (*same_padding(width, window, stride), *same_padding(height, window, stride))


def max_pool(layer: spec.MaxPool2D, built: BuiltLayer) -> Plain:
    """Maximum over windows of an image."""
    stride = layer.stride or layer.size
    pad = padding(built, layer.size, stride, layer.padding)
    if not any(pad):
        return lambda x: F.max_pool2d(x, layer.size, stride)
    return lambda x: F.max_pool2d(F.pad(x, pad, value=float("-inf")), layer.size, stride)


def _both(function: Forward) -> tuple[Forward, Forward]:
    return function, function


def _dense(layer: spec.Dense, built: BuiltLayer) -> tuple[Forward, Forward]:
    kernel, bias = f"{built.name}/kernel", f"{built.name}/bias"
    activate = activation(layer.activation)
    if len(built.input_shape) > 1 or not layer.bias:
        return _both(lambda weights, x, draw: activate(affine(x, weights[kernel], weights.get(bias))))
    if activate is identity:
        return _both(lambda weights, x, draw: torch.addmm(weights[bias], x, weights[kernel]))
    return _both(lambda weights, x, draw: activate(torch.addmm(weights[bias], x, weights[kernel])))


def _conv(layer: spec.Conv2D | spec.DepthwiseConv2D, built: BuiltLayer) -> tuple[Forward, Forward]:
    activate = activation(layer.activation)
    groups = built.output_shape[2] if isinstance(layer, spec.DepthwiseConv2D) else 1
    pad = padding(built, layer.kernel, layer.stride, layer.padding)
    symmetric = pad[0] == pad[1] and pad[2] == pad[3]

    def function(weights: Weights, x: Tensor, draw: Draw) -> Tensor:
        kernel, bias = weights[f"{built.name}/kernel"], weights.get(f"{built.name}/bias")
        if symmetric:
            return activate(
                F.conv2d(x, kernel, bias, stride=layer.stride, padding=(pad[2], pad[0]), groups=groups)
            )
        return activate(F.conv2d(F.pad(x, pad), kernel, bias, stride=layer.stride, groups=groups))

    return _both(function)


def _average_pool(layer: spec.AveragePool2D, built: BuiltLayer) -> tuple[Forward, Forward]:
    return _both(plain(lambda x: F.avg_pool2d(x, layer.size, layer.stride or layer.size)))


def around_channels(layer: spec.Subsample, built: BuiltLayer) -> tuple[int, int]:
    """Channels of zeros before and after those that there are."""
    new = layer.filters - built.input_shape[2]
    return new // 2, new - new // 2


def _subsample(layer: spec.Subsample, built: BuiltLayer) -> tuple[Forward, Forward]:
    before, after = around_channels(layer, built)

    def function(x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: layer.stride, :: layer.stride], (0, 0, 0, 0, before, after))

    return _both(plain(function))


def _group_norm(layer: spec.GroupNorm, built: BuiltLayer) -> tuple[Forward, Forward]:
    def function(weights: Weights, x: Tensor, draw: Draw) -> Tensor:
        gamma, beta = weights[f"{built.name}/gamma"], weights[f"{built.name}/beta"]
        return F.group_norm(x.to(gamma.dtype), layer.groups, gamma, beta, layer.epsilon).to(x.dtype)

    return _both(function)


def _layer_norm(layer: spec.LayerNorm, built: BuiltLayer) -> tuple[Forward, Forward]:
    def function(weights: Weights, x: Tensor, draw: Draw) -> Tensor:
        gamma, beta = weights[f"{built.name}/gamma"], weights.get(f"{built.name}/beta")
        return _last(lambda z: layer_norm(z, gamma, beta, layer.epsilon), x)

    return _both(function)


def _rms_norm(layer: spec.RMSNorm, built: BuiltLayer) -> tuple[Forward, Forward]:
    def function(weights: Weights, x: Tensor, draw: Draw) -> Tensor:
        return _last(lambda z: rms_norm(z, weights[f"{built.name}/gamma"], layer.epsilon), x)

    return _both(function)


def _last(function: Plain, x: Tensor) -> Tensor:
    """Apply a function of the last axis to the channels of images."""
    return function(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if x.ndim == 4 else function(x)


def _embedding(layer: spec.Embedding, built: BuiltLayer) -> tuple[Forward, Forward]:
    return _both(lambda weights, x, draw: F.embedding(x, weights[f"{built.name}/table"]))


def _positions(layer: spec.Positions, built: BuiltLayer) -> tuple[Forward, Forward]:
    places = built.input_shape[0]
    return _both(lambda weights, x, draw: x + weights[f"{built.name}/table"][:places])


def _attention(layer: spec.Attention, built: BuiltLayer) -> tuple[Forward, Forward]:
    attend = Attend(layer, built)

    def function(weights: Weights, x: Tensor, draw: Draw) -> Tensor:
        def project(part: str, z: Tensor) -> Tensor:
            name = f"{built.name}/{part}"
            return affine(z, weights[f"{name}/kernel"], weights.get(f"{name}/bias"))

        heads = [
            project(part, x).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        ]
        return project("output", attend(*heads).transpose(1, 2).flatten(2))

    return _both(function)


def _gated_dense(layer: spec.GatedDense, built: BuiltLayer) -> tuple[Forward, Forward]:
    activate = activation(layer.activation)

    def function(weights: Weights, x: Tensor, draw: Draw) -> Tensor:
        gate, value = (
            affine(x, weights[f"{built.name}/{part}/kernel"], weights.get(f"{built.name}/{part}/bias"))
            for part in ("gate", "value")
        )
        return activate(gate) * value

    return _both(function)


def _unembedding(layer: spec.Unembedding, built: BuiltLayer) -> tuple[Forward, Forward]:
    assert built.tied is not None
    table = built.tied
    return _both(lambda weights, x, draw: F.linear(x, weights[table]))


def _to_sequence(layer: spec.ToSequence, built: BuiltLayer) -> tuple[Forward, Forward]:
    return _both(plain(lambda x: x.flatten(2).transpose(1, 2)))


def _class_token(layer: spec.ClassToken, built: BuiltLayer) -> tuple[Forward, Forward]:
    def function(weights: Weights, x: Tensor, draw: Draw) -> Tensor:
        token = weights[f"{built.name}/token"].to(x.dtype)
        return torch.cat((token.expand(len(x), 1, -1), x), 1)

    return _both(function)


def _pool_sequence(layer: spec.PoolSequence, built: BuiltLayer) -> tuple[Forward, Forward]:
    return _both(plain((lambda x: x[:, 0]) if layer.how == "first" else (lambda x: x.mean(1))))


def _residual(layer: spec.Residual, built: BuiltLayer) -> tuple[Forward, Forward]:
    paths = [chain(part) for part in built.inner]

    def sum_of(way: int) -> Forward:
        main, shortcut = (path[way] for path in paths)
        return lambda weights, x, draw: run(main, weights, x, draw) + run(shortcut, weights, x, draw)

    return sum_of(0), sum_of(1)


def run(functions: Sequence[Forward], weights: Weights, x: Tensor, draw: Draw) -> Tensor:
    """Call the functions of layers that follow each other."""
    for function in functions:
        x = function(weights, x, draw)
    return x


def chain(places: tuple[BuiltLayer, ...]) -> tuple[list[Forward], list[Forward]]:
    """Make the functions of layers that follow each other, in training and in evaluation mode."""
    functions: tuple[list[Forward], list[Forward]] = ([], [])
    for place, relu_last in relu_after_pool(places):
        for found, function in zip(functions, forward(place), strict=True):
            found.append(function)
            if relu_last:
                found.append(plain(F.relu))
    return functions


def _max_pool(layer: spec.MaxPool2D, built: BuiltLayer) -> tuple[Forward, Forward]:
    return _both(plain(max_pool(layer, built)))


def _global_average(layer: spec.GlobalAveragePool2D, built: BuiltLayer) -> tuple[Forward, Forward]:
    return _both(plain(lambda x: x.mean((2, 3))))


def _batch_norm(layer: spec.BatchNorm, built: BuiltLayer) -> tuple[Forward, Forward]:
    parts = [f"{built.name}/{part}" for part in ("moving_mean", "moving_variance", "gamma", "beta")]

    def function(weights: Weights, x: Tensor, training: bool) -> Tensor:
        mean, variance, gamma, beta = (weights[part] for part in parts)
        return F.batch_norm(x, mean, variance, gamma, beta, training, 1 - layer.momentum, layer.epsilon)

    return (
        lambda weights, x, draw: function(weights, x, True),
        lambda weights, x, draw: function(weights, x, False),
    )


def _dropout(layer: spec.Dropout, built: BuiltLayer) -> tuple[Forward, Forward]:
    if not layer.rate:
        return _both(plain(identity))
    return lambda weights, x, draw: x * draw(x, 1 - layer.rate), plain(identity)


def _flatten(layer: spec.Flatten, built: BuiltLayer) -> tuple[Forward, Forward]:
    return _both(plain(lambda x: x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x.flatten(1)))


def _activate(layer: spec.Activate, built: BuiltLayer) -> tuple[Forward, Forward]:
    return _both(plain(activation(layer.activation)))


LAYERS: Mapping[str, Builder] = MappingProxyType(
    {
        "dense": _dense,
        "conv2d": _conv,
        "max_pool2d": _max_pool,
        "global_average_pool2d": _global_average,
        "batch_norm": _batch_norm,
        "dropout": _dropout,
        "flatten": _flatten,
        "activation": _activate,
        "depthwise_conv2d": _conv,
        "average_pool2d": _average_pool,
        "subsample": _subsample,
        "group_norm": _group_norm,
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
        "residual": _residual,
    }
)
