r"""WAME: weight-wise adaptive learning rates with a moving average estimator.

Per weight an acceleration factor :math:`\zeta` grows while the gradient keeps its sign and shrinks when it
flips. With :math:`\zeta_0 = 1`, :math:`Z_0 = \theta_0 = g_0 = 0`, in this order:

.. math::

    s_t     &= \operatorname{sign}(g_t) \operatorname{sign}(g_{t-1}) \\
    \zeta_t &= \min(\zeta_{t-1} \eta_+, \zeta_{max}) \text{ if } s_t > 0, \;
               \max(\zeta_{t-1} \eta_-, \zeta_{min}) \text{ if } s_t < 0, \; \zeta_{t-1} \text{ else} \\
    Z_t     &= \alpha Z_{t-1} + (1 - \alpha) \zeta_t \\
    \theta_t &= \alpha \theta_{t-1} + (1 - \alpha) g_t^2 \\
    w_t     &= w_{t-1} - \eta Z_t g_t / \sqrt{\theta_t + \epsilon}

The product is taken of the signs: :math:`g_t g_{t-1}` underflows in float32 below 1e-22. The last line is
the variant ``adjusted``, the rule as its authors explained it. The other variants are what else has been
called WAME:

======================  ==============================================================  ================
variant                 step                                                            epsilon
======================  ==============================================================  ================
``adjusted``            :math:`\eta Z g / \sqrt{\theta + \epsilon}`                     inside
``paper``               :math:`\eta Z g / (\theta + \epsilon)`, algorithm 1 as printed  in the sum
``divide``              :math:`(\eta / Z) g / \sqrt{\theta + \epsilon}`, its prose      inside
``author``              :math:`\eta_t (\zeta / Z) g / (\sqrt\theta + \epsilon)`         outside
``author_shipped``      the same with the two faults of the authors' code               outside
``report1_shipped``     ``adjusted`` with :math:`\zeta_0 = 0`                           outside
``report2_shipped``     :math:`\eta g / \sqrt{\theta + \epsilon}`, which is RMSprop     inside
======================  ==============================================================  ================

In the authors' code :math:`\eta_t = \eta \sqrt{1 - .999^t} / (1 - .9^t)`, theta decays by .999 and
:math:`Z_0 = 1`. As shipped it remembers the weight in place of the gradient, :math:`g_{t-1} := w_{t-2}`, and
keeps zeta unclipped, clipping only the copy that it uses. Source: Mosca & Magoulas, ESANN 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Lt

from optbench.optimizers.base import Array, Family, Native, Range, State, Verification, decayed
from optbench.task import FORBID_EXTRA, OMIT_DEFAULT

Variant = Literal[
    "adjusted", "paper", "divide", "author", "author_shipped", "report1_shipped", "report2_shipped"
]
EpsMode = Literal["inside", "outside"]

#: Constants of the authors' code: decay of theta, and the beta of the learning rate's correction.
AUTHOR_THETA_DECAY = 0.999
AUTHOR_BETA = 0.9


@dataclass(frozen=True, kw_only=True)
class WAME:
    """Hyperparameters of WAME.

    Attributes
    ----------
    lr : float
        Learning rate, above 0. WAME's steps are about lr / 80 where gradients are noisy, so its useful
        rates are .01 to .1.
    alpha : float
        Decay of Z and theta, in [0, 1).
    eta_plus, eta_minus : float
        Growth (above 1) and shrinkage (in (0, 1)) of zeta.
    zeta_min, zeta_max : float
        Bounds of zeta.
    eps : float
        Added to the root, above 0.
    variant : str
        Which rule; see the module.
    eps_mode : "inside", "outside" or None
        Epsilon inside or outside the root; None is the variant's own place. ``paper`` has no root and takes
        none.
    weight_decay : float
        Decoupled decay, 0 or more: before a step the weights are multiplied by 1 - lr * weight_decay, as
        AdamW's are. No variant that was published has it.

    Examples
    --------
    >>> WAME(lr=0.05).variant
    'adjusted'
    """

    __pydantic_config__ = FORBID_EXTRA

    optimizer: Literal["wame"] = "wame"
    lr: Annotated[float, Gt(0)] = 0.05
    alpha: Annotated[float, Ge(0), Lt(1)] = 0.9
    eta_plus: Annotated[float, Gt(1)] = 1.2
    eta_minus: Annotated[float, Gt(0), Lt(1)] = 0.1
    zeta_min: Annotated[float, Gt(0)] = 0.01
    zeta_max: Annotated[float, Gt(0)] = 100.0
    eps: Annotated[float, Gt(0)] = 1e-11
    variant: Variant = "adjusted"
    eps_mode: EpsMode | None = None
    weight_decay: Annotated[float, Ge(0)] = field(default=0.0, metadata=OMIT_DEFAULT)

    def __post_init__(self) -> None:
        if self.zeta_min > self.zeta_max:
            raise ValueError(f"zeta_min {self.zeta_min} is above zeta_max {self.zeta_max}")
        if self.variant == "paper" and self.eps_mode is not None:
            raise ValueError("the variant paper has no root, so it takes no eps_mode; leave it out")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A variant taken apart: what an implementation has to know of it.

    Attributes
    ----------
    rate : str
        Factor of the learning rate: ``multiply`` Z, ``divide`` 1/Z, ``ratio`` zeta/Z, ``constant`` 1.
    root : str
        Divisor: ``inside`` sqrt(theta + eps), ``outside`` sqrt(theta) + eps, ``none`` theta + eps.
    zeta0, average0 : float
        Where zeta and Z start.
    author : bool
        Theta's decay and the learning rate's correction are those of the authors' code.
    shipped : bool
        With the two faults of the authors' code.
    """

    rate: Literal["multiply", "divide", "ratio", "constant"]
    root: Literal["inside", "outside", "none"]
    zeta0: float = 1.0
    average0: float = 0.0
    author: bool = False
    shipped: bool = False

    @property
    def reads_weights(self) -> bool:
        """Whether a step depends on the weights: the shipped fault remembers them."""
        return self.shipped

    @property
    def compactable(self) -> bool:
        """Whether zeta is never 0 and stays in its bounds, so that it can carry a sign."""
        return not self.shipped and self.zeta0 > 0

    @property
    def contains_rmsprop(self) -> bool:
        """Whether it is RMSprop where zeta cannot move."""
        return self.root != "none" and not self.author


