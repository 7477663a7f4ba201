r"""RMSprop.

With decay :math:`\rho`, learning rate :math:`\eta` and :math:`v_0 = 0`:

.. math::

    v_t &= \rho v_{t-1} + (1 - \rho) g_t^2 \\
    w_t &= w_{t-1} - \eta g_t / (\sqrt{v_t} + \epsilon)

Epsilon stands outside the root, as in PyTorch; Keras puts it inside. The decay is PyTorch's ``alpha`` and
Keras's ``rho``; the default .9 is Keras's (PyTorch has .99). Source: Tieleman & Hinton, Lecture 6.5, 2012.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Lt

from optbench.config import FORBID_EXTRA
from optbench.optimizers.base import Array, Family, Range, State


@dataclass(frozen=True, kw_only=True)
class RMSprop:
    """Hyperparameters of RMSprop."""

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["rmsprop"] = "rmsprop"
    lr: Annotated[float, Gt(0)] = 1e-3
    rho: Annotated[float, Ge(0), Lt(1)] = 0.9
    eps: Annotated[float, Gt(0)] = 1e-8


def init(config: RMSprop, w: Array) -> State:
    """Running mean of squared gradients, zero."""
    return {"v": np.zeros_like(w)}


def step(config: RMSprop, w: Array, g: Array, state: State, t: int) -> tuple[Array, State]:
    """One update; see the module's formula."""
    v = config.rho * state["v"] + (1 - config.rho) * g * g
    return w - config.lr * g / (np.sqrt(v) + config.eps), {"v": v}


FAMILY = Family(
    name="rmsprop",
    title="RMSprop",
    config=RMSprop,
    init=init,
    step=step,
    state_arrays=lambda config: 1,
    space={"lr": Range(low=1e-4, high=1e-2, log=True)},
)
