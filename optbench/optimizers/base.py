"""What every optimizer family declares.

A family is one file: a frozen dataclass of hyperparameters (the canonical semantics, the same for every
framework), the update rule written once, and what the rest of the package has to know of it. The rule takes
its array functions as ``xp``: with NumPy and float64 it is the reference that every backend is held to, and a
framework without a class of these semantics runs the same rule on its own arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar, Literal, Protocol

import numpy as np

#: An array of any framework. NumPy's float64 is the reference.
Array = Any
#: The state of one parameter: array name -> array of the parameter's shape.
State = dict[str, Array]
#: Packages that have optimizer classes of their own.
Framework = Literal["torch", "keras", "optax"]

#: The functions of ``xp`` that a rule may call: NumPy's names, which every framework has with this meaning.
#: ``mean`` and ``sum`` are over the whole array. ``matrix(w)`` is a weight as a matrix [in, out], whose rows
#: may stand in any order, and ``like(matrix, w)`` brings one back into the weight's shape.
ARRAY_FUNCTIONS = (
    *("abs", "einsum", "exp", "expm1", "like", "log", "log1p", "matrix", "maximum", "mean", "minimum"),
    *("ones", "ones_like", "sign", "sqrt", "square", "sum", "tanh", "where", "zeros_like"),
)


def array_functions(module: Any, **own: Callable[..., Any]) -> Any:
    """Make a framework's ``xp`` from its module, and what it names or does otherwise.

    Parameters
    ----------
    module : module
        Has the functions by NumPy's names.
    **own : callable
        Those that it lacks. Without ``matrix``, weights are taken to end in their outputs' axis.
    """

    def matrix(w: Array) -> Array:
        return w if len(w.shape) == 2 else module.reshape(w, (-1, w.shape[-1]))

    views = {"matrix": matrix, "like": lambda x, w: module.reshape(x, w.shape)}
    return SimpleNamespace(
        **{name: own.get(name) or views.get(name) or getattr(module, name) for name in ARRAY_FUNCTIONS}
    )


class Hyperparameters(Protocol):
    """What every optimizer config is: a frozen dataclass with its family's name and a learning rate."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def optimizer(self) -> str:
        """Name of the family."""

    @property
    def lr(self) -> float | None:
        """Learning rate; None where a custom class has no such argument."""


class CanonicalHyperparameters(Hyperparameters, Protocol):
    """A config of a family whose rule is written here."""

    @property
    def lr(self) -> float:
        """Learning rate, above 0."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """An interval to search: ``low <= x <= high``, on a logarithmic scale where ``log``."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class Native:
    """A class of a framework that follows the canonical rule.

    Attributes
    ----------
    target : str
        ``package.module:Class``; it is imported when an optimizer is made.
    arguments : callable
        ``arguments(config) -> mapping``: its keyword arguments beside the learning rate, or None where it
        does not follow the rule with these hyperparameters, so that the rule itself runs.
    float64 : bool
        Whether it computes in float64 for float64 weights; the rule itself runs there otherwise.
    forms : tuple of str
        PyTorch: arguments that choose an implementation, fastest first; the first that works is taken.
    graph : str
        PyTorch: whether a step can be recorded in a CUDA graph, and whether with the bits of a step that is
        not recorded. A class whose answer depends on its arguments or its device has ``graph_obstacle()``,
        which returns the reason against it or None.
    """

    target: str
    arguments: Callable[[Any], Mapping[str, Any] | None]
    float64: bool = True
    forms: tuple[str, ...] = ()
    graph: Literal["same bits", "other bits", "no"] = "no"


@dataclass(frozen=True, kw_only=True)
class Verification:
    """How a family is verified.

    Attributes
    ----------
    cases : tuple of configs
        They exercise every branch of the rule, at learning rates where it is stable, and are held to the
        reference; the first one also to the checks that need no reference. The defaults if empty.
    further : tuple of configs
        Held to the reference as well: hyperparameters with which a rule needs the loss, or takes tensors
        whole though it works element by element without them.
    parity : tuple of configs
        Trials with these are compared between backends. The defaults if empty.
    lr : float
        A learning rate at which twenty steps on a quadratic are visible in half precision.
    gradient_power : callable
        ``gradient_power(config) -> int``: the first step grows as this power of the gradient's size: 0 where
        the rule divides by that size, 1 where it does not.
    checks : str, optional
        Further checks, ``package.module:function``, called as ``function(backend, cases)``.
    """

    cases: tuple[Any, ...] = ()
    further: tuple[Any, ...] = ()
    parity: tuple[Any, ...] = ()
    lr: float = 1e-2
    gradient_power: Callable[[Any], int] = lambda config: 0
    checks: str | None = None


