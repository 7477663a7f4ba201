"""Several datasets, two separate questions: *on these datasets* and *on new datasets*.

On these datasets, the seeds are the sample: the quantity is the average over datasets of the mean difference,
each dataset weighing the same. On new datasets, the dataset is the unit: D datasets give D differences,
however many seeds went in. Seeds x datasets are never pooled as if independent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from optbench.stats.brief import differences_of, means_over_datasets, usable
from optbench.stats.cells import collapse, pair_cells
from optbench.stats.common import FloatArray, differences
from optbench.stats.corrections import holm, partial_conjunction
from optbench.stats.crossed import (
    CrossedMean,
    combine_means,
    complete_table,
    crossed_mean,
    independent_mean,
)
from optbench.stats.families import (
    BRIEF,
    Crossing,
    FamilyResult,
    Settings,
    adjust_family,
    compare_family,
    simultaneous_confidence,
)
from optbench.stats.flips import MeanTest
from optbench.stats.heterogeneity import Heterogeneity, heterogeneity
from optbench.stats.paired import one_sided_pvalues, pratt_weights
from optbench.stats.pairs import CUT, one_side
from optbench.stats.ranks import rank_table
from optbench.stats.signed_rank_null import tail_probabilities
from optbench.stats.skew import mean_test
from optbench.stats.verdict import Verdict, verdict

__all__ = [
    "FEWEST_DATASETS",
    "Conjunction",
    "Stability",
    "StratifiedComparison",
    "collapse",
    "compare_new_datasets",
    "conjunctions",
    "leave_one_out",
    "on_these_datasets",
    "paired_columns",
]

if TYPE_CHECKING:
    from optbench.stats.sequential_verdict import Decision

#: Below this many datasets no signed-rank test over datasets can reach 0.05.
FEWEST_DATASETS = 6


@dataclass(frozen=True)
class StratifiedComparison:
    """Two optimizers on these datasets: the average over datasets of the mean difference.

    `pvalue` tests `estimate`, and [`low`, `high`] is the set of averages that this test keeps, at the level
    `confidence` that holds for all comparisons of the family together. `statistic` is the estimate; where a
    trial diverged a mean has no value, and `statistic`, `pvalue` and the verdict are those of signed ranks
    within datasets, summed. `better_on` and `worse_on` name datasets with a mean difference of their own
    (Holm over the datasets and the family).
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
    sequential: Decision | None = None


@dataclass(frozen=True)
class Conjunction:
    """On at least how many of the D datasets the candidate is better, and worse, with confidence."""

    candidate: str
    baseline: str
    n_datasets: int
    better_on_at_least: int
    worse_on_at_least: int
    level: float


