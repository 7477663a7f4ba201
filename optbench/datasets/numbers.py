"""Columns of text as numbers: gaps, diverged values, locales, percent signs. A cell is never guessed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optbench.datasets.cells import NUMBER_LIKE, TableError, at_line, words
from optbench.suite.validation import shown

#: No value: the trial has none, which says nothing about how it ended.
GAPS = frozenset(
    (
        "",
        "#n/a n/a",
        *words(
            """na n/a n.a. n/a. #n/a #na <na> null none nil - -- --- – — . .. ? missing crashed crash failed
            oom timeout killed <null> (null) nd n.d. empty pending running \\n"""
        ),
    )
)
#: A value that is not finite: the training diverged.
NOT_FINITE = frozenset(
    words(
        """nan -nan +nan nan(ind) -nan(ind) inf +inf -inf infinity +infinity -infinity ∞ +∞ -∞ 1.#inf -1.#inf
        1.#qnan 1.#ind -1.#ind #num! diverged tensor(nan) tensor(inf)"""
    )
)
DIVERGED = "diverged"
_ALLOWED = "a number, an empty cell or NA (missing), NaN, inf and the word diverged"


@dataclass(frozen=True)
class Numbers:
    """A column as numbers.

    Attributes
    ----------
    values : array of float64
        NaN in gaps and where a NaN was written; infinities as written.
    diverged : array of bool
        Where NaN, an infinity or the word diverged was written.
    percent : bool
        Percent signs (or a unit %) said that the numbers are hundredths; they were divided.
    """

    values: NDArray[np.float64]
    diverged: NDArray[np.bool_]
    percent: bool = False

    @property
    def gaps(self) -> NDArray[np.bool_]:
        """Where nothing was written."""
        return np.isnan(self.values) & ~self.diverged


#: Statistics square differences, which must not overflow.
LARGEST, SMALLEST = 1e150, 1e-150


def out_of_range(values: NDArray[np.float64]) -> str | None:
    """Say what statistics cannot square; None where nothing is.

    Examples
    --------
    >>> out_of_range(np.array([0.1, 3e200])) is None, out_of_range(np.array([0.1, 1e-300, 0.0])) is None
    (False, True)
    """
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    if sizes.size and sizes.max() > LARGEST:
        return (
            f"found {sizes.max():g}, beyond {LARGEST:g}, which statistics cannot square; write inf where a "
            "run diverged, or divide all values by one number"
        )
    if sizes.size and sizes.max() < SMALLEST:
        return (
            f"no value is beyond {sizes.max():g}, which statistics cannot square; multiply all values by one "
            "number"
        )
    return None


def is_gap(cell: str) -> bool:
    """Whether a cell holds no value."""
    return cell.lower() in GAPS


def is_numeric(cells: Sequence[str], *, share: float = 0.5) -> bool:
    """Whether at least a share of the cells that say anything are numbers, in any locale."""
    said = [cell for cell in cells if not is_gap(cell)]
    finite = sum(map(_is_number, said))
    written = sum(cell.lower() in NOT_FINITE for cell in said)
    return finite > 0 and finite + written >= share * len(said)


def _is_number(cell: str) -> bool:
    """Whether a cell is a number in any locale; 2.4.6 is none."""
    if not NUMBER_LIKE.fullmatch(cell):
        return False
    bare = cell.removesuffix("%").strip()
    return number(bare, ".") is not None or number(bare, ",") is not None


_CLOCK = re.compile(r"(?:(\d+) days? )?(\d+):(\d\d):(\d\d(?:\.\d+)?)")


@lru_cache(maxsize=4)
def _pattern(point: str) -> re.Pattern[str]:
    """A number with this decimal point; groups of three may be set off by one other mark."""
    other = "," if point == "." else r"\."
    groups = "|".join(
        rf"[1-9]\d{{0,2}}(?:{mark}\d{{3}})+" for mark in (other, "[ \u00a0\u202f\u2009]", "['’]", "_")
    )
    return re.compile(rf"([+-]?)(\d+|{groups})?(?:{re.escape(point)}(\d*))?([eE][+-]?\d+)?")


