r"""RMSprop.

With decay :math:`\rho`, momentum :math:`\mu`, learning rate :math:`\eta` and :math:`v_0 = m_0 = b_0 = 0`:

.. math::

    v_t &= \rho v_{t-1} + (1 - \rho) g_t^2, \quad m_t = \rho m_{t-1} + (1 - \rho) g_t \\
    d_t &= g_t / (\sqrt{v_t} + \epsilon)  && \text{or, centered, } g_t / (\sqrt{v_t - m_t^2} + \epsilon) \\
    b_t &= \mu b_{t-1} + d_t \\
    w_t &= w_{t-1} - \eta b_t

Epsilon stands outside the root and the learning rate outside the buffer, as in PyTorch. ``flavor: keras``
puts both inside, :math:`b_t = \mu b_{t-1} + \eta g_t / \sqrt{v_t + \epsilon}`. The decay is PyTorch's
``alpha`` and Keras's ``rho``; the default .9 is Keras's (PyTorch has .99), the default epsilon 1e-8 PyTorch's
(Keras 1e-7). Source: Tieleman & Hinton, Lecture 6.5, 2012; Graves, arXiv 1308.0850 for the centered form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from optbench.optimizers.base import Array, Family, Native, Range, State, Verification
from optbench.task import FORBID_EXTRA


@dataclass(frozen=True, kw_only=True)
class RMSprop:
    """Hyperparameters of RMSprop.

    Attributes
    ----------
    lr : float
        Learning rate, above 0.
    rho : float
        Decay of the averages, in [0, 1).
    eps : float
        Added to the root, above 0.
    momentum : float
        In [0, 1); 0 keeps no buffer.
    centered : bool
        Divide by the standard deviation of the gradient, not by its root mean square.
    flavor : "keras" or None
        Keras's native rule in place of the canonical one.
    """

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["rmsprop"] = "rmsprop"
    lr: Annotated[float, Gt(0)] = 1e-3
    rho: Annotated[float, Ge(0), Lt(1)] = 0.9
    eps: Annotated[float, Gt(0)] = 1e-8
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.0
    centered: bool = False
    flavor: Literal["keras"] | None = None


def init(config: RMSprop, w: Array, xp: Any) -> State:
    """Running averages and the momentum buffer, zero."""
    used = {"v": True, "mean": config.centered, "buffer": config.momentum > 0}
    return {name: xp.zeros_like(w) for name, on in used.items() if on}


def update(
    config: RMSprop, w: Array, g: Array, state: State, *, lr: Any, t: Any, xp: Any
) -> tuple[Array, State]:
    """One update; see the module's formula."""
    rho, keras = config.rho, config.flavor == "keras"
    new = {"v": rho * state["v"] + (1 - rho) * g * g}
    variance = new["v"]
    if config.centered:
        new["mean"] = rho * state["mean"] + (1 - rho) * g
        variance = variance - new["mean"] * new["mean"]
    direction = g / xp.sqrt(variance + config.eps) if keras else g / (xp.sqrt(variance) + config.eps)
    if not config.momentum:
        return -lr * direction, new
    new["buffer"] = config.momentum * state["buffer"] + (lr * direction if keras else direction)
    return (-new["buffer"] if keras else -lr * new["buffer"]), new


def _torch(config: RMSprop) -> Mapping[str, Any] | None:
    if config.flavor is not None:
        return None
    given = {"alpha": config.rho, "momentum": config.momentum, "centered": config.centered}
    return {**given, "eps": config.eps}


def _optax(config: RMSprop) -> Mapping[str, Any] | None:
    if config.flavor is not None or config.momentum:  # optax has the learning rate inside the buffer
        return None
    return {"decay": config.rho, "eps": config.eps, "eps_in_sqrt": False, "centered": config.centered}


FAMILY = Family(
    name="rmsprop",
    title="RMSprop",
    config=RMSprop,
    init=init,
    update=update,
    elementwise=True,
    space={"lr": Range(low=1e-4, high=1e-2, log=True)},
    epsilon="outside the root; Keras, and optax by default: inside",
    needs_weights=lambda config: False,
    native={
        "torch": Native(
            target="torch.optim:RMSprop", arguments=_torch, forms=("foreach",), graph="same bits"
        ),
        "optax": Native(target="optax:rmsprop", arguments=_optax),
    },
    verification=Verification(
        cases=(
            RMSprop(),
            RMSprop(momentum=0.9),
            RMSprop(centered=True, eps=1e-4),
            RMSprop(momentum=0.5, flavor="keras"),
        ),
        parity=(RMSprop(lr=0.001), RMSprop(lr=0.0005, centered=True, momentum=0.5)),
    ),
    contains=lambda hyperparameters: {
        "sgd": "a large eps, the learning rate in proportion (Choi et al. 2019)"
    },
    style=2,
)
