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

from optbench.models import numpy_sequences
from optbench.models.layers import (
    AveragePool2D,
    BatchNorm,
    BuiltLayer,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    GatedDense,
    MaxPool2D,
    Subsample,
    same_padding,
)
from optbench.models.numpy_sequences import affine

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
        "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        "silu": lambda x: x * 0.5 * (1.0 + np.tanh(x / 2)),
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
        A layer and what leaves it; those inside a residual one come before it.
    """
    x = np.asarray(example, dtype=np.float64)
    for place in built:
        if place.layer.kind not in LAYERS:
            raise NotImplementedError(f"layer {place.name}: NumPy's table of layers has {list(LAYERS)}")
        if place.inner:
            ends = []
            for part in place.inner:
                end = x
                for inside, end in outputs(part, weights, x):
                    yield inside, end
                ends.append(end)
            x = ends[0] + ends[1]
        else:
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
    return ACTIVATIONS[layer.activation](affine(x, place.name, weights))


def _gated_dense(layer: GatedDense, place: BuiltLayer, weights: Weights, x: Array) -> Array:
    gate, value = (affine(x, f"{place.name}/{part}", weights) for part in ("gate", "value"))
    return ACTIVATIONS[layer.activation](gate) * value


def _depthwise_conv2d(layer: DepthwiseConv2D, place: BuiltLayer, weights: Weights, x: Array) -> Array:
    kernel, bias = weights[f"{place.name}/kernel"], weights.get(f"{place.name}/bias", np.zeros(()))
    windows = _windows(place, x, layer.kernel, layer.stride, layer.padding, 0.0)
    return ACTIVATIONS[layer.activation](np.einsum("xychw,hwc->xyc", windows, kernel[:, :, 0]) + bias)


def _average_pool2d(layer: AveragePool2D, place: BuiltLayer, weights: Weights, x: Array) -> Array:
    found: Array = _windows(place, x, layer.size, layer.stride or layer.size, "valid", 0.0).mean(
        axis=(-2, -1)
    )
    return found


def _subsample(layer: Subsample, place: BuiltLayer, weights: Weights, x: Array) -> Array:
    out, channels = np.zeros(place.output_shape), x.shape[-1]
    first = (layer.filters - channels) // 2
    out[..., first : first + channels] = x[:: layer.stride, :: layer.stride]
    return out


def _residual(layer: Any, place: BuiltLayer, weights: Weights, x: Array) -> Array:
    *_, (_, last) = outputs((place,), weights, x)
    return last


def _conv2d(layer: Conv2D, place: BuiltLayer, weights: Weights, x: Array) -> Array:
    kernel, bias = weights[f"{place.name}/kernel"], weights.get(f"{place.name}/bias", np.zeros(()))
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
        **numpy_sequences.LAYERS,
        "gated_dense": _gated_dense,
        "depthwise_conv2d": _depthwise_conv2d,
        "average_pool2d": _average_pool2d,
        "subsample": _subsample,
        "residual": _residual,
    }
)
