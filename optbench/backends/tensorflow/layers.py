"""Layers as pure TensorFlow functions over a dictionary of weights: one table by kind, one of activations.

Images are NHWC, kernels HWIO.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import tensorflow as tf

from optbench.backends.base import entry
from optbench.models import layers as spec
from optbench.models.layers import BuiltLayer, same_padding

Tensor = Any
Weights = Mapping[str, Tensor]
Plain = Callable[[Tensor], Tensor]
#: (weights, x, seed, training) -> (output, new running averages by name).
Forward = Callable[[Weights, Tensor, Tensor, bool], tuple[Tensor, dict[str, Tensor]]]
#: (layer, its place in the model, whether XLA compiles it) -> its function.
Builder = Callable[[Any, BuiltLayer, bool], Forward]


def _gelu(x: Tensor) -> Tensor:
    """GELU by ``tf.nn.gelu``'s formula, which rounds this constant to float32 in every precision."""
    return 0.5 * x * tf.math.erfc(-x * tf.constant(math.sqrt(0.5), x.dtype))


ACTIVATIONS: Mapping[str, Plain] = MappingProxyType(
    {
        "linear": lambda x: x,
        "relu": tf.nn.relu,
        "tanh": tf.tanh,
        "sigmoid": tf.sigmoid,
        "elu": tf.nn.elu,
        "gelu": _gelu,
    }
)


def activation(name: str) -> Plain:
    """Look up an activation; ``NotImplementedError`` where TensorFlow's table lacks it."""
    return entry(ACTIVATIONS, name, "tensorflow activations")


def forward(built: BuiltLayer, *, xla: bool) -> Forward:
    """Make the function of a layer."""
    return entry(LAYERS, built.layer.kind, "tensorflow layers")(built.layer, built, xla)


def _plain(function: Plain) -> Forward:
    """Take a function of the input alone as a layer's."""
    return lambda weights, x, seed, training: (function(x), {})


def _dense(layer: spec.Dense, built: BuiltLayer, xla: bool) -> Forward:
    activate = activation(layer.activation)

    def function(
        weights: Weights, x: Tensor, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        kernel, bias = (tf.cast(weights[f"{built.name}/{part}"], x.dtype) for part in ("kernel", "bias"))
        return activate(tf.nn.bias_add(tf.matmul(x, kernel), bias)), {}

    return function


def _conv(layer: spec.Conv2D, built: BuiltLayer, xla: bool) -> Forward:
    activate = activation(layer.activation)

    def function(
        weights: Weights, x: Tensor, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        kernel, bias = (tf.cast(weights[f"{built.name}/{part}"], x.dtype) for part in ("kernel", "bias"))
        x = _padded(x, built, layer.kernel, layer.stride, layer.padding)
        return activate(tf.nn.bias_add(tf.nn.conv2d(x, kernel, layer.stride, "VALID"), bias)), {}

    return function


def _batch_norm(layer: spec.BatchNorm, built: BuiltLayer, xla: bool) -> Forward:
    names = [f"{built.name}/{part}" for part in ("gamma", "beta", "moving_mean", "moving_variance")]

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


def _dropout(layer: spec.Dropout, built: BuiltLayer, xla: bool) -> Forward:
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


def _max_pool(layer: spec.MaxPool2D, built: BuiltLayer, xla: bool) -> Forward:
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

    return _plain(function)


def _global_average(layer: spec.GlobalAveragePool2D, built: BuiltLayer, xla: bool) -> Forward:
    return _plain(lambda x: tf.reduce_mean(x, (1, 2)))


def _flatten(layer: spec.Flatten, built: BuiltLayer, xla: bool) -> Forward:
    return _plain(lambda x: tf.reshape(x, (x.shape[0], -1)))


def _activate(layer: spec.Activate, built: BuiltLayer, xla: bool) -> Forward:
    return _plain(activation(layer.activation))


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
