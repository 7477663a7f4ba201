r"""Adam.

With :math:`m_0 = v_0 = 0`:

.. math::

    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
    v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2 \\
    w_t &= w_{t-1} - \eta \frac{m_t / (1 - \beta_1^t)}{\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}

Epsilon is added after the bias correction (algorithm 1 of the paper, PyTorch, optax). ``flavor: keras`` adds
it before, the paper's "epsilon hat": :math:`\epsilon / \sqrt{1 - \beta_2^t}` in the line above. Keras
defaults to 1e-7. Source: Kingma & Ba, ICLR 2015.

``amsgrad: true`` divides by the largest :math:`v` so far, before its bias correction (PyTorch, Keras; optax
takes the largest corrected one). Source: Reddi, Kale & Kumar, ICLR 2018, whose algorithm 2 has no bias
correction. ``cautious: true`` drops the parts of a step that point up the gradient, see
:func:`optbench.optimizers.base.cautious`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from optbench.optimizers.base import Array, Family, Native, Range, State, Verification, cautious, decayed
from optbench.task import FORBID_EXTRA, OMIT_DEFAULT


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Hyperparameters of Adam.

    Attributes
    ----------
    lr : float
        Learning rate, above 0.
    beta1, beta2 : float
        Decays of the first and second moment, in [0, 1).
    eps : float
        Added to the root, above 0.
    flavor : "keras" or None
        Keras's native rule in place of the canonical one.
    amsgrad : bool
        Divide by the largest second moment so far.
    cautious : bool
        Drop the parts of a step that point up the gradient.
    """

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["adam"] = "adam"
    lr: Annotated[float, Gt(0)] = 1e-3
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.999
    eps: Annotated[float, Gt(0)] = 1e-8
    flavor: Literal["keras"] | None = None
    amsgrad: bool = field(default=False, metadata=OMIT_DEFAULT)
    cautious: bool = field(default=False, metadata=OMIT_DEFAULT)


def init(config: Any, w: Array, xp: Any) -> State:
    """First and second moments, and with amsgrad the largest second one, zero."""
    state = {"m": xp.zeros_like(w), "v": xp.zeros_like(w)}
    return {**state, "largest": xp.zeros_like(w)} if config.amsgrad else state


def update(config: Any, w: Array, g: Array, state: State, *, lr: Any, t: Any, xp: Any) -> tuple[Array, State]:
    """One update; see the module's formula."""
    m = config.beta1 * state["m"] + (1 - config.beta1) * g
    v = config.beta2 * state["v"] + (1 - config.beta2) * g * g
    correction = decayed(config.beta2, t, xp) ** 0.5
    eps = config.eps / correction if config.flavor == "keras" else config.eps
    new = {"m": m, "v": v}
    if config.amsgrad:
        new["largest"] = v = xp.maximum(state["largest"], v)
    delta = -lr * (m / decayed(config.beta1, t, xp)) / (xp.sqrt(v) / correction + eps)
    return cautious(delta, g, xp) if config.cautious else delta, new


def moments(config: Any) -> Mapping[str, Any] | None:
    """Arguments of PyTorch's classes with Adam's moments; None where they lack what is asked for."""
    if getattr(config, "flavor", None) is not None or config.cautious:
        return None
    amsgrad = {"amsgrad": True} if getattr(config, "amsgrad", False) else {}
    return {"betas": (config.beta1, config.beta2), "eps": config.eps, **amsgrad}


FAMILY = Family(
    name="adam",
    title="Adam",
    config=Adam,
    init=init,
    update=update,
    elementwise=True,
    space={"lr": Range(low=1e-4, high=1e-2, log=True)},
    epsilon="outside the root, after the bias correction; Keras: before it",
    couples=lambda config: config.cautious,
    needs_weights=lambda config: False,
    # optax computes 1 - beta^t by subtraction, which costs float32 its last digits: the rule runs there.
    native={
        "torch": Native(
            target="torch.optim:Adam", arguments=moments, forms=("fused", "foreach"), graph="same bits"
        )
    },
    verification=Verification(
        cases=(Adam(), Adam(eps=1e-7, flavor="keras"), Adam(amsgrad=True)),
        further=(Adam(cautious=True),),
        parity=(
            Adam(lr=0.001),
            Adam(lr=0.001, flavor="keras"),
            Adam(lr=0.001, amsgrad=True),
            Adam(lr=0.001, cautious=True),
        ),
    ),
    contains=lambda hyperparameters: {
        "sgd": "a large eps, the learning rate in proportion (Choi et al. 2019)"
    },
    style=1,
)
