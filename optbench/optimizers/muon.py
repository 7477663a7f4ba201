r"""Muon: momentum whose matrices are brought near to orthogonal ones.

For a weight matrix with gradient :math:`G_t` and :math:`B_0 = 0`:

.. math::

    B_t &= \mu B_{t-1} + (1 - \mu) G_t, \qquad
    U_t = \mu B_t + (1 - \mu) G_t \text{ with nesterov, else } B_t \\
    X_0 &= U_t / (\|U_t\|_F + \epsilon), \qquad
    X_{k+1} = a X_k + (b A_k + c A_k^2) X_k, \quad A_k = X_k X_k^\top \\
    W_t &= (1 - \eta \lambda) W_{t-1} - \eta \, s \, X_5

with :math:`(a, b, c) = (3.4445, -4.7750, 2.0315)`, which brings singular values into about [.7, 1.2].
``scale`` names :math:`s` for a matrix that maps n inputs to m outputs:

============== ======================================= =========================================
``original``   :math:`\sqrt{\max(1, m / n)}`            Jordan's code
``rms``        :math:`0.2 \sqrt{\max(m, n)}`            Liu et al. 2025: as long as AdamW's steps
``spectral``   :math:`\sqrt{m / n}`                     Bernstein 2025: a step of spectral size
``none``       1                                       the matrix as it is
============== ======================================= =========================================

Convolution kernels are matrices from all of a window to the filters. The rule moves hidden kernels (roles
``matrix`` and ``conv``); all other weights are moved by AdamW, with the hyperparameters
``rest_...``, as published. Inside ``groups:`` an entry of Muon that matches roles moves all of them, and the
AdamW nothing.

The iteration runs in the precision of the weights, where Jordan's code and PyTorch's class use bfloat16:
their steps differ by up to 1 % of a singular value; without that rounding PyTorch's takes the same ones.
PyTorch's ``Muon`` takes matrices only, scales by the shape [out, in], and decays by .1 by default.
``optax.contrib.muon`` mixes Nesterov's form of moments with a bias correction; without ``nesterov`` it takes
the same steps. Keras's ``Muon`` takes those of ``scale: rms``, with a momentum 1 / (1 - momentum) as large
beside epsilon, and decays by .004. Both choose weights by their number of axes, so that they move the head
too. Sources: Jordan et al., "Muon: an optimizer for
hidden layers in neural networks", 2024, https://kellerjordan.github.io/posts/muon; Liu et al., "Muon is
scalable for LLM training", 2025, for ``rms``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from optbench.optimizers.adamw import AdamW
from optbench.optimizers.base import Array, Family, Range, State, Verification
from optbench.task import FORBID_EXTRA

#: Coefficients of the quintic iteration.
QUINTIC = (3.4445, -4.7750, 2.0315)
#: Roles of the weights that the rule itself moves, where no groups say otherwise.
OWN = ("matrix", "conv")

Scale = Literal["original", "rms", "spectral", "none"]


@dataclass(frozen=True, kw_only=True)
class Muon:
    """Hyperparameters of Muon.

    Attributes
    ----------
    lr : float
        Learning rate of the matrices, above 0.
    momentum : float
        Decay of the momentum, in [0, 1).
    nesterov : bool
        Nesterov's form.
    ns_steps : int
        Iterations of Newton and Schulz, 1 to 20.
    scale : str
        How a step's size follows from the matrix's shape; see the module.
    weight_decay : float
        Decoupled decay of the matrices, 0 or more.
    eps : float
        Added to the norm that the iteration starts with, above 0.
    rest_lr, rest_beta1, rest_beta2, rest_eps, rest_weight_decay : float
        Of the AdamW that moves the weights that are no hidden kernels; of no use inside of groups, where
        other entries move them.

    Examples
    --------
    >>> Muon(lr=0.02).rest_lr
    0.0003
    """

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["muon"] = "muon"
    lr: Annotated[float, Gt(0)] = 0.02
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.95
    nesterov: bool = True
    ns_steps: Annotated[int, Ge(1), Le(20)] = 5
    scale: Scale = "original"
    weight_decay: Annotated[float, Ge(0)] = 0.0
    eps: Annotated[float, Gt(0)] = 1e-7
    rest_lr: Annotated[float, Gt(0)] = 3e-4
    rest_beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    rest_beta2: Annotated[float, Ge(0), Lt(1)] = 0.95
    rest_eps: Annotated[float, Gt(0)] = 1e-8
    rest_weight_decay: Annotated[float, Ge(0)] = 0.0

    @property
    def rest(self) -> AdamW:
        """What moves the weights that are no hidden kernels."""
        return AdamW(
            lr=self.rest_lr,
            beta1=self.rest_beta1,
            beta2=self.rest_beta2,
            eps=self.rest_eps,
            weight_decay=self.rest_weight_decay,
        )


def init(config: Muon, w: Array, xp: Any) -> State:
    """Momentum of zeros."""
    return {"m": xp.zeros_like(w)}


def update(
    config: Muon, w: Array, g: Array, state: State, *, lr: Any, t: Any, xp: Any
) -> tuple[Array, State]:
    """One update; see the module's formula."""
    m = config.momentum * state["m"] + (1 - config.momentum) * g
    direction = config.momentum * m + (1 - config.momentum) * g if config.nesterov else m
    matrix = xp.matrix(direction)
    size = factor(config.scale, *matrix.shape)
    delta = -(lr * size) * xp.like(orthogonal(matrix, config.ns_steps, config.eps, xp), w)
    if config.weight_decay:
        delta = delta - lr * config.weight_decay * w
    return delta, {"m": m}


