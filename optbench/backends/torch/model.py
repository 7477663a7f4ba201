"""Layers as PyTorch functions over a flat dictionary of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from optbench.backends.arrays import relu_after_pool
from optbench.models import layers as spec
from optbench.models.layers import BuiltLayer, same_padding

Tensor = torch.Tensor
Forward = Callable[[Tensor], Tensor]

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "elu": F.elu,
    "gelu": F.gelu,
}


def to_torch(array: NDArray[Any]) -> NDArray[Any]:
    """Bring a canonical weight into PyTorch's layout (HWIO kernels become OIHW, channels last in memory)."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array


def from_torch(tensor: Tensor) -> NDArray[Any]:
    """Copy a weight out in the canonical layout."""
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return np.array(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array, order="C")


class TorchModel:
    """A built model on a device: its weights by canonical name, and its forward pass.

    Images travel as NCHW in channels-last memory. Dropout masks come from a generator of the model's own, so
    that they depend on the seed alone.
    """

    def __init__(
        self,
        built: tuple[BuiltLayer, ...],
        weights: Mapping[str, NDArray[Any]],
        *,
        device: torch.device,
        dropout_seed: int,
    ) -> None:
        self.generator = torch.Generator(device=device).manual_seed(dropout_seed)
        self.weights: dict[str, Tensor] = {}
        self.trainable: list[str] = []
        self.penalties: list[tuple[Tensor, float, float]] = []
        self._training: list[Forward] = []
        self._evaluation: list[Forward] = []
        for layer, relu_last in relu_after_pool(built):
            for parameter in layer.parameters:
                tensor = torch.from_numpy(to_torch(weights[parameter.name]).copy(order="K")).to(device)
                self.weights[parameter.name] = tensor.requires_grad_(parameter.trainable)
                if parameter.trainable:
                    self.trainable.append(parameter.name)
            training, evaluation = self._forward(layer)
            self._training.append(training)
            self._evaluation.append(evaluation)
            if relu_last:
                self._training.append(F.relu)
                self._evaluation.append(F.relu)

    def parameters(self) -> list[Tensor]:
        """Trainable weights in the layers' order."""
        return [self.weights[name] for name in self.trainable]

    def __call__(self, x: Tensor, *, training: bool) -> Tensor:
        """Logits of a batch [n, *shape]."""
        if x.ndim == 4:
            x = x.permute(0, 3, 1, 2)
        for function in self._training if training else self._evaluation:
            x = function(x)
        return x

    def penalty(self) -> Tensor | None:
        """Sum of the declared L1 and L2 penalties, l1 * sum|w| + l2 * sum w^2 as in Keras."""
        total: Tensor | None = None
        for w, l1, l2 in self.penalties:
            terms = ([l1 * w.abs().sum()] if l1 else []) + ([l2 * w.square().sum()] if l2 else [])
            for term in terms:
                total = term if total is None else total + term
        return total

    def _forward(self, built: BuiltLayer) -> tuple[Forward, Forward]:
        """Forward functions of a layer in training and in evaluation mode."""
        layer = built.layer
        function: Forward
        if isinstance(layer, spec.Dense):
            function = self._dense(built.name, layer)
        elif isinstance(layer, spec.Conv2D):
            function = self._conv(built, layer)
        elif isinstance(layer, spec.MaxPool2D):
            function = _max_pool(built, layer)
        elif isinstance(layer, spec.GlobalAveragePool2D):
            function = _global_average
        elif isinstance(layer, spec.Flatten):
            function = _flatten
        elif isinstance(layer, spec.Activate):
            function = ACTIVATIONS.get(layer.activation, _identity)
        elif isinstance(layer, spec.Dropout):
            return self._dropout(layer), _identity
        else:
            return self._batch_norm(built.name, layer)
        return function, function

    def _dense(self, name: str, layer: spec.Dense) -> Forward:
        kernel, bias = self._kernel_and_bias(name, layer)
        activation = ACTIVATIONS.get(layer.activation)
        if activation is None:
            return lambda x: torch.addmm(bias, x, kernel)
        return lambda x: activation(torch.addmm(bias, x, kernel))

    def _conv(self, built: BuiltLayer, layer: spec.Conv2D) -> Forward:
        kernel, bias = self._kernel_and_bias(built.name, layer)
        activation = ACTIVATIONS.get(layer.activation, _identity)
        pad = _padding(built, layer.kernel, layer.stride, layer.padding)
        symmetric = pad[0] == pad[1] and pad[2] == pad[3]

        def function(x: Tensor) -> Tensor:
            if symmetric:
                return activation(F.conv2d(x, kernel, bias, stride=layer.stride, padding=(pad[2], pad[0])))
            return activation(F.conv2d(F.pad(x, pad), kernel, bias, stride=layer.stride))

        return function

    def _kernel_and_bias(self, name: str, layer: spec.Dense | spec.Conv2D) -> tuple[Tensor, Tensor]:
        kernel = self.weights[f"{name}/kernel"]
        if layer.l1 or layer.l2:
            self.penalties.append((kernel, layer.l1, layer.l2))
        return kernel, self.weights[f"{name}/bias"]

    def _dropout(self, layer: spec.Dropout) -> Forward:
        keep = 1 - layer.rate

        def function(x: Tensor) -> Tensor:
            mask = torch.empty_like(x).bernoulli_(keep, generator=self.generator)
            return x * mask.div_(keep)

        return function if layer.rate else _identity

    def _batch_norm(self, name: str, layer: spec.BatchNorm) -> tuple[Forward, Forward]:
        gamma, beta, mean, variance = (
            self.weights[f"{name}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )

        def function(x: Tensor, training: bool) -> Tensor:
            return F.batch_norm(x, mean, variance, gamma, beta, training, 1 - layer.momentum, layer.epsilon)

        return lambda x: function(x, True), lambda x: function(x, False)


def _identity(x: Tensor) -> Tensor:
    return x


def _flatten(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x.flatten(1)


def _global_average(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def _max_pool(built: BuiltLayer, layer: spec.MaxPool2D) -> Forward:
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
