r"""Lion: the sign of an interpolated momentum.

With :math:`m_0 = 0`:

.. math::

    c_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
    w_t &= (1 - \eta \lambda) w_{t-1} - \eta \operatorname{sign}(c_t) \\
    m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

No gradient is divided by its size, so there is no epsilon; a useful learning rate is a third to a tenth of
Adam's, with a decay larger by as much. optax (``optax.lion``) and Keras (``keras.optimizers.Lion``) take the
same steps; optax's decay is .001 by default, and Keras rounds the betas to float32. PyTorch has no class of
this name. ``cautious: true`` drops the parts of a step that point up the gradient, see
:func:`optbench.optimizers.base.cautious`; the decay is not masked. Source: Chen et al., "Symbolic discovery
of optimization algorithms", NeurIPS 2023, algorithm 2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from optbench.optimizers.base import Array, Family, Range, State, Verification, cautious
from optbench.task import FORBID_EXTRA, OMIT_DEFAULT


@dataclass(frozen=True, kw_only=True)
class Lion:
    """Hyperparameters of Lion.

    Attributes
    ----------
    lr : float
        Learning rate, above 0: the size of every weight's step.
    beta1, beta2 : float
        Weight of the momentum in the step, and its decay, in [0, 1).
    weight_decay : float
        Decoupled decay, 0 or more.
    cautious : bool
        Drop the parts of a step that point up the gradient.

    Examples
    --------
    >>> Lion(lr=1e-4).beta2
    0.99
    """

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["lion"] = "lion"
    lr: Annotated[float, Gt(0)] = 1e-4
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.99
    weight_decay: Annotated[float, Ge(0)] = 0.0
    cautious: bool = field(default=False, metadata=OMIT_DEFAULT)


def init(config: Lion, w: Array, xp: Any) -> State:
    """Momentum of zeros."""
    return {"m": xp.zeros_like(w)}


def update(
    config: Lion, w: Array, g: Array, state: State, *, lr: Any, t: Any, xp: Any
) -> tuple[Array, State]:
    """One update; see the module's formula."""
    m = state["m"]
    delta = -lr * xp.sign(config.beta1 * m + (1 - config.beta1) * g)
    if config.cautious:
        delta = cautious(delta, g, xp)
    if config.weight_decay:
        delta = delta - lr * config.weight_decay * w
    return delta, {"m": config.beta2 * m + (1 - config.beta2) * g}


FAMILY = Family(
    name="lion",
    title="Lion",
    config=Lion,
    init=init,
    update=update,
    elementwise=True,
    couples=lambda config: config.cautious,
    counts=lambda config: False,
    space={
        "lr": Range(low=1e-5, high=1e-2, log=True),
    },
    needs_weights=lambda config: config.weight_decay > 0,
    decay=lambda config: config.lr * config.weight_decay,
    verification=Verification(
        cases=(Lion(), Lion(weight_decay=0.1)),
        further=(Lion(weight_decay=0.1, cautious=True),),
        parity=(Lion(lr=0.0003, weight_decay=0.1), Lion(lr=0.0003, cautious=True)),
    ),
)
