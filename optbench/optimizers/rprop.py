r"""Rprop: a step size for every weight, from the signs of its gradient alone.

With :math:`s_t = \operatorname{sign}(g_t) \operatorname{sign}(g_{t-1})` and :math:`\Delta_0 = \eta`:

.. math::

    \Delta_t = \begin{cases}
        \min(\eta_+ \Delta_{t-1}, \Delta_{\max}) & s_t > 0 \\
        \max(\eta_- \Delta_{t-1}, \Delta_{\min}) & s_t < 0 \\
        \Delta_{t-1} & s_t = 0
    \end{cases}
    \qquad w_t = w_{t-1} - \operatorname{sign}(g_t) \Delta_t

The variants differ after a change of sign (Igel & Hüsken 2003):

=========== ============================================================================
``rprop-``  the step is taken like any other
``rprop+``  the last step of that weight is taken back, and the sign is forgotten
``irprop-`` the weight rests, and the sign is forgotten; the default, and PyTorch's rule
``irprop+`` the last step is taken back where the loss has risen, else the weight rests
=========== ============================================================================

A forgotten sign is 0, so that the size does not shrink twice in a row. ``irprop+`` reads the loss of each
step, on minibatches that of the batch. The learning rate is the first size of every step and nothing else:
schedules do not move it. Rprop is made for full batches; where gradients are noisy half the signs flip.

PyTorch's ``Rprop`` multiplies the gradients before it takes the sign, so that gradients below 1e-23 in
float32 count as no agreement; else it takes the same steps. ``optax.rprop`` (0.2.8) takes each step one
update late, and none where a sign has changed meanwhile. Keras has none. Sources: Riedmiller & Braun, ICNN
1993; Igel & Hüsken, "Empirical evaluation of the improved Rprop learning algorithms", Neurocomputing 50,
2003, tables 1 to 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Gt, Lt

from optbench.optimizers.base import Array, Family, Range, State, Verification
from optbench.task import FORBID_EXTRA

Variant = Literal["irprop-", "irprop+", "rprop-", "rprop+"]


@dataclass(frozen=True, kw_only=True)
class Rprop:
    """Hyperparameters of Rprop.

    Attributes
    ----------
    lr : float
        First step size of every weight, above 0.
    eta_plus, eta_minus : float
        Growth (above 1) and shrinkage (in (0, 1)) of a step size.
    step_min, step_max : float
        Its bounds.
    variant : str
        What happens after a change of sign; see the module.

    Examples
    --------
    >>> Rprop(lr=0.01).variant
    'irprop-'
    """

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["rprop"] = "rprop"
    lr: Annotated[float, Gt(0)] = 0.01
    eta_plus: Annotated[float, Gt(1)] = 1.2
    eta_minus: Annotated[float, Gt(0), Lt(1)] = 0.5
    step_min: Annotated[float, Gt(0)] = 1e-6
    step_max: Annotated[float, Gt(0)] = 50.0
    variant: Variant = "irprop-"

    def __post_init__(self) -> None:
        if self.step_min > self.step_max:
            raise ValueError(f"step_min {self.step_min} is above step_max {self.step_max}")


def init(config: Rprop, w: Array, xp: Any) -> State:
    """Step sizes (set by the first step), the last sign, and what a variant takes steps back by."""
    zeros = xp.zeros_like(w)
    state = {"size": zeros, "sign": zeros}
    if config.variant.endswith("+"):
        state["last"] = zeros
    if config.variant == "irprop+":
        state["loss"] = xp.ones((), dtype=w.dtype)
    return state


def update(
    config: Rprop, w: Array, g: Array, state: State, *, lr: Any, t: Any, xp: Any, loss: Any = None
) -> tuple[Array, State]:
    """One update; see the module's formula."""
    zeros, sign = xp.zeros_like(w), xp.sign(g)
    size = _first(t, zeros + lr, state["size"], xp)
    agreement = sign * state["sign"]
    grown, shrunk = size * config.eta_plus, size * config.eta_minus
    grown = xp.where(grown > config.step_max, zeros + config.step_max, grown)
    shrunk = xp.where(shrunk < config.step_min, zeros + config.step_min, shrunk)
    size = xp.where(agreement > 0, grown, xp.where(agreement < 0, shrunk, size))
    delta = -(sign * size)
    if config.variant == "rprop-":
        return delta, {"size": size, "sign": sign}
    new = {"size": size, "sign": xp.where(agreement < 0, zeros, sign)}
    back = zeros
    if config.variant == "rprop+":
        back = -state["last"]
    elif config.variant == "irprop+":
        back = xp.where(state["loss"] < loss, -state["last"], zeros)
        new["loss"] = state["loss"] * 0 + loss
    delta = xp.where(agreement < 0, back, delta)
    return delta, {**new, "last": delta} if config.variant.endswith("+") else new


def _first(t: Any, first: Array, later: Array, xp: Any) -> Array:
    if isinstance(t, int):
        return first if t == 1 else later
    return xp.where(t == 1, first, later)


FAMILY = Family(
    name="rprop",
    title="Rprop",
    config=Rprop,
    init=init,
    update=update,
    elementwise=True,
    couples=lambda config: config.variant == "irprop+",  # the loss is one for all its weights
    counts=lambda config: False,
    scheduled=False,  # the learning rate is the first step size alone
    needs_loss=lambda config: config.variant == "irprop+",
    space={"lr": Range(low=1e-4, high=1e-1, log=True)},
    needs_weights=lambda config: False,
    verification=Verification(
        cases=(
            Rprop(lr=1e-3, step_max=0.1),
            Rprop(lr=1e-3, step_max=0.1, variant="rprop-"),
            Rprop(lr=1e-3, step_max=0.1, variant="rprop+"),
        ),
        further=(Rprop(lr=1e-3, step_max=0.1, variant="irprop+"),),
        parity=(Rprop(lr=0.001), Rprop(lr=0.001, variant="irprop+")),
    ),
)
