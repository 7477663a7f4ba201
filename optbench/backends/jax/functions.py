"""What a layer is in JAX: a pure function over a dictionary of weights; and the activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from optbench.backends.base import entry
from optbench.models.layers import BuiltLayer

Array = jax.Array
Weights = Mapping[str, Array]
#: (weights, x, key, training) -> (output, new running averages by name).
Forward = Callable[[Weights, Array, Array, bool], tuple[Array, dict[str, Array]]]


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How products are computed: with the convolutions for a ``cpu``, in this precision.

    With ``half`` the vectors of an embedding, whose input has no precision, are in bfloat16.
    """

    cpu: bool
    product: lax.Precision
    half: bool = False


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
        "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
        "silu": jax.nn.silu,
    }
)


def activation(name: str) -> Callable[[Array], Array]:
    """Look up an activation; ``NotImplementedError`` where JAX's table lacks it."""
    return entry(ACTIVATIONS, name, "jax activations")


def plain(function: Callable[[Array], Array]) -> Forward:
    """Take a function of the input alone as a layer's."""
    return lambda weights, x, key, training: (function(x), {})