@dataclass(frozen=True)
class Stability:
    """Does the order by mean rank hold when one optimizer is left out? `flips` names the pairs that swap."""

    order: tuple[str, ...]
    flips: tuple[str, ...]


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
        raw.append(_with_crossings(found, tables, c, b, crossings) if crossings else found)
    adjusted = adjust_family([r.pvalue for r, _ in raw], settings)
    factor = round(settings.alpha / (1 - level))
    result = []
    for (r, direction), p in zip(raw, adjusted.tolist(), strict=True):
        low, high = one_side(r.low, r.high, r.estimate, found=p <= settings.alpha)
        method = r.method if (low, high) == (r.low, r.high) else f"{r.method}, {CUT}"
        said = replace(r, p_adjusted=p, low=low, high=high, method=method)
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
    better: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()
    if parts and finite:
        test = mean_test(list(parts.values()), confidence=level)
        direction = test.estimate
        if not brief:
            better, worse = _one_by_one(parts, alpha=1 - level)
    elif parts:
        test, direction = _by_ranks(list(parts.values()), level)
    result = StratifiedComparison(
        candidate=candidate,
        baseline=baseline,
        n_datasets=len(parts),
        n_pairs=sum(d.size for d in parts.values()),
        statistic=test.estimate if finite else direction,
        pvalue=test.pvalue,
        p_adjusted=math.nan,
        smallest_attainable_p=test.smallest_attainable_p,
        method=test.method,
        estimate=test.estimate,
        low=test.low,
        high=test.high,
        confidence=level,
        reason=test.reason,
        better_on=better,
        worse_on=worse,
        heterogeneity=heterogeneity(list(parts.values())) if len(parts) > 1 else None,
        verdict=Verdict("inconclusive", ""),
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
    bare = replace(result, better_on=(), worse_on=(), heterogeneity=None, smallest_attainable_p=0.0)
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
    plain = verdict(
        pvalue=p_adjusted,
        direction=direction,
        alpha=alpha,
        smallest_p=min(1.0, r.smallest_attainable_p * factor),
        candidate=r.candidate,
        baseline=r.baseline,
    )
    h = r.heterogeneity
    opposed = h is not None and h.opposite_pvalue * factor <= alpha
    average = f"the average over {r.n_datasets} is {r.estimate:.3g} [{r.low:.3g}, {r.high:.3g}]"
    if opposed or (r.better_on and r.worse_on):
        sides = []
        for word, some in (("better on", r.better_on), ("worse on", r.worse_on)):
            sides.append(f"{word} {', '.join(some)}" if some else f"{word} others, none of them alone")
        tests = f"; effects of opposite sign, Gail-Simon p = {h.opposite_pvalue:.2g}" if opposed and h else ""
        return Verdict("mixed", f"{r.candidate} against {r.baseline}: {'; '.join(sides)}; {average}{tests}.")
    if math.isnan(r.estimate) or plain.word not in ("better", "worse"):
        return plain
    differ = ""
    if h is not None and h.q_pvalue <= alpha:
        differ = f"; the datasets differ in the size of it (Q p = {h.q_pvalue:.2g}, I2 = {h.i2:.0%})"
    return Verdict(plain.word, f"{plain.reason[:-1]}; {average}{differ}.")


def compare_new_datasets(
    tables: Mapping[str, FloatArray],
    names: Sequence[str],
    *,
    settings: Settings,
    scope: str = "new datasets",
    blocks: str = "datasets",
    maximise: bool = True,
) -> FamilyResult:
    """Compare on new datasets: the dataset is the unit, and a pair's cells come from the pair's own blocks.

    Parameters
    ----------
    tables : mapping of dataset to ndarray, shape (n_d, k)
    names : sequence of str
    settings : Settings
    scope, blocks, maximise
        As of `optbench.stats.families.compare_family`.

    Returns
    -------
    FamilyResult
        Its means, ranks and Friedman's test are over the blocks that all optimizers share.

    Examples
    --------
    >>> tables = {str(i): np.array([[2.0, 1.0], [2.5, 1.0]]) for i in range(6)}
    >>> compare_new_datasets(tables, ["x", "y"], settings=Settings("y", "baseline")).comparisons[0].n
    6
    """

    def columns(candidate: int, baseline: int) -> tuple[FloatArray, FloatArray]:
        return pair_cells(tables, candidate, baseline)[:2]

    cells = collapse(tables)[0]
    # Where nothing is missing or diverged, the cells of a pair are those of the table.
    whole = all(np.isfinite(table).all() for table in tables.values())
    return compare_family(
        cells,
        names,
        settings=settings,
        scope=scope,
        maximise=maximise,
        blocks=blocks,
        columns=None if whole else columns,
    )


def conjunctions(
    tables: Mapping[str, FloatArray], names: Sequence[str], *, settings: Settings
) -> tuple[Conjunction, ...]:
    """On at least how many datasets is the candidate better, and on at least how many worse?

    Parameters
    ----------
    tables : mapping of dataset to ndarray, shape (n_d, k)
    names : sequence of str
    settings : Settings

    Returns
    -------
    tuple of Conjunction
        All statements of the family hold together with confidence 1 - alpha: each is made at alpha / (2 m)
        for m pairs and two directions.

    References
    ----------
    Benjamini and Heller (2008), Biometrics 64, 1215-1222.

    Examples
    --------
    >>> grow = np.arange(1.0, 9.0)
    >>> tables = {"a": np.column_stack([grow, 0 * grow]), "b": np.column_stack([grow, 0 * grow])}
    >>> conjunctions(tables, ["x", "y"], settings=Settings("y", "baseline"))[0].better_on_at_least
    2
    """
    pairs = settings.pairs(names)
    level = settings.alpha / (2 * len(pairs))
    result = []
    for c, b in pairs:
        columns = [paired_columns(t, c, b, resolution=settings.step(d)) for d, t in tables.items()]
        parts = [d for d in columns if d.size]
        sides = np.array([one_sided_pvalues(d) for d in parts]).reshape(-1, 2)
        better, worse = (int((partial_conjunction(p) <= level).sum()) if parts else 0 for p in sides.T)
        result.append(Conjunction(str(names[c]), str(names[b]), len(parts), better, worse, level))
    return tuple(result)


def leave_one_out(cells: FloatArray, names: Sequence[str]) -> Stability:
    """Leave each optimizer out in turn and see whether the order of the others by mean rank changes.

    Parameters
    ----------
    cells : ndarray, shape (D, k)
        Complete cells.
    names : sequence of str

    Returns
    -------
    Stability

    Notes
    -----
    Mean ranks depend on who else is in the table; pairwise signed-rank tests do not. A flip is a warning
    about the leaderboard, not about the verdicts.

    Examples
    --------
    >>> leave_one_out(np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), ["x", "y", "z"]).flips
    ()
    """
    k = len(names)
    mean = rank_table(cells).mean(axis=0)
    order = np.argsort(mean, kind="stable")
    flips = []
    for out in range(k):
        rest = [i for i in range(k) if i != out]
        sub = rank_table(cells[:, rest]).mean(axis=0)
        for x in range(k - 1):
            for y in range(x + 1, k - 1):
                i, j = rest[x], rest[y]
                if (mean[i] - mean[j]) * (sub[x] - sub[y]) < 0:
                    flips.append(f"{names[i]} and {names[j]} without {names[out]}")
    return Stability(tuple(str(names[i]) for i in order), tuple(flips))