#: Every variant, with epsilon in its own place.
RULES: Mapping[str, Rule] = {
    "adjusted": Rule(rate="multiply", root="inside"),
    "paper": Rule(rate="multiply", root="none"),
    "divide": Rule(rate="divide", root="inside"),
    "author": Rule(rate="ratio", root="outside", average0=1.0, author=True),
    "author_shipped": Rule(rate="ratio", root="outside", average0=1.0, author=True, shipped=True),
    "report1_shipped": Rule(rate="multiply", root="outside", zeta0=0.0),
    "report2_shipped": Rule(rate="constant", root="inside"),
}


def rule(variant: Variant, eps_mode: EpsMode | None = None) -> Rule:
    """Take a variant apart.

    Raises
    ------
    ValueError
        If there is no such variant.
    """
    if variant not in RULES:
        raise ValueError(f"variant is {variant!r}; choose one of {', '.join(RULES)}")
    own = RULES[variant]
    return own if eps_mode is None or own.root == "none" else replace(own, root=eps_mode)


def corrected_lr(lr: Any, t: Any, xp: Any) -> Any:
    """Correct the learning rate as the authors' code does."""
    return lr * decayed(AUTHOR_THETA_DECAY, t, xp) ** 0.5 / decayed(AUTHOR_BETA, t, xp)


def init(config: WAME, w: Array, xp: Any) -> State:
    """Make zeta, Z, theta and the last sign as the variant starts them."""
    start, zeros = rule(config.variant, config.eps_mode), xp.zeros_like(w)
    return {"zeta": zeros + start.zeta0, "Z": zeros + start.average0, "theta": zeros, "sign": zeros}


#: Stands for "the last gradient was zero" in a compact state. A power of two, so that nothing is rounded.
_NO_SIGN = 2.0**64


def compact(config: WAME, state: State, xp: Any) -> State:
    """Fold the sign into zeta, for frameworks without access to bits; left as it is where zeta cannot.

    zeta is stored as it is after a gradient above 0, negated after one below, and times 2^64 after a zero: 12
    bytes a float32 parameter, and no bit of zeta is lost. :func:`update` takes either form and returns it.
    """
    bounded = config.zeta_min > 2.0**-32 and config.zeta_max < 2.0**32
    if not bounded or not rule(config.variant).compactable:
        return state
    return {"zeta": _fold(state["zeta"], state["sign"], xp), "Z": state["Z"], "theta": state["theta"]}


def expand(state: State, xp: Any) -> State:
    """Undo :func:`compact`."""
    if "sign" in state:
        return state
    zeta, sign = _unfold(state["zeta"], xp)
    return {**state, "zeta": zeta, "sign": sign}


def _fold(zeta: Array, sign: Array, xp: Any) -> Array:
    return xp.where(sign > 0, zeta, xp.where(sign < 0, -zeta, zeta * _NO_SIGN))


