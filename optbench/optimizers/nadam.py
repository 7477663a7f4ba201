r"""Nadam: Adam with Nesterov's momentum, and a momentum that warms up.

With :math:`m_0 = v_0 = 0` and :math:`\mu_t = \beta_1 (1 - \tfrac12 0.96^{t \psi})`:

.. math::

    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t, \quad v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
    \hat m_t &= \frac{\mu_{t+1} m_t}{1 - \prod_{i=1}^{t+1} \mu_i} +
                \frac{(1 - \mu_t) g_t}{1 - \prod_{i=1}^{t} \mu_i} \\
    w_t &= w_{t-1} - \eta \, \hat m_t / (\sqrt{v_t / (1 - \beta_2^t)} + \epsilon)

:math:`\psi` is ``momentum_decay``, .004 in the paper and in PyTorch. Keras has the same rule with
:math:`\psi = 1` and epsilon 1e-7: ``nadam: {momentum_decay: 1.0, eps: 1.0e-7}`` is Keras's Nadam. optax's
``nadam`` has no warm-up at all. Source: Dozat, ICLR 2016 workshop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from optbench.optimizers import adam
from optbench.optimizers.base import Array, Family, Native, Range, State, Verification, cautious, decayed
from optbench.task import FORBID_EXTRA, OMIT_DEFAULT


@dataclass(frozen=True, kw_only=True)
class Nadam:
    """Hyperparameters of Nadam: Adam's, ``momentum_decay``, 0 or more, and ``cautious``."""

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["nadam"] = "nadam"
    lr: Annotated[float, Gt(0)] = 1e-3
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.999
    eps: Annotated[float, Gt(0)] = 1e-8
    momentum_decay: Annotated[float, Ge(0)] = 0.004
    cautious: bool = field(default=False, metadata=OMIT_DEFAULT)


def init(config: Nadam, w: Array, xp: Any) -> State:
    """Moments of zeros, and the product of the momenta so far (a scalar), one."""
    return {"m": xp.zeros_like(w), "v": xp.zeros_like(w), "product": xp.ones((), dtype=w.dtype)}


def update(
    config: Nadam, w: Array, g: Array, state: State, *, lr: Any, t: Any, xp: Any
) -> tuple[Array, State]:
    """One update; see the module's formula."""
    m = config.beta1 * state["m"] + (1 - config.beta1) * g
    v = config.beta2 * state["v"] + (1 - config.beta2) * g * g
    now, ahead = _momentum(config, t, xp), _momentum(config, t + 1, xp)
    product = state["product"] * now
    m_hat = ahead * m / (1 - product * ahead) + (1 - now) * g / (1 - product)
    root = xp.sqrt(v) / decayed(config.beta2, t, xp) ** 0.5
    delta = -lr * m_hat / (root + config.eps)
    new = {"m": m, "v": v, "product": product}
    return cautious(delta, g, xp) if config.cautious else delta, new


def _momentum(config: Nadam, t: Any, xp: Any) -> Any:
    exponent = t * (config.momentum_decay * math.log(0.96))
    return config.beta1 * (1 - 0.5 * (math.exp(exponent) if isinstance(t, int) else xp.exp(exponent)))


def _torch(config: Nadam) -> Mapping[str, Any] | None:
    given = adam.moments(config)
    return None if given is None else {**given, "momentum_decay": config.momentum_decay}


FAMILY = Family(
    name="nadam",
    title="Nadam",
    config=Nadam,
    init=init,
    update=update,
    elementwise=True,
    space={"lr": Range(low=1e-4, high=1e-2, log=True)},
    epsilon="outside the root, after the bias correction",
    couples=lambda config: config.cautious,
    needs_weights=lambda config: False,
    native={
        "torch": Native(
            target="torch.optim:NAdam",
            arguments=_torch,
            float64=False,  # it keeps the product of the momenta in float32, in a graph on the device
            forms=("foreach",),
            graph="other bits",
        )
    },
    verification=Verification(
        cases=(Nadam(), Nadam(momentum_decay=1.0, eps=1e-7)),
        further=(Nadam(cautious=True),),
        parity=(Nadam(lr=0.001),),
    ),
    contains=lambda hyperparameters: {
        "sgd": "a large eps, the learning rate in proportion (Choi et al. 2019)"
    },
    style=4,
)
