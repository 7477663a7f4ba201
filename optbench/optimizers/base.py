"""What every optimizer family declares.

A family is one file: a frozen dataclass of hyperparameters (the canonical semantics, the same for every
framework), and the update rule written once in NumPy float64 as the reference that backends conform to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
#: The state of one parameter: array name -> array of the parameter's shape.
State = dict[str, Array]


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
        ``init(config, w) -> State``: the state before the first step.
    step : callable
        ``step(config, w, g, state, t) -> (w, state)``: one update of one parameter in float64, t = 1, 2,
        ...; pure, its arguments are left alone.
    state_arrays : callable
        ``state_arrays(config) -> int``: arrays of the parameter's size that the plain rule keeps.
    space : mapping
        Default search space by hyperparameter.
    """

    name: str
    title: str
    config: type
    init: Callable[[Any, Array], State]
    step: Callable[[Any, Array, Array, State, int], tuple[Array, State]]
    state_arrays: Callable[[Any], int]
    space: Mapping[str, Range]
