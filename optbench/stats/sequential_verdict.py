"""The verdict of a comparison under a sequential design: at which look it was decided, and how."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from optbench.stats.collapses import FEWEST_RUNS, collapse_counts
from optbench.stats.common import FloatArray, differences
from optbench.stats.paired import Interval
from optbench.stats.pairs import PairedComparison, mean_says, one_side
from optbench.stats.sequential import SequentialLook, SequentialPlan
from optbench.stats.skew import mean_test
from optbench.stats.verdict import TYPICAL, MeanSays, Verdict, no_collapse, verdict

#: Where a pair is the average over workloads of a seed's differences.
SEED = "in the typical seed's average"


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
    step: SequentialPlan | None = None,
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
    step : SequentialPlan, optional
        The same design with the share of alpha that a step of Holm's procedure gives to the test of a
        difference; intervals and equivalence stay at the design's.

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
    step = step or plan
    look = step.look(d, final=final)
    if margin is not None:
        for n in looks:
            at = plan.look(d[:n], final=final and n == d.size)
            if _inside(at.interval, margin) and (not runs or not sum(collapse_counts(a[:n], b[:n]))):
                number = looks.index(n) + 1
                word = _equivalent(at, margin, candidate, baseline, _place(number, plan, n), runs=runs)
                return Decision(at, number, _of(plan), min(1.0, at.p * plan.comparisons), word)
            if at.decided or (look.decided and n >= look.n):
                break
    number = looks.index(look.n) + 1 if look.n in looks else 0
    spent = final or d.size >= plan.budget
    p = min(1.0, look.p * step.comparisons)
    if not look.decided:
        told = p if spent or plan.kind == "anytime" else math.nan
        word = _undecided(d, look, plan, number, told, candidate, baseline, spent=spent)
        return Decision(look, number, _of(plan), told, word)
    mean = _mean(a[: look.n], b[: look.n], d[: look.n], look, step, candidate, baseline, runs=runs)
    fell = sum(collapse_counts(a[: look.n], b[: look.n])) if runs else 0
    found = verdict(
        pvalue=p,
        direction=1.0 if look.word == "better" else -1.0,
        alpha=plan.alpha,
        mean=mean,
        candidate=candidate,
        baseline=baseline,
        claim=TYPICAL if runs else SEED,
        note=no_collapse(look.n) if runs and look.n >= FEWEST_RUNS and not fell else "",
    )
    reason = f"{found.reason.rstrip('.')}; decided at {_place(number, plan, look.n)}"
    if step != plan:
        look = _wide(d, look, plan, final=final)
        reason += ", with the alpha that the decisions of others left"
    reason += "."
    return Decision(look, number, _of(plan), p, replace(found, reason=reason))


def decide_together(
    pairs: Sequence[tuple[str, str, FloatArray, FloatArray]],
    plan: SequentialPlan,
    *,
    declared: int,
    holm: bool = True,
    margin: float | None = None,
    final: bool = False,
    resolution: float | None = None,
    runs: bool = True,
) -> list[Decision]:
    """Decide the comparisons of a family: what a decided one had of alpha goes to those that are open.

    Parameters
    ----------
    pairs : sequence of (candidate, baseline, ndarray, ndarray)
        Names and values, as of `decide_sequentially`.
    plan : SequentialPlan
        Its comparisons are those of all families that share alpha; each family hands on its own share only.
    declared : int
        Comparisons of this family, those that cannot be made included.
    holm : bool
        Hand alpha on; else each comparison keeps its share (Bonferroni).
    margin, final, resolution, runs
        As of `decide_sequentially`.

    Returns
    -------
    list of Decision

    Notes
    -----
    Closed testing: a set of comparisons without a difference is rejected once one of them crosses the bounds
    of alpha shared over the set, at any look so far. So a decision may rest on an earlier look, whose bound
    came into reach when another comparison was decided.

    References
    ----------
    Marcus, Peritz and Gabriel (1976), Biometrika 63, 655-660; Maurer and Bretz (2013), Stat. Biopharm. Res.
    5, 311-320 (group-sequential).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> two = [(name, "b", rng.normal(1, 1, 12), np.zeros(12)) for name in ("x", "y")]
    >>> found = decide_together(two, SequentialPlan(looks=(6, 12), comparisons=2), declared=2)
    >>> [f.verdict.word for f in found]
    ['better', 'better']
    """

    def decide(step: SequentialPlan | None, which: Sequence[int]) -> dict[int, Decision]:
        return {
            i: decide_sequentially(
                a,
                b,
                plan,
                candidate=candidate,
                baseline=baseline,
                margin=margin,
                final=final,
                resolution=resolution,
                runs=runs,
                step=step,
            )
            for i in which
            for candidate, baseline, a, b in [pairs[i]]
        }

    found = decide(None, range(len(pairs)))
    most, handed = 0.0, 0
    while holm and plan.comparisons >= declared:
        done = [i for i, f in found.items() if f.look.decided]
        open_ = [i for i in found if i not in done]
        if len(done) == handed or not open_:
            break
        handed, most = len(done), max(most, *(found[i].p_adjusted for i in done))
        step = replace(plan, comparisons=plan.comparisons * (declared - handed) / declared)
        found |= {i: replace(f, p_adjusted=max(most, f.p_adjusted)) for i, f in decide(step, open_).items()}
    return [found[i] for i in range(len(pairs))]


def _wide(d: FloatArray, look: SequentialLook, plan: SequentialPlan, *, final: bool) -> SequentialLook:
    """The look with the interval that holds for all together, cut at 0 where only a step found it."""
    wide = plan.look(d[: look.n], final=final and look.n == d.size).interval
    low, high = one_side(wide.low, wide.high, 1.0 if look.word == "better" else -1.0, found=True)
    return replace(look, interval=replace(wide, low=low, high=high))


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
    claim = TYPICAL if runs else SEED
    ends = f"[{look.interval.low:.3g}, {look.interval.high:.3g}]"
    reason = (
        f"{candidate} and {baseline} differ by less than the declared margin {claim}: the "
        f"interval {ends}, which holds at all looks, lies within it"
    )
    if runs:
        reason += f"; {no_collapse(look.n)}"
    return Verdict("equivalent", f"{reason}; decided at {place}.", claim)


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
