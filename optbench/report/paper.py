"""The tables of a paper beside the leaderboards: over workloads, chosen rates and their budget, cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optbench.records.frames import Results
from optbench.report.analysis import Report, leading_tables, side_tables
from optbench.report.fair_times import step_ways
from optbench.report.latex_tables import chosen, text_table
from optbench.report.leaderboard import Leaderboard
from optbench.report.text import TextTable, number

#: Columns of the table of searches that a paper shows.
_TUNING = ("workload", "optimizer", "searched", "settings", "winner")


def paper_tables(report: Report) -> str:
    """Write the tables that a paper needs beside the leaderboards as LaTeX; empty where there is none."""
    tables = [
        chosen(table, [name for name in table.columns if name in table.always])
        for found, table in leading_tables(report)
        if table is not None and not isinstance(found, Leaderboard)
    ]
    sides = side_tables(report)
    if "grids" in sides:
        tables.append(sides["grids"])
    if "tuning" in sides:
        tables.append(chosen(sides["tuning"], _TUNING))
    if (cost := cost_table(report.boards, report.results)) is not None:
        tables.append(cost)
    return "\n".join(text_table(table) for table in tables)


def cost_table(boards: Sequence[Leaderboard], results: Results) -> TextTable | None:
    """Lay out what an optimizer costs: step, epoch, state, tuning; None where no time may be compared."""
    rows = []
    for board in boards:
        base = next((row.step_ms for row in board.rows if row.optimizer == board.baseline), math.nan)
        rows += [
            (
                board.title,
                row.optimizer,
                number(row.step_ms, 3),
                number(row.step_ms / base, 2) if base > 0 else "-",
                number(row.seconds_per_epoch, 3),
                number(row.state_bytes / 1000, 1),
                number(row.tuning_seconds, 1),
            )
            for row in board.rows
            if math.isfinite(row.step_ms)
        ]
    if not rows:
        return None
    columns = ("workload", "optimizer", "ms/step", "relative", "s/epoch", "state, kB", "tuning, s")
    ways = step_ways(results, results.trials, boards[0].baseline)
    empty = {name for k, name in enumerate(columns) if all(row[k] == "-" for row in rows)}
    return TextTable(
        title="What the optimizers cost",
        columns=columns,
        rows=tuple(rows),
        notes=(
            "Medians over trials on one machine; relative to the baseline's step.",
            *([ways] if ways else []),
        ),
        extras=frozenset(empty),
    )
