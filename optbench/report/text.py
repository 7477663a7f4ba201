"""Numbers as people read them, and the leaderboard as rows of text for every format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from optbench.report.leaderboard import Leaderboard, Row

DASH = "-"


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table of text: heading, column names, rows, and notes; ``details`` may go where space is short."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    details: frozenset[str] = frozenset()


def metric_title(metric: str) -> str:
    """Write a metric's name and unit: ``test_accuracy`` becomes ``test accuracy, %``."""
    return metric.replace("_", " ") + (", %" if metric.endswith("accuracy") else "")


def scale(metric: str) -> float:
    """Factor from the stored to the shown unit: accuracies are shown in percent."""
    return 100.0 if metric.endswith("accuracy") else 1.0


def number(value: float, digits: int = 2) -> str:
    """Write a number with fixed digits; a dash where there is none."""
    return f"{value:.{digits}f}" if math.isfinite(value) else DASH


def p_value(p: float) -> str:
    """Write a p-value."""
    if math.isnan(p):
        return DASH
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def leaderboard_table(board: Leaderboard) -> TextTable:
    """Lay out a leaderboard."""
    goal = ", ".join(
        f"{metric_title(name).removesuffix(', %')} {'<=' if name.endswith('loss') else '>='} {value:g}"
        for name, value in board.targets.items()
    )
    columns = (
        "#",
        "optimizer",
        metric_title(board.metric),
        f"minus {board.baseline} [{1 - board.alpha:.0%} CI]",
        "p" if board.correction == "none" else f"p ({board.correction.title()})",
        "d_z",
        "W/T/L",
        "verdict",
        *(["epochs to target"] if board.targets else []),
        "s/epoch",
        "ended",
    )
    notes = list(board.notes)
    if goal:
        notes.append(f"Target: {goal}; median epoch of the trials that reached it (how many did).")
    troubled = any(row.diverged or row.crashed for row in board.rows)
    sign = "higher" if board.maximise else "lower"
    notes.append(
        f"{sign.capitalize()} is better; differences are oriented so that positive is better. "
        "W/T/L: blocks won, tied, lost."
    )
    return TextTable(
        title=board.title,
        columns=columns,
        rows=tuple(_cells(board, row) for row in board.rows),
        notes=tuple(notes),
        details=frozenset({"d_z", "epochs to target", "s/epoch"} | (set() if troubled else {"ended"})),
    )


def _cells(board: Leaderboard, row: Row) -> tuple[str, ...]:
    factor = scale(board.metric)
    digits = 2 if factor == 100 else 4
    mean = number(row.mean * factor, digits)
    if math.isfinite(row.sd):
        mean += f" ± {row.sd * factor:.{digits}f}"
    target = [f"{number(row.target_epoch, 1)} ({row.target_reached})"] if board.targets else []
    return (
        str(row.rank),
        row.optimizer,
        mean,
        *_comparison_cells(board, row, factor, digits),
        *target,
        number(row.seconds_per_epoch, 3),
        _ended(row),
    )


def _comparison_cells(board: Leaderboard, row: Row, factor: float, digits: int) -> Sequence[str]:
    comparison = row.comparison
    if comparison is None or comparison.rank is None:
        return [DASH] * 4 + ["baseline" if row.optimizer == board.baseline else DASH]
    d, rank = comparison.mean, comparison.rank
    difference = DASH
    if d is not None and math.isfinite(d.estimate):
        difference = f"{d.estimate * factor:+.{digits}f}"
        if math.isfinite(d.low):
            difference += f" [{d.low * factor:+.{digits}f}, {d.high * factor:+.{digits}f}]"
    return [
        difference,
        p_value(comparison.p_adjusted),
        number(comparison.standardized.d_z) if comparison.standardized else DASH,
        f"{rank.wins}/{rank.ties}/{rank.losses}",
        comparison.verdict.word,
    ]


def _ended(row: Row) -> str:
    parts = [(row.completed, "done"), (row.diverged, "diverged"), (row.crashed, "crashed")]
    return ", ".join(f"{count} {word}" for count, word in parts if count) or DASH


def markdown(table: TextTable) -> str:
    """Write a table as GitHub Markdown."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(_escape_markdown(cell) for cell in cells) + " |"

    head = [
        f"## {_escape_markdown(table.title)}",
        "",
        line(table.columns),
        "|" + " --- |" * len(table.columns),
    ]
    notes = [f"- {_escape_markdown(note)}" for note in table.notes]
    return "\n".join([*head, *(line(row) for row in table.rows), "", *notes, ""])


def _escape_markdown(text: str) -> str:
    for character in "\\`*_{}[]<>#|":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
