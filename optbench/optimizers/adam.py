r"""Adam.

With :math:`m_0 = v_0 = 0`:

.. math::

    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
    v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
    w_t &= w_{t-1} - \eta \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

Epsilon is added after the bias correction (algorithm 1 of the paper, PyTorch, optax); Keras adds it before
(the paper's "epsilon hat") and defaults to 1e-7. Source: Kingma & Ba, ICLR 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Lt

from optbench.config import FORBID_EXTRA
from optbench.optimizers.base import Array, Family, Range, State


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Hyperparameters of Adam."""

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["adam"] = "adam"
    lr: Annotated[float, Gt(0)] = 1e-3
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.999
    eps: Annotated[float, Gt(0)] = 1e-8


def init(config: Adam, w: Array) -> State:
    """First and second moments, zero."""
    return {"m": np.zeros_like(w), "v": np.zeros_like(w)}


def step(config: Adam, w: Array, g: Array, state: State, t: int) -> tuple[Array, State]:
    """One update; see the module's formula."""
    m = config.beta1 * state["m"] + (1 - config.beta1) * g
    v = config.beta2 * state["v"] + (1 - config.beta2) * g * g
    m_hat, v_hat = m / (1 - config.beta1**t), v / (1 - config.beta2**t)
    return w - config.lr * m_hat / (np.sqrt(v_hat) + config.eps), {"m": m, "v": v}


FAMILY = Family(
    name="adam",
    title="Adam",
    config=Adam,
    init=init,
    step=step,
    state_arrays=lambda config: 2,
    space={"lr": Range(low=1e-4, high=1e-2, log=True)},
)
