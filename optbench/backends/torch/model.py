"""Layers as PyTorch functions over a flat dictionary of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from optbench.backends.arrays import relu_after_pool
from optbench.models import layers as spec
from optbench.models.layers import BuiltLayer, same_padding

Tensor = torch.Tensor
Weights = Mapping[str, Tensor]
#: Draws a dropout mask for a tensor: 1 / keep with probability keep, else 0.
Draw = Callable[[Tensor, float], Tensor]
Forward = Callable[[Weights, Tensor, Draw], Tensor]
Plain = Callable[[Tensor], Tensor]

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "elu": F.elu,
    "gelu": F.gelu,
}


def to_torch(array: NDArray[Any]) -> NDArray[Any]:
    """Bring a canonical weight into PyTorch's layout: HWIO kernels become OIHW."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array


def from_torch(tensor: Tensor) -> NDArray[Any]:
    """Copy a weight out in the canonical layout."""
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return np.array(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array, order="C")


@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """Label smoothing, and the device on which autocast chooses bfloat16; None without autocast."""

    smoothing: float = 0.0
    half: str | None = None


class Network:
    """A built model without its weights: functions over a dictionary of them by canonical name.

    Images travel as NCHW in channels-last memory.
    """

    def __init__(self, built: tuple[BuiltLayer, ...]) -> None:
        self.penalties = [
            (f"{place.name}/kernel", place.layer.l1, place.layer.l2)
            for place in built
            if isinstance(place.layer, spec.Dense | spec.Conv2D) and (place.layer.l1 or place.layer.l2)
        ]
        self._training: list[Forward] = []
        self._evaluation: list[Forward] = []
        for place, relu_last in relu_after_pool(built):
            training, evaluation = _forward(place)
            self._training.append(training)
            self._evaluation.append(evaluation)
            if relu_last:
                self._training.append(_plain(F.relu))
                self._evaluation.append(_plain(F.relu))

    def __call__(self, weights: Weights, x: Tensor, *, training: bool, draw: Draw) -> Tensor:
        """Logits of a batch [n, *shape]."""
        if x.ndim == 4:
            x = x.permute(0, 3, 1, 2)
        for function in self._training if training else self._evaluation:
            x = function(weights, x, draw)
        return x

    def logits(
        self, weights: Weights, x: Tensor, *, training: bool, draw: Draw, options: LossOptions
    ) -> Tensor:
        """Logits in the precision of the weights; bfloat16 is autocast's choice of operations."""
        if options.half is None:
            return self(weights, x, training=training, draw=draw)
        # Each weight is used once, so keeping its cast is no gain, and a captured graph must not.
        with torch.autocast(options.half, torch.bfloat16, cache_enabled=False):
            return self(weights, x, training=training, draw=draw).to(x.dtype)

    def loss(self, weights: Weights, x: Tensor, y: Tensor, *, draw: Draw, options: LossOptions) -> Tensor:
        """Mean cross-entropy of a batch in training mode, with penalties."""
        logits = self.logits(weights, x, training=True, draw=draw, options=options)
        loss = F.cross_entropy(logits, y, label_smoothing=options.smoothing)
        penalty = self.penalty(weights)
        return loss if penalty is None else loss + penalty

    def penalty(self, weights: Weights) -> Tensor | None:
        """Sum of the declared L1 and L2 penalties, l1 * sum|w| + l2 * sum w^2 as in Keras."""
        total: Tensor | None = None
        for name, l1, l2 in self.penalties:
            w = weights[name]
            terms = ([l1 * w.abs().sum()] if l1 else []) + ([l2 * w.square().sum()] if l2 else [])
            for term in terms:
                total = term if total is None else total + term
        return total


class TorchModel:
    """A network with its weights on a device, and the generator of its dropout masks.

    The generator is the model's own, so that masks depend on the seed alone.
    """

    def __init__(
        self,
        built: tuple[BuiltLayer, ...],
        weights: Mapping[str, NDArray[Any]],
        *,
        device: torch.device,
        dropout_seed: int,
    ) -> None:
        self.network = Network(built)
        self.generator = torch.Generator(device=device).manual_seed(dropout_seed)
        self.weights: dict[str, Tensor] = {}
        self.trainable: list[str] = []
        for place in built:
            for parameter in place.parameters:
                tensor = torch.from_numpy(to_torch(weights[parameter.name]).copy()).to(device)
                if tensor.ndim == 4:  # gradients come so, and would be copied into any other layout
                    tensor = tensor.contiguous(memory_format=torch.channels_last)
                self.weights[parameter.name] = tensor.requires_grad_(parameter.trainable)
                if parameter.trainable:
                    self.trainable.append(parameter.name)
        self._masks = [
            (place.output_shape, 1 - place.layer.rate)
            for place in built
            if isinstance(place.layer, spec.Dropout) and place.layer.rate
        ]

    def parameters(self) -> list[Tensor]:
        """Trainable weights in the layers' order."""
        return [self.weights[name] for name in self.trainable]

    def draw(self, x: Tensor, keep: float) -> Tensor:
        """Draw the next dropout mask, for a tensor like this one."""
        return torch.empty_like(x).bernoulli_(keep, generator=self.generator).div_(keep)

    def masks(self, n: int, dtype: torch.dtype) -> list[Tensor]:
        """Draw all masks of a step on n examples before it, the same as :meth:`draw` would in its course."""
        drawn = []
        for shape, keep in self._masks:
            mask = torch.empty((n, *shape), dtype=dtype, device=self.generator.device)
            mask = mask.bernoulli_(keep, generator=self.generator).div_(keep)
            drawn.append(mask.permute(0, 3, 1, 2) if len(shape) == 3 else mask)
        return drawn


