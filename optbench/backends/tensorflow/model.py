"""Layers as pure TensorFlow functions over a flat dictionary of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from optbench.backends.arrays import relu_after_pool
from optbench.models import layers as spec
from optbench.models.layers import BuiltLayer, same_padding

Tensor = Any
Weights = Mapping[str, Tensor]
#: (weights, x, seed, training) -> (output, new running averages by name).
Forward = Callable[[Weights, Tensor, Tensor, bool], tuple[Tensor, dict[str, Tensor]]]

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "relu": tf.nn.relu,
    "tanh": tf.tanh,
    "sigmoid": tf.sigmoid,
    "elu": tf.nn.elu,
    "gelu": lambda x: tf.nn.gelu(x, approximate=False),
}


class TensorFlowModel:
    """A built model as a pure function; images are NHWC, kernels HWIO.

    With ``xla`` it holds nothing that XLA cannot compile deterministically. With ``half`` the layers
    compute in bfloat16; the logits are in the precision of the weights.
    """

    def __init__(self, built: tuple[BuiltLayer, ...], *, xla: bool, half: bool = False) -> None:
        self._half = half
        self.trainable = [p.name for layer in built for p in layer.parameters if p.trainable]
        self.penalties = [
            (f"{layer.name}/kernel", layer.layer.l1, layer.layer.l2)
            for layer in built
            if isinstance(layer.layer, spec.Dense | spec.Conv2D) and (layer.layer.l1 or layer.layer.l2)
        ]
        self._layers = []
        for layer, relu_last in relu_after_pool(built):
            function = _forward(layer, xla=xla)
            self._layers.append(_then_relu(function) if relu_last else function)

    def __call__(
        self, weights: Weights, x: Tensor, *, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits of a batch [n, *shape], and the running averages that training moved."""
        moved: dict[str, Tensor] = {}
        stored = x.dtype
        if self._half:
            x = tf.cast(x, tf.bfloat16)
        for place, function in enumerate(self._layers):
            x, new = function(weights, x, seed + tf.constant([place, 0]), training)
            moved |= new
        return tf.cast(x, stored), moved

    def penalty(self, weights: Weights) -> Tensor | float:
        """Sum of the declared L1 and L2 penalties, l1 * sum|w| + l2 * sum w^2 as in Keras."""
        total: Tensor | float = 0.0
        for name, l1, l2 in self.penalties:
            w = weights[name]
            if l1:
                total = total + l1 * tf.reduce_sum(tf.abs(w))
            if l2:
                total = total + l2 * tf.reduce_sum(tf.square(w))
        return total


def _forward(built: BuiltLayer, *, xla: bool) -> Forward:
    layer = built.layer
    if isinstance(layer, spec.Dense | spec.Conv2D):
        return _linear(built, layer)
    if isinstance(layer, spec.BatchNorm):
        return _batch_norm(built.name, layer)
    if isinstance(layer, spec.Dropout):
        return _dropout(layer)
    plain: Callable[[Tensor], Tensor]
    if isinstance(layer, spec.MaxPool2D):
        plain = _max_pool(built, layer, xla=xla)
    elif isinstance(layer, spec.GlobalAveragePool2D):
        plain = lambda x: tf.reduce_mean(x, (1, 2))  # noqa: E731
    elif isinstance(layer, spec.Flatten):
        plain = lambda x: tf.reshape(x, (x.shape[0], -1))  # noqa: E731
    else:
        plain = ACTIVATIONS[layer.activation]
    return lambda weights, x, seed, training: (plain(x), {})


def _then_relu(function: Forward) -> Forward:
    def both(weights: Weights, x: Tensor, seed: Tensor, training: bool) -> tuple[Tensor, dict[str, Tensor]]:
        x, moved = function(weights, x, seed, training)
        return tf.nn.relu(x), moved

    return both


