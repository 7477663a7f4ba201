"""A built model as a pure TensorFlow function over a flat dictionary of weights."""

from __future__ import annotations

import tensorflow as tf

from optbench.backends.arrays import penalties, relu_after_pool
from optbench.backends.tensorflow.layers import Forward, Tensor, Weights, forward
from optbench.models.layers import BuiltLayer


class TensorFlowModel:
    """A built model as a pure function.

    With ``xla`` it holds nothing that XLA cannot compile deterministically. With ``half`` the layers
    compute in bfloat16; the outputs are in the precision of the weights.
    """

    def __init__(self, built: tuple[BuiltLayer, ...], *, xla: bool, half: bool = False) -> None:
        self._half = half
        self.trainable = [p.name for layer in built for p in layer.parameters if p.trainable]
        self.penalties = penalties(built)
        self._layers = []
        for layer, relu_last in relu_after_pool(built):
            function = forward(layer, xla=xla)
            self._layers.append(_then_relu(function) if relu_last else function)

    def __call__(
        self, weights: Weights, x: Tensor, *, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Outputs for a batch [n, *shape], and the running averages that training moved."""
        moved: dict[str, Tensor] = {}
        stored = x.dtype
        if self._half:
            x = tf.cast(x, tf.bfloat16)
        for place, function in enumerate(self._layers):
            x, new = function(weights, x, seed + tf.constant([place, 0]), training)
            moved |= new
        return tf.cast(x, stored), moved

    def penalty(self, weights: Weights) -> Tensor | float:
        """Sum of the declared L1 and L2 penalties."""
        total: Tensor | float = 0.0
        for name, l1, l2 in self.penalties:
            w = weights[name]
            if l1:
                total = total + l1 * tf.reduce_sum(tf.abs(w))
            if l2:
                total = total + l2 * tf.reduce_sum(tf.square(w))
        return total


def _then_relu(function: Forward) -> Forward:
    def both(weights: Weights, x: Tensor, seed: Tensor, training: bool) -> tuple[Tensor, dict[str, Tensor]]:
        x, moved = function(weights, x, seed, training)
        return tf.nn.relu(x), moved

    return both