def number(cell: str, point: str = ".") -> float | None:
    """Read one number with a given decimal point; None if it is none.

    Examples
    --------
    >>> number("1,234.5"), number("1.234,5", ","), number("0,901"), number("0,901", ",")
    (1234.5, 1234.5, None, 0.901)
    >>> number("0 days 00:01:01.5")
    61.5
    """
    text = cell.replace("−", "-")
    if (clock := _CLOCK.fullmatch(text)) is not None:  # as pandas writes a time that something took
        days, hours, minutes, seconds = (float(part or 0) for part in clock.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    found = _pattern(point).fullmatch(text)
    if found is None or not (found[2] or found[3]):
        return None
    whole = re.sub(r"\D", "", found[2] or "0")
    return float(f"{found[1]}{whole}.{found[3] or 0}{found[4] or ''}")


class Locale:
    """Which mark is the decimal point of a file, decided over all its columns of numbers.

    Parameters
    ----------
    path : Path
    columns : mapping of str to sequence of str
        Cells of the columns of numbers.
    lines : sequence of int
    point : str, optional
        Said by the user.

    Raises
    ------
    TableError
        If both marks are decimal points, or cells such as 1,234 may be either and nothing tells.
    """

    def __init__(
        self,
        path: Path,
        columns: Mapping[str, Sequence[str]],
        lines: Sequence[int],
        *,
        point: str | None = None,
    ) -> None:
        self.path, self.lines = path, lines
        only: dict[str, tuple[str, int, str]] = {}
        either: dict[str, tuple[str, int, str]] = {}
        by_column: dict[str, set[str]] = {}
        for name, cells in columns.items():
            for line, cell in zip(lines, cells, strict=True):
                if not ("," in cell or "." in cell):
                    continue
                plain = cell.removesuffix("%").strip()
                dot, comma = number(plain, "."), number(plain, ",")
                if (dot is None) != (comma is None):
                    mark = "." if comma is None else ","
                    only.setdefault(mark, (name, line, cell))
                    by_column.setdefault(name, set()).add(mark)
                elif dot is not None and dot != comma:
                    either.setdefault("," if "," in plain else ".", (name, line, cell))
                    by_column.setdefault(name, set()).add("either,") if "," in plain else None
                    by_column.setdefault(name, set()).add("either.") if "." in plain else None
        if point is None and len(only) == 2:
            first, second = only["."], only[","]
            raise TableError(
                f"{path}: decimal points and decimal commas: {shown(first[2])} on line {first[1]} and "
                f"{shown(second[2])} on line {second[1]}; write all numbers in one way, or say --decimal"
            )
        if point is None and not only and "," in either:
            name, line, cell = either[","]
            plain = cell.removesuffix("%").strip()
            raise TableError(
                f"{at_line(path, line, name)}: found {shown(cell)}, which may be {number(plain, ','):g} or "
                f"{number(plain, '.'):g}; say --decimal , or --decimal ."
            )
        self.point = point or ("," if "," in only else ".")
        if point is None and self.point == ",":
            for name, found in by_column.items():
                if "either." in found and "," not in found:
                    _, line, cell = either["."]
                    raise TableError(
                        f"{at_line(path, line, name)}: found {shown(cell)} in a file with decimal commas; "
                        "say --decimal , if its point sets off thousands, or write all numbers in one way"
                    )
        self.notes: list[str] = []
        if self.point == ",":
            example = only.get(",", either.get(",", ("", 0, "")))
            self.notes.append(f"numbers have decimal commas ({example[2]} on line {example[1]})")

    def column(self, name: str, cells: Sequence[str], *, unit: str = "") -> Numbers:
        """Read one column.

        Parameters
        ----------
        name : str
        cells : sequence of str
        unit : str
            From a row of units; ``%`` divides by 100 as percent signs do.

        Raises
        ------
        TableError
            Names line and column of what is neither a number nor a word that is known.
        """
        values = np.full(len(cells), np.nan)
        diverged = np.zeros(len(cells), dtype=bool)
        signs: dict[bool, int] = {}
        for i, cell in enumerate(cells):
            try:  # the common case, at C's speed
                if self.point == "." and "_" not in cell:
                    values[i] = float(cell)
                    if np.isfinite(values[i]):
                        signs.setdefault(False, i)
                        continue
            except ValueError:
                pass
            word = cell.lower()
            if word.endswith("%") and (unsigned := word[:-1].strip()) in NOT_FINITE:
                word = unsigned  # as Python writes a NaN in percent
            if word in GAPS:
                values[i] = np.nan
                continue
            if word in NOT_FINITE:
                diverged[i] = True
                values[i] = (
                    (-np.inf if word.startswith("-") else np.inf) if "inf" in word or "∞" in word else np.nan
                )
                continue
            signed = cell.endswith("%")
            read = number(cell.removesuffix("%").strip(), self.point)
            if read is None or not np.isfinite(read):
                raise TableError(f"{at_line(self.path, self.lines[i], name)}: {self._unreadable(cell, read)}")
            signs.setdefault(signed, i)
            values[i] = read
        if len(signs) == 2:
            with_sign, without = signs[True], signs[False]
            raise TableError(
                f"{at_line(self.path, self.lines[without], name)}: found {shown(cells[without])} without a "
                f"percent sign, and {shown(cells[with_sign])} on line {self.lines[with_sign]}; write all "
                "in one way"
            )
        percent = True in signs or unit.strip("[]()") in ("%", "percent", "pct")
        if percent:
            values = values / 100
            self.notes.append(f"{name}: percentages, read as shares (91 % is 0.91)")
        if any("," in c or "'" in c or "’" in c or "_" in c or "\u00a0" in c or " " in c for c in cells):
            grouped = next((c for c in cells if _grouped(c, self.point)), None)
            if grouped is not None:
                self.notes.append(f"{name}: {grouped} is read as {number(grouped, self.point):.15g}")
        return Numbers(values, diverged, percent)

    def _unreadable(self, cell: str, read: float | None) -> str:
        if read is not None:
            return f"found {shown(cell)}, beyond the numbers of a computer; write inf if it diverged"
        if re.match(r"[A-Za-z_][\w.]*\(", cell):
            return f"found {shown(cell)}, an object as Python prints it; write the number alone"
        if re.search(r"±|\+/-|\+-|\(.*\d.*\)$", cell):
            return f"found {shown(cell)}, a mean with its spread; give the result of each run instead"
        if number(cell, "," if self.point == "." else ".") is not None:
            return f"found {shown(cell)}; other numbers of the file have a decimal {self.point!r}"
        return f"found {shown(cell)}; allowed are {_ALLOWED}"


def _grouped(cell: str, point: str) -> bool:
    whole = cell.lstrip("+-−").partition(point)[0]
    return not whole.isdigit() and bool(re.search(r"\D\d{3}$", whole)) and number(cell, point) is not None
