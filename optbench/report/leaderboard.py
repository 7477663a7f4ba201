"""The leaderboard: one table a workload, each optimizer against the baseline over proved pairs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import pandas as pd

from optbench.records.frames import Results, epochs_to_target
from optbench.records.pairing import counted_block
from optbench.report.board_notes import board_notes
from optbench.report.failures import Failures, Raising
from optbench.report.fair_times import SETTING, comparable
from optbench.report.leaderboard_columns import measured
from optbench.report.sequential import run_through, within
from optbench.report.text import EXPLORATORY, NOT_RECORDED
from optbench.stats.common import value_step
from optbench.stats.crashes import crashed_optimizers, name_crashed
from optbench.stats.crossed import Crossing, find_crossing
from optbench.stats.effects import mean_difference
from optbench.stats.families import FamilyResult, PairedComparison, Settings, compare_family
from optbench.stats.ranks import compact_letters, rank_intervals
from optbench.stats.survival import TimeToTarget, time_to_target
from optbench.suite.report_spec import Analysis, ReportSpec, ReportWorkload
from optbench.task import Metric
from optbench.trial import STREAMS

#: How a leaderboard that could not be made is named, before its title.
LEADERBOARD = "leaderboard "


@dataclass(frozen=True, kw_only=True)
class Row:
    """One optimizer on one workload.

    ``rank`` to ``rank_high`` is its simultaneous rank interval: 1 plus the optimizers found better, and k
    less those found worse. Optimizers that share a letter were not told apart. Both follow from the declared
    comparisons with the baseline, and from no others. Scores (``mean`` with its
    interval, ``sd``, ``at_best_epoch``) are over completed trials, times are medians over them; NaN where
    there are none, and where a store does not hold them (``state_bytes``, ``tuning_seconds``).
    ``comparison`` is against the baseline, oriented so that positive is better; the baseline has none.
    ``measured`` has what :data:`optbench.report.leaderboard_columns.COLUMNS` makes of the completed trials.
    """

    rank: int
    rank_high: int
    letters: str
    mean_rank: float
    optimizer: str
    completed: int
    diverged: int
    crashed: int
    mean: float
    mean_low: float
    mean_high: float
    sd: float
    at_best_epoch: float
    best_epoch: float
    target_epoch: float
    target_seconds: float
    target_reached: int
    seconds_per_epoch: float
    step_ms: float
    state_bytes: float
    tuning_seconds: float
    comparison: PairedComparison | None
    measured: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """All optimizers on one workload, best first, with the facts that explain the numbers.

    ``title`` names the workload, and backend, device and precision where the results have several. ``table``
    is blocks x optimizers, larger is better, -inf diverged, NaN missing. ``family`` compares with the
    baseline, as declared. ``measure`` declares the metric, ``resolution`` is the step of its values, and
    ``examples`` the size of the test part. ``crossing`` has the streams whose seeds repeat over blocks.
    ``reached`` has a trial's epochs and seconds to target (inf where it was not reached) and ``times`` their
    analysis; None for a workload without a target.
    ``blocks_run`` are those of the declared seeds, in order, up to the first that lacks a trial.
    ``evidence`` says whether its verdicts answer the confirmatory question, ``declared`` when it was decided.
    """

    title: str
    workload: str
    dataset: str
    backend: str
    device: str
    precision: str
    metric: str
    measure: Metric
    maximise: bool
    baseline: str
    alpha: float
    correction: str
    margin: float | None
    blocks: int
    targets: Mapping[str, float]
    rows: tuple[Row, ...]
    table: pd.DataFrame
    family: FamilyResult
    times: TimeToTarget | None
    reached: pd.DataFrame | None
    examples: int | None = None
    resolution: float | None = None
    crossing: Crossing | None = None
    notes: tuple[str, ...] = field(default=())
    blocks_run: tuple[str, ...] = ()
    evidence: str = EXPLORATORY
    declared: str = NOT_RECORDED

    @cached_property
    def all_pairs(self) -> FamilyResult | None:
        """Every two optimizers, with a correction of its own; None for one optimizer."""
        names = list(self.table.columns)
        if len(names) < 2:
            return None
        found = compare_family(
            self.table.to_numpy(dtype=float),
            names,
            settings=Settings(None, "all", self.alpha, self.correction, self.margin, self.resolution),
            scope=self.title,
            maximise=self.maximise,
            crossing=self.crossing,
        )
        return name_crashed(found, self.crashed, either=True)

    @property
    def crashed(self) -> frozenset[str]:
        """Optimizers whose every trial crashed."""
        return frozenset(r.optimizer for r in self.rows if r.crashed and not (r.completed or r.diverged))

    def verdict(self, row: Row) -> str:
        """Say in one word how an optimizer compares with the baseline."""
        if row.optimizer in self.crashed:
            return "crashed"
        return row.comparison.verdict.word if row.comparison is not None else "baseline"


def leaderboards(
    results: Results, spec: ReportSpec, *, failures: Failures | None = None
) -> list[Leaderboard]:
    """Make the leaderboard of every workload (and backend, device and precision, where there are several).

    Parameters
    ----------
    results : Results
        Records as tidy tables.
    spec : ReportSpec
        Gives the analysis, the targets and the order of workloads and optimizers.
    failures : Failures, optional
        Gets those that fail; without it the first exception passes.

    Returns
    -------
    list of Leaderboard
        Workloads without a single record are left out.
    """
    failures = Raising() if failures is None else failures
    trials = results.trials
    if trials.empty:
        return []
    several = [name for name in SETTING if name in trials and trials[name].nunique() > 1]
    settings = [name for name in SETTING if name in trials]
    boards = []
    for entry in spec.workloads:
        mine = trials[trials["workload"] == entry.label]
        for setting, part in mine.groupby(settings, sort=False):
            where = dict(zip(settings, setting, strict=True))
            suffix = f" ({', '.join(str(where[name]) for name in several)})" if several else ""
            title = entry.label + suffix
            board = partial(_board, entry, part, results, spec, title=title, failures=failures)
            if found := failures.attempt(LEADERBOARD + title, board):
                boards.append(found)
    return boards


def oriented(trials: pd.DataFrame, metric: str, *, maximise: bool) -> pd.DataFrame:
    """Blocks x optimizers, larger is better: a diverged trial is -inf, a missing one NaN."""
    values = trials[metric] if metric in trials else pd.Series(np.nan, index=trials.index)
    signed = values.where(trials["status"] == "completed") * (1 if maximise else -1)
    signed = signed.where(trials["status"] != "diverged", -np.inf)
    table = pd.DataFrame({"block": counted_block(trials), "optimizer": trials["optimizer"], "value": signed})
    return table.pivot(index="block", columns="optimizer", values="value")


def crossing_of(trials: pd.DataFrame, blocks: pd.Index) -> Crossing | None:
    """The streams whose seeds repeat over blocks, with their levels in each of `blocks`."""
    seeds = trials.assign(block=counted_block(trials)).drop_duplicates("block").set_index("block")
    names = [name for name in STREAMS if f"seed_{name}" in seeds]
    return find_crossing({name: seeds[f"seed_{name}"].reindex(blocks).to_numpy() for name in names})


def of_board(trials: pd.DataFrame, board: Leaderboard) -> pd.DataFrame:
    """Rows of ``Results.trials`` that a leaderboard is about."""
    mine = trials["workload"] == board.workload
    for name in SETTING:
        if name in trials:
            mine &= trials[name] == getattr(board, name)
    return trials[mine]


def _epochs(results: Results, trials: pd.DataFrame) -> pd.DataFrame:
    epochs = results.epochs
    return epochs[epochs["trial_id"].isin(trials["trial_id"])] if len(epochs) else epochs


def _board(
    entry: ReportWorkload,
    trials: pd.DataFrame,
    results: Results,
    spec: ReportSpec,
    *,
    title: str,
    failures: Failures,
) -> Leaderboard:
    analysis, epochs = spec.analysis, _epochs(results, trials)
    measure = results.metrics[analysis.primary]
    maximise = measure.maximised
    optimizers = _present(entry, trials)
    baseline = next((label for label in optimizers if label == analysis.baseline), optimizers[0])
    table = oriented(trials, analysis.primary, maximise=maximise).reindex(columns=optimizers)
    examples = results.examples_of(trials) if analysis.primary.startswith("test_") else None
    resolution = value_step(table.to_numpy(dtype=float), examples)
    crossing = crossing_of(trials, table.index)
    crashed = crashed_optimizers(trials)
    family = compare_family(
        table.to_numpy(dtype=float),
        optimizers,
        settings=_settings(spec, baseline, resolution),
        scope=title,
        maximise=maximise,
        crossing=crossing,
    )
    family = name_crashed(family, crashed)
    blocks_run = run_through(trials, spec, entry.optimizers)
    family = within(family, table, blocks_run, spec, resolution=resolution)
    targets = {name: value for name, value in vars(entry.targets).items() if value is not None}
    part = f"time to target: {title}"
    reached = failures.attempt(part, lambda: _reached(trials, epochs, targets))
    times = failures.attempt(
        part, lambda: _times(reached, trials, optimizers, baseline, entry, analysis, title, crashed)
    )
    rows = _rows(trials, table, family, analysis, reached=reached, timed=comparable(results, trials))
    first = trials.iloc[0]
    return Leaderboard(
        title=title,
        workload=entry.label,
        dataset=str(first.get("dataset", "")),
        backend=str(first["backend"]),
        device=str(first.get("device", "")),
        precision=str(first.get("precision", "")),
        metric=analysis.primary,
        measure=measure,
        maximise=maximise,
        baseline=baseline,
        alpha=analysis.alpha,
        correction=analysis.correction,
        margin=analysis.margin,
        blocks=max(0 if analysis.sequential else len(spec.seeds), trials["block_id"].nunique()),
        blocks_run=blocks_run,
        targets=targets,
        rows=tuple(rows),
        table=table,
        family=family,
        times=times,
        reached=reached if times is not None else None,
        examples=examples,
        resolution=resolution,
        crossing=crossing,
        notes=tuple(board_notes(rows, trials, results, spec, examples=examples)),
    )


def _present(entry: ReportWorkload, trials: pd.DataFrame) -> list[str]:
    """Optimizers that have trials: those of the workload in its order, then others by name."""
    present = set(trials["optimizer"])
    optimizers = [label for label in entry.optimizers if label in present]
    return optimizers + sorted(present - set(optimizers))


def _settings(spec: ReportSpec, baseline: str, resolution: float | None) -> Settings:
    analysis = spec.analysis
    return Settings(
        baseline,
        "baseline",
        analysis.alpha,
        analysis.correction,
        analysis.margin,
        resolution,
        families=spec.families,
    )


def _reached(trials: pd.DataFrame, epochs: pd.DataFrame, targets: Mapping[str, float]) -> pd.DataFrame | None:
    """One row a trial with outcome: block, optimizer, epochs and seconds to target (inf where it was not)."""
    if not targets or not len(epochs) or not set(targets) <= set(epochs.columns):
        return None
    found = trials[trials["status"] != "crashed"][["trial_id", "block", "optimizer", "status", "seed"]]
    table = found.astype({"trial_id": object}).merge(
        epochs_to_target(epochs, targets.items()), on="trial_id", how="left"
    )
    lost = table["target_epoch"].isna() | (table["status"] == "diverged")
    return table.assign(
        **{name: table[name].mask(lost, np.inf) for name in ("target_epoch", "target_seconds")}
    )


def _times(
    reached: pd.DataFrame | None,
    trials: pd.DataFrame,
    optimizers: Sequence[str],
    baseline: str,
    entry: ReportWorkload,
    analysis: Analysis,
    title: str,
    crashed: frozenset[str],
) -> TimeToTarget | None:
    if reached is None:
        return None
    table = reached.pivot(index="block", columns="optimizer", values="target_epoch").reindex(
        columns=optimizers
    )
    if table.empty:
        return None
    settings = Settings(baseline, "baseline", analysis.alpha, correction=analysis.correction)
    (result,) = time_to_target(
        table.to_numpy(dtype=float),
        optimizers,
        dataset=title,
        budget=float(entry.epochs),
        settings=settings,
        crossing=crossing_of(trials, table.index),
    )
    return replace(result, family=name_crashed(result.family, crashed))


def _rows(
    trials: pd.DataFrame,
    table: pd.DataFrame,
    family: FamilyResult,
    analysis: Analysis,
    *,
    reached: pd.DataFrame | None,
    timed: bool,
) -> list[Row]:
    optimizers = list(table.columns)
    mean_ranks = table.rank(axis=1, ascending=False).mean().to_list()
    letters, intervals = _standing(family, mean_ranks)
    compared = {c.candidate: c for c in family.comparisons}
    parts = dict(iter(trials.groupby("optimizer", sort=False)))
    rows = [
        _row(
            parts[name],
            analysis,
            rank=intervals[i],
            letters=letters[i],
            mean_rank=mean_ranks[i],
            comparison=compared.get(name),
            reached=reached[reached["optimizer"] == name] if reached is not None else None,
            timed=timed,
        )
        for i, name in enumerate(optimizers)
    ]

    def place(row: Row) -> tuple[float, float, float, str]:
        known = not math.isnan(row.mean_rank)
        return (*((row.rank, row.rank_high, row.mean_rank) if known else (math.inf,) * 3), row.optimizer)

    return sorted(rows, key=place)


def _standing(family: FamilyResult, mean_ranks: Sequence[float]) -> tuple[list[str], list[tuple[int, int]]]:
    """Letters and rank intervals that follow from the declared comparisons, and from no others."""
    position = {name: number for number, name in enumerate(family.optimizers)}
    signs = np.zeros((len(position), len(position)), dtype=np.int64)
    for c in family.comparisons:
        i, j = position[c.candidate], position[c.baseline]
        found = {"better": 1, "worse": -1}.get(c.verdict.word, 0)
        signs[i, j], signs[j, i] = found, -found
    best_first = np.argsort(np.nan_to_num(mean_ranks, nan=np.inf), kind="stable").tolist()
    return compact_letters(signs != 0, order=best_first), rank_intervals(signs)


def _row(
    trials: pd.DataFrame,
    analysis: Analysis,
    *,
    rank: tuple[int, int],
    letters: str,
    mean_rank: float,
    comparison: PairedComparison | None,
    reached: pd.DataFrame | None,
    timed: bool,
) -> Row:
    completed = trials[trials["status"] == "completed"]
    primary = analysis.primary
    values = completed[primary].dropna().to_numpy(dtype=float) if primary in completed else np.empty(0)
    mean = mean_difference(values, confidence=1 - analysis.alpha) if len(values) > 1 else None
    hit = reached[np.isfinite(reached["target_epoch"])] if reached is not None else None
    epoch_seconds = completed["step_seconds"] / completed["epochs"] if timed and len(completed) else None
    steps = completed.get("steps_per_epoch", math.nan)
    return Row(
        rank=rank[0],
        rank_high=rank[1],
        letters=letters,
        mean_rank=float(mean_rank),
        optimizer=str(trials["optimizer"].iloc[0]),
        completed=len(completed),
        diverged=int((trials["status"] == "diverged").sum()),
        crashed=int((trials["status"] == "crashed").sum()),
        mean=float(values.mean()) if len(values) else math.nan,
        mean_low=mean.low if mean else math.nan,
        mean_high=mean.high if mean else math.nan,
        sd=float(values.std(ddof=1)) if len(values) > 1 else math.nan,
        at_best_epoch=_average(completed, f"{primary}_best"),
        best_epoch=_median(completed, "best_epoch"),
        target_epoch=_median(hit, "target_epoch"),
        target_seconds=_median(hit, "target_seconds") if timed else math.nan,
        target_reached=len(hit) if hit is not None else 0,
        seconds_per_epoch=_middle(epoch_seconds),
        step_ms=_middle(1000 * epoch_seconds / steps) if epoch_seconds is not None else math.nan,
        state_bytes=_median(completed, "state_bytes"),
        tuning_seconds=_median(completed, "tuning_seconds"),
        comparison=comparison,
        measured=measured(completed),
    )


def _median(frame: pd.DataFrame | None, column: str) -> float:
    return _middle(frame[column]) if frame is not None and column in frame else math.nan


def _middle(values: pd.Series | None) -> float:
    """Give the median of what was measured; pandas 2 warns where that is nothing."""
    known = None if values is None else values.dropna()
    return math.nan if known is None or known.empty else float(known.median())


def _average(frame: pd.DataFrame, column: str) -> float:
    return float(frame[column].mean()) if column in frame and len(frame) else math.nan
