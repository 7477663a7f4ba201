"""Very large families in brief: the tests of thousands of pairs at once, as arrays.

What `optbench.stats.pairs.compare_pair` makes of one pair in brief, and `optbench.stats.datasets` of one pair
over datasets, is made here of all pairs of complete tables without diverged trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special

from optbench.stats.common import FloatArray, IntArray, midranks, round_significant
from optbench.stats.effects import MeanDifference, RankEffect
from optbench.stats.flips import MeanTest
from optbench.stats.heterogeneity import Heterogeneity
from optbench.stats.paired import PairedTResult, SignedRankResult
from optbench.stats.pairs import PairedComparison
from optbench.stats.signed_rank_null import saddlepoint_uppers, tail_probabilities
from optbench.stats.skew import SMALL_SAMPLE

#: Up to this many pairs each signed-rank p is exact, one by one.
_ONE_BY_ONE = 30
#: Pairs whose differences vary by less than this share of their size have no spread.
_FLAT = 1e-9


def differences_of(table: FloatArray, pairs: Sequence[tuple[int, int]], step: float | None) -> FloatArray:
    """Rounded differences of pairs of columns, shape (pairs, n).

    Examples
    --------
    >>> differences_of(np.array([[3.0, 1.0], [2.0, 2.0]]), [(0, 1)], None)
    array([[2., 0.]])
    """
    c, b = np.array(pairs).T
    first, second = table[:, c].T, table[:, b].T
    d = first - second
    noise = 4 * np.finfo(np.float64).eps * np.maximum(np.abs(first), np.abs(second))
    d[np.abs(d) <= noise] = 0.0
    if step is not None:
        d = np.rint(d / step) * step
    return round_significant(d)


def compare_pairs(
    d: FloatArray, named: Sequence[tuple[str, str]], *, confidence: float, alpha: float
) -> list[PairedComparison]:
    """Compare many pairs in brief.

    Parameters
    ----------
    d : ndarray, shape (pairs, n)
        Finite differences, positive where the candidate is better; n at least 3, and none without spread.
    named : sequence of (str, str)
        Candidate and baseline of each.
    confidence : float
        Of the intervals that hold for the family together.
    alpha : float

    Returns
    -------
    list of PairedComparison
        Without verdicts: signed ranks (exact to 30 pairs, else by the saddlepoint), Student's t and interval,
        and the mean with Hall's t against the longer tail.

    Examples
    --------
    >>> d = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    >>> compare_pairs(d, [("x", "y")], confidence=0.95, alpha=0.05)[0].signed_rank.pvalue
    0.03125
    """
    n = d.shape[1]
    weights = np.where(d != 0, np.rint(2 * midranks(np.abs(d))), 0.0).astype(np.int64)
    plus = np.where(d > 0, weights, 0).sum(axis=1)
    p, method = signed_rank_pvalues(weights, plus)
    useful = (d != 0).sum(axis=1)
    tied = _tied(weights)
    total = np.maximum(weights.sum(axis=1), 1)
    biserial = (2 * plus - weights.sum(axis=1)) / total
    wins, losses = (d > 0).sum(axis=1), (d < 0).sum(axis=1)
    mean, sd = d.mean(axis=1), d.std(axis=1, ddof=1)
    error = sd / math.sqrt(n)
    t = mean / error
    p_t = 2 * special.stdtr(n - 1, -np.abs(t))
    half = float(special.stdtrit(n - 1, 1 - alpha / 2)) * error
    low, high, p_mean = joined(mean, error, _third(d) / n**2 / error**3, n - 1, p_t, confidence)
    smallest = np.minimum(1.0, np.ldexp(2.0, -np.minimum(useful, 1000)))
    columns = (
        p,
        plus / 2,
        useful,
        tied,
        smallest,
        t,
        p_t,
        mean,
        half,
        sd,
        biserial,
        wins,
        losses,
        low,
        high,
        p_mean,
    )
    return [
        PairedComparison(
            candidate=candidate,
            baseline=baseline,
            n=n,
            n_missing=0,
            n_diverged_candidate=0,
            n_diverged_baseline=0,
            signed_rank=SignedRankResult(s, q, n, n - m, k, method, least),
            t=PairedTResult(tt, pt, n - 1),
            mean=MeanDifference(mu, mu - h, mu + h, n, sigma, 1 - alpha),
            rank=RankEffect(r, (w + (n - w - lost) / 2) / n, w, n - w - lost, lost),
            average=MeanTest(
                mu, lo, hi, confidence, pm, 0.0, n, 1, "Student's t, Hall's against a longer tail"
            ),
        )
        for (candidate, baseline), (q, s, m, k, least, tt, pt, mu, h, sigma, r, w, lost, lo, hi, pm) in zip(
            named, zip(*(x.tolist() for x in columns), strict=True), strict=True
        )
    ]


def usable(d: FloatArray) -> bool:
    """Can these differences be compared in brief: finite, 3 pairs or more, each with a spread?"""
    if d.shape[1] < 3 or not np.isfinite(d).all():
        return False
    return bool((np.ptp(d, axis=1) > _FLAT * np.abs(d).max(axis=1)).all())


def signed_rank_pvalues(weights: IntArray, plus: IntArray) -> tuple[FloatArray, str]:
    """Two-sided signed-rank p-values of many pairs, and the method.

    Parameters
    ----------
    weights : ndarray of int64, shape (pairs, n)
        Doubled Pratt ranks, 0 where the difference is 0.
    plus : ndarray of int64, shape (pairs,)
        Sums of the weights of positive differences.

    Examples
    --------
    >>> signed_rank_pvalues(np.array([[2, 4, 6]]), np.array([12]))
    (array([0.25]), 'exact')
    """
    if weights.shape[1] <= _ONE_BY_ONE:
        ordered = np.sort(weights, axis=1)
        tails = [
            tail_probabilities(row[row > 0], s)[:2] for row, s in zip(ordered, plus.tolist(), strict=True)
        ]
        return np.minimum(1.0, 2 * np.array(tails).min(axis=1)), "exact"
    divisor = np.maximum(np.gcd.reduce(weights, axis=1), 1)
    w = weights // divisor[:, None]
    total, t = w.sum(axis=1), plus // divisor
    low = np.minimum(t, total - t)
    tail = np.where(2 * low < total, saddlepoint_uppers(w, total / 2 - low), 0.5)
    return np.minimum(1.0, 2 * tail), "saddlepoint"


def _tied(weights: IntArray) -> IntArray:
    """How many non-zero differences of each pair share their size."""
    ordered = np.sort(weights, axis=1)
    same = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] > 0)
    found = np.zeros(ordered.shape, dtype=bool)
    found[:, 1:] |= same
    found[:, :-1] |= same
    return np.asarray(found.sum(axis=1), dtype=np.int64)


def _third(d: FloatArray) -> FloatArray:
    n = d.shape[1]
    centred = d - d.mean(axis=1, keepdims=True)
    moments = (centred * centred * centred).sum(axis=1)
    return np.asarray(moments * n / ((n - 1) * (n - 2)) * (1 + SMALL_SAMPLE / n), dtype=np.float64)


def joined(
    mean: FloatArray,
    error: FloatArray,
    skewness: FloatArray,
    df: FloatArray | int,
    p_t: FloatArray,
    confidence: float,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Student's test and interval, with Hall's on the side of the longer tail: low, high, p.

    See `optbench.stats.skew` for one mean.
    """
    half = np.broadcast_to(special.stdtrit(df, (1 + confidence) / 2), mean.shape)
    t, a = mean / error, np.where(np.abs(skewness) > 1e-9, skewness, 1e-9)
    cubic = t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6
    cubic = np.where(a * t <= -3, np.sign(t) * np.inf, cubic)
    p_hall = 2 * special.stdtr(df, -np.abs(cubic))

    def end(value: FloatArray) -> FloatArray:
        return np.asarray(3 / a * (np.cbrt(np.maximum(0, 1 + a * (value - a / 6))) - 1))

    low = mean - error * np.where(a < 0, np.maximum(half, end(half)), half)
    high = mean - error * np.where(a > 0, np.minimum(-half, end(-half)), -half)
    return low, high, np.where(a * mean < 0, np.maximum(p_t, p_hall), p_t)


