"""The leaderboard: one table a workload, each optimizer against the baseline over proved pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from optbench.frames import Results, epochs_to_target
from optbench.stats.corrections import holm
from optbench.stats.effects import MeanDifference, mean_difference, rank_effect, standardized_difference
from optbench.stats.paired import SignedRankResult, signed_rank
from optbench.stats.verdict import Verdict, verdict
from optbench.suite import Analysis, Suite


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An optimizer against the baseline; differences are oriented so that positive is better.

    ``pairs`` were tested; ``missing`` blocks lack one of the two, or their fingerprints disagree.
    """

    pairs: int
    missing: int
    difference: MeanDifference
    d_z: float
    test: SignedRankResult
    p_adjusted: float
    smallest_adjusted_p: float
    wins: int
    ties: int
    losses: int
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Row:
    """One optimizer on one workload; mean and sd of the primary metric are over completed trials."""

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
    comparison: Comparison | None


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
    compared = _compare(table, baseline, [o for o in optimizers if o != baseline], analysis, planned=planned)
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
        notes=tuple(_notes(rows, trials, results, analysis)),
    )


def _compare(
    table: pd.DataFrame, baseline: str, candidates: Sequence[str], analysis: Analysis, *, planned: int
) -> dict[str, Comparison]:
    differences = {}
    for name in candidates:
        both = table[[name, baseline]].dropna()
        # Two diverged trials of a block are a tie, where -inf minus -inf would be no number.
        tie = np.isneginf(both[name]) & np.isneginf(both[baseline])
        with np.errstate(invalid="ignore"):
            differences[name] = np.where(tie, 0.0, both[name] - both[baseline])
    tests = {name: signed_rank(d) for name, d in differences.items() if len(d)}
    raw = np.array([test.pvalue for test in tests.values()])
    adjusted = holm(raw) if analysis.correction == "holm" and len(raw) else raw
    family = len(tests) if analysis.correction == "holm" else 1
    compared = {}
    for (name, test), p in zip(tests.items(), adjusted, strict=True):
        d = differences[name]
        effect = rank_effect(d)
        smallest = min(1.0, family * test.smallest_attainable_p)
        compared[name] = Comparison(
            pairs=len(d),
            missing=planned - len(d),
            difference=mean_difference(d),
            d_z=standardized_difference(d).d_z,
            test=test,
            p_adjusted=float(p),
            smallest_adjusted_p=smallest,
            wins=effect.wins,
            ties=effect.ties,
            losses=effect.losses,
            verdict=verdict(
                pvalue=float(p),
                direction=effect.rank_biserial,
                alpha=analysis.alpha,
                smallest_p=smallest,
                candidate=name,
                baseline=baseline,
            ),
        )
    return compared


def _row(
    rank: int,
    name: str,
    trials: pd.DataFrame,
    analysis: Analysis,
    mean_rank: float,
    compared: Mapping[str, Comparison],
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


def _notes(rows: Sequence[Row], trials: pd.DataFrame, results: Results, analysis: Analysis) -> list[str]:
    notes = []
    comparisons = [row.comparison for row in rows if row.comparison is not None]
    if comparisons:
        smallest = max(c.smallest_adjusted_p for c in comparisons)
        pairs = min(c.pairs for c in comparisons)
        corrected = f" after {analysis.correction.title()}" if analysis.correction != "none" else ""
        verb = "can" if smallest <= analysis.alpha else "cannot"
        notes.append(
            f"{pairs} pairs{corrected}: the smallest attainable two-sided p is {smallest:.3g}, "
            f"so this design {verb} reject at {analysis.alpha:g}."
        )
        missing = sum(c.missing for c in comparisons)
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
