"""Regression in TensorFlow: its losses, of standardised targets, and its prediction."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

Tensor = Any


def mse(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared error of each example, [n], of outputs [n, 1 or more]."""
    return tf.square(outputs[:, 0] - targets)


def mae(outputs: Tensor, targets: Tensor) -> Tensor:
    """Absolute error of each example, [n]."""
    return tf.abs(outputs[:, 0] - targets)


def huber(outputs: Tensor, targets: Tensor) -> Tensor:
    """Huber's loss of each example, [n]: half the square up to an error of 1 and straight beyond."""
    error = outputs[:, 0] - targets
    return tf.where(tf.abs(error) <= 1, 0.5 * tf.square(error), tf.abs(error) - 0.5)


def predicted_value(outputs: Tensor) -> Tensor:
    """The first output, [n]."""
    return outputs[..., 0]