def means_over_datasets(
    parts: Mapping[str, FloatArray], *, confidence: float
) -> tuple[list[MeanTest], list[Heterogeneity | None]]:
    """Average of the mean differences over datasets of many pairs, and whether the datasets agree.

    Parameters
    ----------
    parts : mapping of dataset to ndarray, shape (pairs, n_d)
        As of `compare_pairs`.
    confidence : float

    Returns
    -------
    tests : list of MeanTest
        By Satterthwaite's t instead of sign flips, with Hall's against the longer tail.
    agreement : list of Heterogeneity or None

    Examples
    --------
    >>> d = np.array([[1.0, 2.0, 3.0, 2.0]])
    >>> means_over_datasets({"a": d, "b": d + 1}, confidence=0.95)[0][0].estimate
    2.5
    """
    k = len(parts)
    sizes = np.array([d.shape[1] for d in parts.values()])
    means = np.array([d.mean(axis=1) for d in parts.values()])
    variances = np.array([d.var(axis=1, ddof=1) for d in parts.values()])
    added = variances / sizes[:, None] / k**2
    variance = added.sum(axis=0)
    df = variance**2 / (added**2 / (sizes[:, None] - 1)).sum(axis=0)
    third = sum(_third(d) / d.shape[1] ** 2 / k**3 for d in parts.values())
    estimate, error = means.mean(axis=0), np.sqrt(variance)
    p_t = 2 * special.stdtr(df, -np.abs(estimate / error))
    low, high, p = joined(estimate, error, np.asarray(third / error**3), df, p_t, confidence)
    n = int(sizes.sum())
    method = "Satterthwaite's t, Hall's against a longer tail"
    tests = [
        MeanTest(e, lo, hi, confidence, q, 0.0, n, k, method)
        for e, lo, hi, q in zip(*(x.tolist() for x in (estimate, low, high, p)), strict=True)
    ]
    return tests, _agreement(means, variances, sizes)


