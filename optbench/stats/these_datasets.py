"""On these datasets: the average over datasets of the mean difference, with the typical run beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from optbench.stats.brief import differences_of, means_over_datasets, usable
from optbench.stats.collapses import collapse_counts
from optbench.stats.common import FloatArray, differences
from optbench.stats.corrections import holm
from optbench.stats.crossed import (
    CrossedMean,
    combine_means,
    complete_table,
    crossed_mean,
    independent_mean,
)
from optbench.stats.effects import rank_effect
from optbench.stats.families import (
    BRIEF,
    Crossing,
    Settings,
    adjust_family,
    simultaneous_confidence,
)
from optbench.stats.flips import MeanTest
from optbench.stats.heterogeneity import Heterogeneity, heterogeneity
from optbench.stats.paired import pratt_weights, signed_rank
from optbench.stats.pairs import CUT, one_side
from optbench.stats.signed_rank_null import tail_probabilities
from optbench.stats.skew import mean_test
from optbench.stats.verdict import MEAN, TYPICAL, Verdict, collapses_told, no_collapse, verdict

if TYPE_CHECKING:
    from optbench.stats.sequential_verdict import Decision


@dataclass(frozen=True)
class StratifiedComparison:
    """Two optimizers on these datasets: the average over datasets of the mean difference.

    `pvalue` tests `estimate`, and [`low`, `high`] is the set of averages that this test keeps, at the level
    `confidence` that holds for all comparisons of the family together. `statistic` is the estimate; where a
    trial diverged a mean has no value, and `statistic`, `pvalue` and the verdict are those of signed ranks
    within datasets, summed. "Better" and "worse" need the typical pair of all datasets to show the same as
    the average: `typical_p_adjusted` is of signed ranks of all pairs together, `typical` their rank-biserial
    correlation. `n_collapsed_*` count collapsed runs. `better_on` and `worse_on` name datasets with a
    mean difference of their own (Holm over the datasets and the family).
    """

    candidate: str
    baseline: str
    n_datasets: int
    n_pairs: int
    statistic: float
    pvalue: float
    p_adjusted: float
    smallest_attainable_p: float
    method: str
    estimate: float
    low: float
    high: float
    confidence: float
    reason: str | None
    better_on: tuple[str, ...]
    worse_on: tuple[str, ...]
    heterogeneity: Heterogeneity | None
    verdict: Verdict
    typical: float = math.nan
    typical_p: float = math.nan
    typical_p_adjusted: float = math.nan
    n_collapsed_candidate: int = 0
    n_collapsed_baseline: int = 0
    sequential: Decision | None = None


def paired_columns(
    table: FloatArray, candidate: int, baseline: int, *, resolution: float | None = None
) -> FloatArray:
    """Oriented differences of the blocks that hold both optimizers.

    Parameters
    ----------
    table : ndarray, shape (n, k)
    candidate, baseline : int
        Columns.
    resolution : float, optional
        Step of the values.

    Returns
    -------
    ndarray, shape (m,)
        m <= n; empty if no block holds both.

    Examples
    --------
    >>> paired_columns(np.array([[1.0, 0.5], [np.nan, 1.0]]), 0, 1)
    array([0.5])
    """
    a, b = table[:, candidate], table[:, baseline]
    keep = ~(np.isnan(a) | np.isnan(b))
    return differences(a[keep], b[keep], resolution=resolution) if keep.any() else np.empty(0)


def on_these_datasets(
    tables: Mapping[str, FloatArray],
    names: Sequence[str],
    *,
    settings: Settings,
    crossings: Mapping[str, Crossing] | None = None,
) -> tuple[StratifiedComparison, ...]:
    """Compare on exactly these datasets: the average of the mean differences, by sign flips within datasets.

    Parameters
    ----------
    tables : mapping of dataset to ndarray, shape (n_d, k)
        Blocks x optimizers, oriented, NaN missing, ``-inf`` diverged.
    names : sequence of str, length k
    settings : Settings
    crossings : mapping of dataset to Crossing, optional
        Where the seeds of two streams are crossed: the means of the datasets are then averaged by
        `optbench.stats.crossed.combine_means`, as flips of single pairs would take them to be independent.

    Returns
    -------
    tuple of StratifiedComparison
        One per pair of the family, corrected over the family.

    Notes
    -----
    Each dataset weighs the same, however many seeds it has, and in the metric's own units: metrics of
    different scale should not be averaged. See `optbench.stats.flips.mean_of_means` for the test, and
    `optbench.stats.heterogeneity` for what stands beside it. Where a trial diverged the signed ranks of each
    dataset are summed instead (van Elteren 1960, Bull. Int. Stat. Inst. 37, 351-361), and no mean is said.

    Examples
    --------
    >>> tables = {"a": np.array([[2.0, 1.0]] * 4), "b": np.array([[3.0, 1.0]] * 4)}
    >>> on_these_datasets(tables, ["x", "y"], settings=Settings("y", "baseline"))[0].pvalue
    0.0078125
    """
    pairs = settings.pairs(names)
    level = simultaneous_confidence(len(pairs), settings)
    raw = _at_once(tables, names, settings, level) if len(pairs) > BRIEF and not crossings else []
    for c, b in pairs if not raw else ():
        columns = {d: paired_columns(t, c, b, resolution=settings.step(d)) for d, t in tables.items()}
        parts = {d: x for d, x in columns.items() if x.size}
        found = _stratified(parts, str(names[c]), str(names[b]), level, brief=len(pairs) > BRIEF)
        fell = (0, 0) if len(pairs) > BRIEF else _collapsed(tables, c, b)
        found = replace(found[0], n_collapsed_candidate=fell[0], n_collapsed_baseline=fell[1]), found[1]
        raw.append(_with_crossings(found, tables, c, b, crossings) if crossings else found)
    adjusted = adjust_family([r.pvalue for r, _ in raw], settings)
    typical = adjust_family([r.typical_p for r, _ in raw], settings)
    factor = round(settings.alpha / (1 - level))
    result = []
    for (r, direction), p, p_typical in zip(raw, adjusted.tolist(), typical.tolist(), strict=True):
        low, high = one_side(r.low, r.high, r.estimate, found=p <= settings.alpha)
        method = r.method if (low, high) == (r.low, r.high) else f"{r.method}, {CUT}"
        said = replace(r, p_adjusted=p, typical_p_adjusted=p_typical, low=low, high=high, method=method)
        result.append(replace(said, verdict=_on_these(said, p, direction, settings.alpha, factor)))
    return tuple(result)


def _at_once(
    tables: Mapping[str, FloatArray], names: Sequence[str], settings: Settings, level: float
) -> list[tuple[StratifiedComparison, float]]:
    """All pairs of complete tables together, in brief; empty where one of them needs more than that."""
    pairs = settings.pairs(names)
    if not all(np.isfinite(table).all() for table in tables.values()):
        return []
    parts = {d: differences_of(table, pairs, settings.step(d)) for d, table in tables.items()}
    if not all(usable(d) for d in parts.values()):
        return []
    tests, agreement = means_over_datasets(parts, confidence=level)
    return [
        (_result(str(names[c]), str(names[b]), test, found), test.estimate)
        for (c, b), test, found in zip(pairs, tests, agreement, strict=True)
    ]


def _result(
    candidate: str, baseline: str, test: MeanTest, agreement: Heterogeneity | None
) -> StratifiedComparison:
    return StratifiedComparison(
        candidate=candidate,
        baseline=baseline,
        n_datasets=test.groups,
        n_pairs=test.n,
        statistic=test.estimate,
        pvalue=test.pvalue,
        p_adjusted=math.nan,
        smallest_attainable_p=test.smallest_attainable_p,
        method=test.method,
        estimate=test.estimate,
        low=test.low,
        high=test.high,
        confidence=test.confidence,
        reason=test.reason,
        better_on=(),
        worse_on=(),
        heterogeneity=agreement,
        verdict=Verdict("inconclusive", ""),
    )


def _stratified(
    parts: Mapping[str, FloatArray], candidate: str, baseline: str, level: float, *, brief: bool = False
) -> tuple[StratifiedComparison, float]:
    """One comparison before its correction, and a number of the sign of its statistic."""
    finite = all(np.isfinite(d).all() for d in parts.values())
    test, direction = _no_test(level), 0.0
    typical = typical_p = math.nan
    better: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()
    if parts and finite:
        test = mean_test(list(parts.values()), confidence=level)
        direction = test.estimate
        if not brief:
            pooled = np.concatenate(list(parts.values()))
            typical, typical_p = rank_effect(pooled).rank_biserial, signed_rank(pooled).pvalue
            better, worse = _one_by_one(parts, alpha=1 - level)
    elif parts:
        test, direction = _by_ranks(list(parts.values()), level)
    agreement = heterogeneity(list(parts.values())) if len(parts) > 1 else None
    result = replace(
        _result(candidate, baseline, test, agreement),
        n_datasets=len(parts),
        n_pairs=sum(d.size for d in parts.values()),
        statistic=test.estimate if finite else direction,
        confidence=level,
        better_on=better,
        worse_on=worse,
        typical=typical,
        typical_p=typical_p,
    )
    return result, direction


def _with_crossings(
    found: tuple[StratifiedComparison, float],
    tables: Mapping[str, FloatArray],
    candidate: int,
    baseline: int,
    crossings: Mapping[str, Crossing],
) -> tuple[StratifiedComparison, float]:
    """The same question with test and interval from crossed means."""
    result, nan = found[0], math.nan
    means = []
    for dataset, table in tables.items():
        keep = ~np.isnan(table[:, [candidate, baseline]]).any(axis=1)
        if keep.any():
            d = np.full(len(table), np.nan)
            d[keep] = paired_columns(table, candidate, baseline)
            means.append(_one_mean(d, crossings.get(dataset), result.confidence))
    bare = replace(
        result,
        better_on=(),
        worse_on=(),
        heterogeneity=None,
        smallest_attainable_p=0.0,
        typical=math.nan,
        typical_p=math.nan,
    )
    broken = next((m for m in means if m is None or m.reason is not None), None)
    if not means or broken is not None or None in means:
        reason = broken.reason if broken else "refused: too few crossed seeds are complete"
        return replace(bare, pvalue=nan, low=nan, high=nan, method="none", reason=reason), 0.0
    known = [m for m in means if m is not None]
    estimate, low, high, p = combine_means(known, confidence=result.confidence)
    return replace(
        bare, statistic=estimate, estimate=estimate, low=low, high=high, pvalue=p, method="crossed means"
    ), estimate


def _one_mean(d: FloatArray, crossing: Crossing | None, confidence: float) -> CrossedMean | None:
    if crossing is None:
        return independent_mean(d[~np.isnan(d)], confidence=confidence)
    table, _ = complete_table(d, crossing.levels)
    return crossed_mean(table, confidence=confidence) if min(table.shape, default=0) > 1 else None


def _collapsed(tables: Mapping[str, FloatArray], candidate: int, baseline: int) -> tuple[int, int]:
    """Collapsed runs of both, each told against its own workload's."""
    ours = theirs = 0
    for table in tables.values():
        both = table[:, [candidate, baseline]]
        both = both[~np.isnan(both).any(axis=1)]
        if len(both):
            fell = collapse_counts(both[:, 0], both[:, 1])
            ours, theirs = ours + fell[0], theirs + fell[1]
    return ours, theirs


