"""Numbers as people read them, and tables as rows of text for every format."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from optbench.report.leaderboard import Leaderboard, Row
from optbench.stats.families import PairedComparison
from optbench.task import Metric, Metrics

DASH = "-"
Value = float | str | None


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """A table of text: heading, column names, rows, and notes.

    ``details`` are columns that a narrow terminal leaves out, ``extras`` those that only files have.
    ``values`` are the cells' exact values, for sorting and hovering; empty where the text says all.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    details: frozenset[str] = frozenset()
    extras: frozenset[str] = frozenset()
    values: tuple[tuple[Value, ...], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the leaderboard: its heading, the text and the value of a row's cell, where it shows."""

    name: str
    text: Callable[[Row], str]
    value: Callable[[Row], Value]
    shown: Literal["always", "detail", "extra"] = "always"


def number(value: float, digits: int = 2) -> str:
    """Write a number with fixed digits; a dash where there is none."""
    return f"{value:.{digits}f}" if math.isfinite(value) else DASH


def short(value: float, digits: int = 3) -> str:
    """Write a number with significant digits; a dash where there is none."""
    return f"{value:.{digits}g}" if math.isfinite(value) else DASH


def p_value(p: float) -> str:
    """Write a p-value."""
    if math.isnan(p):
        return DASH
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def estimate(value: float, low: float, high: float, *, metric: Metric) -> str:
    """Write a signed difference of a metric with its interval, in the shown unit."""
    factor, digits = metric.factor, metric.digits
    if not math.isfinite(value):
        return DASH
    text = f"{value * factor:+.{digits}f}"
    if math.isfinite(low) and math.isfinite(high):
        text += f" [{low * factor:+.{digits}f}, {high * factor:+.{digits}f}]"
    return text


def goal(board: Leaderboard) -> str:
    """Write a workload's target in words, in the suite's own unit; empty without one."""
    targets = [(Metrics()[name], value) for name, value in board.targets.items()]
    return ", ".join(f"{m.title} {'>=' if m.maximised else '<='} {value:g}" for m, value in targets)


def leaderboard_table(board: Leaderboard) -> TextTable:
    """Lay out a leaderboard."""
    columns = leaderboard_columns(board)
    notes = list(board.notes)
    if board.targets:
        notes.append(
            f"Target: {goal(board)}; medians over the trials that reached it (how many of them did)."
        )
    sign = "higher" if board.maximise else "lower"
    notes.append(
        f"{sign.capitalize()} is better; differences are oriented so that positive is better. "
        "#: the ranks that the comparisons with the baseline leave open. Optimizers that share a letter were "
        "not told apart. W/T/L: blocks won, tied, lost."
    )
    return TextTable(
        title=board.title,
        columns=tuple(column.name for column in columns),
        rows=tuple(tuple(column.text(row) for column in columns) for row in board.rows),
        notes=tuple(notes),
        details=frozenset(column.name for column in columns if column.shown == "detail"),
        extras=frozenset(column.name for column in columns if column.shown == "extra"),
        values=tuple(tuple(column.value(row) for column in columns) for row in board.rows),
    )


def leaderboard_columns(board: Leaderboard) -> list[Column]:
    """List the columns of a leaderboard; those for which no row has anything are left out."""
    metric = board.measure
    factor, digits = metric.factor, metric.digits
    level = f"{1 - board.alpha:.0%}"
    troubled = any(row.diverged or row.crashed for row in board.rows)

    def comparison(row: Row, text: Callable[[PairedComparison], str]) -> str:
        c = row.comparison
        return DASH if c is None or c.rank is None else text(c)

    def value(row: Row, get: Callable[[PairedComparison], float | None]) -> Value:
        return None if row.comparison is None or row.comparison.rank is None else get(row.comparison)

    def mean(row: Row) -> str:
        spread = f" ± {row.sd * factor:.{digits}f}" if math.isfinite(row.sd) else ""
        return number(row.mean * factor, digits) + spread

    def interval(row: Row) -> str:
        low, high = number(row.mean_low * factor, digits), number(row.mean_high * factor, digits)
        return f"[{low}, {high}]" if math.isfinite(row.mean_low) else DASH

    def difference(c: PairedComparison) -> str:
        d = c.mean
        return estimate(d.estimate, d.low, d.high, metric=metric) if d is not None else DASH

    def verdict(row: Row) -> str:
        if row.comparison is not None:
            return row.comparison.verdict.word
        return "baseline" if row.optimizer == board.baseline else DASH

    columns = [
        Column(name="#", text=_rank, value=lambda r: r.rank + r.rank_high / 1000),
        Column(name="group", text=lambda r: r.letters, value=lambda r: r.letters, shown="detail"),
        Column(name="optimizer", text=lambda r: r.optimizer, value=lambda r: r.optimizer),
        Column(name=metric.heading, text=mean, value=lambda r: r.mean * factor),
        Column(
            name=f"{level} CI of the mean", text=interval, value=lambda r: r.mean_low * factor, shown="extra"
        ),
        Column(
            name=f"minus {board.baseline} [{level} CI]",
            text=lambda r: comparison(r, difference),
            value=lambda r: value(r, lambda c: c.mean.estimate * factor if c.mean else None),
        ),
        Column(
            name="p" if board.correction == "none" else f"p ({board.correction.title()})",
            text=lambda r: comparison(r, lambda c: p_value(c.p_adjusted)),
            value=lambda r: value(r, lambda c: c.p_adjusted),
        ),
        Column(
            name="d_z",
            text=lambda r: comparison(r, lambda c: number(c.standardized.d_z) if c.standardized else DASH),
            value=lambda r: value(r, lambda c: c.standardized.d_z if c.standardized else None),
            shown="detail",
        ),
        Column(
            name="W/T/L",
            text=lambda r: comparison(
                r, lambda c: f"{c.rank.wins}/{c.rank.ties}/{c.rank.losses}" if c.rank else DASH
            ),
            value=lambda r: value(r, lambda c: c.rank.wins - c.rank.losses if c.rank else None),
        ),
        Column(name="verdict", text=verdict, value=verdict),
        _plain("at best epoch", lambda r: r.at_best_epoch * factor, digits, "extra"),
        _plain("best epoch", lambda r: r.best_epoch, 1, "extra"),
    ]
    if board.targets:
        columns += [
            Column(
                name="epochs to target",
                text=lambda r: f"{number(r.target_epoch, 1)} ({r.target_reached})",
                value=lambda r: r.target_epoch,
                shown="detail",
            ),
            _plain("seconds to target", lambda r: r.target_seconds, 2, "extra"),
        ]
    columns += [
        _plain("s/epoch", lambda r: r.seconds_per_epoch, 3, "detail"),
        _plain("ms/step", lambda r: r.step_ms, 3, "extra"),
        _plain("state, kB", lambda r: r.state_bytes / 1000, 1, "extra"),
        _plain("tuning, s", lambda r: r.tuning_seconds, 1, "extra"),
        Column(
            name="ended", text=_ended, value=lambda r: r.completed, shown="always" if troubled else "detail"
        ),
    ]
    return [c for c in columns if c.shown != "extra" or any(c.text(row) != DASH for row in board.rows)]


def _plain(
    name: str, get: Callable[[Row], float], digits: int, shown: Literal["always", "detail", "extra"]
) -> Column:
    return Column(name=name, text=lambda r: number(get(r), digits), value=get, shown=shown)


def _rank(row: Row) -> str:
    return str(row.rank) if row.rank == row.rank_high else f"{row.rank}-{row.rank_high}"


def _ended(row: Row) -> str:
    parts = [(row.completed, "done"), (row.diverged, "diverged"), (row.crashed, "crashed")]
    return ", ".join(f"{count} {word}" for count, word in parts if count) or DASH


def markdown(table: TextTable) -> str:
    """Write a table as GitHub Markdown."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(escape_markdown(cell) for cell in cells) + " |"

    head = [
        f"## {escape_markdown(table.title)}",
        "",
        line(table.columns),
        "|" + " --- |" * len(table.columns),
    ]
    notes = [f"- {escape_markdown(note)}" for note in table.notes]
    return "\n".join([*head, *(line(row) for row in table.rows), "", *notes, ""])


def escape_markdown(text: str) -> str:
    """Take the meaning from every character that Markdown gives one, and line breaks."""
    for character in "\\`*_{}[]<>#|&~$":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
