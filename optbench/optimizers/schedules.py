r"""Schedules of the learning rate by step: how many times the optimizer's own rate each step has.

Every one may begin with ``warmup`` steps, of which the k-th (1, 2, ...) has k / warmup. After them a share u
of the steps that are left has gone by, from 0 at the first of them to nearly 1 at the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal, Union

from annotated_types import Ge, Gt, Le, Lt, MinLen

from optbench.task import FORBID_EXTRA

Steps = Annotated[int, Ge(0)]
Floor = Annotated[float, Ge(0), Lt(1)]


@dataclass(frozen=True, kw_only=True)
class Warmup:
    """The optimizer's own rate, reached in ``warmup`` steps."""

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["warmup"] = "warmup"
    warmup: Annotated[int, Gt(0)]


@dataclass(frozen=True, kw_only=True)
class CosineSteps:
    """Half a cosine down to ``floor``: f + (1 - f) (1 + cos(pi u)) / 2 (Loshchilov & Hutter 2017)."""

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["cosine_steps"] = "cosine_steps"
    warmup: Steps = 0
    floor: Floor = 0.0


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A straight line down to ``floor``: 1 - (1 - f) u."""

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["linear"] = "linear"
    warmup: Steps = 0
    floor: Floor = 0.0


@dataclass(frozen=True, kw_only=True)
class Polynomial:
    """A power of what is left down to ``floor``: f + (1 - f) (1 - u)^power."""

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["polynomial"] = "polynomial"
    warmup: Steps = 0
    power: Annotated[float, Gt(0)] = 2.0
    floor: Floor = 0.0


@dataclass(frozen=True, kw_only=True)
class InverseRoot:
    """sqrt(warmup / t) from step t = warmup on (Vaswani et al. 2017)."""

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["inverse_root"] = "inverse_root"
    warmup: Annotated[int, Gt(0)]


@dataclass(frozen=True, kw_only=True)
class WarmupStableDecay:
    """Warm-up, the rate itself, and over the last share ``decay`` of all steps down to ``floor``.

    Hu et al. (2024): ``linear``, or ``root``, 1 - sqrt of the share of the decay that has gone by (Haegele et
    al. 2024).
    """

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["wsd"] = "wsd"
    warmup: Steps = 0
    decay: Annotated[float, Gt(0), Le(1)] = 0.2
    shape: Literal["linear", "root"] = "linear"
    floor: Floor = 0.0


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """Half a cosine from ``start`` up to 1 over the share ``rise`` of all steps, another down to ``end``.

    Smith & Topin (2018), defaults of PyTorch's OneCycleLR; momentum stays as it is.
    """

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["one_cycle"] = "one_cycle"
    rise: Annotated[float, Gt(0), Lt(1)] = 0.3
    start: Floor = 0.04
    end: Floor = 4e-6


@dataclass(frozen=True, kw_only=True)
class Restarts:
    """Half a cosine down to ``floor`` over ``period`` steps, again and again, each ``grow`` times as long.

    Loshchilov & Hutter (2017).
    """

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["restarts"] = "restarts"
    warmup: Steps = 0
    period: Annotated[int, Gt(0)]
    grow: Annotated[int, Gt(0)] = 1
    floor: Floor = 0.0


Single = Union[  # noqa: UP007
    Warmup, CosineSteps, Linear, Polynomial, InverseRoot, WarmupStableDecay, OneCycle, Restarts
]


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Schedules one after the other; ``steps`` says how many steps each has, the last one the rest."""

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["chain"] = "chain"
    parts: Annotated[tuple[Single, ...], MinLen(2)]
    steps: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)]


Stepwise = Union[Single, Chain]  # noqa: UP007
#: Schedules by step, by their kind.
STEPWISE: Mapping[str, type[Stepwise]] = MappingProxyType(
    {
        "warmup": Warmup,
        "cosine_steps": CosineSteps,
        "linear": Linear,
        "polynomial": Polynomial,
        "inverse_root": InverseRoot,
        "wsd": WarmupStableDecay,
        "one_cycle": OneCycle,
        "restarts": Restarts,
        "chain": Chain,
    }
)


def is_stepwise(schedule: Any) -> bool:
    """Whether a schedule, or None, gives each step a rate of its own."""
    return schedule is not None and schedule.kind in STEPWISE


def must_begin(schedule: Any) -> int:
    """Steps behind which the last part of a schedule by step begins: its warm-up, or the parts before it.

    A training that ends there or before has not done what the schedule says.
    """
    if isinstance(schedule, Chain):
        return sum(schedule.steps[: len(schedule.parts) - 1]) + must_begin(schedule.parts[-1])
    return int(getattr(schedule, "warmup", 0))


def factor(schedule: Stepwise, step: int, total: int) -> float:
    """How many times its own rate an optimizer has at a step.

    Parameters
    ----------
    schedule : Stepwise
    step : int
        0, 1, ..., total - 1.
    total : int
        Steps of the whole training.

    Examples
    --------
    >>> [factor(Linear(warmup=2), step, 6) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if isinstance(schedule, Chain):
        for part, steps in zip(schedule.parts, schedule.steps, strict=False):
            if step < steps:
                return factor(part, step, steps)
            step, total = step - steps, total - steps
        return factor(schedule.parts[-1], step, total)
    warmup = getattr(schedule, "warmup", 0)
    if step < warmup:
        return (step + 1) / warmup
    return _AFTER[schedule.kind](schedule, step - warmup, max(1, total - warmup))


def _cosine(floor: float, share: float) -> float:
    return floor + (1 - floor) * (1 + math.cos(math.pi * share)) / 2


def _wsd(schedule: WarmupStableDecay, step: int, left: int) -> float:
    length = max(1.0, schedule.decay * (left + schedule.warmup))
    elapsed = max(0.0, (step - (left - length)) / length)
    down = math.sqrt(elapsed) if schedule.shape == "root" else elapsed
    return 1 - (1 - schedule.floor) * down


def _one_cycle(schedule: OneCycle, step: int, left: int) -> float:
    rise = schedule.rise * left
    if step < rise:
        return schedule.start + (1 - schedule.start) * (1 - math.cos(math.pi * step / rise)) / 2
    return _cosine(schedule.end, (step - rise) / (left - rise))


def _restarts(schedule: Restarts, step: int, left: int) -> float:
    period = schedule.period
    while step >= period:
        step, period = step - period, period * schedule.grow
    return _cosine(schedule.floor, step / period)


#: Factors behind the warm-up: (schedule, steps since, steps that there are since).
_AFTER: Mapping[str, Callable[[Any, int, int], float]] = MappingProxyType(
    {
        "warmup": lambda schedule, step, left: 1.0,
        "cosine_steps": lambda schedule, step, left: _cosine(schedule.floor, step / left),
        "linear": lambda schedule, step, left: 1 - (1 - schedule.floor) * step / left,
        "polynomial": lambda schedule, step, left: (
            schedule.floor + (1 - schedule.floor) * (1 - step / left) ** schedule.power
        ),
        "inverse_root": lambda schedule, step, left: math.sqrt(
            schedule.warmup / (schedule.warmup + step + 1)
        ),
        "wsd": _wsd,
        "one_cycle": _one_cycle,
        "restarts": _restarts,
    }
)
