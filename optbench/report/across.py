"""Several workloads, and several settings: what holds over workloads, and the framework as a factor."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
import pandas as pd

from optbench.records.frames import Results
from optbench.records.machines import Mixed
from optbench.report.fair_times import SETTING
from optbench.report.leaderboard import Leaderboard, crossing_of, oriented
from optbench.report.sequential import over_workloads
from optbench.report.text import EXPLORATORY, MAIN, NOT_RECORDED
from optbench.stats.common import FloatArray
from optbench.stats.crashes import called_crashed, crashed_optimizers, name_crashed
from optbench.stats.datasets import (
    FEWEST_DATASETS,
    Conjunction,
    Stability,
    StratifiedComparison,
    collapse,
    compare_new_datasets,
    conjunctions,
    leave_one_out,
    on_these_datasets,
)
from optbench.stats.families import FamilyResult, PairedComparison, Settings, compare_family
from optbench.stats.profiles import profile_score
from optbench.suite.report_spec import Question, ReportSpec
from optbench.task import Metric

#: Fingerprints by which trials of several settings are paired.
_FINGERPRINTS = ["split", "init", "order"]


@dataclass(frozen=True, kw_only=True)
class AcrossRow:
    """One optimizer over the workloads; ``these``, ``new`` and ``conjunction`` are against the baseline.

    ``profile`` is the normalised area under the performance profile of epochs to target, NaN without targets.
    """

    optimizer: str
    mean_rank: float
    mean_rank_low: float
    mean_rank_high: float
    verdicts: tuple[str, ...]
    these: StratifiedComparison | None
    new: PairedComparison | None
    conjunction: Conjunction | None
    profile: float


@dataclass(frozen=True, kw_only=True)
class Across:
    """Two separate questions: on these workloads (seeds are the sample), and on new ones (workloads are).

    ``question`` is the confirmatory one of the suite, None where it is asked of another ``setting``.
    """

    title: str
    metric: str
    measure: Metric
    maximise: bool
    baseline: str
    alpha: float
    correction: str
    workloads: tuple[str, ...]
    rows: tuple[AcrossRow, ...]
    family: FamilyResult
    cells: FloatArray
    margin: float | None
    stability: Stability | None
    times: FloatArray | None
    notes: tuple[str, ...]
    setting: tuple[str, str, str] = ("", "", "")
    question: Question | None = None
    declared: str = NOT_RECORDED
    confirms: str = MAIN

    def evidence(self, question: Question) -> str:
        """What the verdicts on a question answer: the confirmatory one, or another."""
        return self.confirms if self.question == question else EXPLORATORY

    @cached_property
    def all_pairs(self) -> FamilyResult:
        """Every two optimizers on new workloads, with a correction of its own."""
        found = compare_family(
            self.cells,
            self.family.optimizers,
            settings=Settings(None, "all", self.alpha, correction=self.correction, margin=self.margin),
            scope="new workloads",
            maximise=self.maximise,
            blocks="workloads",
        )
        crashed = {c.candidate for c in self.family.comparisons if c.verdict.word == "crashed"}
        return name_crashed(found, crashed, either=True)


@dataclass(frozen=True, kw_only=True)
class SettingComparison:
    """One optimizer on one workload in several settings: backend, device and precision as a factor.

    ``mixed`` says which of its pairs ran on different machines or versions.
    """

    workload: str
    optimizer: str
    family: FamilyResult
    shared: str = ""
    mixed: Mixed | None = None


def across(boards: Sequence[Leaderboard], spec: ReportSpec) -> list[Across]:
    """Compare over the workloads of each setting.

    Parameters
    ----------
    boards : sequence of Leaderboard
    spec : ReportSpec
        Gives the analysis.

    Returns
    -------
    list of Across
        One a setting that has two workloads and two optimizers or more.
    """

    def setting(board: Leaderboard) -> tuple[str, str, str]:
        return board.backend, board.device, board.precision

    found = []
    for _, group in groupby(sorted(boards, key=setting), key=setting):
        mine = list(group)
        names = list(dict.fromkeys(name for board in mine for name in board.table.columns))
        if len(mine) > 1 and len(names) > 1:
            found.append(_across(mine, names, spec))
    return found


def settings_compared(results: Results, spec: ReportSpec) -> list[SettingComparison]:
    """Compare the settings (such as torch and tensorflow) of each optimizer on each workload.

    Parameters
    ----------
    results : Results
    spec : ReportSpec
        Gives the metric, alpha, correction and margin.

    Returns
    -------
    list of SettingComparison
        Empty where everything ran in one setting. Pairs are trials with equal fingerprints of split, initial
        weights and batch order: only the framework, device or precision differs. Dropout masks are not
        matched between frameworks.
    """
    trials = results.trials
    several = [name for name in SETTING if name in trials and trials[name].nunique() > 1]
    if not several:
        return []
    metric = spec.analysis.primary
    maximise = results.metrics[metric].maximised
    found = []
    for (workload, optimizer), part in trials.groupby(["workload", "optimizer"], sort=False):
        names = sorted(set(_joined(part, several, " ")))
        # A crash has no fingerprints, and so no pair: the other setting's trial stands alone in its block.
        fingerprinted = part[part[_FINGERPRINTS].notna().all(axis=1)]
        blocks = _joined(fingerprinted, ["seed", *_FINGERPRINTS], "/")
        named = fingerprinted.assign(
            optimizer=_joined(fingerprinted, several, " "), block=blocks, block_id=blocks
        )
        named = named.drop_duplicates(["block", "optimizer"])
        table = oriented(named, metric, maximise=maximise).reindex(columns=names)
        if len(names) < 2 or table.empty:
            continue
        declared = Settings(None, "all", spec.analysis.alpha, spec.analysis.correction, spec.analysis.margin)
        family = compare_family(
            table.to_numpy(dtype=float),
            list(table.columns),
            settings=declared,
            scope=f"{optimizer} on {workload}",
            maximise=maximise,
            crossing=crossing_of(named.assign(status="completed"), table.index),
        )
        family = name_crashed(family, crashed_optimizers(named), either=True)
        found.append(SettingComparison(workload=str(workload), optimizer=str(optimizer), family=family))
    return found


def _joined(rows: pd.DataFrame, columns: Sequence[str], separator: str) -> list[str]:
    return [separator.join(cells) for cells in zip(*(rows[name] for name in columns), strict=True)]


def _across(boards: Sequence[Leaderboard], names: list[str], spec: ReportSpec) -> Across:
    analysis, first = spec.analysis, boards[0]
    baseline = analysis.baseline if analysis.baseline in names else first.baseline
    maximise = first.maximise
    steps = {b.title: b.resolution for b in boards if b.resolution is not None}
    declared = Settings(
        baseline, "baseline", analysis.alpha, analysis.correction, analysis.margin, steps or None
    )
    crossings = {b.title: b.crossing for b in boards if b.crossing is not None}
    tables = {b.title: b.table.reindex(columns=names).to_numpy(dtype=float) for b in boards}
    cells, medians = collapse(tables)
    family = compare_new_datasets(
        tables, names, settings=declared, scope="new workloads", maximise=maximise, blocks="workloads"
    )
    crashed = {n for n in names if all(n in b.crashed for b in boards if n in b.table.columns)}
    family = name_crashed(family, crashed)
    complete = cells[~np.isnan(cells).any(axis=1)]
    compared = on_these_datasets(tables, names, settings=declared, crossings=crossings or None)
    called = [called_crashed(c, crashed) for c in compared]
    these = {c.candidate: c for c in over_workloads(called, boards, spec)}
    # Counts take the pairs within each workload to be independent.
    counts = () if crossings else conjunctions(tables, names, settings=declared)
    times = _times(boards, names)
    ranks = family.friedman.mean_ranks if family.friedman else _mean_ranks(cells)
    rows = _rows(boards, names, family, ranks, these=these, counts=counts, times=times)
    suffix = first.title.removeprefix(first.workload)
    stability = leave_one_out(complete, names) if len(complete) >= 2 and len(names) > 2 else None
    return Across(
        title=f"Across {len(boards)} workloads{suffix}",
        metric=first.metric,
        measure=first.measure,
        maximise=maximise,
        baseline=str(baseline),
        alpha=analysis.alpha,
        correction=analysis.correction,
        workloads=tuple(tables),
        rows=tuple(sorted(rows, key=lambda r: (math.isnan(r.mean_rank), r.mean_rank, r.optimizer))),
        family=family,
        cells=cells,
        margin=analysis.margin,
        stability=stability,
        times=times,
        notes=tuple(_notes(boards, family, medians, stability)),
        setting=(first.backend, first.device, first.precision),
    )


def _rows(
    boards: Sequence[Leaderboard],
    names: Sequence[str],
    family: FamilyResult,
    ranks: Sequence[float] | FloatArray,
    *,
    these: Mapping[str, StratifiedComparison],
    counts: Iterable[Conjunction],
    times: FloatArray | None,
) -> list[AcrossRow]:
    counted = {c.candidate: c for c in counts}
    new = {c.candidate: c for c in family.comparisons}
    words = {
        name: tuple(c.verdict.word for b in boards for c in b.family.comparisons if c.candidate == name)
        for name in names
    }
    scores = profile_score(times) if times is not None else np.full(len(names), math.nan)
    return [
        AcrossRow(
            optimizer=name,
            mean_rank=float(ranks[i]),
            mean_rank_low=family.mean_rank_low[i],
            mean_rank_high=family.mean_rank_high[i],
            verdicts=words[name],
            these=these.get(name),
            new=new.get(name),
            conjunction=counted.get(name),
            profile=float(scores[i]),
        )
        for i, name in enumerate(names)
    ]


def _mean_ranks(cells: FloatArray) -> FloatArray:
    return np.asarray(pd.DataFrame(cells).rank(axis=1, ascending=False).mean(), dtype=np.float64)


def _times(boards: Sequence[Leaderboard], names: Sequence[str]) -> FloatArray | None:
    """Median epochs to target, workloads x optimizers, of workloads with a target that all optimizers ran."""
    rows = []
    for board in boards:
        if board.times is None:
            continue
        medians = {summary.optimizer: summary.median for summary in board.times.summaries}
        if set(names) <= set(medians):
            # Epoch 0 is before the first step; a target met there took no time, which has no ratio.
            rows.append([max(medians[name], 1.0) for name in names])
    return np.array(rows, dtype=np.float64) if rows else None


def _notes(
    boards: Sequence[Leaderboard],
    family: FamilyResult,
    medians: Sequence[str],
    stability: Stability | None,
) -> list[str]:
    notes = [
        "On these workloads: the average of their mean differences; better and worse are about the typical "
        "run, and need it too, by signed ranks of all pairs; nothing is claimed about others. "
        "On new workloads: the workload is the unit, one value each, however many seeds went into it."
    ]
    count = len(boards)
    if count < FEWEST_DATASETS:
        notes.append(
            f"{count} workloads cannot generalise to new ones: no signed-rank test over fewer than "
            f"{FEWEST_DATASETS} can reach 0.05."
        )
    datasets = {board.dataset for board in boards}
    if len(datasets) < count:
        notes.append(
            f"The {count} workloads use {len(datasets)} dataset{'s' if len(datasets) > 1 else ''}: workloads "
            "that share one are not independent; read the claim about new workloads as one about this kind."
        )
    if medians:
        notes.append(
            f"With diverged trials, hence medians over seeds instead of means: {', '.join(medians)}."
        )
    notes += [f"{note}." for note in family.notes]
    if stability is not None and stability.flips:
        notes.append(
            "The order by mean rank depends on who takes part; it changes between "
            f"{'; '.join(stability.flips[:5])}."
        )
    return notes
