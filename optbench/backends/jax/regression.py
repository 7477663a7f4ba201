"""Regression in JAX: its losses, of standardised targets, and its prediction."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array


def mse(outputs: Array, targets: Array) -> Array:
    """Squared error of each example, [n], of outputs [n, 1 or more]."""
    return jnp.square(outputs[:, 0] - targets)


def mae(outputs: Array, targets: Array) -> Array:
    """Absolute error of each example, [n]."""
    return jnp.abs(outputs[:, 0] - targets)


def huber(outputs: Array, targets: Array) -> Array:
    """Huber's loss of each example, [n]: half the square up to an error of 1 and straight beyond."""
    error = outputs[:, 0] - targets
    return jnp.where(jnp.abs(error) <= 1, 0.5 * jnp.square(error), jnp.abs(error) - 0.5)


def predicted_value(outputs: Array) -> Array:
    """The first output, [n]."""
    return outputs[..., 0]