@dataclass(frozen=True, kw_only=True)
class Family:
    """An optimizer family.

    Attributes
    ----------
    name : str
        Canonical name, as written in a suite file.
    title : str
        Name in tables.
    config : type
        Frozen dataclass of the hyperparameters with their defaults; its ``optimizer`` field is the name.
    init : callable
        ``init(config, w, xp) -> State``: the state of one parameter before the first step. Scalars that a
        rule needs (products over the steps) are arrays of shape ().
    update : callable
        ``update(config, w, g, state, *, lr, t, xp) -> (delta, State)``: what one step adds to one parameter,
        t = 1, 2, ...; pure, its arguments are left alone. ``t`` is an int, or a traced number of the
        framework; ``w`` and what belongs to it may be :class:`many arrays
        <optbench.backends.torch.rules.Many>` at once. It calls nothing of ``xp`` but :data:`ARRAY_FUNCTIONS`.
    elementwise : bool
        Whether each weight moves by its own gradient and state alone, so that weights of several trials may
        lie in one array.
    couples : callable
        ``couples(config) -> bool``: hyperparameters with which an elementwise rule takes tensors as a whole.
    parts : callable
        ``parts(config) -> mapping``: a config that is not for every weight gives those of the others; roles,
        or ``rest``, mapped to configs. None where one rule moves all weights.
    matrices : callable
        ``matrices(config) -> bool``: whether the rule takes weights of two axes or more, and no others.
    needs_loss : callable
        ``needs_loss(config) -> bool``: whether ``update`` is to be given ``loss``, the loss whose gradient
        ``g`` is.
    scheduled : bool
        Whether a learning rate that a schedule moves changes the steps.
    counts : callable
        ``counts(config) -> bool``: whether a step after the first depends on its number; a rule that does not
        can be recorded once and replayed.
    space : mapping
        Default search space by hyperparameter.
    epsilon : str
        Where epsilon stands, and where frameworks put it elsewhere; empty without an epsilon.
    needs_weights : callable
        ``needs_weights(config) -> bool``: whether the rule reads the weights. They are always demanded unless
        a family says that they need not be.
    decay : callable
        ``decay(config) -> float``: share of each weight that a step takes away whatever its gradient.
    native : mapping
        The framework's own class that follows the rule; a framework that is not named runs the rule.
    compact, expand : callable
        ``compact(config, state, xp)`` folds a state into fewer arrays, ``expand(state, xp)`` undoes it.
        ``update`` takes either form and returns the one that it was given.
    verification : Verification
        Cases and bars.
    contains : callable
        ``contains(hyperparameters) -> mapping``: families that are special cases of this one, and how it
        becomes them; tuned well, it must not lose to one. It is given the config as a plain mapping.
    style : int, optional
        Number of its colour and marker in plots; without one it takes what is free.
    has_rule : bool
        Whether the rule is known here; that of a custom class is not.
    with_values : callable, optional
        ``with_values(config, values) -> config``: gives a config other hyperparameters where these are not
        its fields.
    """

    name: str
    title: str
    config: type
    init: Callable[[Any, Array, Any], State]
    update: Callable[..., tuple[Array, State]]
    elementwise: bool
    couples: Callable[[Any], bool] = lambda config: False
    parts: Callable[[Any], Mapping[tuple[str, ...], Any] | None] = lambda config: None
    matrices: Callable[[Any], bool] = lambda config: False
    needs_loss: Callable[[Any], bool] = lambda config: False
    scheduled: bool = True
    counts: Callable[[Any], bool] = lambda config: True
    space: Mapping[str, Range] = field(default_factory=lambda: MappingProxyType({}))
    epsilon: str = ""
    needs_weights: Callable[[Any], bool] = lambda config: True
    decay: Callable[[Any], float] = lambda config: 0.0
    native: Mapping[Framework, Native] = field(default_factory=lambda: MappingProxyType({}))
    compact: Callable[[Any, State, Any], State] = lambda config, state, xp: state
    expand: Callable[[State, Any], State] = lambda state, xp: state
    verification: Verification = Verification()
    contains: Callable[[Mapping[str, Any]], Mapping[str, str]] = lambda hyperparameters: {}
    style: int | None = None
    has_rule: bool = True
    with_values: Callable[[Any, Mapping[str, Any]], Any] | None = None

    def start(self, config: Any, w: Array) -> State:
        """Make the reference's state before the first step; see :meth:`step`."""
        family, own = self._moving(config, w)
        return family.init(own, w, NUMPY)

    def _moving(self, config: Any, w: Array) -> tuple[Family, Any]:
        """Tell what moves a weight of which the shape alone is known: a vector is no matrix."""
        parts = self.parts(config)
        if parts is None or np.ndim(w) > 1:
            return self, config
        from optbench.optimizers import family_of

        return family_of(parts["rest",]), parts["rest",]

    def step(
        self,
        config: Any,
        w: Array,
        g: Array,
        state: State,
        t: int,
        *,
        lr: float | None = None,
        loss: float | None = None,
    ) -> tuple[Array, State]:
        """Take one reference step in NumPy.

        Where a family has :attr:`parts`, a vector is moved by that of the rest.

        Parameters
        ----------
        config : dataclass
            Hyperparameters; an instance of the family's ``config``.
        w, g : float64 array
            One parameter and its gradient.
        state : State
            What the last step returned, or :meth:`start`.
        t : int
            Number of this step, from 1.
        lr : float, optional
            Learning rate of this step where a schedule moves it; the config's own otherwise.
        loss : float, optional
            Loss before the step, for a rule that needs it.

        Returns
        -------
        w : array
            The new parameter.
        state : State
            The new state.

        Examples
        --------
        >>> import numpy as np
        >>> from optbench.optimizers import FAMILIES
        >>> sgd = FAMILIES["sgd"]
        >>> config, w = sgd.config(lr=0.1), np.array([1.0])
        >>> sgd.step(config, w, np.array([2.0]), sgd.start(config, w), 1)[0]
        array([0.8])
        """
        family, own = self._moving(config, w)
        rate, known = own.lr, family.known_loss(own, loss)
        if lr is not None:
            rate = lr if own.lr == config.lr else lr * (own.lr / config.lr)
        delta, state = family.update(own, w, g, state, lr=rate, t=t, xp=NUMPY, **known)
        return w + delta, state

    def known_loss(self, config: Any, loss: Any) -> dict[str, Any]:
        """Give ``update`` the loss where the rule needs it.

        Raises
        ------
        ValueError
            If it needs one and there is none.
        """
        if not self.needs_loss(config):
            return {}
        if loss is None:
            raise ValueError(
                f"{self.name} with these hyperparameters needs the loss of each step; none was given"
            )
        return {"loss": loss}

    def by_element(self, config: Any) -> bool:
        """Whether the rule works element by element with these hyperparameters."""
        return self.elementwise and not self.couples(config)

    def state_arrays(self, config: Any) -> int:
        """Count the arrays of the parameter's size that the plain rule keeps."""
        return sum(np.shape(array) == (3, 1) for array in self.start(config, np.ones((3, 1))).values())

    def native_for(self, framework: Framework, config: Any) -> tuple[Native, Mapping[str, Any]] | None:
        """Find the framework's class for a config, and its arguments; None where the rule runs."""
        native = self.native.get(framework)
        arguments = native.arguments(config) if native is not None else None
        return None if native is None or arguments is None else (native, arguments)

    def cases(self) -> tuple[Any, ...]:
        """Configs that are held to the reference."""
        return self.verification.cases or (self.config(),)

    def all_cases(self) -> tuple[Any, ...]:
        """Configs that are held to the reference, those of further kinds too."""
        return (*self.cases(), *self.verification.further)

    def parity_cases(self) -> tuple[Any, ...]:
        """Configs whose trials are compared between backends."""
        return self.verification.parity or (self.config(),)

    def stack_obstacle(self, backend: str, config: Any = None, *, apart: bool = False) -> str | None:
        """Say why trials cannot be trained as one program; None where they can.

        JAX keeps the trials of a stack apart by itself, PyTorch puts their weights into one array, unless it
        keeps them ``apart``, as branches of a graph.
        """
        if not self.has_rule:
            return "a custom optimizer may mix what stacked trials keep apart"
        if (
            backend == "torch"
            and not apart
            and not self.by_element(self.config() if config is None else config)
        ):
            return f"{self.name} does not work element by element"
        return None if backend in ("torch", "jax") else f"{backend} trains one trial at a time"


