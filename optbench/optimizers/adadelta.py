r"""Adadelta: steps in proportion to those before, so that units of the weights and the gradients agree.

With :math:`v_0 = u_0 = 0`:

.. math::

    v_t &= \rho v_{t-1} + (1 - \rho) g_t^2, \quad
    d_t = \frac{\sqrt{u_{t-1} + \epsilon}}{\sqrt{v_t + \epsilon}} g_t \\
    u_t &= \rho u_{t-1} + (1 - \rho) d_t^2, \quad w_t = w_{t-1} - \eta d_t

The paper has no learning rate (1 here, as in PyTorch). Keras's and optax's classes take the same steps with
other defaults: Keras lr .001, rho .95, epsilon 1e-7. Epsilon decides how large the first steps are. Source:
Zeiler, "ADADELTA: an adaptive learning rate method", 2012, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from optbench.optimizers.base import Array, Family, Native, Range, State, Verification
from optbench.task import FORBID_EXTRA


@dataclass(frozen=True, kw_only=True)
class Adadelta:
    """Hyperparameters of Adadelta: ``rho`` in [0, 1) is the decay of both averages, ``eps`` above 0."""

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["adadelta"] = "adadelta"
    lr: Annotated[float, Gt(0)] = 1.0
    rho: Annotated[float, Ge(0), Lt(1)] = 0.9
    eps: Annotated[float, Gt(0)] = 1e-6


def init(config: Adadelta, w: Array, xp: Any) -> State:
    """Averages of squared gradients and squared steps, zero."""
    return {"v": xp.zeros_like(w), "u": xp.zeros_like(w)}


def update(
    config: Adadelta, w: Array, g: Array, state: State, *, lr: Any, t: Any, xp: Any
) -> tuple[Array, State]:
    """One update; see the module's formula."""
    v = config.rho * state["v"] + (1 - config.rho) * g * g
    step = xp.sqrt(state["u"] + config.eps) / xp.sqrt(v + config.eps) * g
    return -lr * step, {"v": v, "u": config.rho * state["u"] + (1 - config.rho) * step * step}


def _torch(config: Adadelta) -> Mapping[str, Any]:
    return {"rho": config.rho, "eps": config.eps}


FAMILY = Family(
    name="adadelta",
    title="Adadelta",
    config=Adadelta,
    init=init,
    update=update,
    elementwise=True,
    counts=lambda config: False,
    space={"lr": Range(low=1e-2, high=10.0, log=True)},
    epsilon="inside both roots",
    needs_weights=lambda config: False,
    native={
        "torch": Native(
            target="torch.optim:Adadelta", arguments=_torch, forms=("foreach",), graph="same bits"
        )
    },
    verification=Verification(
        cases=(Adadelta(), Adadelta(rho=0.95, eps=1e-7)),
        parity=(Adadelta(), Adadelta(rho=0.95, eps=1e-7)),
        lr=1.0,
    ),
)
