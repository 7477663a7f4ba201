"""The leaderboard: one table a workload, each optimizer against the baseline over proved pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from optbench.frames import Results, epochs_to_target
from optbench.stats.families import PairedComparison, Settings, compare_family
from optbench.suite import Analysis, Suite


@dataclass(frozen=True, kw_only=True)
class Row:
    """One optimizer on one workload.

    Mean and standard deviation of the primary metric are over completed trials. ``comparison`` is against the
    baseline, oriented so that positive is better; the baseline itself has none.
    """

    rank: int
    mean_rank: float
    optimizer: str
    completed: int
    diverged: int
    crashed: int
    mean: float
    sd: float
    best_epoch: float
    target_epoch: float
    target_reached: int
    seconds_per_epoch: float
    comparison: PairedComparison | None


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """All optimizers on one workload, best first, with what a reader must know beside the numbers.

    ``title`` names the workload, and the backend where the suite has several.
    """

    title: str
    workload: str
    backend: str
    metric: str
    maximise: bool
    baseline: str
    alpha: float
    correction: str
    blocks: int
    targets: Mapping[str, float]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default=())


def leaderboards(results: Results, suite: Suite) -> list[Leaderboard]:
    """Make the leaderboard of every workload (and backend, where a suite has several).

    Parameters
    ----------
    results : Results
        Records as tidy tables.
    suite : Suite
        Gives the analysis, the targets and the order of workloads and optimizers.

    Returns
    -------
    list of Leaderboard
        Workloads without a single record are left out.
    """
    trials = results.trials
    if trials.empty:
        return []
    targets = {
        entry.label: {
            name: value
            for name in ("val_accuracy", "val_loss")
            if (value := getattr(entry.targets, name)) is not None
        }
        for entry in suite.workloads
    }
    several = trials["backend"].nunique() > 1
    boards = []
    for entry in suite.workloads:
        mine = trials[trials["workload"] == entry.label]
        for backend, part in mine.groupby("backend", sort=False):
            boards.append(
                _board(
                    f"{entry.label} ({backend})" if several else entry.label,
                    entry.label,
                    part,
                    results,
                    suite.analysis,
                    targets[entry.label],
                    [label for label in entry.optimizers if label in set(part["optimizer"])],
                    planned=len(suite.seeds),
                )
            )
    return boards


def oriented(trials: pd.DataFrame, metric: str, *, maximise: bool) -> pd.DataFrame:
    """Blocks x optimizers, larger is better: a diverged trial is -inf, a missing one NaN."""
    values = trials[metric] if metric in trials else pd.Series(np.nan, index=trials.index)
    signed = values.where(trials["status"] == "completed") * (1 if maximise else -1)
    signed = signed.where(trials["status"] != "diverged", -np.inf)
    table = pd.DataFrame({"block": trials["block"], "optimizer": trials["optimizer"], "value": signed})
    return table.pivot(index="block", columns="optimizer", values="value")


def _board(
    title: str,
    workload: str,
    trials: pd.DataFrame,
    results: Results,
    analysis: Analysis,
    targets: Mapping[str, float],
    optimizers: Sequence[str],
    *,
    planned: int,
) -> Leaderboard:
    maximise = not analysis.primary.endswith("loss")
    table = oriented(trials, analysis.primary, maximise=maximise)
    baseline = next((label for label in optimizers if label == analysis.baseline), optimizers[0])
    family = compare_family(
        table.reindex(columns=list(optimizers)).to_numpy(dtype=float),
        optimizers,
        settings=Settings(
            baseline, "baseline", analysis.alpha, correction=analysis.correction, margin=analysis.margin
        ),
        scope=title,
        maximise=maximise,
    )
    compared = {comparison.candidate: comparison for comparison in family.comparisons}
    mean_ranks = table.rank(axis=1, ascending=False).mean()
    order = sorted(
        optimizers, key=lambda o: (mean_ranks[o] if not math.isnan(mean_ranks[o]) else math.inf, o)
    )
    epochs = results.epochs
    epochs = epochs[epochs["trial_id"].isin(set(trials["trial_id"]))] if len(epochs) else epochs
    reached = epochs_to_target(epochs, targets.items()) if targets and len(epochs) else None
    rows = [
        _row(rank, name, trials[trials["optimizer"] == name], analysis, mean_ranks[name], compared, reached)
        for rank, name in enumerate(order, start=1)
    ]
    return Leaderboard(
        title=title,
        workload=workload,
        backend=str(trials["backend"].iloc[0]),
        metric=analysis.primary,
        maximise=maximise,
        baseline=baseline,
        alpha=analysis.alpha,
        correction=analysis.correction,
        blocks=planned,
        targets=targets,
        rows=tuple(rows),
        notes=tuple(_notes(rows, trials, results, analysis, planned=planned)),
    )


def _row(
    rank: int,
    name: str,
    trials: pd.DataFrame,
    analysis: Analysis,
    mean_rank: float,
    compared: Mapping[str, PairedComparison],
    reached: pd.DataFrame | None,
) -> Row:
    completed = trials[trials["status"] == "completed"]
    values = completed[analysis.primary] if analysis.primary in completed else pd.Series(dtype=float)
    mine = reached[reached["trial_id"].isin(set(trials["trial_id"]))] if reached is not None else None
    hit = mine["target_epoch"].dropna() if mine is not None else pd.Series(dtype=float)
    return Row(
        rank=rank,
        mean_rank=float(mean_rank),
        optimizer=name,
        completed=len(completed),
        diverged=int((trials["status"] == "diverged").sum()),
        crashed=int((trials["status"] == "crashed").sum()),
        mean=float(values.mean()) if len(values) else math.nan,
        sd=float(values.std(ddof=1)) if len(values) > 1 else math.nan,
        best_epoch=_median(completed, "best_epoch"),
        target_epoch=float(hit.median()) if len(hit) else math.nan,
        target_reached=len(hit),
        seconds_per_epoch=float((completed["step_seconds"] / completed["epochs"]).median())
        if len(completed)
        else math.nan,
        comparison=compared.get(name),
    )


def _median(frame: pd.DataFrame, column: str) -> float:
    return float(frame[column].median()) if column in frame and len(frame) else math.nan


def _notes(
    rows: Sequence[Row], trials: pd.DataFrame, results: Results, analysis: Analysis, *, planned: int
) -> list[str]:
    comparisons = [row.comparison for row in rows if row.comparison is not None]
    notes = list(dict.fromkeys(f"{c.attainable}." for c in comparisons))
    missing = sum(planned - c.n for c in comparisons)
    if missing:
        notes.append(f"{missing} pairs are missing (not run yet, crashed, or refused).")
    blocks = set(trials["block_id"])
    refused = [refusal for refusal in results.refusals if refusal.block_id in blocks]
    notes += [
        f"Refused: {refusal.optimizer}, trial {refusal.trial_id}: {refusal.reason}." for refusal in refused
    ]
    if not refused and len(trials):
        notes.append("Every pair was proved by equal fingerprints of split, initial weights and batch order.")
    return notes
