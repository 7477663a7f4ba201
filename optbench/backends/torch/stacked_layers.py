"""Layers of several trials at once, for :mod:`optbench.backends.torch.stack`: a second table by kind.

Every weight has a leading axis, one entry a trial. Flat values are [trials, batch, features], images [batch,
trials * channels, height, width].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from optbench.backends.base import entry
from optbench.backends.torch import stacked_sequences
from optbench.backends.torch.layers import (
    Plain,
    activation,
    around_channels,
    identity,
    max_pool,
    padding,
)
from optbench.backends.torch.stacked_weights import StackedWeights, affine
from optbench.models import layers as spec
from optbench.models.layers import BuiltLayer

#: (layer, its place in the model, the weights) -> its function in the mode of the weights.
Builder = Callable[[Any, BuiltLayer, StackedWeights], Plain]


def forward(built: BuiltLayer, stacked: StackedWeights) -> Plain:
    """Make the function of a layer."""
    return entry(LAYERS, built.layer.kind, "torch stacked layers")(built.layer, built, stacked)


def _dense(layer: spec.Dense, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    activate = activation(layer.activation)
    return lambda x: activate(affine(x, built.name, stacked))


def _conv(layer: spec.Conv2D | spec.DepthwiseConv2D, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    kernel, bias = stacked.weights[f"{built.name}/kernel"], stacked.of(f"{built.name}/bias")
    activate = activation(layer.activation)
    depthwise = isinstance(layer, spec.DepthwiseConv2D)
    groups = stacked.trials * (built.output_shape[2] if depthwise else 1)
    left, right, top, bottom = pad = padding(built, layer.kernel, layer.stride, layer.padding)

    def function(x: Tensor) -> Tensor:
        around = (top, left)
        if left != right or top != bottom:
            x, around = F.pad(x, pad), (0, 0)
        weights = kernel.flatten(0, 1)
        shift = None if bias is None else bias.flatten()
        return activate(F.conv2d(x, weights, shift, layer.stride, around, groups=groups))

    return function


def _max_pool(layer: spec.MaxPool2D, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    return max_pool(layer, built)


def _global_average(layer: spec.GlobalAveragePool2D, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    return lambda x: stacked.by_trial(x.mean((2, 3), keepdim=True)).flatten(2)


def _batch_norm(layer: spec.BatchNorm, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    gamma, beta, mean, variance = (
        stacked.weights[f"{built.name}/{part}"]
        for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )

    def function(x: Tensor) -> Tensor:
        flat = len(built.input_shape) == 1
        z = x.transpose(0, 1).flatten(1) if flat else x
        z = F.batch_norm(
            z, mean.view(-1), variance.view(-1), gamma.view(-1), beta.view(-1),
            stacked.training, 1 - layer.momentum, layer.epsilon,
        )  # fmt: skip
        return z.view(x.shape[1], x.shape[0], -1).transpose(0, 1) if flat else z

    return function


def _dropout(layer: spec.Dropout, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    keep, generators, image = 1 - layer.rate, stacked.generators, len(built.input_shape) == 3

    def function(x: Tensor) -> Tensor:
        masks = []
        for generator in generators:
            if image:  # drawn in the memory order of a trial alone: channels last
                shape = (x.shape[0], *x.shape[2:], x.shape[1] // len(generators))
                mask = torch.empty(shape, dtype=x.dtype, device=x.device)
                masks.append(mask.bernoulli_(keep, generator=generator).permute(0, 3, 1, 2))
            else:
                mask = torch.empty(x.shape[1:], dtype=x.dtype, device=x.device)
                masks.append(mask.bernoulli_(keep, generator=generator))
        return x * (torch.cat(masks, 1) if image else torch.stack(masks)).div_(keep)

    return function if layer.rate and stacked.training else identity


def _flatten(layer: spec.Flatten, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    image = len(built.input_shape) == 3
    return lambda x: (stacked.by_trial(x) if image else x).flatten(2)


def _activate(layer: spec.Activate, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    return activation(layer.activation)


def _average_pool(layer: spec.AveragePool2D, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    return lambda x: F.avg_pool2d(x, layer.size, layer.stride or layer.size)


def _subsample(layer: spec.Subsample, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    before, after = around_channels(layer, built)

    def function(x: Tensor) -> Tensor:
        z = x[:, :, :: layer.stride, :: layer.stride].unflatten(1, (stacked.trials, -1))
        return F.pad(z, (0, 0, 0, 0, before, after)).flatten(1, 2)

    return function


def _group_norm(layer: spec.GroupNorm, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    gamma, beta = (stacked.weights[f"{built.name}/{part}"].flatten() for part in ("gamma", "beta"))
    groups = layer.groups * stacked.trials
    return lambda x: F.group_norm(x, groups, gamma, beta, layer.epsilon)


def _residual(layer: spec.Residual, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    main, shortcut = ([forward(place, stacked) for place in part] for part in built.inner)

    def run(functions: Sequence[Plain], x: Tensor) -> Tensor:
        for function in functions:
            x = function(x)
        return x

    return lambda x: run(main, x) + run(shortcut, x)


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
        **stacked_sequences.LAYERS,
        "depthwise_conv2d": _conv,
        "average_pool2d": _average_pool,
        "subsample": _subsample,
        "group_norm": _group_norm,
        "residual": _residual,
    }
)
