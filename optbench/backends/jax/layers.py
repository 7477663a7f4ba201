"""Layers as pure JAX functions over a dictionary of weights: one table by kind, one of activations.

Images are NHWC, kernels HWIO.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jax import lax

from optbench.backends.arrays import relu_after_pool
from optbench.backends.base import entry
from optbench.backends.jax import convolution, sequences
from optbench.backends.jax.functions import (
    ACTIVATIONS,
    Array,
    Builder,
    Compute,
    Forward,
    Weights,
    activation,
    plain,
)
from optbench.backends.jax.sequences import affine
from optbench.models import layers as spec
from optbench.models.layers import BuiltLayer, same_padding

__all__ = [
    "ACTIVATIONS",
    "LAYERS",
    "Array",
    "Compute",
    "Forward",
    "Weights",
    "activation",
    "chain",
    "forward",
]


def forward(built: BuiltLayer, compute: Compute) -> Forward:
    """Make the function of a layer."""
    return entry(LAYERS, built.layer.kind, "jax layers")(built.layer, built, compute)


def _dense(layer: spec.Dense, built: BuiltLayer, compute: Compute) -> Forward:
    activate = activation(layer.activation)

    def function(weights: Weights, x: Array, key: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        return activate(affine(x, built.name, weights, compute)), {}

    return function


def _conv(layer: spec.Conv2D, built: BuiltLayer, compute: Compute) -> Forward:
    activate = activation(layer.activation)
    derived = partial(convolution.derived, product=compute.product)
    convolve = convolution.written_out if compute.cpu else derived
    padding = _padding(built, layer.kernel, layer.stride, layer.padding)

    def function(weights: Weights, x: Array, key: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        kernel, bias = weights[f"{built.name}/kernel"].astype(x.dtype), weights.get(f"{built.name}/bias")
        product = convolve(x, kernel, layer.stride, padding)
        return activate(product if bias is None else product + bias.astype(x.dtype)), {}

    return function


def _depthwise(layer: spec.DepthwiseConv2D, built: BuiltLayer, compute: Compute) -> Forward:
    """Each place of the kernel times the image moved there: sums, whose gradients are sums too."""
    activate = activation(layer.activation)
    height, width, _ = built.output_shape
    around = ((0, 0), *_padding(built, layer.kernel, layer.stride, layer.padding), (0, 0))
    rows, columns = (height - 1) * layer.stride + 1, (width - 1) * layer.stride + 1

    def function(weights: Weights, x: Array, key: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        kernel, bias = weights[f"{built.name}/kernel"].astype(x.dtype), weights.get(f"{built.name}/bias")
        padded = jnp.pad(x, around)
        product = sum(
            padded[:, i : i + rows : layer.stride, j : j + columns : layer.stride] * kernel[i, j, 0]
            for i in range(layer.kernel)
            for j in range(layer.kernel)
        )
        return activate(product if bias is None else product + bias.astype(x.dtype)), {}

    return function


def _average_pool(layer: spec.AveragePool2D, built: BuiltLayer, compute: Compute) -> Forward:
    size, stride = layer.size, layer.stride or layer.size
    height, width, _ = built.output_shape
    rows, columns = (height - 1) * stride + 1, (width - 1) * stride + 1
    places = [(i, j) for i in range(size) for j in range(size)]

    def function(x: Array) -> Array:
        total = sum(x[:, i : i + rows : stride, j : j + columns : stride] for i, j in places)
        return jnp.asarray(total) / size**2

    return plain(function)


def _subsample(layer: spec.Subsample, built: BuiltLayer, compute: Compute) -> Forward:
    new = layer.filters - built.input_shape[2]
    around = ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2))
    return plain(lambda x: jnp.pad(x[:, :: layer.stride, :: layer.stride], around))


def _residual(layer: spec.Residual, built: BuiltLayer, compute: Compute) -> Forward:
    main, shortcut = (chain(part, compute) for part in built.inner)

    def function(weights: Weights, x: Array, key: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        out, moved = main(weights, x, jax.random.fold_in(key, 0) if training else key, training)
        other, more = shortcut(weights, x, jax.random.fold_in(key, 1) if training else key, training)
        return out + other, {**moved, **more}

    return function


def chain(places: tuple[BuiltLayer, ...], compute: Compute) -> Forward:
    """Make the function of layers that follow each other; each has a key of its own in training."""
    functions = [(forward(place, compute), relu_last) for place, relu_last in relu_after_pool(places)]

    def function(weights: Weights, x: Array, key: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        moved: dict[str, Array] = {}
        for number, (layer, relu_last) in enumerate(functions):
            x, new = layer(weights, x, jax.random.fold_in(key, number) if training else key, training)
            x = jax.nn.relu(x) if relu_last else x
            moved |= new
        return x, moved

    return function


def _batch_norm(layer: spec.BatchNorm, built: BuiltLayer, compute: Compute) -> Forward:
    names = [f"{built.name}/{part}" for part in ("gamma", "beta", "moving_mean", "moving_variance")]

    def function(weights: Weights, x: Array, key: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        gamma, beta, mean, variance = (weights[part] for part in names)
        moved, dtype = {}, x.dtype
        x = x.astype(gamma.dtype)
        if training:
            axes, n = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
            batch_mean, batch_variance = x.mean(axes), x.var(axes)
            unbiased = batch_variance * (n / max(n - 1, 1))
            moved = {
                names[2]: layer.momentum * mean + (1 - layer.momentum) * batch_mean,
                names[3]: layer.momentum * variance + (1 - layer.momentum) * unbiased,
            }
            mean, variance = batch_mean, batch_variance
        return ((x - mean) * (lax.rsqrt(variance + layer.epsilon) * gamma) + beta).astype(dtype), moved

    return function


def _dropout(layer: spec.Dropout, built: BuiltLayer, compute: Compute) -> Forward:
    keep = 1 - layer.rate

    def function(weights: Weights, x: Array, key: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        if not (training and layer.rate):
            return x, {}
        # Whole random words, so that a mask is the same in every precision.
        kept = jax.random.bits(key, x.shape, jnp.uint32) < jnp.uint32(round(keep * 2**32))
        return jnp.where(kept, x * (1 / keep), 0), {}

    return function


def _max_pool(layer: spec.MaxPool2D, built: BuiltLayer, compute: Compute) -> Forward:
    size, stride = layer.size, layer.stride or layer.size
    padding = _padding(built, size, stride, layer.padding)
    if stride != size:
        window, strides = (1, size, size, 1), (1, stride, stride, 1)
        around = ((0, 0), *padding, (0, 0))
        return plain(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, window, strides, around))
    height, width, channels = built.output_shape

    def function(x: Array) -> Array:
        # Windows that do not overlap are one reshape, many times faster than XLA's general scatter on a CPU.
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf) if any(map(any, padding)) else x
        x = x[:, : height * size, : width * size]
        windows = x.reshape(-1, height, size, width, size, channels)
        return _first_max(windows.transpose(0, 1, 3, 2, 4, 5).reshape(-1, height, width, size**2, channels))

    return plain(function)


def _global_average(layer: spec.GlobalAveragePool2D, built: BuiltLayer, compute: Compute) -> Forward:
    return plain(lambda x: x.mean((1, 2)))


def _flatten(layer: spec.Flatten, built: BuiltLayer, compute: Compute) -> Forward:
    return plain(lambda x: x.reshape(len(x), -1))


def _activate(layer: spec.Activate, built: BuiltLayer, compute: Compute) -> Forward:
    return plain(activation(layer.activation))


@jax.custom_vjp
def _first_max(windows: Array) -> Array:
    """Maximum over the last but one axis; the gradient goes to the first of equals, as in PyTorch."""
    return windows.max(-2)


def _first_max_forward(windows: Array) -> tuple[Array, tuple[Array, Array]]:
    return windows.max(-2), (windows.argmax(-2), windows)


def _first_max_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array]:
    first, windows = saved
    places = lax.broadcasted_iota(first.dtype, windows.shape, windows.ndim - 2)
    return (jnp.where(places == first[..., None, :], gradient[..., None, :], 0),)


_first_max.defvjp(_first_max_forward, _first_max_backward)


def _padding(
    built: BuiltLayer, window: int, stride: int, padding: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows above and below, columns left and right."""
    if padding == "valid":
        return (0, 0), (0, 0)
    height, width = built.input_shape[:2]
    return same_padding(height, window, stride), same_padding(width, window, stride)


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
