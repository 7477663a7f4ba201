"""Search spaces: which values of a hyperparameter are tried."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from optbench.optimizers import OptimizerConfig, family_of
from optbench.suite.validation import InvalidError, listed, parse, problem, shown, unknown_choice
from optbench.trial import to_plain

if TYPE_CHECKING:
    from optbench.suite.yamlfile import KeyPath

Kind = Literal["log", "uniform", "decay", "int", "choice"]
#: A winner in this outer part of a range lies on its edge.
EDGE = 0.05


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One searched hyperparameter.

    Attributes
    ----------
    name : str
        A hyperparameter of the optimizer, or a key of the workload as in ``model.dropout``.
    kind : str
        ``log`` and ``uniform``: real numbers on that scale. ``decay``: 1 - x on a logarithmic scale. ``int``:
        whole numbers in steps of ``step``. ``choice``: one of ``choices``.
    low, high : float
        Both included; not read for ``choice``.
    """

    name: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    step: int = 1
    choices: tuple[Any, ...] = ()

    def at(self, u: float) -> Any:
        """Value at share ``u`` in [0, 1] of the way from low to high; for ``choice`` of the list."""
        if self.kind == "choice":
            return self.choices[min(int(u * len(self.choices)), len(self.choices) - 1)]
        if self.kind == "int":
            count = int(self.high - self.low) // self.step + 1
            return int(self.low) + self.step * min(int(u * count), count - 1)
        return self.tidy(self._unscaled(self._scaled(self.low) * (1 - u) + self._scaled(self.high) * u))

    def tidy(self, value: float) -> float:
        """Cut a drawn number to the digits that a table prints, inside the range."""
        if self.kind == "decay":
            value = 1 - float(f"{1 - value:.6g}")
        return min(
            max(float(f"{value:.6g}" if self.kind != "decay" else f"{value:.12g}"), self.low), self.high
        )

    def edge(self, value: Any) -> Literal["lower", "upper"] | None:
        """Which edge of the range a value lies on; a choice has none."""
        if self.kind == "choice" or self.low == self.high:
            return None
        low, high = self._scaled(self.low), self._scaled(self.high)
        place = (self._scaled(value) - low) / (high - low)
        return "lower" if place <= EDGE else "upper" if place >= 1 - EDGE else None

    def shifted(self, side: str) -> Axis:
        """Move the range by half its width over one edge, on its scale."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        move = (high - low) / 2 * (1 if side == "upper" else -1)
        if self.kind == "int":
            move = self.step * math.copysign(max(1, round(abs(move) / self.step)), move)
        new_low, new_high = self._unscaled(low + move), self._unscaled(high + move)
        if self.low >= 0 and self.kind != "log":
            new_low = max(new_low, 0.0 if self.kind != "int" else float(int(self.low) % self.step))
        low, high = (float(f"{x:.10g}") for x in (new_low, new_high))
        return replace(self, low=low, high=high)

    def _scaled(self, x: float) -> float:
        if self.kind == "log":
            return math.log(x)
        return -math.log1p(-x) if self.kind == "decay" else float(x)

    def _unscaled(self, y: float) -> float:
        if self.kind == "log":
            return math.exp(y)
        return -math.expm1(-y) if self.kind == "decay" else y


def read_axes(entry: Any, path: KeyPath) -> tuple[Axis, ...]:
    """Read hyperparameters mapped to what is searched.

    Raises
    ------
    InvalidError
        With the path of what does not fit.
    """
    if not isinstance(entry, dict) or not entry:
        raise problem(
            path, f"found {shown(entry)}; map hyperparameters to ranges, as in lr: {{log: [1e-4, 1e-2]}}"
        )
    return tuple(_axis(str(name), value, (*path, name)) for name, value in entry.items())


def family_axes(config: OptimizerConfig) -> tuple[Axis, ...]:
    """Default space of an optimizer's family; none for a custom class."""
    return tuple(
        Axis(name=name, kind="log" if r.log else "uniform", low=r.low, high=r.high)
        for name, r in family_of(config).space.items()
    )


def with_values(config: OptimizerConfig, values: Mapping[str, Any], path: KeyPath = ()) -> OptimizerConfig:
    """Give an optimizer other hyperparameters, checked like a suite's.

    Raises
    ------
    InvalidError
        If it has no such hyperparameter, or does not take the value.
    """
    if (own := family_of(config).with_values) is not None:
        given: OptimizerConfig = own(config, values)
        return given
    changed: OptimizerConfig = parse(type(config), {**to_plain(config), **values}, path)
    return changed


def _axis(name: str, entry: Any, path: KeyPath) -> Axis:
    if isinstance(entry, list):
        if len(entry) < 2:
            raise problem(path, f"found {shown(entry)}; list at least two values to choose from")
        return Axis(name=name, kind="choice", choices=tuple(_frozen(value) for value in entry))
    kinds = [kind for kind in get_args(Kind) if isinstance(entry, dict) and kind in entry]
    if len(kinds) != 1:
        raise problem(
            path,
            f"found {shown(entry)}; list the values, or give one of {listed(get_args(Kind))}: [low, high]",
        )
    kind = kinds[0]
    if kind == "choice":
        return _axis(name, entry[kind], (*path, kind))
    extra = [key for key in entry if key != kind and not (kind == "int" and key == "step")]
    if extra:
        known = (kind, "step") if kind == "int" else (kind,)
        raise InvalidError([unknown_choice(extra[0], known, (*path, extra[0]), what="key")])
    bounds, step = entry[kind], entry.get("step", 1)
    numbers = int if kind == "int" else (int, float)
    if (
        not isinstance(bounds, list)
        or len(bounds) != 2
        or not all(isinstance(x, numbers) and not isinstance(x, bool) for x in bounds)
        or not bounds[0] < bounds[1]
    ):
        whole = "whole " if kind == "int" else ""
        raise problem((*path, kind), f"found {shown(bounds)}; two {whole}numbers, low and high, belong here")
    if kind == "log" and bounds[0] <= 0:
        raise problem((*path, kind), f"found {shown(bounds)}; a logarithmic range lies above 0")
    if kind == "decay" and not 0 <= bounds[0] < bounds[1] < 1:
        raise problem((*path, kind), f"found {shown(bounds)}; decays lie in [0, 1)")
    if isinstance(step, bool) or not isinstance(step, int) or step < 1:
        raise problem((*path, "step"), f"found {shown(step)}; a whole number from 1 belongs here")
    return Axis(name=name, kind=kind, low=float(bounds[0]), high=float(bounds[1]), step=step)


def grid(axes: Sequence[Axis], points: int) -> list[dict[str, Any]]:
    """All combinations: every value of a list, ranges cut evenly on their scale to fill ``points``.

    Raises
    ------
    ValueError
        If no even cut has exactly so many combinations; the message says how many there can be.
    """
    listed_values = math.prod(len(axis.choices) for axis in axes if axis.kind == "choice")
    ranges = sum(axis.kind != "choice" for axis in axes)
    each = round((points / listed_values) ** (1 / ranges)) if ranges else 1
    total = listed_values * each**ranges
    if total != points or (ranges and each < 2):
        near = listed_values * max(each, 2) ** ranges if ranges else listed_values
        raise ValueError(f"its grid cannot have {points} points; {near} is possible")
    columns = [
        [*axis.choices] if axis.kind == "choice" else [axis.at(k / (each - 1)) for k in range(each)]
        for axis in axes
    ]
    combined: list[dict[str, Any]] = [{}]
    for axis, column in zip(axes, columns, strict=True):
        combined = [{**point, axis.name: value} for point in combined for value in column]
    return combined


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
