"""The columns of a leaderboard: :data:`COLUMNS` declares every one once, and every format follows it.

To add one, append a :func:`optbench.report.columns.number_column`: tables (HTML, Markdown, terminal), CSV,
JSON and LaTeX show it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd

from optbench.report.columns import Column, Latex, OfRow, Shown, number_column
from optbench.report.effect import interval_name, shown_difference
from optbench.report.latex import escape_latex
from optbench.report.sequential import decided_at
from optbench.report.text import (
    CORRECTIONS,
    DASH,
    UNBOUNDED,
    TextTable,
    Value,
    estimate,
    goal,
    number,
    p_value,
)
from optbench.task import TASKS, known

if TYPE_CHECKING:
    from optbench.report.leaderboard import Leaderboard, Row
    from optbench.stats.families import PairedComparison

#: Names in the CSV file, in its order; a column that is not listed comes last. The JSON file holds these as
#: fields of a row and its comparison, and every other column by its name.
CSV_ORDER = (
    *("workload", "backend", "device", "precision", "metric", "baseline"),
    *("rank", "rank_high", "group", "optimizer", "completed", "diverged", "crashed"),
    *("mean", "mean_low", "mean_high", "sd", "mean_at_best_epoch", "median_best_epoch"),
    *("median_target_epoch", "median_target_seconds", "target_reached"),
    *("seconds_per_epoch", "step_ms", "state_bytes", "tuning_seconds"),
    *("pairs", "missing_pairs", "difference", "difference_low", "difference_high", "d_z"),
    *("p", "p_adjusted", "smallest_attainable_p", "wins", "ties", "losses", "verdict"),
    *("evidence", "declared", "decided_at"),
)


def latex_columns(board: Leaderboard) -> list[tuple[Column, Latex]]:
    """List the columns that LaTeX shows of a leaderboard."""
    return [(c, c.latex) for c in COLUMNS if c.latex is not None and _has(board, c)]


def _has(board: Leaderboard, column: Column) -> bool:
    if not column.applies(board):
        return False
    return column.shown(board) != "extra" or any(column.text(board, row) != DASH for row in board.rows)


def csv_columns() -> dict[str, OfRow[object]]:
    """Every column's exact values, by name, in the order of the CSV file."""
    values = {name: get for column in COLUMNS for name, get in column.data.items()}
    return {name: values[name] for name in (*CSV_ORDER, *(name for name in values if name not in CSV_ORDER))}


def other_values(board: Leaderboard, row: Row) -> dict[str, object]:
    """Values of the columns that are no field of a row, by name."""
    return {name: get(board, row) for name, get in csv_columns().items() if name not in CSV_ORDER}


def measured(completed: pd.DataFrame) -> dict[str, float]:
    """Make the columns that come from an optimizer's completed trials."""
    return {name: column.measure(completed) for column in COLUMNS if column.measure for name in column.data}


def leaderboard_table(board: Leaderboard) -> TextTable:
    """Lay out a leaderboard."""
    columns = [(column.title(board), column) for column in COLUMNS if column.title and _has(board, column)]
    notes = list(board.notes)
    if board.targets:
        notes.append(
            f"Target: {goal(board.targets)}; medians over the trials that reached it (how many of them did)."
        )
    sign = "higher" if board.maximise else "lower"
    notes.append(
        f"{sign.capitalize()} is better; differences are means over pairs, oriented so that positive is "
        "better. p is of the typical run, by signed ranks; better and worse need the mean, too. "
        "#: the ranks that the comparisons with the baseline leave open. Optimizers that share a letter were "
        "not told apart. W/T/L: blocks won, tied, lost."
    )
    return TextTable(
        title=board.title,
        columns=tuple(title for title, _ in columns),
        rows=tuple(tuple(column.text(board, row) for _, column in columns) for row in board.rows),
        notes=tuple(notes),
        always=_shown(board, columns, "core"),
        details=_shown(board, columns, "detail"),
        extras=_shown(board, columns, "extra"),
        values=tuple(tuple(column.value(board, row) for _, column in columns) for row in board.rows),
        evidence=board.evidence,
    )


def _shown(board: Leaderboard, columns: list[tuple[str, Column]], when: Shown) -> frozenset[str]:
    return frozenset(title for title, column in columns if column.shown(board) == when)