def _agreement(means: FloatArray, variances: FloatArray, sizes: IntArray) -> list[Heterogeneity | None]:
    """As of `optbench.stats.heterogeneity`, of many pairs; arrays are (datasets, pairs)."""
    k, count = means.shape
    if k < 2:
        return [None] * count
    n = sizes[:, None]
    weights = n / variances
    whole = weights.sum(axis=0)
    q = (weights * (means - (weights * means).sum(axis=0) / whole) ** 2).sum(axis=0)
    unequal = ((1 - weights / whole) ** 2 / (n - 1)).sum(axis=0)
    f = q / (k - 1) / (1 + 2 * (k - 2) / (k * k - 1) * unequal)
    p_q = special.fdtrc(k - 1, (k * k - 1) / (3 * unequal), f)
    t = means * np.sqrt(weights)
    z = -special.ndtri(np.maximum(special.stdtr(n - 1, -np.abs(t)), 1e-300))
    squares = z**2
    smaller = np.minimum(np.where(t > 0, squares, 0).sum(axis=0), np.where(t < 0, squares, 0).sum(axis=0))
    h = np.arange(1, k)[:, None]
    p_opposite = (special.comb(k - 1, h) * 0.5 ** (k - 1) * special.chdtrc(h, smaller)).sum(axis=0)
    p_opposite = np.where(smaller == 0, 1.0, np.minimum(1.0, p_opposite))
    i2 = np.maximum(0.0, (q - (k - 1)) / np.where(q > 0, q, 1.0))
    columns = zip(*(x.tolist() for x in (q, p_q, i2, smaller, p_opposite)), strict=True)
    return [Heterogeneity(q_, p_, share, opposite, p_o, n_used=k) for q_, p_, share, opposite, p_o in columns]
