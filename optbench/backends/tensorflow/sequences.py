"""Norms and layers of sequences as pure TensorFlow functions; part of the table in ``layers.py``.

A sequence is [n, places, features], tokens are [n, places]. TensorFlow has no kernel of attention.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from optbench.backends import rotary
from optbench.backends.tensorflow.functions import Compute, Forward, Tensor, Weights, activation, plain
from optbench.models import layers as spec
from optbench.models.layers import BuiltLayer

#: Most rows of a table that is read by a product with one-hot rows: the gradient of a gather is slow.
MOST_ONE_HOT = 1024


def affine(x: Tensor, name: str, weights: Weights) -> Tensor:
    """``x @ kernel + bias`` for x [..., in], the bias where there is one."""
    kernel = tf.cast(weights[f"{name}/kernel"], x.dtype)
    if len(x.shape) == 2:
        return shifted(tf.matmul(x, kernel), name, weights)
    flat = shifted(tf.matmul(tf.reshape(x, (-1, x.shape[-1])), kernel), name, weights)
    return tf.reshape(flat, (*x.shape[:-1], kernel.shape[-1]))


def shifted(x: Tensor, name: str, weights: Weights) -> Tensor:
    """Add a layer's bias, where it has one."""
    bias = weights.get(f"{name}/bias")
    return x if bias is None else tf.nn.bias_add(x, tf.cast(bias, x.dtype))


def layer_norm(layer: spec.LayerNorm, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.LayerNorm`; in the precision of the weights."""

    def function(
        weights: Weights, x: Tensor, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        gamma, beta = weights[f"{built.name}/gamma"], weights.get(f"{built.name}/beta")
        z = _standardised(tf.cast(x, gamma.dtype), -1, layer.epsilon) * gamma
        return tf.cast(z if beta is None else z + beta, x.dtype), {}

    return function


def rms_norm(layer: spec.RMSNorm, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.RMSNorm`; in the precision of the weights."""

    def function(
        weights: Weights, x: Tensor, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        gamma = weights[f"{built.name}/gamma"]
        return tf.cast(_scaled(tf.cast(x, gamma.dtype), -1, layer.epsilon) * gamma, x.dtype), {}

    return function


def group_norm(layer: spec.GroupNorm, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.GroupNorm`; in the precision of the weights."""

    def function(
        weights: Weights, x: Tensor, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        gamma, beta = weights[f"{built.name}/gamma"], weights[f"{built.name}/beta"]
        z = tf.reshape(tf.cast(x, gamma.dtype), (*x.shape[:3], layer.groups, -1))
        z = tf.reshape(_standardised(z, (1, 2, 4), layer.epsilon), x.shape)
        return tf.cast(z * gamma + beta, x.dtype), {}

    return function


def _standardised(x: Tensor, axes: int | tuple[int, ...], epsilon: float) -> Tensor:
    return _scaled(x - tf.reduce_mean(x, axes, keepdims=True), axes, epsilon)


def _scaled(x: Tensor, axes: int | tuple[int, ...], epsilon: float) -> Tensor:
    return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), axes, keepdims=True) + epsilon)


def embedding(layer: spec.Embedding, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.Embedding`."""

    def function(
        weights: Weights, x: Tensor, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        table = weights[f"{built.name}/table"]
        table = tf.cast(table, tf.bfloat16) if compute.half else table
        if table.shape[0] > MOST_ONE_HOT:
            return tf.gather(table, x), {}
        rows = tf.matmul(tf.one_hot(tf.reshape(x, (-1,)), table.shape[0], dtype=table.dtype), table)
        return tf.reshape(rows, (*x.shape, table.shape[1])), {}

    return function


def positions(layer: spec.Positions, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.Positions`."""
    places = built.input_shape[0]
    return lambda weights, x, seed, training: (
        x + tf.cast(weights[f"{built.name}/table"][:places], x.dtype),
        {},
    )


def attention(layer: spec.Attention, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.Attention`."""
    places, width = built.input_shape
    heads, features = layer.heads, width // layer.heads
    cos, sin = rotary.table(places, features)
    seen = np.tril(np.ones((places, places), bool)) if layer.causal else None

    def turned(x: Tensor) -> Tensor:
        a, b = tf.split(x, 2, -1)
        c, s = tf.constant(cos, x.dtype), tf.constant(sin, x.dtype)
        return tf.concat((a * c - b * s, b * c + a * s), -1)

    def function(
        weights: Weights, x: Tensor, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        query, key, value = (
            tf.transpose(
                tf.reshape(affine(x, f"{built.name}/{part}", weights), (-1, places, heads, features)),
                (0, 2, 1, 3),
            )
            for part in ("query", "key", "value")
        )
        if layer.rotary:
            query, key = turned(query), turned(key)
        scores = tf.matmul(query, key, transpose_b=True) * tf.constant(1 / math.sqrt(features), x.dtype)
        # The softmax is in float32 at least, as in the other frameworks' kernels.
        scores = tf.cast(scores, tf.float32) if x.dtype == tf.bfloat16 else scores
        if seen is not None:
            scores = tf.where(seen, scores, tf.constant(-math.inf, scores.dtype))
        mixed = tf.matmul(tf.cast(tf.nn.softmax(scores), x.dtype), value)
        mixed = tf.reshape(tf.transpose(mixed, (0, 2, 1, 3)), x.shape)
        return affine(mixed, f"{built.name}/output", weights), {}

    return function


def gated_dense(layer: spec.GatedDense, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.GatedDense`."""
    activate = activation(layer.activation)

    def function(
        weights: Weights, x: Tensor, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        gate, value = (affine(x, f"{built.name}/{part}", weights) for part in ("gate", "value"))
        return activate(gate) * value, {}

    return function


def unembedding(layer: spec.Unembedding, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.Unembedding`."""
    assert built.tied is not None
    name = built.tied

    def function(
        weights: Weights, x: Tensor, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        table = tf.cast(weights[name], x.dtype)
        out = tf.matmul(tf.reshape(x, (-1, x.shape[-1])), table, transpose_b=True)
        return tf.reshape(out, (*x.shape[:-1], table.shape[0])), {}

    return function


def to_sequence(layer: spec.ToSequence, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.ToSequence`."""
    return plain(lambda x: tf.reshape(x, (x.shape[0], -1, x.shape[-1])))


def class_token(layer: spec.ClassToken, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.ClassToken`."""

    def function(
        weights: Weights, x: Tensor, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        token = tf.cast(weights[f"{built.name}/token"], x.dtype)
        return tf.concat((tf.broadcast_to(token, (x.shape[0], *token.shape)), x), 1), {}

    return function


def pool_sequence(layer: spec.PoolSequence, built: BuiltLayer, compute: Compute) -> Forward:
    """See :class:`optbench.models.layers.PoolSequence`."""
    return plain((lambda x: x[:, 0]) if layer.how == "first" else (lambda x: tf.reduce_mean(x, 1)))