def _no_test(level: float) -> MeanTest:
    nan = math.nan
    return MeanTest(nan, nan, nan, level, nan, nan, 0, 0, "none", "no pairs")


def _by_ranks(parts: list[FloatArray], level: float) -> tuple[MeanTest, float]:
    """Signed ranks within each dataset, summed: for diverged trials, whose mean has no value."""
    ranked = [pratt_weights(d) for d in parts]
    weights = np.concatenate([w for w, _ in ranked])
    signs = np.concatenate([s for _, s in ranked])
    lower, upper, method = tail_probabilities(weights, int(weights[signs > 0].sum()))
    nan = math.nan
    smallest = min(1.0, math.ldexp(2.0, -min(int(weights.size), 1000)))
    n, p = sum(d.size for d in parts), min(1.0, 2 * min(lower, upper))
    reason = "a mean with a diverged trial has no value: tested by signed ranks within datasets"
    test = MeanTest(nan, nan, nan, level, p, smallest, n, len(parts), f"signed ranks, {method}", reason)
    return test, float((weights * signs).sum()) / 2


def _one_by_one(parts: Mapping[str, FloatArray], *, alpha: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Datasets whose own mean difference is found, better and worse, by Holm over the datasets."""
    tests = [mean_test([d]) for d in parts.values()]
    found = holm([t.pvalue for t in tests]) <= alpha * (1 + 1e-12)
    named = list(zip(parts, tests, found.tolist(), strict=True))
    better = tuple(name for name, t, yes in named if yes and t.estimate > 0)
    return better, tuple(name for name, t, yes in named if yes and t.estimate < 0)


def _on_these(
    r: StratifiedComparison, p_adjusted: float, direction: float, alpha: float, factor: int
) -> Verdict:
    ranked = not math.isnan(r.typical_p)
    plain = verdict(
        pvalue=p_adjusted,
        direction=direction,
        alpha=alpha,
        smallest_p=min(1.0, r.smallest_attainable_p * factor),
        candidate=r.candidate,
        baseline=r.baseline,
        claim=TYPICAL if ranked or math.isnan(r.estimate) else MEAN,
    )
    h = r.heterogeneity
    opposed = h is not None and h.opposite_pvalue * factor <= alpha
    average = f"the average over {r.n_datasets} is {r.estimate:.3g} [{r.low:.3g}, {r.high:.3g}]"
    if opposed or (r.better_on and r.worse_on):
        sides = []
        for word, some in (("better on", r.better_on), ("worse on", r.worse_on)):
            sides.append(f"{word} {', '.join(some)}" if some else f"{word} others, none of them alone")
        tests = f"; effects of opposite sign, Gail-Simon p = {h.opposite_pvalue:.2g}" if opposed and h else ""
        return Verdict("mixed", f"{r.candidate} against {r.baseline}: {'; '.join(sides)}{tests}.")
    if math.isnan(r.estimate) or plain.word not in ("better", "worse"):
        return plain
    differ = ""
    if h is not None and h.q_pvalue <= alpha:
        differ = f"; the datasets differ in the size of it (Q p = {h.q_pvalue:.2g}, I2 = {h.i2:.0%})"
    if not ranked:
        return replace(plain, reason=f"{plain.reason[:-1]}; {average}{differ}.")
    agrees = r.typical * direction > 0
    shown = r.typical_p_adjusted <= alpha
    if not (agrees and shown):
        says = "does not show it" if not shown else "shows the opposite"
        verb = "beats" if direction > 0 else "loses to"
        return Verdict(
            "mixed",
            f"the average of {r.candidate} {verb} that of {r.baseline} (adjusted p = {p_adjusted:.3g} <= "
            f"{alpha:g}), but the typical run {says} (signed ranks of all pairs, adjusted p = "
            f"{r.typical_p_adjusted:.3g}){differ}.",
        )
    verb = "beats" if direction > 0 else "loses to"
    tests = (
        f"adjusted p = {r.typical_p_adjusted:.3g} by signed ranks of all pairs and {p_adjusted:.3g} by the "
        f"average, both <= {alpha:g}"
    )
    left = no_collapse(r.n_pairs)
    if r.n_collapsed_candidate or r.n_collapsed_baseline:
        left = collapses_told(
            (r.candidate, r.n_collapsed_candidate, r.n_pairs), (r.baseline, r.n_collapsed_baseline, r.n_pairs)
        )
    reason = f"{r.candidate} {verb} {r.baseline} {TYPICAL}: {tests}; {average}{differ}; {left}."
    return replace(plain, reason=reason, left_open=left)
