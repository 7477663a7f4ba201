"""Classification in TensorFlow: its loss and its prediction."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

Tensor = Any


def cross_entropy(outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of each example, [n], of outputs [n, classes]; the targets are smoothed."""
    log_p = tf.nn.log_softmax(outputs)
    hit = targets[:, tf.newaxis] == tf.range(log_p.shape[1])
    true = tf.reduce_sum(tf.where(hit, log_p, tf.zeros_like(log_p)), 1)  # the gradient of a gather is slow
    if not label_smoothing:
        return -true
    return -((1 - label_smoothing) * true + label_smoothing * tf.reduce_mean(log_p, 1))


def predicted_label(outputs: Tensor) -> Tensor:
    """Class of the largest output, int32 [n]."""
    return tf.argmax(outputs, -1, output_type=tf.int32)
