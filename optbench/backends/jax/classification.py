"""Classification in JAX: its loss and its prediction."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array


def cross_entropy(outputs: Array, targets: Array, *, label_smoothing: float = 0.0) -> Array:
    """Cross-entropy of each example, [n], of outputs [n, classes]; the targets are smoothed."""
    log_p = jax.nn.log_softmax(outputs)
    hit = targets[:, None] == jnp.arange(log_p.shape[1])
    true = jnp.where(hit, log_p, 0).sum(1)  # the gradient of a gather is slow
    if not label_smoothing:
        return -true
    return -((1 - label_smoothing) * true + label_smoothing * log_p.mean(1))


def predicted_label(outputs: Array) -> Array:
    """Class of the largest output, int32 [n]."""
    return outputs.argmax(1).astype(jnp.int32)
