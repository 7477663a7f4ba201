"""A built model as a pure JAX function over a flat dictionary of weights."""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax

from optbench.backends.arrays import penalties
from optbench.backends.jax import convolution
from optbench.backends.jax.layers import Array, Compute, Weights, chain
from optbench.models.layers import BuiltLayer, roles, walk


class JaxModel:
    """A built model as a pure function; images are NHWC, kernels HWIO.

    In bfloat16 the layers' arithmetic, in the trial's precision otherwise; outputs in that of the weights.
    """

    def __init__(self, built: tuple[BuiltLayer, ...], *, cpu: bool, precision: str = "float32") -> None:
        self._half = precision == "bfloat16"
        self.trainable = [p.name for layer in walk(built) for p in layer.parameters if p.trainable]
        self.roles = roles(built)
        #: Names of the weights that a workload's ``weight_decay`` is for.
        self.kernels = frozenset(name for name in self.trainable if name.endswith("/kernel"))
        self.penalties = penalties(built)
        product = lax.Precision.HIGH if precision == "tf32" else convolution.PRECISION
        compute = Compute(cpu=cpu, product=product, half=self._half)
        self._function = chain(built, compute)

    def __call__(
        self, weights: Weights, x: Array, *, key: Array, training: bool
    ) -> tuple[Array, dict[str, Array]]:
        """Outputs for a batch [n, *shape], and the running averages that training moved."""
        stored = next(iter(weights.values())).dtype
        if self._half and x.dtype == stored:
            x = x.astype(jnp.bfloat16)
        x, moved = self._function(weights, x, key, training)
        return x.astype(stored), moved

    def penalty(self, weights: Weights) -> Array | float:
        """Sum of the declared L1 and L2 penalties."""
        total: Array | float = 0.0
        for name, l1, l2 in self.penalties:
            w = weights[name]
            if l1:
                total = total + l1 * jnp.abs(w).sum()
            if l2:
                total = total + l2 * jnp.square(w).sum()
        return total
