r"""Stochastic gradient descent with momentum.

With momentum :math:`\mu` and learning rate :math:`\eta`:

.. math::

    b_t &= \mu b_{t-1} + g_t, \quad b_0 = 0 \\
    w_t &= w_{t-1} - \eta b_t                     && \text{(heavy ball)} \\
    w_t &= w_{t-1} - \eta (g_t + \mu b_t)         && \text{(nesterov)}

The learning rate stands outside the buffer (PyTorch's form); Keras keeps it inside, which differs only
while the learning rate changes. Source: Polyak (1964); Sutskever et al., ICML 2013 for Nesterov's form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Lt

from optbench.config import FORBID_EXTRA
from optbench.optimizers.base import Array, Family, Range, State


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Hyperparameters of stochastic gradient descent."""

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["sgd"] = "sgd"
    lr: Annotated[float, Gt(0)] = 0.01
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0
    nesterov: bool = False


def init(config: SGD, w: Array) -> State:
    """Momentum buffer of zeros, or nothing without momentum."""
    return {"buffer": np.zeros_like(w)} if config.momentum else {}


def step(config: SGD, w: Array, g: Array, state: State, t: int) -> tuple[Array, State]:
    """One update; see the module's formula."""
    if not config.momentum:
        return w - config.lr * g, {}
    buffer = config.momentum * state["buffer"] + g
    direction = g + config.momentum * buffer if config.nesterov else buffer
    return w - config.lr * direction, {"buffer": buffer}


FAMILY = Family(
    name="sgd",
    title="SGD",
    config=SGD,
    init=init,
    step=step,
    state_arrays=lambda config: 1 if config.momentum else 0,
    space={"lr": Range(low=1e-3, high=1.0, log=True)},
)
