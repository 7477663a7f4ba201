"""The notes below a leaderboard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from optbench.records.frames import Results
from optbench.records.pairing import DECLARED
from optbench.report.crashes import crashed_optimizers
from optbench.report.fair_times import time_notes
from optbench.suite.report_spec import ReportSpec

if TYPE_CHECKING:
    from optbench.report.leaderboard import Row


def board_notes(rows: Sequence[Row], trials: pd.DataFrame, results: Results, spec: ReportSpec) -> list[str]:
    """Say what a reader must know beside the numbers of a leaderboard."""
    comparisons = [row.comparison for row in rows if row.comparison is not None]
    notes = _limits(rows, trials)
    notes += list(dict.fromkeys(f"{c.attainable}." for c in comparisons if c.verdict.word != "crashed"))
    planned = max(len(spec.seeds), trials["block_id"].nunique())
    missing = sum(planned - c.n for c in comparisons)
    if missing:
        notes.append(f"{missing} pairs are missing (not run yet, crashed, or refused).")
    zeros = sum(c.signed_rank.n_zeros for c in comparisons if c.signed_rank)
    ties = sum(c.signed_rank.n_ties for c in comparisons if c.signed_rank)
    if zeros or ties:
        notes.append(f"Among the pairs are {zeros} zero differences and {ties} that share their size.")
    imported = "split" in trials and (trials["split"] == DECLARED).any()
    if not imported:
        notes += time_notes(results, trials)
    blocks = set(trials["block_id"])
    refused = [refusal for refusal in results.refusals if refusal.block_id in blocks]
    notes += [
        f"Refused: {refusal.optimizer}, trial {refusal.trial_id}: {refusal.reason}." for refusal in refused
    ]
    if imported:
        notes.append("Imported trials: their pairs are declared by the person who imported them, not proved.")
    elif not refused and any(c.n for c in comparisons):
        notes.append("Every pair was proved by equal fingerprints of split, initial weights and batch order.")
    return notes


def _limits(rows: Sequence[Row], trials: pd.DataFrame) -> list[str]:
    """Sentences about results that allow few conclusions, or none."""
    statuses = set(trials["status"])
    notes = []
    if len(rows) == 1:
        notes.append("One optimizer: there is nothing to compare it with, so no verdict is possible.")
    if statuses == {"crashed"}:
        notes.append(
            "Every trial crashed, which is missing data: nothing can be said about any optimizer. "
            "`optbench show TRIAL` prints a traceback."
        )
    elif statuses <= {"diverged", "crashed"}:
        notes.append(
            "No trial completed: there is no score to show. Diverged trials tie with each other as the worst."
        )
    elif crashed := sorted(crashed_optimizers(trials)):
        notes.append(
            f"{', '.join(crashed)}: every trial crashed, which is missing data; `optbench show TRIAL` prints "
            "a traceback."
        )
    if trials["block_id"].nunique() == 1 and len(rows) > 1:
        notes.append("One seed: a difference on it cannot be told from chance.")
    return notes
