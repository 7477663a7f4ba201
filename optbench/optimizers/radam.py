r"""RAdam: Adam whose adaptive rate waits until its variance is bounded.

With Adam's moments, :math:`\rho_\infty = 2 / (1 - \beta_2) - 1` and
:math:`\rho_t = \rho_\infty - 2 t \beta_2^t / (1 - \beta_2^t)`:

.. math::

    r_t &= \sqrt{\frac{(\rho_t - 4)(\rho_t - 2) \rho_\infty}{(\rho_\infty - 4)(\rho_\infty - 2) \rho_t}} \\
    w_t &= w_{t-1} - \eta \frac{m_t}{1 - \beta_1^t} \begin{cases}
        r_t \sqrt{1 - \beta_2^t} / (\sqrt{v_t} + \epsilon) & \rho_t > 5 \\ 1 & \text{else}
    \end{cases}

Epsilon is added before the bias correction (PyTorch's form, and its bound of 5, where the paper has 4);
``optax.radam`` adds it after. Keras has none. Frameworks that compute in float32 get :math:`\rho_t` from a
series, since the difference above would cost all their digits. ``cautious: true``: see
:func:`optbench.optimizers.base.cautious`. Source: Liu et al., "On the variance of the adaptive learning rate
and beyond", ICLR 2020, algorithm 2.
"""

from __future__ import annotations

import math
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
class RAdam:
    """Hyperparameters of RAdam: Adam's, with ``beta2`` in (0, 1)."""

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["radam"] = "radam"
    lr: Annotated[float, Gt(0)] = 1e-3
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    beta2: Annotated[float, Gt(0), Lt(1)] = 0.999
    eps: Annotated[float, Gt(0)] = 1e-8
    cautious: bool = field(default=False, metadata=OMIT_DEFAULT)


def init(config: RAdam, w: Array, xp: Any) -> State:
    """First and second moments, zero."""
    return {"m": xp.zeros_like(w), "v": xp.zeros_like(w)}


def update(
    config: RAdam, w: Array, g: Array, state: State, *, lr: Any, t: Any, xp: Any
) -> tuple[Array, State]:
    """One update; see the module's formula."""
    m = config.beta1 * state["m"] + (1 - config.beta1) * g
    v = config.beta2 * state["v"] + (1 - config.beta2) * g * g
    m_hat = m / decayed(config.beta1, t, xp)
    adaptive = decayed(config.beta2, t, xp) ** 0.5 / (xp.sqrt(v) + config.eps)
    factor = _rectified(config.beta2, t, xp)
    if isinstance(t, int):
        delta = -lr * m_hat if factor is None else -lr * (m_hat * adaptive * factor)
    else:
        delta = -lr * xp.where(factor > 0, m_hat * adaptive * factor, m_hat)
    return cautious(delta, g, xp) if config.cautious else delta, {"m": m, "v": v}


def _rectified(beta: float, t: Any, xp: Any) -> Any:
    """Compute r_t; None, or 0 for a traced t, where it is not used."""
    limit = 2 / (1 - beta) - 1
    if isinstance(t, int):
        rho = limit - 2 * t * beta**t / -math.expm1(t * math.log(beta))
        if not rho > 5:
            return None
        return math.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
    if not limit > 5:
        return xp.zeros_like(t)
    rate = -math.log(beta)
    # x / (e^x - 1) = 1 - x / 2 + rest(x), so that rho_t = start + t - 2 rest(t rate) / rate.
    start = 2 * (1 / (1 - beta) - 0.5 - 1 / rate)
    rho = start + t - (2 / rate) * _rest(rate * t, xp)
    known = xp.where(rho > 5, rho, 5 * xp.ones_like(rho))
    square = (known - 4) * (known - 2) * (limit / ((limit - 4) * (limit - 2))) / known
    return xp.where(rho > 5, xp.sqrt(square), xp.zeros_like(rho))


def _rest(x: Any, xp: Any) -> Any:
    """Compute x / (e^x - 1) - 1 + x / 2: the series of Bernoulli's numbers where x is small."""
    y = x * x
    series = y * (1 / 12 - y * (1 / 720 - y * (1 / 30240 - y * (1 / 1209600 - y / 47900160))))
    return xp.where(x < 0.5, series, x / xp.expm1(x) - 1 + x / 2)


def _torch(config: RAdam) -> Mapping[str, Any] | None:
    return adam.moments(config)


FAMILY = Family(
    name="radam",
    title="RAdam",
    config=RAdam,
    init=init,
    update=update,
    elementwise=True,
    couples=lambda config: config.cautious,
    space={"lr": Range(low=1e-4, high=1e-2, log=True)},
    epsilon="outside the root, before the bias correction; optax: after it",
    needs_weights=lambda config: False,
    native={
        "torch": Native(target="torch.optim:RAdam", arguments=_torch, forms=("foreach",), graph="other bits")
    },
    verification=Verification(
        cases=(RAdam(), RAdam(beta2=0.9)),
        further=(RAdam(cautious=True),),
        parity=(RAdam(lr=0.001), RAdam(lr=0.001, beta2=0.95)),
        # The first steps do not divide by the gradient's size.
        gradient_power=lambda config: 1,
    ),
)
