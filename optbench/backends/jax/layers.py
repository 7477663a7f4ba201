"""Layers as pure JAX functions over a dictionary of weights: one table by kind, one of activations.

Images are NHWC, kernels HWIO.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from optbench.backends.base import entry
from optbench.backends.jax import convolution
from optbench.models import layers as spec
from optbench.models.layers import BuiltLayer, same_padding

Array = jax.Array
Weights = Mapping[str, Array]
#: (weights, x, key, training) -> (output, new running averages by name).
Forward = Callable[[Weights, Array, Array, bool], tuple[Array, dict[str, Array]]]


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How products are computed: with the convolutions for a ``cpu``, in this precision."""

    cpu: bool
    product: lax.Precision


#: (layer, its place in the model, how it is computed) -> its function.
Builder = Callable[[Any, BuiltLayer, Compute], Forward]

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {
        "linear": lambda x: x,
        "relu": jax.nn.relu,
        "tanh": jnp.tanh,
        "sigmoid": jax.nn.sigmoid,
        "elu": jax.nn.elu,
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    }
)


def activation(name: str) -> Callable[[Array], Array]:
    """Look up an activation; ``NotImplementedError`` where JAX's table lacks it."""
    return entry(ACTIVATIONS, name, "jax activations")


def forward(built: BuiltLayer, compute: Compute) -> Forward:
    """Make the function of a layer."""
    return entry(LAYERS, built.layer.kind, "jax layers")(built.layer, built, compute)


def _plain(function: Callable[[Array], Array]) -> Forward:
    """Take a function of the input alone as a layer's."""
    return lambda weights, x, key, training: (function(x), {})


def _dense(layer: spec.Dense, built: BuiltLayer, compute: Compute) -> Forward:
    activate = activation(layer.activation)

    def function(weights: Weights, x: Array, key: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        kernel, bias = (weights[f"{built.name}/{part}"].astype(x.dtype) for part in ("kernel", "bias"))
        return activate(jnp.dot(x, kernel, precision=compute.product) + bias), {}

    return function


def _conv(layer: spec.Conv2D, built: BuiltLayer, compute: Compute) -> Forward:
    activate = activation(layer.activation)
    derived = partial(convolution.derived, product=compute.product)
    convolve = convolution.written_out if compute.cpu else derived
    padding = _padding(built, layer.kernel, layer.stride, layer.padding)

    def function(weights: Weights, x: Array, key: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        kernel, bias = (weights[f"{built.name}/{part}"].astype(x.dtype) for part in ("kernel", "bias"))
        return activate(convolve(x, kernel, layer.stride, padding) + bias), {}

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
        return _plain(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, window, strides, around))
    height, width, channels = built.output_shape

    def function(x: Array) -> Array:
        # Windows that do not overlap are one reshape, many times faster than XLA's general scatter on a CPU.
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf) if any(map(any, padding)) else x
        x = x[:, : height * size, : width * size]
        windows = x.reshape(-1, height, size, width, size, channels)
        return _first_max(windows.transpose(0, 1, 3, 2, 4, 5).reshape(-1, height, width, size**2, channels))

    return _plain(function)


def _global_average(layer: spec.GlobalAveragePool2D, built: BuiltLayer, compute: Compute) -> Forward:
    return _plain(lambda x: x.mean((1, 2)))


def _flatten(layer: spec.Flatten, built: BuiltLayer, compute: Compute) -> Forward:
    return _plain(lambda x: x.reshape(len(x), -1))


def _activate(layer: spec.Activate, built: BuiltLayer, compute: Compute) -> Forward:
    return _plain(activation(layer.activation))


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
    }
)
