"""Norms and layers of sequences as pure JAX functions; part of the table in ``layers.py``.

A sequence is [n, places, features], tokens are [n, places].
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from optbench.backends import rotary
from optbench.backends.jax.functions import Array, Compute, Forward, Weights, activation, plain
from optbench.models import layers as spec
from optbench.models.layers import BuiltLayer

#: Most rows of a table that is read by a product with one-hot rows: the gradient of a gather is slow.
MOST_ONE_HOT = 1024
#: JAX's names of the precisions of products.
_PRODUCTS = {lax.Precision.HIGHEST: "highest", lax.Precision.HIGH: "high"}


def affine(x: Array, name: str, weights: Weights, compute: Compute) -> Array:
    """``x @ kernel + bias`` for x [..., in], the bias where there is one."""
    product = jnp.dot(x, weights[f"{name}/kernel"].astype(x.dtype), precision=compute.product)
    bias = weights.get(f"{name}/bias")
    return product if bias is None else product + bias.astype(x.dtype)


def layer_norm(layer: spec.LayerNorm, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.LayerNorm`; in the precision of the weights."""

    def function(weights: Weights, x: Array, key: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        gamma, beta = weights[f"{built.name}/gamma"], weights.get(f"{built.name}/beta")
        z = x.astype(gamma.dtype)
        z = z - z.mean(-1, keepdims=True)
        z = z * lax.rsqrt(jnp.square(z).mean(-1, keepdims=True) + layer.epsilon) * gamma
        return (z if beta is None else z + beta).astype(x.dtype), {}

    return function


def rms_norm(layer: spec.RMSNorm, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.RMSNorm`; in the precision of the weights."""

    def function(weights: Weights, x: Array, key: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        gamma = weights[f"{built.name}/gamma"]
        z = x.astype(gamma.dtype)
        z = z * lax.rsqrt(jnp.square(z).mean(-1, keepdims=True) + layer.epsilon) * gamma
        return z.astype(x.dtype), {}

    return function


def group_norm(layer: spec.GroupNorm, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.GroupNorm`; in the precision of the weights."""

    def function(weights: Weights, x: Array, key: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        gamma, beta = weights[f"{built.name}/gamma"], weights[f"{built.name}/beta"]
        z = x.astype(gamma.dtype).reshape(*x.shape[:3], layer.groups, -1)
        z = z - z.mean((1, 2, 4), keepdims=True)
        z = z * lax.rsqrt(jnp.square(z).mean((1, 2, 4), keepdims=True) + layer.epsilon)
        return (z.reshape(x.shape) * gamma + beta).astype(x.dtype), {}

    return function


def embedding(layer: spec.Embedding, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.Embedding`."""

    def function(weights: Weights, x: Array, key: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        table = weights[f"{built.name}/table"]
        table = table.astype(jnp.bfloat16) if compute.half else table
        if len(table) > MOST_ONE_HOT:
            return table[x], {}
        return jnp.dot(jax.nn.one_hot(x, len(table), dtype=table.dtype), table, precision="highest"), {}

    return function


def positions(layer: spec.Positions, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.Positions`."""
    places = built.input_shape[0]
    return lambda weights, x, key, training: (
        x + weights[f"{built.name}/table"][:places].astype(x.dtype),
        {},
    )


def attention(layer: spec.Attention, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.Attention`; JAX's own kernel."""
    places, width = built.input_shape
    cos, sin = (part[:, None] for part in rotary.table(places, width // layer.heads))

    def turned(x: Array) -> Array:
        a, b = jnp.split(x, 2, -1)
        c, s = cos.astype(x.dtype), sin.astype(x.dtype)
        return jnp.concatenate((a * c - b * s, b * c + a * s), -1)

    def function(weights: Weights, x: Array, key: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        query, keys, value = (
            affine(x, f"{built.name}/{part}", weights, compute).reshape(*x.shape[:2], layer.heads, -1)
            for part in ("query", "key", "value")
        )
        if layer.rotary:
            query, keys = turned(query), turned(keys)
        with jax.default_matmul_precision(_PRODUCTS[compute.product]):
            if x.dtype == jnp.float64:  # in which JAX's kernel rounds the shares to float32
                mixed = _written_out(query, keys, value, causal=layer.causal)
            else:
                mixed = jax.nn.dot_product_attention(query, keys, value, is_causal=layer.causal)
        return affine(mixed.reshape(x.shape), f"{built.name}/output", weights, compute), {}

    return function


def _written_out(query: Array, key: Array, value: Array, *, causal: bool) -> Array:
    """Attention of [n, places, heads, features] by its definition."""
    scores = jnp.einsum("nqhd,nkhd->nhqk", query, key) / math.sqrt(query.shape[-1])
    if causal:
        scores = jnp.where(jnp.tril(jnp.ones(scores.shape[-2:], bool)), scores, -jnp.inf)
    return jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(scores), value)


def gated_dense(layer: spec.GatedDense, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.GatedDense`."""
    activate = activation(layer.activation)

    def function(weights: Weights, x: Array, key: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        gate, value = (affine(x, f"{built.name}/{part}", weights, compute) for part in ("gate", "value"))
        return activate(gate) * value, {}

    return function


def unembedding(layer: spec.Unembedding, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.Unembedding`."""
    assert built.tied is not None
    table = built.tied
    return lambda weights, x, key, training: (
        jnp.dot(x, weights[table].astype(x.dtype).T, precision=compute.product),
        {},
    )


def to_sequence(layer: spec.ToSequence, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.ToSequence`."""
    return plain(lambda x: x.reshape(len(x), -1, x.shape[-1]))


def class_token(layer: spec.ClassToken, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.ClassToken`."""

    def function(weights: Weights, x: Array, key: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        token = weights[f"{built.name}/token"].astype(x.dtype)
        return jnp.concatenate((jnp.broadcast_to(token, (len(x), *token.shape)), x), 1), {}

    return function


def pool_sequence(layer: spec.PoolSequence, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.PoolSequence`."""
    return plain((lambda x: x[:, 0]) if layer.how == "first" else (lambda x: x.mean(1)))
