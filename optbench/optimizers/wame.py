r"""WAME: weight-wise adaptive learning rates with a moving average estimator.

Per weight an acceleration factor :math:`\zeta` grows while the gradient keeps its sign and shrinks when it
flips. With :math:`\zeta_0 = 1`, :math:`Z_0 = \theta_0 = g_0 = 0`, in this order:

.. math::

    s_t     &= \operatorname{sign}(g_t) \operatorname{sign}(g_{t-1}) \\
    \zeta_t &= \min(\zeta_{t-1} \eta_+, \zeta_{max}) \text{ if } s_t > 0, \;
               \max(\zeta_{t-1} \eta_-, \zeta_{min}) \text{ if } s_t < 0, \; \zeta_{t-1} \text{ else} \\
    Z_t     &= \alpha Z_{t-1} + (1 - \alpha) \zeta_t \\
    \theta_t &= \alpha \theta_{t-1} + (1 - \alpha) g_t^2 \\
    w_t     &= w_{t-1} - \eta Z_t g_t / \sqrt{\theta_t + \epsilon}

The product is taken of the signs: :math:`g_t g_{t-1}` underflows in float32 below 1e-22. The last line is
the variant ``adjusted``, the rule as its authors explained it. Source: Mosca & Magoulas, ESANN 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Lt

from optbench.config import FORBID_EXTRA
from optbench.optimizers.base import Array, Family, Range, State


@dataclass(frozen=True, kw_only=True)
class WAME:
    """Hyperparameters of WAME."""

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["wame"] = "wame"
    lr: Annotated[float, Gt(0)] = 0.05
    alpha: Annotated[float, Ge(0), Lt(1)] = 0.9
    eta_plus: Annotated[float, Gt(1)] = 1.2
    eta_minus: Annotated[float, Gt(0), Lt(1)] = 0.1
    zeta_min: Annotated[float, Gt(0)] = 0.01
    zeta_max: Annotated[float, Gt(0)] = 100.0
    eps: Annotated[float, Gt(0)] = 1e-11
    variant: Literal["adjusted"] = "adjusted"


def init(config: WAME, w: Array) -> State:
    """Acceleration one; its average, the squared gradient's and the last sign zero."""
    return {
        "zeta": np.ones_like(w),
        "Z": np.zeros_like(w),
        "theta": np.zeros_like(w),
        "sign": np.zeros_like(w),
    }


def step(config: WAME, w: Array, g: Array, state: State, t: int) -> tuple[Array, State]:
    """One update; see the module's formula."""
    sign = np.sign(g)
    agreement = sign * state["sign"]
    zeta = np.where(
        agreement > 0,
        np.minimum(state["zeta"] * config.eta_plus, config.zeta_max),
        np.where(agreement < 0, np.maximum(state["zeta"] * config.eta_minus, config.zeta_min), state["zeta"]),
    )
    z = config.alpha * state["Z"] + (1 - config.alpha) * zeta
    theta = config.alpha * state["theta"] + (1 - config.alpha) * g * g
    w = w - config.lr * z * g / np.sqrt(theta + config.eps)
    return w, {"zeta": zeta, "Z": z, "theta": theta, "sign": sign}


FAMILY = Family(
    name="wame",
    title="WAME",
    config=WAME,
    init=init,
    step=step,
    state_arrays=lambda config: 4,
    space={"lr": Range(low=1e-3, high=1e-1, log=True)},
)