def _unfold(packed: Array, xp: Any) -> tuple[Array, Array]:
    size = xp.abs(packed)
    zero = size > 2.0**32
    return xp.where(zero, size / _NO_SIGN, size), xp.where(zero, xp.zeros_like(size), xp.sign(packed))


def update(
    config: WAME, w: Array, g: Array, state: State, *, lr: Any, t: Any, xp: Any
) -> tuple[Array, State]:
    """One update; see the module's formula."""
    if config.weight_decay:
        lost = lr * config.weight_decay * w
        delta, new = update(replace(config, weight_decay=0.0), w - lost, g, state, lr=lr, t=t, xp=xp)
        return delta - lost, new
    how = rule(config.variant, config.eps_mode)
    folded = "sign" not in state
    state = expand(state, xp)
    zeta, zeros = state["zeta"], xp.zeros_like(state["zeta"])
    low, high = zeros + config.zeta_min, zeros + config.zeta_max
    if how.rate != "constant":
        agreement = xp.sign(g) * state["sign"]
        grown, shrunk = zeta * config.eta_plus, zeta * config.eta_minus
        if not how.shipped:
            grown, shrunk = xp.where(grown > high, high, grown), xp.where(shrunk < low, low, shrunk)
        zeta = xp.where(agreement > 0, grown, xp.where(agreement < 0, shrunk, zeta))
    if folded:  # go on from what is stored, or XLA keeps zeta beside it
        new = {"zeta": _fold(zeta, g, xp)}
        zeta, _ = _unfold(new["zeta"], xp)
    else:
        new = {"zeta": zeta, "sign": xp.sign(w if how.shipped else g)}
    used = zeta
    if how.shipped:
        used = xp.where(zeta > high, high, xp.where(zeta < low, low, zeta))
    decay = AUTHOR_THETA_DECAY if how.author else config.alpha
    z = config.alpha * state["Z"] + (1 - config.alpha) * used
    theta = decay * state["theta"] + (1 - decay) * (g * g)
    if how.author:
        lr = corrected_lr(lr, t, xp)
    if how.rate == "multiply":
        scale = lr * z
    elif how.rate == "divide":
        scale = lr / z
    else:
        scale = lr * (used / z) if how.rate == "ratio" else lr
    if how.root == "none":
        divisor = theta + config.eps
    else:
        inside = how.root == "inside"
        divisor = xp.sqrt(theta + config.eps) if inside else xp.sqrt(theta) + config.eps
    return -(scale * g / divisor), {**new, "Z": z, "theta": theta}


def _arguments(config: WAME) -> Mapping[str, Any]:
    given = {name: value for name, value in asdict(config).items() if name not in ("optimizer", "lr")}
    if not config.weight_decay:
        del given["weight_decay"]
    return given


def _contains(hyperparameters: Mapping[str, Any]) -> Mapping[str, str]:
    own = RULES.get(str(hyperparameters.get("variant", "adjusted")))
    return {"rmsprop": "zeta_min = zeta_max = 1"} if own is not None and own.contains_rmsprop else {}


FAMILY = Family(
    name="wame",
    title="WAME",
    config=WAME,
    init=init,
    update=update,
    elementwise=True,
    space={"lr": Range(low=1e-3, high=1e-1, log=True)},
    epsilon="as the variant has it, or where eps_mode puts it",
    needs_weights=lambda config: rule(config.variant).reads_weights or config.weight_decay > 0,
    decay=lambda config: config.lr * config.weight_decay,
    native={
        "torch": Native(target="optbench.optimizers.torch:WAME", arguments=_arguments),
        "keras": Native(target="optbench.optimizers.keras:WAME", arguments=_arguments),
    },
    compact=compact,
    expand=expand,
    verification=Verification(
        cases=(
            WAME(lr=0.01),
            WAME(lr=0.01, eps_mode="outside"),
            WAME(lr=1e-6, variant="paper"),
            WAME(lr=1e-5, variant="divide"),
            WAME(lr=1e-3, variant="author"),
            WAME(lr=1e-3, variant="author_shipped"),
            WAME(lr=0.01, variant="report1_shipped"),
            WAME(lr=1e-3, variant="report2_shipped", eps=1e-12),
            WAME(lr=0.01, weight_decay=0.1),
        ),
        # The variant author_shipped is chaotic by design.
        parity=(
            WAME(lr=0.01),
            WAME(lr=0.0002, variant="divide"),
            WAME(lr=0.001, variant="author"),
            WAME(lr=0.001, variant="report2_shipped"),
            WAME(lr=0.01, weight_decay=0.1),
        ),
        gradient_power=lambda config: -1 if rule(config.variant).root == "none" else 0,
        checks="optbench.verification.wame_checks:checks",
    ),
    contains=_contains,
    style=0,
)
