"""Language modelling in TensorFlow: its loss and its prediction."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

Tensor = Any


def token_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over a window's places, [n], of outputs [n, context, tokens]."""
    log_p = tf.nn.log_softmax(outputs)
    hit = targets[..., tf.newaxis] == tf.range(log_p.shape[-1])
    true = tf.reduce_sum(tf.where(hit, log_p, tf.zeros_like(log_p)), -1)  # the gradient of a gather is slow
    return -tf.reduce_mean(true, -1)


def predicted_tokens(outputs: Tensor) -> Tensor:
    """The likeliest token at each place, int32 [n, context]."""
    return tf.argmax(outputs, -1, output_type=tf.int32)
