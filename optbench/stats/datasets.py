"""Several datasets, two separate questions: *on these datasets* and *on new datasets*.

On these datasets, the seeds are the sample and the datasets are strata: nothing is claimed beyond them. On
new datasets, the dataset is the unit: each cell is one value, and D datasets give D differences, however many
seeds went into the cells. Seeds x datasets are never pooled as if independent (see docs/statistics.md for
what that does to the false-positive rate).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from optbench.stats.common import FloatArray, differences
from optbench.stats.corrections import partial_conjunction
from optbench.stats.families import Settings, adjust_family
from optbench.stats.paired import DIVERGED_REASON, one_sided_pvalues, pratt_weights
from optbench.stats.ranks import rank_table
from optbench.stats.signed_rank_null import tail_probabilities
from optbench.stats.verdict import Verdict, verdict

#: Below this many datasets no signed-rank test over datasets can reach 0.05.
FEWEST_DATASETS = 6


@dataclass(frozen=True)
class StratifiedComparison:
    """Two optimizers on these datasets: signed ranks within each dataset, summed over datasets.

    `estimate` is the mean over datasets of the mean difference, each dataset counting the same, with its
    interval.
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
    reason: str | None
    verdict: Verdict


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


def paired_columns(table: FloatArray, candidate: int, baseline: int) -> FloatArray:
    """Oriented differences of the blocks that hold both optimizers.

    Parameters
    ----------
    table : ndarray, shape (n, k)
    candidate, baseline : int
        Columns.

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
    return differences(a[keep], b[keep]) if keep.any() else np.empty(0)


def on_these_datasets(
    tables: Mapping[str, FloatArray], names: Sequence[str], *, settings: Settings
) -> tuple[StratifiedComparison, ...]:
    """Compare on exactly these datasets by the stratified signed-rank test, exact by random signs.

    Parameters
    ----------
    tables : mapping of dataset to ndarray, shape (n_d, k)
        Blocks x optimizers, oriented, NaN missing, ``-inf`` diverged.
    names : sequence of str, length k
    settings : Settings

    Returns
    -------
    tuple of StratifiedComparison
        One per pair of the family, corrected over the family.

    Notes
    -----
    Ranks are formed within each dataset, so metrics of different scale do not mix; with unequal n the larger
    datasets weigh more in the test but not in the estimate. The interval combines the variances of the
    datasets with Satterthwaite's degrees of freedom.

    References
    ----------
    van Elteren (1960), Bull. Int. Stat. Inst. 37, 351-361 (stratified rank sums); Satterthwaite (1946),
    Biometrics Bulletin 2, 110-114.

    Examples
    --------
    >>> tables = {"a": np.array([[2.0, 1.0]] * 4), "b": np.array([[3.0, 1.0]] * 4)}
    >>> on_these_datasets(tables, ["x", "y"], settings=Settings("y", "baseline"))[0].pvalue
    0.0078125
    """
    raw = [
        _stratified(
            [paired_columns(t, c, b) for t in tables.values()], str(names[c]), str(names[b]), settings.alpha
        )
        for c, b in settings.pairs(names)
    ]
    adjusted = adjust_family([r.pvalue for r, _ in raw], settings)
    return tuple(
        replace(
            r,
            p_adjusted=float(p),
            verdict=verdict(
                pvalue=float(p),
                direction=direction,
                alpha=settings.alpha,
                smallest_p=min(1.0, r.smallest_attainable_p * len(raw)),
                candidate=r.candidate,
                baseline=r.baseline,
            ),
        )
        for (r, direction), p in zip(raw, adjusted, strict=True)
    )


def _stratified(
    parts: list[FloatArray], candidate: str, baseline: str, alpha: float
) -> tuple[StratifiedComparison, float]:
    parts = [d for d in parts if d.size]
    nan = math.nan
    if not parts:
        empty = StratifiedComparison(
            candidate,
            baseline,
            0,
            0,
            nan,
            nan,
            nan,
            nan,
            "none",
            nan,
            nan,
            nan,
            "no pairs",
            Verdict("inconclusive", ""),
        )
        return empty, 0.0
    ranked = [pratt_weights(d) for d in parts]
    weights = np.concatenate([w for w, _ in ranked])
    signs = np.concatenate([s for _, s in ranked])
    statistic = int(weights[signs > 0].sum())
    lower, upper, method = tail_probabilities(weights, statistic)
    estimate, low, high, reason = _mean_of_means(parts, alpha)
    result = StratifiedComparison(
        candidate=candidate,
        baseline=baseline,
        n_datasets=len(parts),
        n_pairs=sum(d.size for d in parts),
        statistic=statistic / 2,
        pvalue=min(1.0, 2 * min(lower, upper)),
        p_adjusted=nan,
        smallest_attainable_p=min(1.0, math.ldexp(2.0, -min(int(weights.size), 1000))),
        method=method,
        estimate=estimate,
        low=low,
        high=high,
        reason=reason,
        verdict=Verdict("inconclusive", ""),
    )
    return result, float((weights * signs).sum())


def _mean_of_means(parts: list[FloatArray], alpha: float) -> tuple[float, float, float, str | None]:
    nan = math.nan
    if not all(np.isfinite(d).all() for d in parts):
        return nan, nan, nan, DIVERGED_REASON
    estimate = float(np.mean([d.mean() for d in parts]))
    if min(d.size for d in parts) < 2:
        return estimate, nan, nan, "undefined interval: a dataset has one pair only"
    terms = np.array([d.var(ddof=1) / d.size for d in parts])
    if terms.sum() == 0:
        return estimate, nan, nan, "undefined interval: all differences are equal within each dataset"
    df = terms.sum() ** 2 / (terms**2 / np.array([d.size - 1 for d in parts])).sum()
    half = float(special.stdtrit(df, 1 - alpha / 2)) * math.sqrt(terms.sum()) / len(parts)
    return estimate, estimate - half, estimate + half, None


def collapse(tables: Mapping[str, FloatArray]) -> tuple[FloatArray, tuple[str, ...]]:
    """One value per dataset and optimizer: the mean over its seeds, or the median where a trial diverged.

    Parameters
    ----------
    tables : mapping of dataset to ndarray, shape (n_d, k)

    Returns
    -------
    cells : ndarray, shape (D, k)
        NaN where an optimizer has no trial on a dataset.
    medians : tuple of str
        The datasets that were collapsed by the median, for all of their optimizers, because a mean with a
        diverged trial has no value; the median counts it as the worst.

    Notes
    -----
    Cells are formed on the blocks that all optimizers of the dataset share, if there are any, so that a
    missing seed does not shift one of them.

    Examples
    --------
    >>> collapse({"a": np.array([[1.0, 2.0], [3.0, -np.inf]]), "b": np.array([[1.0, 2.0], [3.0, 4.0]])})
    (array([[  1., -inf],
           [  2.,   3.]]), ('a',))
    """
    cells, medians = [], []
    for dataset, table in tables.items():
        present = ~np.isnan(table).all(axis=0)
        complete = table[~np.isnan(table[:, present]).any(axis=1)] if present.any() else table[:0]
        use = complete if len(complete) else table
        by_median = bool(np.isinf(use).any())
        if by_median:
            medians.append(dataset)
        cells.append([_cell(column, by_median) for column in use.T])
    return np.array(cells, dtype=np.float64), tuple(medians)


def _cell(column: FloatArray, by_median: bool) -> float:
    known = np.sort(column[~np.isnan(column)])
    if not known.size:
        return math.nan
    if not by_median:
        return float(known.mean())
    # The lower median: half of the seeds diverged is a diverged cell, and -inf is never averaged.
    return float(known[(known.size - 1) // 2])


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
        parts = [d for d in (paired_columns(t, c, b) for t in tables.values()) if d.size]
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
