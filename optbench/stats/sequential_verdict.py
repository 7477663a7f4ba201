"""The verdict of a comparison under a sequential design: at which look it was decided, and how."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from optbench.stats.collapses import collapse_counts, unseen_rate
from optbench.stats.common import FloatArray, differences
from optbench.stats.paired import Interval
from optbench.stats.pairs import PairedComparison, mean_says
from optbench.stats.sequential import SequentialLook, SequentialPlan
from optbench.stats.skew import mean_test
from optbench.stats.verdict import MeanSays, Verdict, verdict


@dataclass(frozen=True)
class Decision:
    """Where a comparison stands at its last look, the ``number``-th of ``of``; 0 before the first.

    ``p_adjusted`` is after Bonferroni's correction over the design's comparisons, and NaN between looks that
    decide nothing, where no p-value is due. ``look.interval`` holds at all looks together.
    """

    look: SequentialLook
    number: int
    of: int
    p_adjusted: float
    verdict: Verdict

    @property
    def decided(self) -> bool:
        """Was the comparison decided: different, mixed, or equivalent?"""
        return self.verdict.word != "inconclusive"


def decide_sequentially(
    a: FloatArray,
    b: FloatArray,
    plan: SequentialPlan,
    *,
    candidate: str,
    baseline: str,
    margin: float | None = None,
    final: bool = False,
    resolution: float | None = None,
    runs: bool = True,
) -> Decision:
    """Make every look at a comparison that its pairs allow, up to the one that decides it.

    Parameters
    ----------
    a, b : ndarray, shape (n,)
        Candidate and baseline in the order of their seeds; larger is better, ``-inf`` diverged, no NaN.
    plan : SequentialPlan
    candidate, baseline : str
    margin : float, optional
        The comparison is decided as equivalent where the interval that holds at all looks lies within it and
        no run collapsed.
    final : bool
        No more pairs will come: see :meth:`optbench.stats.sequential.SequentialPlan.look`.
    resolution : float, optional
        Step of the values.
    runs : bool
        Whether the values are runs, not averages over workloads, of which none can be said to collapse.

    Returns
    -------
    Decision

    Notes
    -----
    A difference of the typical run is called better or worse only if the mean shows the same at the look that
    found it, at that look's own level; else the word is mixed.

    Examples
    --------
    >>> plan = SequentialPlan(looks=(6, 12, 18))
    >>> found = decide_sequentially(
    ...     np.arange(1.0, 13), np.zeros(12), plan, candidate="wame", baseline="adam", runs=False
    ... )
    >>> found.verdict.word, found.number, found.look.n
    ('better', 2, 12)
    """
    d = differences(a, b, resolution=resolution)
    looks = _looks(d.size, plan, final=final)
    look = plan.look(d, final=final)
    if margin is not None:
        for n in looks:
            at = plan.look(d[:n], final=final and n == d.size)
            if _inside(at.interval, margin) and (not runs or not sum(collapse_counts(a[:n], b[:n]))):
                number = looks.index(n) + 1
                word = _equivalent(at, margin, candidate, baseline, _place(number, plan, n), runs=runs)
                return Decision(at, number, _of(plan), min(1.0, at.p * plan.comparisons), word)
            if at.decided:
                break
    number = looks.index(look.n) + 1 if look.n in looks else 0
    spent = final or d.size >= plan.budget
    p = min(1.0, look.p * plan.comparisons)
    if not look.decided:
        told = p if spent or plan.kind == "anytime" else math.nan
        word = _undecided(d, look, plan, number, told, candidate, baseline, spent=spent)
        return Decision(look, number, _of(plan), told, word)
    mean = _mean(a[: look.n], b[: look.n], d[: look.n], look, plan, candidate, baseline, runs=runs)
    found = verdict(
        pvalue=p,
        direction=1.0 if look.word == "better" else -1.0,
        alpha=plan.alpha,
        mean=mean,
        candidate=candidate,
        baseline=baseline,
    )
    reason = f"{found.reason.rstrip('.')}; decided at {_place(number, plan, look.n)}."
    return Decision(look, number, _of(plan), p, Verdict(found.word, reason))


def _looks(n: int, plan: SequentialPlan, *, final: bool) -> list[int]:
    if plan.kind == "anytime":
        return list(range(1, min(n, plan.budget) + 1))
    looks = [k for k in plan.looks if k <= n]
    return [*looks, n] if final and n and n not in looks and n < plan.budget else looks


def _of(plan: SequentialPlan) -> int:
    return plan.budget if plan.kind == "anytime" else len(plan.looks)


def _place(number: int, plan: SequentialPlan, n: int) -> str:
    return f"look {number} of {_of(plan)} ({n} pairs)"


def _inside(interval: Interval, margin: float) -> bool:
    return bool(-margin < interval.low and interval.high < margin)


def _equivalent(
    look: SequentialLook, margin: float, candidate: str, baseline: str, place: str, *, runs: bool
) -> Verdict:
    ends = f"[{look.interval.low:.3g}, {look.interval.high:.3g}]"
    reason = (
        f"{candidate} and {baseline} differ by less than the margin {margin:g} in the typical run: the "
        f"interval {ends}, which holds at all looks, lies within it"
    )
    if runs:
        reason += f"; no run collapsed, which leaves a rate of up to {unseen_rate(look.n):.0%} possible"
    return Verdict("equivalent", f"{reason}; decided at {place}.")


def _undecided(
    d: FloatArray,
    look: SequentialLook,
    plan: SequentialPlan,
    number: int,
    p: float,
    candidate: str,
    baseline: str,
    *,
    spent: bool,
) -> Verdict:
    if d.size and not d.any():
        return Verdict("inconclusive", f"{candidate} and {baseline} are identical in all {d.size} pairs.")
    if spent and not math.isnan(p):
        reason = f"all {d.size} pairs are spent and adjusted p = {p:.3g} > {plan.alpha:g}"
        return Verdict("inconclusive", f"{candidate} against {baseline}: {reason} shows neither.")
    later = [n for n in plan.looks if n > d.size]
    after = f"; the next look is at {later[0]} pairs" if later else ""
    place = _place(number, plan, look.n) if number else f"the first look ({d.size} pairs)"
    state = "undecided at" if number else "before"
    return Verdict("inconclusive", f"{candidate} against {baseline}: {state} {place}{after}.")


def _mean(
    a: FloatArray,
    b: FloatArray,
    d: FloatArray,
    look: SequentialLook,
    plan: SequentialPlan,
    candidate: str,
    baseline: str,
    *,
    runs: bool,
) -> MeanSays | None:
    """What the mean says at a look, at the level of that look alone."""
    level = plan.level if plan.kind == "anytime" else 1 - look.interval.confidence
    average = mean_test([d], confidence=1 - level)
    fell = collapse_counts(a, b) if runs else (0, 0)
    compared = PairedComparison(
        candidate=candidate,
        baseline=baseline,
        n=d.size if runs else 0,
        n_missing=0,
        n_diverged_candidate=int(np.isneginf(a).sum()),
        n_diverged_baseline=int(np.isneginf(b).sum()),
        average=average,
        n_collapsed_candidate=fell[0],
        n_collapsed_baseline=fell[1],
    )
    return mean_says(compared, average.pvalue, level)
