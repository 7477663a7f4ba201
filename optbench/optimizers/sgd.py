r"""Stochastic gradient descent with momentum.

With momentum :math:`\mu`, dampening :math:`\tau` and learning rate :math:`\eta`:

.. math::

    b_1 &= g_1, \quad b_t = \mu b_{t-1} + (1 - \tau) g_t \\
    w_t &= w_{t-1} - \eta b_t                     && \text{(heavy ball)} \\
    w_t &= w_{t-1} - \eta (g_t + \mu b_t)         && \text{(nesterov)}

The learning rate stands outside the buffer (PyTorch's form). ``flavor: keras`` keeps it inside,
:math:`b_t = \mu b_{t-1} - \eta g_t`, which differs only while the learning rate changes. Source: Polyak
(1964); Sutskever et al., ICML 2013 for Nesterov's form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt

from optbench.optimizers.base import Array, Family, Native, Range, State, Verification
from optbench.task import FORBID_EXTRA


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Hyperparameters of stochastic gradient descent.

    Attributes
    ----------
    lr : float
        Learning rate, above 0.
    momentum : float
        In [0, 1); 0 keeps no buffer.
    nesterov : bool
        Nesterov's form; needs momentum and no dampening.
    dampening : float
        In [0, 1].
    flavor : "keras" or None
        Keras's native rule in place of the canonical one.

    Examples
    --------
    >>> SGD(lr=0.1, momentum=0.9).nesterov
    False
    """

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["sgd"] = "sgd"
    lr: Annotated[float, Gt(0)] = 0.01
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0
    nesterov: bool = False
    dampening: Annotated[float, Ge(0), Le(1)] = 0.0
    flavor: Literal["keras"] | None = None

    def __post_init__(self) -> None:
        if self.nesterov and (not self.momentum or self.dampening):
            raise ValueError("nesterov needs momentum above 0 and dampening 0")
        if self.dampening and not self.momentum:
            raise ValueError("dampening does nothing without momentum; set momentum above 0 or leave it out")
        if self.flavor == "keras" and self.dampening:
            raise ValueError("Keras has no dampening; leave out flavor or dampening")


def init(config: SGD, w: Array, xp: Any) -> State:
    """Momentum buffer of zeros, or nothing without momentum."""
    return {"buffer": xp.zeros_like(w)} if config.momentum else {}


def update(config: SGD, w: Array, g: Array, state: State, *, lr: Any, t: Any, xp: Any) -> tuple[Array, State]:
    """One update; see the module's formula."""
    if not config.momentum:
        return -lr * g, {}
    if config.flavor == "keras":
        buffer = config.momentum * state["buffer"] - lr * g
        return (config.momentum * buffer - lr * g if config.nesterov else buffer), {"buffer": buffer}
    kept = 1 - config.dampening
    if isinstance(t, int):
        kept = 1.0 if t == 1 else kept
    elif config.dampening:
        kept = xp.where(t == 1, xp.ones_like(t), xp.ones_like(t) * kept)
    buffer = config.momentum * state["buffer"] + kept * g
    return -lr * (g + config.momentum * buffer if config.nesterov else buffer), {"buffer": buffer}


def _torch(config: SGD) -> Mapping[str, Any] | None:
    if config.flavor is not None:
        return None
    return {"momentum": config.momentum, "nesterov": config.nesterov, "dampening": config.dampening}


def _optax(config: SGD) -> Mapping[str, Any] | None:
    if config.flavor is not None or config.dampening:
        return None
    return {"momentum": config.momentum or None, "nesterov": config.nesterov}


FAMILY = Family(
    name="sgd",
    title="SGD",
    config=SGD,
    init=init,
    update=update,
    elementwise=True,
    space={"lr": Range(low=1e-3, high=1.0, log=True)},
    needs_weights=lambda config: False,
    native={
        "torch": Native(
            target="torch.optim:SGD", arguments=_torch, forms=("fused", "foreach"), graph="same bits"
        ),
        "optax": Native(target="optax:sgd", arguments=_optax),
    },
    verification=Verification(
        cases=(
            SGD(lr=1e-4),
            SGD(lr=1e-4, momentum=0.9),
            SGD(lr=1e-4, momentum=0.9, nesterov=True),
            SGD(lr=1e-4, momentum=0.9, dampening=0.5),
            SGD(lr=1e-4, momentum=0.9, flavor="keras"),
        ),
        parity=(
            SGD(lr=0.1),
            SGD(lr=0.02, momentum=0.9),
            SGD(lr=0.02, momentum=0.9, nesterov=True),
        ),
        lr=1e-3,
        gradient_power=lambda config: 1,
    ),
    style=3,
)
