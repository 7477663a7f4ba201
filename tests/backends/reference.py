"""Layers and activations in NumPy, written from their definitions: what every backend is held to."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import erf

from optbench.models import numpy_layers

ACTIVATIONS = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "elu": lambda x: np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1),
    "gelu": lambda x: x * (1 + erf(x / np.sqrt(2))) / 2,
    "gelu_tanh": numpy_layers.ACTIVATIONS["gelu_tanh"],
    "silu": lambda x: x / (1 + np.exp(-x)),
}


def windows(x, size, stride, padding, fill):
    """Windows [n, h, w, channels, size, size] of images; ``same`` puts the odd pixel at the end."""
    if padding == "same":
        around = []
        for length in x.shape[1:3]:
            total = max((-(-length // stride) - 1) * stride + size - length, 0)
            around.append((total // 2, total - total // 2))
        x = np.pad(x, [(0, 0), *around, (0, 0)], constant_values=fill)
    return sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]


def dense(layer, w, x, training):
    return ACTIVATIONS[layer.activation](x @ w["kernel"] + w.get("bias", 0.0))


def conv2d(layer, w, x, training):
    found = windows(x, layer.kernel, layer.stride, layer.padding, 0.0)
    out = np.einsum("nhwcij,ijco->nhwo", found, w["kernel"]) + w.get("bias", 0.0)
    return ACTIVATIONS[layer.activation](out)


def max_pool2d(layer, w, x, training):
    stride = layer.stride or layer.size
    return windows(x, layer.size, stride, layer.padding, -np.inf).max(axis=(-2, -1))


def batch_norm(layer, w, x, training):
    axes = tuple(range(x.ndim - 1))
    mean, variance = (x.mean(axes), x.var(axes)) if training else (w["moving_mean"], w["moving_variance"])
    return (x - mean) / np.sqrt(variance + layer.epsilon) * w["gamma"] + w["beta"]


def moved_averages(layer, w, x):
    """Running averages after a training step; the variance is the unbiased one."""
    axes = tuple(range(x.ndim - 1))
    kept = layer.momentum
    return {
        "moving_mean": kept * w["moving_mean"] + (1 - kept) * x.mean(axes),
        "moving_variance": kept * w["moving_variance"] + (1 - kept) * x.var(axes, ddof=1),
    }


#: The output of each kind of layer: (layer, weights, input, training mode). A dropout's is checked apart.
LAYERS = {
    "dense": dense,
    "conv2d": conv2d,
    "max_pool2d": max_pool2d,
    "global_average_pool2d": lambda layer, w, x, training: x.mean(axis=(1, 2)),
    "batch_norm": batch_norm,
    "dropout": lambda layer, w, x, training: x,
    "flatten": lambda layer, w, x, training: x.reshape(len(x), -1),
    "activation": lambda layer, w, x, training: ACTIVATIONS[layer.activation](x),
}


def forward(built, weights, x, training):
    """Output of a layer as it stands in a model, by the names of its weights."""
    if built.layer.kind == "residual":
        outs = []
        for part in built.inner:
            z = x
            for place in part:
                z = forward(place, weights, z, training)
            outs.append(z)
        return outs[0] + outs[1]
    if built.layer.kind not in LAYERS:  # the plain layers of the package, example by example
        plain = numpy_layers.LAYERS[built.layer.kind]
        return np.stack([plain(built.layer, built, weights, one) for one in x])
    prefix = f"{built.name}/"
    mine = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
    return LAYERS[built.layer.kind](built.layer, mine, x, training)