def _linear(built: BuiltLayer, layer: spec.Dense | spec.Conv2D) -> Forward:
    activation = ACTIVATIONS[layer.activation]

    def function(
        weights: Weights, x: Tensor, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        kernel, bias = (tf.cast(weights[f"{built.name}/{part}"], x.dtype) for part in ("kernel", "bias"))
        if isinstance(layer, spec.Dense):
            return activation(tf.nn.bias_add(tf.matmul(x, kernel), bias)), {}
        x = _padded(x, built, layer.kernel, layer.stride, layer.padding)
        return activation(tf.nn.bias_add(tf.nn.conv2d(x, kernel, layer.stride, "VALID"), bias)), {}

    return function


def _batch_norm(name: str, layer: spec.BatchNorm) -> Forward:
    names = [f"{name}/{part}" for part in ("gamma", "beta", "moving_mean", "moving_variance")]

    def function(
        weights: Weights, x: Tensor, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        gamma, beta, mean, variance = (weights[part] for part in names)
        moved, dtype = {}, x.dtype
        x = tf.cast(x, gamma.dtype)
        if training:
            n = x.shape.num_elements() // x.shape[-1]
            batch_mean, batch_variance = tf.nn.moments(x, list(range(len(x.shape) - 1)))
            unbiased = batch_variance * (n / max(n - 1, 1))
            moved = {
                names[2]: layer.momentum * mean + (1 - layer.momentum) * batch_mean,
                names[3]: layer.momentum * variance + (1 - layer.momentum) * unbiased,
            }
            mean, variance = batch_mean, batch_variance
        x = (x - mean) * (tf.math.rsqrt(variance + layer.epsilon) * gamma) + beta
        return tf.cast(x, dtype), moved

    return function


def _dropout(layer: spec.Dropout) -> Forward:
    keep = 1 - layer.rate

    def function(
        weights: Weights, x: Tensor, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if not (training and layer.rate):
            return x, {}
        # Whole random words, so that a mask is the same in every precision.
        words = tf.random.stateless_uniform(x.shape, seed, None, None, tf.uint32, alg="philox")
        kept = words < tf.constant(round(keep * 2**32), tf.uint32)
        return tf.where(kept, x * (1 / keep), tf.zeros_like(x)), {}

    return function


def _max_pool(built: BuiltLayer, layer: spec.MaxPool2D, *, xla: bool) -> Callable[[Tensor], Tensor]:
    size, stride = layer.size, layer.stride or layer.size
    height, width, channels = built.output_shape

    def function(x: Tensor) -> Tensor:
        x = _padded(x, built, size, stride, layer.padding, value=float("-inf"))
        if not xla:
            return tf.nn.max_pool2d(x, size, stride, "VALID")
        if stride == size:
            x = tf.reshape(
                x[:, : height * size, : width * size], (x.shape[0], height, size, width, size, channels)
            )
            x = tf.transpose(x, (0, 1, 3, 2, 4, 5))
            return first_max(tf.reshape(x, (x.shape[0], height, width, size**2, channels)))
        places = [(i, j) for i in range(size) for j in range(size)]
        rows, columns = (height - 1) * stride + 1, (width - 1) * stride + 1
        windows = [x[:, i : i + rows : stride, j : j + columns : stride] for i, j in places]
        return first_max(tf.stack(windows, axis=3))

    return function


@tf.custom_gradient  # type: ignore[untyped-decorator]
def first_max(windows: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Maximum over the last but one axis; the gradient goes to the first of equals, as in PyTorch.

    The gradient of TensorFlow's own pooling has no deterministic form under XLA.
    """

    def gradient(g: Tensor) -> Tensor:
        first = tf.argmax(windows, -2, output_type=tf.int32)[..., tf.newaxis, :]
        places = tf.reshape(tf.range(windows.shape[-2]), (-1, 1))
        g = g[..., tf.newaxis, :]
        return tf.where(first == places, g, tf.zeros_like(g))

    return tf.reduce_max(windows, -2), gradient


def _padded(
    x: Tensor, built: BuiltLayer, window: int, stride: int, padding: str, *, value: float = 0.0
) -> Tensor:
    if padding == "valid":
        return x
    around = [same_padding(size, window, stride) for size in built.input_shape[:2]]
    if not any(map(any, around)):
        return x
    return tf.pad(x, [(0, 0), *around, (0, 0)], constant_values=tf.constant(value, x.dtype))
