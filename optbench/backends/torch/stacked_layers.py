"""Layers of several trials at once, for :mod:`optbench.backends.torch.stack`: a second table by kind.

Every weight has a leading axis, one entry a trial. Flat values are [trials, batch, features], images [batch,
trials * channels, height, width].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from optbench.backends.base import entry
from optbench.backends.torch.layers import Plain, activation, identity, max_pool, padding
from optbench.models import layers as spec
from optbench.models.layers import BuiltLayer


@dataclass(frozen=True, kw_only=True)
class StackedWeights:
    """Weights of all trials by name, the generator of each trial's dropout masks, and the mode."""

    weights: Mapping[str, Tensor]
    generators: Sequence[torch.Generator]
    training: bool = True

    @property
    def trials(self) -> int:
        """Number of trials."""
        return len(self.generators)

    def by_trial(self, x: Tensor) -> Tensor:
        """From [batch, trials * channels, h, w] to [trials, batch, h, w, channels]."""
        batch, _, height, width = x.shape
        return x.view(batch, self.trials, -1, height, width).permute(1, 0, 3, 4, 2)


#: (layer, its place in the model, the weights) -> its function in the mode of the weights.
Builder = Callable[[Any, BuiltLayer, StackedWeights], Plain]


def forward(built: BuiltLayer, stacked: StackedWeights) -> Plain:
    """Make the function of a layer."""
    return entry(LAYERS, built.layer.kind, "torch stacked layers")(built.layer, built, stacked)


def _kernel_and_bias(built: BuiltLayer, stacked: StackedWeights) -> tuple[Tensor, Tensor]:
    return stacked.weights[f"{built.name}/kernel"], stacked.weights[f"{built.name}/bias"]


def _dense(layer: spec.Dense, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    kernel, bias = _kernel_and_bias(built, stacked)
    activate = activation(layer.activation)
    return lambda x: activate(torch.baddbmm(bias.unsqueeze(1), x, kernel))


def _conv(layer: spec.Conv2D, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    kernel, bias = _kernel_and_bias(built, stacked)
    activate = activation(layer.activation)
    left, right, top, bottom = pad = padding(built, layer.kernel, layer.stride, layer.padding)

    def function(x: Tensor) -> Tensor:
        around = (top, left)
        if left != right or top != bottom:
            x, around = F.pad(x, pad), (0, 0)
        weights = kernel.flatten(0, 1)
        return activate(F.conv2d(x, weights, bias.flatten(), layer.stride, around, groups=stacked.trials))

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
        flat = x.ndim == 3
        z = x.transpose(0, 1).flatten(1) if flat else x
        z = F.batch_norm(
            z, mean.view(-1), variance.view(-1), gamma.view(-1), beta.view(-1),
            stacked.training, 1 - layer.momentum, layer.epsilon,
        )  # fmt: skip
        return z.view(x.shape[1], x.shape[0], -1).transpose(0, 1) if flat else z

    return function


def _dropout(layer: spec.Dropout, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    keep, generators = 1 - layer.rate, stacked.generators

    def function(x: Tensor) -> Tensor:
        masks = []
        for generator in generators:
            if x.ndim == 4:  # drawn in the memory order of a trial alone: channels last
                shape = (x.shape[0], *x.shape[2:], x.shape[1] // len(generators))
                mask = torch.empty(shape, dtype=x.dtype, device=x.device)
                masks.append(mask.bernoulli_(keep, generator=generator).permute(0, 3, 1, 2))
            else:
                mask = torch.empty(x.shape[1:], dtype=x.dtype, device=x.device)
                masks.append(mask.bernoulli_(keep, generator=generator))
        return x * (torch.cat(masks, 1) if x.ndim == 4 else torch.stack(masks)).div_(keep)

    return function if layer.rate and stacked.training else identity


def _flatten(layer: spec.Flatten, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    return lambda x: (stacked.by_trial(x) if x.ndim == 4 else x).flatten(2)


def _activate(layer: spec.Activate, built: BuiltLayer, stacked: StackedWeights) -> Plain:
    return activation(layer.activation)


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