def _compared(get: Callable[[PairedComparison], object]) -> OfRow[object]:
    """Take something of a row's comparison; None for the baseline, and where no test could be made."""

    def taken(board: Leaderboard, row: Row) -> object:
        c = row.comparison
        return None if c is None or not (c.mean and c.standardized and c.signed_rank and c.rank) else get(c)

    return taken


def _compared_text(get: Callable[[Leaderboard, PairedComparison], str]) -> OfRow[str]:
    def text(board: Leaderboard, row: Row) -> str:
        c = row.comparison
        return DASH if c is None or c.rank is None else get(board, c)

    return text


def _compared_value(get: Callable[[Leaderboard, PairedComparison], float | None]) -> OfRow[Value]:
    def value(board: Leaderboard, row: Row) -> Value:
        c = row.comparison
        return None if c is None or c.rank is None else get(board, c)

    return value


def _decided_at(row: Row) -> str:
    """At which look of a sequential design a comparison was decided; empty without one."""
    found = row.comparison.sequential if row.comparison is not None else None
    return "" if found is None else decided_at(found)


def _factor(board: Leaderboard) -> float:
    return board.measure.factor


def _digits(board: Leaderboard) -> int:
    return board.measure.digits


def _level(board: Leaderboard) -> str:
    return f"{1 - board.alpha:.0%}"


def _intervals(board: Leaderboard) -> str:
    count = sum(bool(c.n) for c in board.family.comparisons)
    return interval_name(count, alpha=board.alpha, correction=board.correction)


def _rank(board: Leaderboard, row: Row) -> str:
    return str(row.rank) if row.rank == row.rank_high else f"{row.rank}-{row.rank_high}"


def _mean(board: Leaderboard, row: Row) -> str:
    spread = f" ± {row.sd * _factor(board):.{_digits(board)}f}" if math.isfinite(row.sd) else ""
    return number(row.mean * _factor(board), _digits(board)) + spread


def _mean_latex(board: Leaderboard, row: Row) -> str:
    if not math.isfinite(row.mean):
        return "--"
    text = _mean(board, row).replace("±", r"\pm")
    return rf"$\mathbf{{{text}}}$" if row.optimizer in told_apart(board) else f"${text}$"


def told_apart(board: Leaderboard) -> set[str]:
    """The optimizer of the best mean, where it was told apart: better than the baseline, or better than all.

    Empty where nothing was: the largest of means that no test separates is no result.
    """
    words = {row.optimizer: board.verdict(row) for row in board.rows}
    known = [row for row in board.rows if math.isfinite(row.mean)]
    if not known:
        return set()
    best = (max if board.maximise else min)(known, key=lambda row: row.mean)
    others = [word for name, word in words.items() if name != best.optimizer]
    alone = best.optimizer == board.baseline and bool(others) and set(others) == {"worse"}
    return {best.optimizer} if words[best.optimizer] == "better" or alone else set()


def _unit_latex(board: Leaderboard) -> str:
    symbol = board.measure.symbol
    return f", {escape_latex(symbol)}" if symbol else ""


def _points_latex(board: Leaderboard) -> str:
    return ", points" if board.measure.unit == "share" else _unit_latex(board)


def _interval(board: Leaderboard, row: Row) -> str:
    low, high = (number(end * _factor(board), _digits(board)) for end in (row.mean_low, row.mean_high))
    return f"[{low}, {high}]" if math.isfinite(row.mean_low) else DASH


def _difference(board: Leaderboard, c: PairedComparison) -> str:
    d = shown_difference(c)
    return estimate(d.estimate, d.low, d.high, metric=board.measure, cut=d.cut)


def _difference_latex(board: Leaderboard, row: Row) -> str:
    c = row.comparison
    text = DASH if c is None else _difference(board, c)
    shown = text.replace(" [", r"\ [").replace(" (0", r"\ (0").replace(UNBOUNDED, rf"\mbox{{{UNBOUNDED}}}")
    return "--" if text == DASH else f"${shown}$"


def _p_latex(board: Leaderboard, row: Row) -> str:
    c = row.comparison
    if c is None or c.mean is None or math.isnan(c.p_adjusted):
        return "--"
    marks = "*" * sum(c.p_adjusted <= level for level in (0.05, 0.01, 0.001))
    return ("${<}.001" if c.p_adjusted < 0.001 else f"${c.p_adjusted:.3f}") + f"^{{{marks}}}$"


def _verdict_csv(board: Leaderboard, row: Row) -> str:
    word = board.verdict(row)
    return "" if word == "baseline" else word


