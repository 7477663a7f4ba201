"""What a column of a leaderboard is: its name, where it comes from, and how each format writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

import pandas as pd

from optbench.report.latex import escape_latex
from optbench.report.text import (
    DASH,
    Value,
    number,
)

if TYPE_CHECKING:
    from optbench.report.leaderboard import Leaderboard, Row

T = TypeVar("T")
#: A value of one optimizer's row on a leaderboard.
OfRow = Callable[["Leaderboard", "Row"], T]
Shown = Literal["core", "always", "detail", "extra"]


@dataclass(frozen=True, kw_only=True)
class Latex:
    """A column in LaTeX: its heading, the alignment, and a row's cell."""

    title: str | Callable[[Leaderboard], str]
    cell: OfRow[str]
    align: Literal["l", "r"] = "r"

    def heading(self, board: Leaderboard) -> str:
        """The heading, with the unit of a leaderboard's metric where the column has one."""
        return self.title if isinstance(self.title, str) else self.title(board)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a leaderboard.

    Attributes
    ----------
    title : callable
        Heading on a leaderboard; None for a column that only CSV has.
    text, value : callable
        A row's cell as text, and the number to sort it by, in the unit of the heading.
    shown : callable
        ``core``: at every width; ``always``: where there is room; ``detail``: in a wide terminal;
        ``extra``: not in a terminal, and left out where no row has anything.
    applies : callable
        Whether a leaderboard has the column.
    data : mapping
        Exact values in the stored unit, by their name in CSV and JSON.
    latex : Latex or None
        None where LaTeX leaves the column out.
    measure : callable, optional
        Makes the value from an optimizer's completed trials; it is kept in ``Row.measured``.
    """

    title: Callable[[Leaderboard], str] | None
    text: OfRow[str] = lambda board, row: ""
    value: OfRow[Value] = lambda board, row: None
    shown: Callable[[Leaderboard], Shown] = lambda board: "always"
    applies: Callable[[Leaderboard], bool] = lambda board: True
    data: Mapping[str, OfRow[object]] = field(default_factory=dict)
    latex: Latex | None = None
    measure: Callable[[pd.DataFrame], float] | None = None


def number_column(
    name: str,
    title: str,
    *,
    get: OfRow[float] | None = None,
    measure: Callable[[pd.DataFrame], float] | None = None,
    convert: Callable[[Leaderboard, float], float] = lambda board, number: number,
    digits: int | Callable[[Leaderboard], int] = 2,
    shown: Shown = "always",
    applies: Callable[[Leaderboard], bool] = lambda board: True,
    in_latex: bool = True,
) -> Column:
    """Declare a column of one number a row.

    Parameters
    ----------
    name : str
        In CSV and JSON.
    title : str
        Heading, with the shown unit.
    get, measure : callable
        Where the number comes from: a leaderboard and its row, or an optimizer's completed trials (rows of
        ``Results.trials``). Give one of them.
    convert : callable
        From the stored to the shown unit, given the leaderboard.
    digits : int, or callable of a leaderboard
        Decimal places of the shown unit.
    shown, applies
        See :class:`Column`.
    in_latex : bool
        Whether LaTeX has it.
    """
    stored = get or (lambda board, row: row.measured[name])

    def text(board: Leaderboard, row: Row) -> str:
        places = digits(board) if callable(digits) else digits
        return number(convert(board, stored(board, row)), places)

    def cell(board: Leaderboard, row: Row) -> str:
        found = text(board, row)
        return "--" if found == DASH else f"${found}$"

    return Column(
        title=lambda board: title,
        text=text,
        value=lambda board, row: convert(board, stored(board, row)),
        shown=lambda board: shown,
        applies=applies,
        data={name: stored},
        latex=Latex(title=escape_latex(title), cell=cell) if in_latex else None,
        measure=measure,
    )