def _plain(function: Plain) -> Forward:
    return lambda weights, x, draw: function(x)


def _forward(built: BuiltLayer) -> tuple[Forward, Forward]:
    """Forward functions of a layer in training and in evaluation mode."""
    layer = built.layer
    if isinstance(layer, spec.Dropout):
        return _dropout(layer), _plain(_identity)
    if isinstance(layer, spec.BatchNorm):
        return _batch_norm(built.name, layer)
    if isinstance(layer, spec.Dense):
        function = _dense(built.name, layer)
    elif isinstance(layer, spec.Conv2D):
        function = _conv(built, layer)
    elif isinstance(layer, spec.MaxPool2D):
        function = _plain(_max_pool(built, layer))
    elif isinstance(layer, spec.GlobalAveragePool2D):
        function = _plain(_global_average)
    elif isinstance(layer, spec.Flatten):
        function = _plain(_flatten)
    else:
        function = _plain(ACTIVATIONS.get(layer.activation, _identity))
    return function, function


def _dense(name: str, layer: spec.Dense) -> Forward:
    kernel, bias = f"{name}/kernel", f"{name}/bias"
    activation = ACTIVATIONS.get(layer.activation)
    if activation is None:
        return lambda weights, x, draw: torch.addmm(weights[bias], x, weights[kernel])
    return lambda weights, x, draw: activation(torch.addmm(weights[bias], x, weights[kernel]))


def _conv(built: BuiltLayer, layer: spec.Conv2D) -> Forward:
    activation = ACTIVATIONS.get(layer.activation, _identity)
    pad = _padding(built, layer.kernel, layer.stride, layer.padding)
    symmetric = pad[0] == pad[1] and pad[2] == pad[3]

    def function(weights: Weights, x: Tensor, draw: Draw) -> Tensor:
        kernel, bias = weights[f"{built.name}/kernel"], weights[f"{built.name}/bias"]
        if symmetric:
            return activation(F.conv2d(x, kernel, bias, stride=layer.stride, padding=(pad[2], pad[0])))
        return activation(F.conv2d(F.pad(x, pad), kernel, bias, stride=layer.stride))

    return function


def _dropout(layer: spec.Dropout) -> Forward:
    if not layer.rate:
        return _plain(_identity)
    return lambda weights, x, draw: x * draw(x, 1 - layer.rate)


def _batch_norm(name: str, layer: spec.BatchNorm) -> tuple[Forward, Forward]:
    parts = [f"{name}/{part}" for part in ("moving_mean", "moving_variance", "gamma", "beta")]

    def function(weights: Weights, x: Tensor, training: bool) -> Tensor:
        mean, variance, gamma, beta = (weights[part] for part in parts)
        return F.batch_norm(x, mean, variance, gamma, beta, training, 1 - layer.momentum, layer.epsilon)

    return (
        lambda weights, x, draw: function(weights, x, True),
        lambda weights, x, draw: function(weights, x, False),
    )


def _identity(x: Tensor) -> Tensor:
    return x


def _flatten(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x.flatten(1)


def _global_average(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def _max_pool(built: BuiltLayer, layer: spec.MaxPool2D) -> Plain:
    stride = layer.stride or layer.size
    pad = _padding(built, layer.size, stride, layer.padding)
    if not any(pad):
        return lambda x: F.max_pool2d(x, layer.size, stride)
    return lambda x: F.max_pool2d(F.pad(x, pad, value=float("-inf")), layer.size, stride)


def _padding(built: BuiltLayer, window: int, stride: int, padding: str) -> tuple[int, int, int, int]:
    """Left, right, top and bottom padding, in the order of ``F.pad``."""
    if padding == "valid":
        return 0, 0, 0, 0
    height, width = built.input_shape[:2]
    return (*same_padding(width, window, stride), *same_padding(height, window, stride))
