"""Leaderboards in the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from optbench.report.answer import Answer
from optbench.report.text import TextTable

#: Characters that all columns of a leaderboard need.
WIDE = 138
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
    """Lay out a leaderboard for a terminal of so many characters, with its notes below.

    A narrow terminal gets the columns that carry the claim; the files of the report have all.
    """
    shown = [
        name
        for name in table.columns
        if name not in table.extras and (width >= WIDE or name not in table.details)
    ]
    out = Table(
        title=escape(table.title),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for name in shown:
        words = name in {"optimizer", "group", "ended"} or name.startswith("verdict")
        # Headings may wrap; numbers stay on one line.
        needed = max((len(row[table.columns.index(name)]) for row in table.rows), default=0)
        out.add_column(
            escape(name), justify="left" if words else "right", overflow="fold", min_width=min(needed, 30)
        )
    for row in table.rows:
        cells = dict(zip(table.columns, (Text(cell) for cell in row), strict=True))
        for name in shown:
            if name.startswith("verdict"):
                cells[name].stylize(_VERDICT_STYLES.get(cells[name].plain, ""))
        out.add_row(*(cells[name] for name in shown))
    notes = [Text(f"  {note}", style="dim") for note in table.notes]
    return Group(out, *notes, Text(""))
