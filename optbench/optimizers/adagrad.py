r"""Adagrad.

With :math:`v_0` the initial accumulator:

.. math::

    v_t &= v_{t-1} + g_t^2 \\
    w_t &= w_{t-1} - \eta g_t / (\sqrt{v_t} + \epsilon)

Epsilon stands outside the root, as in PyTorch; ``flavor: keras`` puts it inside. The initial accumulator is 0
here and in PyTorch, .1 in Keras and optax. Source: Duchi, Hazan & Singer, JMLR 12, 2011.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt

from optbench.optimizers.base import Array, Family, Native, Range, State, Verification
from optbench.task import FORBID_EXTRA


@dataclass(frozen=True, kw_only=True)
class Adagrad:
    """Hyperparameters of Adagrad.

    Attributes
    ----------
    lr : float
        Learning rate, above 0.
    initial_accumulator : float
        Sum of squared gradients before the first step, 0 or more.
    eps : float
        Added to the root, above 0.
    flavor : "keras" or None
        Keras's native rule in place of the canonical one.
    """

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["adagrad"] = "adagrad"
    lr: Annotated[float, Gt(0)] = 0.01
    initial_accumulator: Annotated[float, Ge(0)] = 0.0
    eps: Annotated[float, Gt(0)] = 1e-10
    flavor: Literal["keras"] | None = None


def init(config: Adagrad, w: Array, xp: Any) -> State:
    """Sum of squared gradients at its initial value."""
    return {"v": xp.zeros_like(w) + config.initial_accumulator}


def update(
    config: Adagrad, w: Array, g: Array, state: State, *, lr: Any, t: Any, xp: Any
) -> tuple[Array, State]:
    """One update; see the module's formula."""
    v = state["v"] + g * g
    root = xp.sqrt(v + config.eps) if config.flavor == "keras" else xp.sqrt(v) + config.eps
    return -lr * g / root, {"v": v}


def _torch(config: Adagrad) -> Mapping[str, Any] | None:
    if config.flavor is not None:
        return None
    return {"initial_accumulator_value": config.initial_accumulator, "eps": config.eps}


FAMILY = Family(
    name="adagrad",
    title="Adagrad",
    config=Adagrad,
    init=init,
    update=update,
    elementwise=True,
    space={"lr": Range(low=1e-3, high=1e-1, log=True)},
    epsilon="outside the root; Keras and optax: inside",
    needs_weights=lambda config: False,
    native={"torch": Native(target="torch.optim:Adagrad", arguments=_torch, forms=("fused", "foreach"))},
    verification=Verification(
        cases=(Adagrad(), Adagrad(initial_accumulator=0.1, flavor="keras")), parity=(Adagrad(lr=0.01),)
    ),
)