def _ended(board: Leaderboard, row: Row) -> str:
    parts = [(row.completed, "done"), (row.diverged, "diverged"), (row.crashed, "crashed")]
    return ", ".join(f"{count} {word}" for count, word in parts if count) or DASH


def _ended_shown(board: Leaderboard) -> Shown:
    return "always" if any(row.diverged or row.crashed for row in board.rows) else "detail"


def _has_targets(board: Leaderboard) -> bool:
    return bool(board.targets)


def _described(name: str) -> Column:
    """Mean of a recorded metric over the completed trials, for files and the page."""
    metric = known(name)
    assert metric is not None
    return number_column(
        f"mean_{name}" if metric.unit != "count" else name,
        metric.heading,
        measure=lambda completed: float(completed[name].mean()) if name in completed else math.nan,
        convert=lambda board, value: value * metric.factor,
        digits=metric.digits,
        shown="extra",
        applies=lambda board: board.metric != name,
        in_latex=False,
    )


#: Final numbers of every task, each once, and the size of the model.
DESCRIBED = (
    *dict.fromkeys(
        f"{part}_{name}"
        for task in TASKS.values()
        for part in ("train", "val", "test")
        for name in (*task.headline, "loss")
    ),
    "parameters",
)

COLUMNS: tuple[Column, ...] = (
    Column(
        title=None,
        data={
            "workload": lambda board, row: board.workload,
            "backend": lambda board, row: board.backend,
            "device": lambda board, row: board.device,
            "precision": lambda board, row: board.precision,
            "metric": lambda board, row: board.metric,
            "baseline": lambda board, row: board.baseline,
        },
    ),
    Column(
        title=lambda board: "#",
        text=_rank,
        shown=lambda board: "core",
        value=lambda board, row: row.rank + row.rank_high / 1000,
        data={"rank": lambda board, row: row.rank, "rank_high": lambda board, row: row.rank_high},
        latex=Latex(title="Rank", cell=lambda board, row: _rank(board, row).replace("-", "--")),
    ),
    Column(
        title=lambda board: "group",
        text=lambda board, row: row.letters,
        value=lambda board, row: row.letters,
        shown=lambda board: "detail",
        data={"group": lambda board, row: row.letters},
    ),
    Column(
        title=lambda board: "optimizer",
        text=lambda board, row: row.optimizer,
        shown=lambda board: "core",
        value=lambda board, row: row.optimizer,
        data={"optimizer": lambda board, row: row.optimizer},
        latex=Latex(title="Optimizer", cell=lambda board, row: escape_latex(row.optimizer), align="l"),
    ),
    Column(
        title=lambda board: board.measure.heading,
        text=_mean,
        value=lambda board, row: row.mean * _factor(board),
        data={"mean": lambda board, row: row.mean, "sd": lambda board, row: row.sd},
        latex=Latex(title=lambda board: f"Mean{_unit_latex(board)}", cell=_mean_latex),
    ),
    Column(
        title=lambda board: f"{_level(board)} CI of the mean",
        text=_interval,
        value=lambda board, row: row.mean_low * _factor(board),
        shown=lambda board: "extra",
        data={"mean_low": lambda board, row: row.mean_low, "mean_high": lambda board, row: row.mean_high},
    ),
    Column(
        title=lambda board: f"minus {board.baseline} [{_intervals(board)}]",
        text=_compared_text(_difference),
        shown=lambda board: "core",
        value=_compared_value(lambda board, c: shown_difference(c).estimate * _factor(board)),
        data={
            "pairs": lambda board, row: row.comparison.n if row.comparison else None,
            "missing_pairs": lambda board, row: board.blocks - row.comparison.n if row.comparison else None,
            "difference": _compared(lambda c: shown_difference(c).estimate),
            "difference_low": _compared(lambda c: shown_difference(c).low),
            "difference_high": _compared(lambda c: shown_difference(c).high),
            "difference_confidence": _compared(lambda c: shown_difference(c).confidence),
        },
        latex=Latex(title=lambda board: f"Difference{_points_latex(board)}", cell=_difference_latex),
    ),
    Column(
        title=lambda board: "p" if board.correction == "none" else f"p ({CORRECTIONS[board.correction]})",
        text=_compared_text(lambda board, c: p_value(c.p_adjusted)),
        shown=lambda board: "core",
        value=_compared_value(lambda board, c: c.p_adjusted),
        data={
            "p": _compared(lambda c: c.signed_rank.pvalue if c.signed_rank else None),
            "p_adjusted": _compared(lambda c: c.p_adjusted),
            "smallest_attainable_p": _compared(lambda c: c.smallest_adjusted_p),
        },
        latex=Latex(title="$p$", cell=_p_latex),
    ),
    Column(
        title=lambda board: "d_z",
        text=_compared_text(lambda board, c: number(c.standardized.d_z) if c.standardized else DASH),
        value=_compared_value(lambda board, c: c.standardized.d_z if c.standardized else None),
        shown=lambda board: "detail",
        data={"d_z": _compared(lambda c: c.standardized.d_z if c.standardized else None)},
    ),
    Column(
        title=lambda board: "W/T/L",
        text=_compared_text(
            lambda board, c: f"{c.rank.wins}/{c.rank.ties}/{c.rank.losses}" if c.rank else DASH
        ),
        value=_compared_value(lambda board, c: c.rank.wins - c.rank.losses if c.rank else None),
        data={
            "wins": _compared(lambda c: c.rank.wins if c.rank else None),
            "ties": _compared(lambda c: c.rank.ties if c.rank else None),
            "losses": _compared(lambda c: c.rank.losses if c.rank else None),
        },
    ),
    Column(
        title=lambda board: f"verdict ({board.evidence})",
        text=lambda board, row: board.verdict(row),
        shown=lambda board: "core",
        value=lambda board, row: board.verdict(row),
        data={
            "verdict": _verdict_csv,
            "evidence": lambda board, row: board.evidence if _verdict_csv(board, row) else "",
            "declared": lambda board, row: board.declared,
        },
        latex=Latex(title="Verdict", cell=lambda board, row: board.verdict(row), align="l"),
    ),
    Column(
        title=lambda board: "decided at",
        text=lambda board, row: _decided_at(row) or DASH,
        applies=lambda board: any(r.comparison and r.comparison.sequential for r in board.rows),
        data={"decided_at": lambda board, row: _decided_at(row)},
        latex=Latex(title="Decided at", cell=lambda board, row: escape_latex(_decided_at(row)), align="l"),
    ),
    number_column(
        "mean_at_best_epoch",
        "at best epoch",
        get=lambda board, row: row.at_best_epoch,
        convert=lambda board, score: score * _factor(board),
        digits=_digits,
        shown="extra",
        in_latex=False,
    ),
    number_column(
        "median_best_epoch",
        "best epoch",
        get=lambda board, row: row.best_epoch,
        digits=1,
        shown="extra",
        in_latex=False,
    ),
    *map(_described, DESCRIBED),
    Column(
        title=lambda board: "epochs to target",
        text=lambda board, row: f"{number(row.target_epoch, 1)} ({row.target_reached})",
        value=lambda board, row: row.target_epoch,
        shown=lambda board: "detail",
        applies=_has_targets,
        data={
            "median_target_epoch": lambda board, row: row.target_epoch,
            "target_reached": lambda board, row: row.target_reached,
        },
    ),
    number_column(
        "median_target_seconds",
        "seconds to target",
        get=lambda board, row: row.target_seconds,
        shown="extra",
        applies=_has_targets,
        in_latex=False,
    ),
    number_column(
        "seconds_per_epoch",
        "s/epoch",
        get=lambda board, row: row.seconds_per_epoch,
        digits=3,
        shown="detail",
        in_latex=False,
    ),
    number_column(
        "step_ms",
        "ms/step",
        get=lambda board, row: row.step_ms,
        digits=3,
        shown="extra",
        in_latex=False,
    ),
    number_column(
        "state_bytes",
        "state, kB",
        get=lambda board, row: row.state_bytes,
        convert=lambda board, size: size / 1000,
        digits=1,
        shown="extra",
        in_latex=False,
    ),
    number_column(
        "tuning_seconds",
        "tuning, s",
        get=lambda board, row: row.tuning_seconds,
        digits=1,
        shown="extra",
        in_latex=False,
    ),
    Column(
        title=lambda board: "ended",
        text=_ended,
        value=lambda board, row: row.completed,
        shown=_ended_shown,
        data={
            "completed": lambda board, row: row.completed,
            "diverged": lambda board, row: row.diverged,
            "crashed": lambda board, row: row.crashed,
        },
    ),
)
