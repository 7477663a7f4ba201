r"""Adamax: Adam with the largest gradient of late in place of the root.

With :math:`m_0 = u_0 = 0`:

.. math::

    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
    u_t &= \max(\beta_2 u_{t-1}, |g_t| + \epsilon) \\
    w_t &= w_{t-1} - \frac{\eta}{1 - \beta_1^t} \frac{m_t}{u_t}

Epsilon stands beside the gradient (PyTorch, optax); Keras adds it to :math:`u_t`, the paper has none.
``cautious: true``: see :func:`optbench.optimizers.base.cautious`. Source: Kingma & Ba, ICLR 2015, algorithm
2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from optbench.optimizers import adam
from optbench.optimizers.base import (
    Array,
    Family,
    Native,
    Range,
    State,
    Verification,
    cautious,
    decayed,
)
from optbench.task import FORBID_EXTRA, OMIT_DEFAULT


@dataclass(frozen=True, kw_only=True)
class Adamax:
    """Hyperparameters of Adamax: Adam's."""

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["adamax"] = "adamax"
    lr: Annotated[float, Gt(0)] = 2e-3
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.999
    eps: Annotated[float, Gt(0)] = 1e-8
    cautious: bool = field(default=False, metadata=OMIT_DEFAULT)


def init(config: Adamax, w: Array, xp: Any) -> State:
    """First moment and largest gradient, zero."""
    return {"m": xp.zeros_like(w), "u": xp.zeros_like(w)}


def update(
    config: Adamax, w: Array, g: Array, state: State, *, lr: Any, t: Any, xp: Any
) -> tuple[Array, State]:
    """One update; see the module's formula."""
    m = config.beta1 * state["m"] + (1 - config.beta1) * g
    u = xp.maximum(config.beta2 * state["u"], xp.abs(g) + config.eps)
    delta = -(lr / decayed(config.beta1, t, xp)) * m / u
    return cautious(delta, g, xp) if config.cautious else delta, {"m": m, "u": u}


def _torch(config: Adamax) -> Mapping[str, Any] | None:
    return adam.moments(config)


FAMILY = Family(
    name="adamax",
    title="Adamax",
    config=Adamax,
    init=init,
    update=update,
    elementwise=True,
    couples=lambda config: config.cautious,
    space={"lr": Range(low=1e-4, high=1e-2, log=True)},
    epsilon="beside the gradient, inside the maximum; Keras: beside the maximum",
    needs_weights=lambda config: False,
    native={
        "torch": Native(target="torch.optim:Adamax", arguments=_torch, forms=("foreach",), graph="other bits")
    },
    verification=Verification(
        cases=(Adamax(), Adamax(beta2=0.9)),
        further=(Adamax(cautious=True),),
        parity=(Adamax(), Adamax(beta2=0.9)),
    ),
)
