"""Verdicts of a suite with a sequential design: at which look each was found, and whether to go on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from optbench.stats.common import FloatArray, differences
from optbench.stats.datasets import StratifiedComparison
from optbench.stats.families import FamilyResult
from optbench.stats.sequential import SequentialPlan
from optbench.stats.sequential_verdict import Decision, decide_together
from optbench.suite.report_spec import ReportSpec
from optbench.trial import STREAMS

if TYPE_CHECKING:
    from optbench.report.across import Across
    from optbench.report.leaderboard import Leaderboard


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Whether a suite's confirmatory question is answered.

    ``stop`` says that no more seeds are of use: all comparisons are decided, or all seeds have run, so
    ``seeds`` of ``budget``.
    """

    stop: bool
    decided: bool
    seeds: int
    budget: int
    sentence: str


def design_plan(spec: ReportSpec) -> SequentialPlan | None:
    """The design of a suite's confirmatory question over all its comparisons; None without one."""
    analysis, design = spec.analysis, spec.analysis.sequential
    if design is None or spec.question == "new":
        return None
    if spec.question == "each":
        count = sum(len(entry.optimizers) - 1 for entry in spec.workloads)
    else:
        count = len(spec.optimizers) - 1
    return SequentialPlan(
        kind="anytime" if design.design == "anytime" else "group",
        looks=design.planned(len(spec.seeds)),
        alpha=analysis.alpha,
        comparisons=max(1, count) if analysis.correction in ("holm", "bonferroni") else 1,
        spending="pocock" if design.design == "pocock" else "obrien-fleming",
    )


def run_through(trials: pd.DataFrame, spec: ReportSpec, optimizers: Sequence[str]) -> tuple[str, ...]:
    """Blocks of the declared seeds in their order, up to the first of which an optimizer has no record.

    Parameters
    ----------
    trials : DataFrame
        Rows of ``Results.trials``, of one workload in one setting.
    spec : ReportSpec
    optimizers : sequence of str
        Those that the workload declares.
    """
    columns = [f"seed_{stream}" for stream in STREAMS]
    found: dict[tuple[int, ...], tuple[str, set[str]]] = {}
    for *seeds, block, optimizer in trials[[*columns, "block_id", "optimizer"]].itertuples(index=False):
        found.setdefault(tuple(map(int, seeds)), (str(block), set()))[1].add(str(optimizer))
    blocks = []
    for entry in spec.seeds:
        block, ran = found.get(tuple(getattr(entry, stream) for stream in STREAMS), ("", set()))
        if not set(optimizers) <= ran:
            break
        blocks.append(block)
    return tuple(blocks)


def within(
    family: FamilyResult,
    table: pd.DataFrame,
    blocks: Sequence[str],
    spec: ReportSpec,
    *,
    resolution: float | None = None,
) -> FamilyResult:
    """The comparisons of one workload by the design, where the question is asked of each workload.

    Parameters
    ----------
    family : FamilyResult
    table : DataFrame
        Blocks x optimizers, larger is better.
    blocks : sequence of str
        See :func:`run_through`.
    spec : ReportSpec
    resolution : float, optional
        Step of the values.
    """
    plan = design_plan(spec)
    if plan is None or spec.question != "each":
        return family
    rows = table.reindex(list(blocks))

    made = [c for c in family.comparisons if c.verdict.word != "crashed"]
    values = [rows[[c.candidate, c.baseline]].dropna().to_numpy(dtype=float) for c in made]
    found = decide_together(
        [(c.candidate, c.baseline, x[:, 0], x[:, 1]) for c, x in zip(made, values, strict=True)],
        plan,
        declared=len(family.comparisons),
        holm=spec.analysis.correction == "holm",
        margin=spec.analysis.margin,
        final=len(blocks) == len(spec.seeds),
        resolution=resolution,
    )
    decided = {
        c.candidate: replace(
            c,
            p_adjusted=decision.p_adjusted,
            smallest_adjusted_p=math.nan,
            attainable=_look_text(decision, plan),
            verdict=decision.verdict,
            sequential=decision,
        )
        for c, decision in zip(made, found, strict=True)
    }
    return replace(family, comparisons=tuple(decided.get(c.candidate, c) for c in family.comparisons))


def over_workloads(
    compared: Sequence[StratifiedComparison], boards: Sequence[Leaderboard], spec: ReportSpec
) -> tuple[StratifiedComparison, ...]:
    """The comparisons on these workloads by the design: a pair is a seed's average difference over them."""
    plan = design_plan(spec)
    if plan is None or spec.question != "these":
        return tuple(compared)
    seeds = min((len(board.blocks_run) for board in boards), default=0)
    if {board.workload for board in boards} != {entry.label for entry in spec.workloads}:
        seeds = 0  # a workload has no trial yet: the average is not over these

    made = [c for c in compared if c.verdict.word != "crashed"]
    values = [_averages(boards, seeds, c.candidate, c.baseline) for c in made]
    found = decide_together(
        [(c.candidate, c.baseline, d, np.zeros(d.size)) for c, d in zip(made, values, strict=True)],
        plan,
        declared=max(len(compared), len(spec.optimizers) - 1),
        holm=spec.analysis.correction == "holm",
        final=seeds == len(spec.seeds),
        runs=False,
    )
    decided = {c.candidate: _by_design(c, d) for c, d in zip(made, found, strict=True)}
    return tuple(decided.get(c.candidate, c) for c in compared)


