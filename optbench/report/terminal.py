"""The report in a terminal of any width, and in a pipe."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from optbench.report.answer import Answer
from optbench.report.text import TextTable, middle, two_lines

#: From this width on a leaderboard shows its details too.
WIDE = 138
#: Width of what is no terminal: nothing is wrapped there.
UNWRAPPED = 100_000
#: A label is not made shorter than this, and than the second only if nothing else gives way.
_SHORTEST, _READABLE = 8, 16
#: Columns that say what a row is about.
_LABELS = frozenset({"workload", "optimizer", "comparison"})
_WORDS = _LABELS | {"group", "ended", "searched", "winner"}
_VERDICT_STYLES = {
    "better": "green",
    "worse": "red",
    "baseline": "dim",
    "equivalent": "cyan",
    "crashed": "red",
}


def answer_lines(answer: Answer) -> Group:
    """Lay out the answer for a terminal, a line a sentence."""
    lines = [Text("In short", style="bold")]
    for sentence in answer.sentences:
        style = "bold" if sentence.kind == "verdict" else "yellow" if sentence.caution else ""
        lines.append(Text(sentence.text, style=style))
    return Group(*lines, Text(""))


def rich_table(table: TextTable, *, width: int) -> Group:
    """Lay out a table for a terminal ``width`` characters wide, with its notes below.

    A narrow terminal gets the columns that carry the claim, with long labels shortened in their middle; a
    note says what is left out. The files of the report have all.
    """
    shown, widths = fitting(table, width)
    out = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in shown:
        left = name in _WORDS or name.startswith("verdict")
        out.add_column(escape(name), justify="left" if left else "right", overflow="fold", width=widths[name])
    labels = {name: _short(table, name, widths[name]) for name in shown if name in _LABELS}
    for row in table.rows:
        cells = []
        for name in shown:
            text = row[table.columns.index(name)]
            if name in labels:
                text = labels[name][text]
            elif cell_len(text) > widths[name]:
                text = "\n".join(two_lines(text))
            cell = Text(text)
            if name.startswith("verdict"):
                cell.stylize(_VERDICT_STYLES.get(text, ""))
            cells.append(cell)
        out.add_row(*cells)
    left_out = [name for name in table.columns if name not in shown and name not in table.extras]
    notes = [*table.notes]
    if left_out:
        notes.append(f"Left out at this width: {', '.join(left_out)}.")
    return Group(
        Text(table.heading, style="bold"),
        out,
        *(Text(_indented(note, width), style="dim") for note in notes),
        Text(""),
    )


def _indented(note: str, width: int) -> str:
    return textwrap.fill(
        note,
        max(width, 20),
        initial_indent="  ",
        subsequent_indent="  ",
        break_on_hyphens=False,
        break_long_words=False,
    )


def fitting(table: TextTable, width: int) -> tuple[list[str], dict[str, int]]:
    """Choose the columns that fit into ``width`` characters, and the width of each.

    Parameters
    ----------
    table : TextTable
        ``always`` names the columns that every width keeps; without it those are labels and verdicts.
    width : int

    Returns
    -------
    columns : list of str
        In the order of the table.
    widths : dict
        Characters of each.
    """
    offered = [name for name in table.columns if name not in table.extras]
    natural = {name: _natural(table, name) for name in offered}
    must = [name for name in offered if name in (table.always or _LABELS) or name.startswith("verdict")]
    # A label may be shortened to make room for another column; where that is an interval, on a second line.
    room = {
        name: _least(table, name) if name not in must and _rank(name) == 1 else size
        for name, size in natural.items()
    }
    room |= {name: min(natural[name], _READABLE) for name in offered if name in _LABELS}
    shown = list(must)
    for details in (False, True):
        for name in sorted(offered, key=_rank):
            if name in shown or (name in table.details) != details or (details and width < WIDE):
                continue
            if _total([*shown, name], room) <= width:
                shown.append(name)
    widths = {name: natural[name] for name in shown}
    excess = _total(shown, widths) - width
    for name in shown:  # a heading on one line, where there is room
        more = cell_len(name) - widths[name]
        if 0 < more <= -excess:
            widths[name] += more
            excess += more
    # Long labels give way first; then other cells take a second line; then all labels do.
    excess = _narrow(shown, widths, excess, least=_READABLE)
    for name in shown if excess > 0 else ():
        least = _least(table, name)
        if name not in _LABELS and least < widths[name] and excess > 0:
            excess -= widths[name] - least
            widths[name] = least
    _narrow(shown, widths, excess, least=_SHORTEST)
    return [name for name in table.columns if name in shown], widths


def _narrow(shown: Sequence[str], widths: dict[str, int], excess: int, *, least: int) -> int:
    """Take what is too much from the labels, the longest first; return what remains."""
    labels = [name for name in shown if name in _LABELS]
    while excess > 0 and labels:
        longest = max(labels, key=widths.__getitem__)
        if widths[longest] <= least:
            break
        widths[longest] -= 1
        excess -= 1
    return excess


def _total(names: Sequence[str], widths: Mapping[str, int]) -> int:
    """Characters of a line: columns, the two between them, one at each end."""
    return sum(widths[name] for name in names) + 2 * (len(names) - 1) + 2


def _natural(table: TextTable, name: str) -> int:
    position = table.columns.index(name)
    return max([_heading(name), *(cell_len(row[position]) for row in table.rows)])


def _least(table: TextTable, name: str) -> int:
    """Width of a column whose cells take two lines."""
    position = table.columns.index(name)
    lines = [line for row in table.rows for line in two_lines(row[position])]
    return max([_heading(name), *map(cell_len, lines)])


def _rank(name: str) -> int:
    """What a narrow terminal shows first: p-values, then differences with their intervals, then the rest."""
    if re.search(r"(^|[ -])p\b(?!/)", name):
        return 0
    return 1 if "[" in name else 2


def _heading(name: str) -> int:
    """A heading may wrap between its words."""
    return max(cell_len(word) for word in name.split())


def _short(table: TextTable, name: str, width: int) -> dict[str, str]:
    """Labels of a column, shortened in their middle, and still different from each other."""
    position = table.columns.index(name)
    return shortened([row[position] for row in table.rows], width)


def shortened(labels: Sequence[str], width: int) -> dict[str, str]:
    """Shorten labels in their middle, at a place that leaves them different from each other.

    Examples
    --------
    >>> shortened(["rmsprop-rho-.99", "rmsprop-rho-.01", "adam"], 9)
    {'rmsprop-rho-.99': 'rmsp….99', 'rmsprop-rho-.01': 'rmsp….01', 'adam': 'adam'}
    """
    names = list(dict.fromkeys(labels))
    # Half the width at the front; where that makes two labels one, more or less of it.
    for head in sorted(range(1, width), key=lambda head: abs(head - width // 2)):
        found = {name: middle(name, width, head=head) for name in names}
        if len(set(found.values())) == len(names):
            return found
    return {name: f"{middle(name, width - 4)}~{number}" for number, name in enumerate(names, start=1)}
