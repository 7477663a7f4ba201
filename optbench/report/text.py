"""Numbers as people read them, and tables as rows of text for every format."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from optbench.task import Metric, Metrics

DASH = "-"
#: An interval of so high a level that so few pairs bound nothing.
UNBOUNDED = "unbounded"
#: Corrections as people call them.
CORRECTIONS = {
    "holm": "Holm",
    "shaffer": "Shaffer",
    "bergmann-hommel": "Bergmann-Hommel",
    "bonferroni": "Bonferroni",
    "bh": "Benjamini-Hochberg",
    "none": "no correction",
}
#: What a verdict answers: the suite's one confirmatory question; the same, where it was not declared before
#: the trials; or another.
CONFIRMATORY, MAIN, EXPLORATORY = "confirmatory", "main question", "exploratory"
#: Of a store that does not say when its analysis was declared.
NOT_RECORDED = "not recorded"
Value = float | str | None


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table of text: heading, column names, rows, and notes.

    ``always`` are columns that the narrowest terminal keeps, ``details`` those that only a wide one has,
    ``extras`` those that only files have.
    ``values`` are the cells' exact values, for sorting and hovering; empty where the text says all.
    ``evidence`` says which question its verdicts answer, empty for a table without any.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    details: frozenset[str] = frozenset()
    extras: frozenset[str] = frozenset()
    always: frozenset[str] = frozenset()
    values: tuple[tuple[Value, ...], ...] = ()
    evidence: str = ""

    @property
    def heading(self) -> str:
        """Title with what its verdicts answer."""
        return f"{self.title} ({self.evidence})" if self.evidence else self.title


def number(value: float, digits: int = 2) -> str:
    """Write a number with fixed digits; a dash where there is none."""
    return f"{value:.{digits}f}" if math.isfinite(value) else DASH


def short(value: float, digits: int = 3) -> str:
    """Write a number with significant digits; a dash where there is none."""
    return f"{value:.{digits}g}" if math.isfinite(value) else DASH


def duration(seconds: float) -> str:
    """Write seconds as people say them."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def p_value(p: float) -> str:
    """Write a p-value."""
    if math.isnan(p):
        return DASH
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def estimate(value: float, low: float, high: float, *, metric: Metric, cut: bool = False) -> str:
    """Write a signed difference of a metric with its interval, in the shown unit.

    With `cut` an end at 0 is not in the interval: a later step of a correction found the difference.
    """
    factor, digits = metric.factor, metric.digits
    if not math.isfinite(value):
        return DASH
    text = f"{value * factor:+.{digits}f}"
    if math.isinf(low) and math.isinf(high):
        return f"{text} [{UNBOUNDED}]"
    if math.isnan(low) or math.isnan(high):
        return text
    first = "(0" if cut and low == 0 else f"[{low * factor:+.{digits}f}"
    last = "0)" if cut and high == 0 else f"{high * factor:+.{digits}f}]"
    return f"{text} {first}, {last}"


def middle(text: str, width: int, *, head: int | None = None) -> str:
    """Shorten a text in its middle to a number of characters, ``head`` of them from its beginning.

    Examples
    --------
    >>> middle("a-very-long-label", 9)
    'a-ve…abel'
    """
    if len(text) <= width:
        return text
    head = max(1, width // 2) if head is None else head
    tail = max(0, width - 1 - head)
    return f"{text[:head]}…{text[len(text) - tail :]}"


def listed(words: Sequence[str]) -> str:
    """Write words as a list: ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def goal(targets: Mapping[str, float]) -> str:
    """Write a workload's target in words, in the suite's own unit; empty without one."""
    metrics = [(Metrics()[name], value) for name, value in targets.items()]
    return ", ".join(f"{m.title} {'>=' if m.maximised else '<='} {value:g}" for m, value in metrics)


def with_column(table: TextTable, name: str, text: str) -> TextTable:
    """Add a column that has the same text in every row."""
    return replace(
        table,
        columns=(*table.columns, name),
        rows=tuple((*row, text) for row in table.rows),
        values=tuple((*row, None) for row in table.values),
    )


def markdown(table: TextTable) -> str:
    """Write a table as GitHub Markdown."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"

    head = [
        f"## {escape_markdown(table.heading)}",
        "",
        line(table.columns),
        "|" + " --- |" * len(table.columns),
    ]
    notes = [f"- {markdown_prose(note)}" for note in table.notes]
    return "\n".join([*head, *(line(row) for row in table.rows), "", *notes, ""])


def two_lines(cell: str) -> list[str]:
    """Break a cell at the space that leaves the shortest lines; an interval stays whole."""
    spaces = [found.start() for found in re.finditer(r" (?![^\[]*\])", cell)]
    cuts = [[cell[:at], cell[at + 1 :]] for at in spaces]
    return min([[cell], *cuts], key=lambda lines: max(map(len, lines)))


def markdown_prose(text: str) -> str:
    """Escape a sentence for Markdown; what stands between backticks stays code."""
    parts = re.split(r"`([^`]+)`", text)
    return "".join(
        f"`{' '.join(part.split())}`" if k % 2 else _escaped(part) for k, part in enumerate(parts)
    ).strip()


def escape_markdown(text: str) -> str:
    """Escape every character that has a meaning in Markdown, and replace line breaks by spaces."""
    return " ".join(_escaped(text).split())


def _escaped(text: str) -> str:
    for character in "\\`*_{}[]<>#|&~$":
        text = text.replace(character, "\\" + character)
    return re.sub(r"\s+", " ", text)
