"""Layers in NumPy float64, in evaluation mode, one example at a time: what becomes of an input on its way.

Slow and plain. Reports draw feature maps from it, and the backends' layers are checked against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from optbench.models.layers import BatchNorm, BuiltLayer, Conv2D, Dense, MaxPool2D, same_padding

Array = NDArray[np.float64]
Weights = Mapping[str, NDArray[Any]]

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {
        "linear": lambda x: x,
        "relu": lambda x: np.maximum(x, 0.0),
        "tanh": np.tanh,
        "sigmoid": lambda x: 0.5 * (1.0 + np.tanh(x / 2)),
        "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))),
        "gelu": lambda x: 0.5 * x * (1.0 + erf(x / math.sqrt(2.0))),
    }
)


def outputs(
    built: Sequence[BuiltLayer], weights: Weights, example: NDArray[Any]
) -> Iterator[tuple[BuiltLayer, Array]]:
    """Send an example through a model.

    Parameters
    ----------
    built : sequence of BuiltLayer
    weights : mapping of str to array
        By parameter name, the running averages of batch normalisation included.
    example : array, one input's shape
        Scaled as the model sees it.

    Yields
    ------
    (BuiltLayer, array)
        A layer and what leaves it.
    """
    x = np.asarray(example, dtype=np.float64)
    for place in built:
        if place.layer.kind not in LAYERS:
            raise NotImplementedError(f"layer {place.name}: NumPy's table of layers has {list(LAYERS)}")
        x = LAYERS[place.layer.kind](place.layer, place, weights, x)
        yield place, x


def _windows(place: BuiltLayer, x: Array, size: int, stride: int, padding: str, fill: float) -> Array:
    """Cut an image into its windows, [rows, columns, channels, size, size]."""
    if padding == "same":
        sides = [same_padding(length, size, stride) for length in place.input_shape[:2]]
        x = np.pad(x, [*sides, (0, 0)], constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(0, 1))
    return view[::stride, ::stride]


def _dense(layer: Dense, place: BuiltLayer, weights: Weights, x: Array) -> Array:
    kernel, bias = weights[f"{place.name}/kernel"], weights[f"{place.name}/bias"]
    return ACTIVATIONS[layer.activation](x @ kernel.astype(np.float64) + bias)


def _conv2d(layer: Conv2D, place: BuiltLayer, weights: Weights, x: Array) -> Array:
    kernel, bias = weights[f"{place.name}/kernel"], weights[f"{place.name}/bias"]
    windows = _windows(place, x, layer.kernel, layer.stride, layer.padding, 0.0)
    return ACTIVATIONS[layer.activation](np.einsum("xychw,hwco->xyo", windows, kernel) + bias)


def _max_pool2d(layer: MaxPool2D, place: BuiltLayer, weights: Weights, x: Array) -> Array:
    stride = layer.stride or layer.size
    windows = _windows(place, x, layer.size, stride, layer.padding, -np.inf)
    found: Array = windows.max(axis=(-2, -1))
    return found


def _batch_norm(layer: BatchNorm, place: BuiltLayer, weights: Weights, x: Array) -> Array:
    mean, variance, gamma, beta = (
        np.asarray(weights[f"{place.name}/{part}"], dtype=np.float64)
        for part in ("moving_mean", "moving_variance", "gamma", "beta")
    )
    return (x - mean) / np.sqrt(variance + layer.epsilon) * gamma + beta


#: By kind, see :data:`optbench.models.layers.LAYERS`: ``(layer, its place, weights, input)`` to output.
LAYERS: Mapping[str, Callable[[Any, BuiltLayer, Weights, Array], Array]] = MappingProxyType(
    {
        "dense": _dense,
        "conv2d": _conv2d,
        "max_pool2d": _max_pool2d,
        "global_average_pool2d": lambda layer, place, weights, x: x.mean(axis=(0, 1)),
        "batch_norm": _batch_norm,
        "dropout": lambda layer, place, weights, x: x,
        "flatten": lambda layer, place, weights, x: x.reshape(-1),
        "activation": lambda layer, place, weights, x: ACTIVATIONS[layer.activation](x),
    }
)
