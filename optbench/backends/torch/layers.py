"""Layers as PyTorch functions over a dictionary of weights: one table by kind, one of activations.

Images travel as NCHW in channels-last memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F

from optbench.backends.base import entry
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
    if activate is identity:
        return _both(lambda weights, x, draw: torch.addmm(weights[bias], x, weights[kernel]))
    return _both(lambda weights, x, draw: activate(torch.addmm(weights[bias], x, weights[kernel])))


def _conv(layer: spec.Conv2D, built: BuiltLayer) -> tuple[Forward, Forward]:
    activate = activation(layer.activation)
    pad = padding(built, layer.kernel, layer.stride, layer.padding)
    symmetric = pad[0] == pad[1] and pad[2] == pad[3]

    def function(weights: Weights, x: Tensor, draw: Draw) -> Tensor:
        kernel, bias = weights[f"{built.name}/kernel"], weights[f"{built.name}/bias"]
        if symmetric:
            return activate(F.conv2d(x, kernel, bias, stride=layer.stride, padding=(pad[2], pad[0])))
        return activate(F.conv2d(F.pad(x, pad), kernel, bias, stride=layer.stride))

    return _both(function)


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
    }
)
