"""A built model as a pure TensorFlow function over a flat dictionary of weights."""

from __future__ import annotations

import tensorflow as tf

from optbench.backends.arrays import penalties
from optbench.backends.tensorflow.layers import Compute, Tensor, Weights, chain
from optbench.models.layers import BuiltLayer, count_parameters, roles, walk


class TensorFlowModel:
    """A built model as a pure function.

    With ``xla`` it holds nothing that XLA cannot compile deterministically. With ``half`` the layers
    compute in bfloat16; the outputs are in the precision of the weights.
    """

    def __init__(self, built: tuple[BuiltLayer, ...], *, xla: bool, half: bool = False) -> None:
        self._half = half
        self.trainable = [p.name for layer in walk(built) for p in layer.parameters if p.trainable]
        self.roles = roles(built)
        self.output_shape = built[-1].output_shape
        self.size = count_parameters(built)
        #: Names of the weights that a workload's ``weight_decay`` is for.
        self.kernels = frozenset(name for name in self.trainable if name.endswith("/kernel"))
        self.penalties = penalties(built)
        self._function = chain(built, Compute(xla=xla, half=half))

    def __call__(
        self, weights: Weights, x: Tensor, *, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Outputs for a batch [n, *shape], and the running averages that training moved."""
        stored = next(iter(weights.values())).dtype
        if self._half and x.dtype == stored:
            x = tf.cast(x, tf.bfloat16)
        x, moved = self._function(weights, x, seed, training)
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