class _Numpy:
    """NumPy, but for what other frameworks lack."""

    def __init__(self) -> None:
        self.__dict__ |= vars(array_functions(np))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"the rule calls xp.{name}, which not every framework has; a rule may call "
            f"{', '.join(ARRAY_FUNCTIONS)}"
        )


#: ``xp`` of the reference.
NUMPY = _Numpy()


def decayed(beta: float, t: Any, xp: Any) -> Any:
    """Compute ``1 - beta**t`` without the cancellation that costs float32 half its digits at small t."""
    if isinstance(t, int):
        return -math.expm1(t * math.log(beta)) if beta else 1.0
    return -xp.expm1(t * math.log(beta)) if beta else xp.ones_like(t)


def cautious(delta: Array, g: Array, xp: Any) -> Array:
    """Drop the parts of a step that point up the gradient, and make the others larger in proportion.

    The masked step is divided by the share of the tensor's weights that still move, .001 at least. Source:
    Liang et al., "Cautious optimizers", 2024, algorithm 1; decoupled weight decay is not masked.
    """
    agrees = xp.where(xp.sign(delta) * xp.sign(g) < 0, xp.ones_like(delta), xp.zeros_like(delta))
    share = xp.mean(agrees)
    return delta * agrees / xp.where(share > CAUTIOUS_FLOOR, share, xp.zeros_like(share) + CAUTIOUS_FLOOR)


#: Least share of moving weights that :func:`cautious` divides by.
CAUTIOUS_FLOOR = 1e-3
