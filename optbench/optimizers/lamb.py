r"""LAMB: Adam's direction, as long in each tensor as its weights are.

With Adam's bias-corrected moments :math:`\hat m_t, \hat v_t`, for each tensor of weights:

.. math::

    r_t = \frac{\hat m_t}{\sqrt{\hat v_t} + \epsilon} + \lambda w_{t-1}, \qquad
    w_t = w_{t-1} - \eta \frac{\|w_{t-1}\|}{\|r_t\|} r_t

The ratio is 1 where either norm is 0, so that biases of zero move at all; it has no bounds (the paper's
:math:`\phi` is the identity). Epsilon is added after the bias correction. ``optax.lamb`` takes the same
steps; its decay is 0 by default. Keras's ``Lamb`` has no decay inside the ratio. The published runs leave
biases and normalisation out of decay and ratio: say so by parameter groups. The rule takes each tensor as a
whole. Source: You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", ICLR
2020, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from optbench.optimizers.base import Array, Family, Range, State, Verification, decayed
from optbench.task import FORBID_EXTRA


@dataclass(frozen=True, kw_only=True)
class Lamb:
    """Hyperparameters of LAMB: Adam's, and ``weight_decay``, 0 or more."""

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["lamb"] = "lamb"
    lr: Annotated[float, Gt(0)] = 1e-3
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.999
    eps: Annotated[float, Gt(0)] = 1e-6
    weight_decay: Annotated[float, Ge(0)] = 0.01


def init(config: Lamb, w: Array, xp: Any) -> State:
    """First and second moments, zero."""
    return {"m": xp.zeros_like(w), "v": xp.zeros_like(w)}


def update(
    config: Lamb, w: Array, g: Array, state: State, *, lr: Any, t: Any, xp: Any
) -> tuple[Array, State]:
    """One update; see the module's formula."""
    m = config.beta1 * state["m"] + (1 - config.beta1) * g
    v = config.beta2 * state["v"] + (1 - config.beta2) * g * g
    root = xp.sqrt(v) / decayed(config.beta2, t, xp) ** 0.5
    step = m / decayed(config.beta1, t, xp) / (root + config.eps) + config.weight_decay * w
    long, moved = xp.sqrt(xp.sum(w * w)), xp.sqrt(xp.sum(step * step))
    one = xp.ones_like(long)
    ratio = xp.where(long > 0, xp.where(moved > 0, long / xp.where(moved > 0, moved, one), one), one)
    return -lr * (ratio * step), {"m": m, "v": v}


FAMILY = Family(
    name="lamb",
    title="LAMB",
    config=Lamb,
    init=init,
    update=update,
    elementwise=False,
    space={
        "lr": Range(low=1e-4, high=1e-1, log=True),
        "weight_decay": Range(low=1e-4, high=1e-1, log=True),
    },
    epsilon="outside the root, after the bias correction",
    needs_weights=lambda config: True,
    # The ratio makes any decay that stands alone as long as the weights.
    decay=lambda config: config.lr if config.weight_decay else 0.0,
    verification=Verification(
        cases=(Lamb(), Lamb(weight_decay=0.0)), parity=(Lamb(), Lamb(lr=0.01, weight_decay=0.1))
    ),
)
