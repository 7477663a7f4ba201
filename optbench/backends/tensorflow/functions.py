"""What a layer is in TensorFlow: a pure function over a dictionary of weights; and the activations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import tensorflow as tf

from optbench.backends.base import entry
from optbench.models.layers import BuiltLayer

Tensor = Any
Weights = Mapping[str, Tensor]
Plain = Callable[[Tensor], Tensor]
#: (weights, x, seed, training) -> (output, new running averages by name).
Forward = Callable[[Weights, Tensor, Tensor, bool], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Whether ``xla`` compiles it; with ``half`` the vectors of an embedding are in bfloat16."""

    xla: bool
    half: bool = False


#: (layer, its place in the model, how it is computed) -> its function.
Builder = Callable[[Any, BuiltLayer, Compute], Forward]


def _gelu(x: Tensor) -> Tensor:
    """GELU by ``tf.nn.gelu``'s formula, which rounds this constant to float32 in every precision."""
    return 0.5 * x * tf.math.erfc(-x * tf.constant(math.sqrt(0.5), x.dtype))


def _gelu_tanh(x: Tensor) -> Tensor:
    """GELU by the formula with tanh, of Hendrycks & Gimpel (2016)."""
    scale = tf.constant(math.sqrt(2 / math.pi), x.dtype)
    return 0.5 * x * (1 + tf.tanh(scale * (x + tf.constant(0.044715, x.dtype) * x**3)))


ACTIVATIONS: Mapping[str, Plain] = MappingProxyType(
    {
        "linear": lambda x: x,
        "relu": tf.nn.relu,
        "tanh": tf.tanh,
        "sigmoid": tf.sigmoid,
        "elu": tf.nn.elu,
        "gelu": _gelu,
        "gelu_tanh": _gelu_tanh,
        "silu": lambda x: x * tf.sigmoid(x),
    }
)


def activation(name: str) -> Plain:
    """Look up an activation; ``NotImplementedError`` where TensorFlow's table lacks it."""
    return entry(ACTIVATIONS, name, "tensorflow activations")


def plain(function: Plain) -> Forward:
    """Take a function of the input alone as a layer's."""
    return lambda weights, x, seed, training: (function(x), {})
