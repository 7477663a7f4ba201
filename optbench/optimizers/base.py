"""What every optimizer family declares.

A family is one file: a frozen dataclass of hyperparameters (the canonical semantics, the same for every
framework), and the update rule written once. The rule takes its array functions as ``xp``: with NumPy and
float64 it is the reference that every backend is held to, and a framework without a class of these semantics
runs the same rule on its own arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

#: An array of any framework. NumPy's float64 is the reference.
Array = Any
#: The state of one parameter: array name -> array of the parameter's shape.
State = dict[str, Array]

_Framework = TypeVar("_Framework")


@dataclass(frozen=True, kw_only=True)
class Range:
    """An interval to search: ``low <= x <= high``, on a logarithmic scale where ``log``."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class Family:
    """An optimizer family.

    Attributes
    ----------
    name : str
        Canonical name, as written in a suite file.
    title : str
        Name in tables and plots.
    config : type
        Frozen dataclass of the hyperparameters with their defaults; its ``optimizer`` field is the name.
    init : callable
        ``init(config, w, xp) -> State``: the state of one parameter before the first step. Scalars that a
        rule needs (products over the steps) are arrays of shape ().
    update : callable
        ``update(config, w, g, state, *, lr, t, xp) -> (delta, State)``: what one step adds to one parameter,
        t = 1, 2, ...; pure, its arguments are left alone. ``t`` is an int, or a traced number of the
        framework.
    state_arrays : callable
        ``state_arrays(config) -> int``: arrays of the parameter's size that the plain rule keeps.
    space : mapping
        Default search space by hyperparameter.
    """

    name: str
    title: str
    config: type
    init: Callable[[Any, Array, Any], State]
    update: Callable[..., tuple[Array, State]]
    state_arrays: Callable[[Any], int]
    space: Mapping[str, Range]

    def start(self, config: Any, w: Array) -> State:
        """Make the reference's state before the first step."""
        return self.init(config, w, np)

    def step(
        self, config: Any, w: Array, g: Array, state: State, t: int, *, lr: float | None = None
    ) -> tuple[Array, State]:
        """Take one reference step in NumPy.

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
        delta, state = self.update(config, w, g, state, lr=config.lr if lr is None else lr, t=t, xp=np)
        return w + delta, state


def decayed(beta: float, t: Any, xp: Any) -> Any:
    """Compute ``1 - beta**t`` without the cancellation that costs float32 half its digits at small t."""
    if isinstance(t, int):
        return -math.expm1(t * math.log(beta)) if beta else 1.0
    return -xp.expm1(t * math.log(beta)) if beta else xp.ones_like(t)