def _by_design(c: StratifiedComparison, found: Decision) -> StratifiedComparison:
    verdict, interval = found.verdict, found.look.interval
    if c.verdict.word == "mixed" and verdict.word in ("better", "worse"):
        verdict = replace(c.verdict, reason=f"{c.verdict.reason.rstrip('.')}; {verdict.reason}")
    return replace(
        c,
        p_adjusted=found.p_adjusted,
        smallest_attainable_p=math.nan,
        estimate=interval.estimate,
        low=interval.low,
        high=interval.high,
        confidence=interval.confidence,
        method=found.look.method,
        verdict=verdict,
        sequential=replace(found, verdict=verdict),
    )


def _averages(boards: Sequence[Leaderboard], seeds: int, candidate: str, baseline: str) -> FloatArray:
    """Average difference over the workloads that have both, by seed; a seed that lacks one is left out.

    Where one of the two diverged on one workload and the other on another, they tie.
    """
    columns = []
    for board in boards:
        if {candidate, baseline} <= set(board.table.columns):
            rows = board.table.reindex(list(board.blocks_run[:seeds]))
            a, b = (rows[name].to_numpy(dtype=float) for name in (candidate, baseline))
            known = ~(np.isnan(a) | np.isnan(b))
            d = np.full(seeds, np.nan)
            d[known] = differences(a[known], b[known])
            columns.append(d)
    if not columns or not seeds:
        return np.empty(0)
    table = np.column_stack(columns)
    table = table[~np.isnan(table).any(axis=1)]
    up, down = np.isposinf(table).any(axis=1), np.isneginf(table).any(axis=1)
    means = np.where(np.isfinite(table), table, 0.0).mean(axis=1)
    means[up], means[down] = np.inf, -np.inf
    means[up & down] = 0.0
    return np.asarray(means, dtype=np.float64)


def _look_text(decision: Decision, plan: SequentialPlan) -> str:
    if plan.kind == "anytime":
        return f"{decision.look.n} pairs, valid after any number of them"
    return f"look {decision.number} of {decision.of}, planned at {', '.join(map(str, plan.looks))} pairs"


def described(spec: ReportSpec) -> str:
    """Say in one sentence which design is used; empty without one."""
    plan = design_plan(spec)
    if plan is None:
        return ""
    over = f" over {plan.comparisons:g} comparisons" if plan.comparisons > 1 else ""
    if plan.comparisons > 1 and spec.analysis.correction == "holm":
        over += ", what a decided one had of it going to those that are open (Holm's steps)"
    if plan.kind == "anytime":
        how = f"bets on signs by rank, valid after any seed up to {plan.budget}"
    else:
        name = "O'Brien and Fleming's" if plan.spending == "obrien-fleming" else "Pocock's"
        how = f"group-sequential signed-rank tests with {name} spending, looks at {_listed(plan.looks)} seeds"
    return (
        f"Sequential design: {how}; p-values, and intervals of the Hodges-Lehmann shift, hold at all looks "
        f"together, alpha shared equally{over}. P-values on other questions are of a fixed number of seeds, "
        "which looks have decided: they describe only."
    )


def _listed(looks: Sequence[int]) -> str:
    return ", ".join(map(str, looks))


def standing(boards: Sequence[Leaderboard], overall: Sequence[Across], spec: ReportSpec) -> Standing | None:
    """Say whether a suite's confirmatory question is answered; None without a sequential design.

    Parameters
    ----------
    boards : sequence of Leaderboard
    overall : sequence of Across
    spec : ReportSpec
    """
    if design_plan(spec) is None:
        return None
    seeds = min((len(board.blocks_run) for board in boards), default=0)
    if {board.workload for board in boards} != {entry.label for entry in spec.workloads}:
        seeds = 0
    decisions: list[tuple[str, Decision]] = []
    if spec.question == "each":
        for board in boards:
            several = f" on {board.title}" if len(boards) > 1 else ""
            found = [(c.candidate + several, c.sequential) for c in board.family.comparisons]
            decisions += [(name, decision) for name, decision in found if decision is not None]
    else:
        for item in overall:
            found_these = [
                (row.optimizer, row.these.sequential) for row in item.rows if row.these is not None
            ]
            decisions += [(name, decision) for name, decision in found_these if decision is not None]
    open_ = list(dict.fromkeys(name for name, decision in decisions if not decision.decided))
    decided = bool(decisions) and not open_
    spent = seeds >= len(spec.seeds)
    if decided:
        places = "; ".join(f"{name} {d.verdict.word} at {_at(d)}" for name, d in decisions)
        sentence = f"Decided after {seeds} of {len(spec.seeds)} seeds: {places}."
    elif spent:
        sentence = f"All {seeds} seeds are spent; undecided: {', '.join(open_) or 'all'}."
    else:
        sentence = f"{seeds} of {len(spec.seeds)} seeds; undecided: {', '.join(open_) or 'all'}."
    return Standing(
        stop=decided or spent, decided=decided, seeds=seeds, budget=len(spec.seeds), sentence=sentence
    )


def decided_at(decision: Decision) -> str:
    """The look that decided a comparison, in a few words."""
    return f"{_at(decision)}, {decision.look.n} pairs" if decision.decided else "undecided"


def _at(decision: Decision) -> str:
    return f"look {decision.number} of {decision.of}"
