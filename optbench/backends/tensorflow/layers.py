"""Layers as pure TensorFlow functions over a dictionary of weights: one table by kind, one of activations.

Images are NHWC, kernels HWIO.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import tensorflow as tf

from optbench.backends.arrays import relu_after_pool
from optbench.backends.base import entry
from optbench.backends.tensorflow import sequences
from optbench.backends.tensorflow.functions import (
    ACTIVATIONS,
    Builder,
    Compute,
    Forward,
    Tensor,
    Weights,
    activation,
    plain,
)
from optbench.backends.tensorflow.sequences import affine, shifted
from optbench.models import layers as spec
from optbench.models.layers import BuiltLayer, same_padding

__all__ = [
    "ACTIVATIONS",
    "LAYERS",
    "Compute",
    "Forward",
    "Tensor",
    "Weights",
    "activation",
    "chain",
    "forward",
]


def forward(built: BuiltLayer, compute: Compute) -> Forward:
    """Make the function of a layer."""
    return entry(LAYERS, built.layer.kind, "tensorflow layers")(built.layer, built, compute)


def _dense(layer: spec.Dense, built: BuiltLayer, compute: Compute) -> Forward:
    activate = activation(layer.activation)

    def function(
        weights: Weights, x: Tensor, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return activate(affine(x, built.name, weights)), {}

    return function


def _conv(layer: spec.Conv2D, built: BuiltLayer, compute: Compute) -> Forward:
    activate = activation(layer.activation)

    def function(
        weights: Weights, x: Tensor, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        kernel = tf.cast(weights[f"{built.name}/kernel"], x.dtype)
        x = _padded(x, built, layer.kernel, layer.stride, layer.padding)
        product = tf.nn.conv2d(x, kernel, layer.stride, "VALID")
        return activate(shifted(product, built.name, weights)), {}

    return function


def _depthwise(layer: spec.DepthwiseConv2D, built: BuiltLayer, compute: Compute) -> Forward:
    """Each place of the kernel times the image moved there: sums, whose gradients are sums too."""
    activate = activation(layer.activation)
    height, width, _ = built.output_shape
    rows, columns = (height - 1) * layer.stride + 1, (width - 1) * layer.stride + 1

    def function(
        weights: Weights, x: Tensor, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        kernel = tf.cast(weights[f"{built.name}/kernel"], x.dtype)
        x = _padded(x, built, layer.kernel, layer.stride, layer.padding)
        product = tf.add_n(
            [
                x[:, i : i + rows : layer.stride, j : j + columns : layer.stride] * kernel[i, j, 0]
                for i in range(layer.kernel)
                for j in range(layer.kernel)
            ]
        )
        return activate(shifted(product, built.name, weights)), {}

    return function


def _average_pool(layer: spec.AveragePool2D, built: BuiltLayer, compute: Compute) -> Forward:
    size, stride = layer.size, layer.stride or layer.size
    height, width, _ = built.output_shape
    rows, columns = (height - 1) * stride + 1, (width - 1) * stride + 1
    places = [(i, j) for i in range(size) for j in range(size)]

    def function(x: Tensor) -> Tensor:
        return tf.add_n([x[:, i : i + rows : stride, j : j + columns : stride] for i, j in places]) / size**2

    return plain(function)


def _subsample(layer: spec.Subsample, built: BuiltLayer, compute: Compute) -> Forward:
    new = layer.filters - built.input_shape[2]
    around = [(0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)]
    return plain(lambda x: tf.pad(x[:, :: layer.stride, :: layer.stride], around))


def _residual(layer: spec.Residual, built: BuiltLayer, compute: Compute) -> Forward:
    main, shortcut = (chain(part, compute, inner=True) for part in built.inner)

    def function(
        weights: Weights, x: Tensor, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        out, moved = main(weights, x, seed, training)
        other, more = shortcut(weights, x, seed, training)
        return out + other, {**moved, **more}

    return function


#: Seeds of layers inside others start here, beyond those of any model's outermost layers.
_INNER = 10**6


def chain(places: tuple[BuiltLayer, ...], compute: Compute, *, inner: bool = False) -> Forward:
    """Make the function of layers that follow each other; each has a seed of its own."""
    functions = [
        (forward(place, compute), relu_last, _INNER + place.number if inner else number)
        for number, (place, relu_last) in enumerate(relu_after_pool(places))
    ]

    def function(
        weights: Weights, x: Tensor, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        moved: dict[str, Tensor] = {}
        for layer, relu_last, number in functions:
            x, new = layer(weights, x, seed + tf.constant([number, 0]), training)
            x = tf.nn.relu(x) if relu_last else x
            moved |= new
        return x, moved

    return function


def _batch_norm(layer: spec.BatchNorm, built: BuiltLayer, compute: Compute) -> Forward:
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


def _dropout(layer: spec.Dropout, built: BuiltLayer, compute: Compute) -> Forward:
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


def _max_pool(layer: spec.MaxPool2D, built: BuiltLayer, compute: Compute) -> Forward:
    size, stride = layer.size, layer.stride or layer.size
    height, width, channels = built.output_shape

    def function(x: Tensor) -> Tensor:
        x = _padded(x, built, size, stride, layer.padding, value=float("-inf"))
        if not compute.xla:
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

    return plain(function)


def _global_average(layer: spec.GlobalAveragePool2D, built: BuiltLayer, compute: Compute) -> Forward:
    return plain(lambda x: tf.reduce_mean(x, (1, 2)))


def _flatten(layer: spec.Flatten, built: BuiltLayer, compute: Compute) -> Forward:
    return plain(lambda x: tf.reshape(x, (x.shape[0], -1)))


def _activate(layer: spec.Activate, built: BuiltLayer, compute: Compute) -> Forward:
    return plain(activation(layer.activation))


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
        "depthwise_conv2d": _depthwise,
        "average_pool2d": _average_pool,
        "subsample": _subsample,
        "group_norm": sequences.group_norm,
        "layer_norm": sequences.layer_norm,
        "rms_norm": sequences.rms_norm,
        "embedding": sequences.embedding,
        "positions": sequences.positions,
        "attention": sequences.attention,
        "gated_dense": sequences.gated_dense,
        "unembedding": sequences.unembedding,
        "to_sequence": sequences.to_sequence,
        "class_token": sequences.class_token,
        "pool_sequence": sequences.pool_sequence,
        "residual": _residual,
    }
)
