"""Search spaces: which values of a hyperparameter are tried."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from optbench.optimizers import OptimizerConfig, family_of, space_of
from optbench.suite.validation import InvalidError, listed, parse, problem, shown, unknown_choice
from optbench.trial import to_plain

if TYPE_CHECKING:
    from optbench.suite.yamlfile import KeyPath

Kind = Literal["log", "uniform", "decay", "int", "choice", "list"]
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
        whole numbers in steps of ``step``. ``choice``: one of ``choices``. ``list``: as many values as
        ``length`` says, each drawn from ``of``.
    low, high : float
        Both included; not read for ``choice``.
    length : Axis or str, optional
        Whole numbers from 1; or the name of another list, which it is as long as.
    of : Axis, optional
        Of each value of a list.
    also : tuple of str, optional
        Further keys that get the same value.
    """

    name: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    step: int = 1
    choices: tuple[Any, ...] = ()
    length: Axis | str | None = None
    of: Axis | None = None
    also: tuple[str, ...] | None = None

    def parts(self, longest: int | None = None) -> tuple[Axis, ...]:
        """What is drawn for it: itself, or for a list its length and as many values as it can have."""
        if self.of is None:
            return (self,)
        own = isinstance(self.length, Axis)
        length = (replace(self.length, name=f"{self.name} length"),) if isinstance(self.length, Axis) else ()
        count = self.longest if own else longest or 0
        return (*length, *(replace(self.of, name=f"{self.name} {k + 1}") for k in range(count)))

    @property
    def longest(self) -> int:
        """Values that a list with a length of its own has at most."""
        assert isinstance(self.length, Axis)
        return int(self.length.at(1.0)) if self.length.kind == "int" else max(self.length.choices)

    def at(self, u: float) -> Any:
        """Value at share ``u`` in [0, 1] of the way from low to high; for ``choice`` of the list."""
        if self.of is not None:
            length = self.length.at(u) if isinstance(self.length, Axis) else 1
            return (self.of.at(u),) * length
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
        if self.kind in ("choice", "list") or self.low == self.high:
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
    axes = tuple(_axis(str(name), value, (*path, name)) for name, value in entry.items())
    longest = {axis.name for axis in axes if isinstance(axis.length, Axis)}
    for axis in axes:
        if isinstance(axis.length, str) and axis.length not in longest:
            raise problem(
                (*path, axis.name, "length"),
                f"found {axis.length!r}; name a list of this space that has a length of its own"
                + (f": {listed(longest)}" if longest else ""),
            )
    return axes


def drawn_axes(axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """List what is drawn for a space: lists as their lengths and single values, see :meth:`Axis.parts`."""
    longest = {axis.name: axis.longest for axis in axes if isinstance(axis.length, Axis)}
    return tuple(part for axis in axes for part in axis.parts(longest.get(str(axis.length))))


def assembled(axes: Sequence[Axis], drawn: Mapping[str, Any]) -> dict[str, Any]:
    """Make the values of a space from what was drawn: a list takes as many as its length says."""
    values: dict[str, Any] = {}
    for axis in sorted(axes, key=lambda axis: isinstance(axis.length, str)):
        if axis.of is None:
            values[axis.name] = drawn[axis.name]
        else:
            of_other = isinstance(axis.length, str)
            length = len(values[str(axis.length)]) if of_other else drawn[f"{axis.name} length"]
            values[axis.name] = tuple(drawn[f"{axis.name} {k + 1}"] for k in range(length))
    return {axis.name: values[axis.name] for axis in axes}


def with_others(axes: Sequence[Axis], values: Mapping[str, Any]) -> dict[str, Any]:
    """Give the further keys of each axis its value."""
    others = {key: values[axis.name] for axis in axes if axis.name in values for key in axis.also or ()}
    return {**values, **others}


def family_axes(config: OptimizerConfig) -> tuple[Axis, ...]:
    """Default space of an optimizer, as of its family; none for a custom class."""
    return tuple(
        Axis(name=name, kind="log" if r.log else "uniform", low=r.low, high=r.high)
        for name, r in space_of(config).items()
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
    if isinstance(entry, dict) and "also" in entry:
        also = entry["also"]
        if not isinstance(also, list) or not also or not all(isinstance(key, str) for key in also):
            raise problem((*path, "also"), f"found {shown(also)}; list the keys that get the same value")
        rest = {key: value for key, value in entry.items() if key != "also"}
        return replace(_axis(name, rest, path), also=tuple(also))
    if isinstance(entry, dict) and "list" in entry:
        return _list_axis(name, entry, path)
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


def _list_axis(name: str, entry: dict[str, Any], path: KeyPath) -> Axis:
    inner = entry["list"]
    if list(entry) != ["list"] or not isinstance(inner, dict) or sorted(inner) != ["length", "of"]:
        raise problem(
            path,
            f"found {shown(entry)}; write a list as {{list: {{length: {{int: [1, 5]}}, of: [64, 128]}}}}",
        )
    length: Axis | str = inner["length"]
    if not isinstance(length, str):
        length = _axis(f"{name} length", length, (*path, "list", "length"))
        least = length.low if length.kind == "int" else min(length.choices, default=0)
        if length.kind not in ("int", "choice") or not isinstance(least, int | float) or least < 1:
            raise problem((*path, "list", "length"), f"found {shown(inner['length'])}; whole numbers from 1")
    return Axis(name=name, kind="list", length=length, of=_axis(name, inner["of"], (*path, "list", "of")))


def grid(axes: Sequence[Axis], points: int) -> list[dict[str, Any]]:
    """All combinations: every value of a list, ranges cut evenly on their scale to fill ``points``.

    Raises
    ------
    ValueError
        If no even cut has exactly ``points`` combinations; the message says how many there can be.
    """
    if any(axis.of is not None for axis in axes):
        raise ValueError("a grid cannot have lists; draw them at random, or name whole lists to choose from")
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
