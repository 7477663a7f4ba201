"""Language modelling in JAX: its loss and its prediction."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Array = jax.Array


def token_cross_entropy(outputs: Array, targets: Array) -> Array:
    """Mean cross-entropy over a window's places, [n], of outputs [n, context, tokens]."""
    log_p = jax.nn.log_softmax(outputs)
    hit = targets[..., None] == jnp.arange(log_p.shape[-1])
    return -jnp.where(hit, log_p, 0).sum(-1).mean(-1)  # the gradient of a gather is slow


def predicted_tokens(outputs: Array) -> Array:
    """The likeliest token at each place, int32 [n, context]."""
    return outputs.argmax(-1).astype(jnp.int32)