def orthogonal(x: Array, steps: int, eps: float, xp: Any) -> Array:
    """Bring a matrix near to the nearest orthogonal one, by the products of its shorter side."""
    a, b, c = QUINTIC
    x = x / (xp.sqrt(xp.sum(x * x)) + eps)
    tall = x.shape[0] > x.shape[1]
    for _ in range(steps):
        square = xp.einsum("ki,kj->ij", x, x) if tall else xp.einsum("ik,jk->ij", x, x)
        mixed = b * square + c * xp.einsum("ik,kj->ij", square, square)
        x = a * x + (xp.einsum("ik,kj->ij", x, mixed) if tall else xp.einsum("ik,kj->ij", mixed, x))
    return x


def factor(scale: Scale, inputs: int, outputs: int) -> float:
    """Compute the factor of a step for a matrix of this shape."""
    return {
        "original": math.sqrt(max(1.0, outputs / inputs)),
        "rms": 0.2 * math.sqrt(max(inputs, outputs)),
        "spectral": math.sqrt(outputs / inputs),
        "none": 1.0,
    }[scale]


def _parts(config: Muon) -> Mapping[tuple[str, ...], Any]:
    return {OWN: config, ("rest",): config.rest}


FAMILY = Family(
    name="muon",
    title="Muon",
    config=Muon,
    init=init,
    update=update,
    elementwise=False,
    parts=_parts,
    matrices=lambda config: True,
    counts=lambda config: False,
    space={"lr": Range(low=1e-3, high=1e-1, log=True), "rest_lr": Range(low=1e-4, high=1e-2, log=True)},
    epsilon="beside the norm that the iteration starts with",
    needs_weights=lambda config: config.weight_decay > 0,
    decay=lambda config: config.lr * config.weight_decay,
    verification=Verification(
        cases=(
            Muon(lr=1e-3, rest_lr=1e-3),
            Muon(lr=1e-3, nesterov=False, scale="rms", weight_decay=0.1, rest_lr=1e-3, rest_weight_decay=0.1),
            Muon(lr=1e-3, rest_lr=1e-3, scale="spectral", ns_steps=6),
        ),
        further=(Muon(lr=1e-3, scale="none"),),
        checks="optbench.verification.matrix_checks:checks",
        parity=(Muon(lr=0.01), Muon(lr=0.01, scale="rms", weight_decay=0.1)),
    ),
)
