"""The mean over workloads of the mean paired difference: its sign-flip test and the interval that inverts it.

One pair's difference d counts with the weight w = 1 / (pairs of its workload x workloads), so that each
workload weighs the same. Under the hypothesis that the average is theta, the signs of d - theta are fair
coins. Flipping the pairs of a set J makes the statistic at least as large exactly if the weighted mean of d
over J is at most theta (Hartigan 1969): the one-sided p at theta is the share of sets with a mean of at most
theta, and the ends of the interval are order statistics of the means of sets. Test and interval come from
the same sets and cannot contradict each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import special

from optbench.stats.common import FloatArray, check_fraction, one_dimensional, round_significant
from optbench.stats.paired import DIVERGED_REASON
from optbench.stats.signed_rank_null import null_probabilities

#: All 2^n sets are counted up to this many pairs, sampled above.
EXACT_PAIRS = 20
#: All means are formed up to this many pairs; above, an end is found by bisection of the count.
_FORMED = 12
#: From this many pairs on, in effect, the flips are as good as normal: 1 / sum of the squared shares.
NORMAL_PAIRS = 200
_DRAWS = 9999
_MOST_DRAWS = 99_999
#: Below this many hits among the draws, the p-value comes from a convolution instead.
_FEW_HITS = 10
_GRID = 2**15
_MOST_CONVOLVED = 2000
#: Sums within this share of sum |w d| are equal.
_EQUAL = 1e-9


@dataclass(frozen=True)
class MeanTest:
    """Test and interval of an average paired difference; the interval inverts exactly this test.

    `n` counts pairs, `groups` the workloads that weigh the same. NaN with a `reason` where a mean has no
    value; unbounded where n is too small for the confidence.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    pvalue: float
    smallest_attainable_p: float
    n: int
    groups: int
    method: str
    reason: str | None = None


def mean_of_means(
    parts: Sequence[FloatArray], *, confidence: float = 0.95, draws: int = _DRAWS, seed: int = 0
) -> MeanTest:
    """Average over workloads of the mean paired difference, each workload weighing the same.

    Parameters
    ----------
    parts : sequence of ndarray, shape (n_w,)
        Differences of each workload, positive where the candidate is better; none empty.
    confidence : float
        Of the interval.
    draws : int
        Random sets of pairs where they are not all counted; more are drawn for a confidence near 1.
    seed : int

    Returns
    -------
    MeanTest
        Two-sided: the p-value doubles the smaller tail.

    Notes
    -----
    Exact to 20 pairs. Above, (b + 1) / (draws + 1) over sampled sets, and where hardly a set is hit the exact
    tail on a grid of 32,768 steps, rounded upwards (up to 2,000 pairs). From 200 pairs in effect on, the
    normal limit of the flips, whose tails are heavier than the flips' own. Exact if the differences are
    symmetric about a common value; conservative where workloads differ in their effects, because the flips
    count these as noise. A mean of skewed differences is another matter: see docs/statistics.md.

    References
    ----------
    Fisher (1935), The Design of Experiments, section 21; Hartigan (1969), JASA 64, 1303-1317 (typical
    values); Phipson and Smyth (2010), SAGMB 9(1), 39; Pagano and Tritchler (1983), JASA 78, 435-440.

    Examples
    --------
    >>> result = mean_of_means([np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0])])
    >>> result.estimate, result.pvalue, result.low, result.high
    (2.0, 0.03125, 1.0, 3.0)
    """
    check_fraction(confidence, "confidence")
    x = np.concatenate([round_significant(one_dimensional(part)) for part in parts])
    w = np.concatenate([np.full(len(part), 1 / (len(part) * len(parts))) for part in parts])
    n, groups = int(x.size), len(parts)
    smallest = min(1.0, math.ldexp(2.0, -min(int((x != 0).sum()), 1000)))
    nan = math.nan
    if not np.isfinite(x).all():
        return MeanTest(nan, nan, nan, confidence, nan, smallest, n, groups, "none", DIVERGED_REASON)
    estimate = float(np.mean([part.mean() for part in parts]))
    empty = MeanTest(estimate, -math.inf, math.inf, confidence, 1.0, smallest, n, groups, "exact")
    tail = (1 - confidence) / 2
    wd = w * x
    total = float(np.abs(wd).sum())
    if n <= EXACT_PAIRS:
        result = _exact(empty, x, w, tail)
    elif total > 0 and float((wd**2).sum()) ** 2 >= NORMAL_PAIRS * float((wd**4).sum()):
        result = _normal(empty, x, w, tail)
    else:
        result = _sampled(empty, x, w, tail, draws=draws, seed=seed)
    return _agreeing(result)


def _agreeing(result: MeanTest) -> MeanTest:
    """Zero lies in the interval exactly if p exceeds 1 - confidence: rounding must not say otherwise."""
    low, high = result.low, result.high
    if result.pvalue > (1 - result.confidence) * (1 + 1e-12):
        low, high = min(low, 0.0), max(high, 0.0)
    elif low <= 0 <= high:
        least = abs(result.estimate) * 1e-9
        low, high = (least, high) if result.estimate > 0 else (low, -least)
    reason = result.reason
    if math.isinf(low) or math.isinf(high):
        needed = 1 + math.ceil(-math.log2(1 - result.confidence) - 1e-12)
        reason = f"unbounded: {result.confidence:.4g} confidence needs {needed} pairs, found {result.n}"
        if result.n >= needed:
            reason = f"unbounded: too few sets were drawn for {result.confidence:.6g} confidence"
    return replace(result, low=low, high=high, reason=reason)


def _sums(x: FloatArray) -> FloatArray:
    sums = np.zeros(1)
    for value in x.tolist():
        sums = np.concatenate([sums, sums + value])
    return sums


def _count(y: FloatArray) -> int:
    """Number of sets J with a sum of y over J of at most 0, the empty one included."""
    half = y.size // 2
    left, right = _sums(y[:half]), np.sort(_sums(y[half:]))
    bound = _EQUAL * float(np.abs(y).sum())
    return int(np.searchsorted(right, bound - left, side="right").sum())


def _exact(empty: MeanTest, x: FloatArray, w: FloatArray, tail: float) -> MeanTest:
    n, sets = x.size, 2.0**x.size
    upper, lower = _count(w * x) / sets, _count(-w * x) / sets
    # The k-th smallest mean of a non-empty set is the first theta that is kept, if k / 2^n <= tail.
    k = math.floor(tail * sets * (1 + 1e-12))
    p = min(1.0, 2 * min(upper, lower))
    if k < 1:
        return replace(empty, pvalue=p)
    if n <= _FORMED:
        means = _sums(w * x)[1:] / _sums(w)[1:]
        means.partition([k - 1, means.size - k])
        return replace(empty, pvalue=p, low=float(means[k - 1]), high=float(means[means.size - k]))
    low = _end(x, w, k, empty.estimate)
    return replace(empty, pvalue=p, low=low, high=-_end(-x, w, k, -empty.estimate))


def _end(x: FloatArray, w: FloatArray, k: int, estimate: float) -> float:
    """The largest theta found, to 1e-7 of the range, of which fewer than k + 1 sets have a mean below."""
    below, above = float(x.min()), estimate
    step = max((above - below) * 1e-7, 1e-300)
    while above - below > step:
        middle = (below + above) / 2
        if not below < middle < above:
            break
        if _count(w * (x - middle)) <= k:
            below = middle
        else:
            above = middle
    return below


def _normal(empty: MeanTest, x: FloatArray, w: FloatArray, tail: float) -> MeanTest:
    squares = w**2
    a, b, c = float(squares.sum()), float((squares * x).sum()), float((squares * x**2).sum())
    mean = float((w * x).sum())
    z = -float(special.ndtri(tail))
    # |mean - theta| <= z sqrt(sum w^2 (x - theta)^2), solved for theta.
    lead = 1 - z * z * a
    middle = (mean - z * z * b) / lead
    half = math.sqrt(max(0.0, middle**2 - (mean**2 - z * z * c) / lead)) if lead > 0 else math.inf
    p = float(2 * special.ndtr(-abs(mean) / math.sqrt(c)))
    return replace(empty, pvalue=p, low=middle - half, high=middle + half, method="normal limit of the flips")


@lru_cache(maxsize=4)
def _bits(n: int, draws: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).integers(0, 2, size=(draws, n), dtype=np.int8).astype(np.float64)


def _drawn(both: FloatArray, draws: int, seed: int) -> FloatArray:
    """Sums of the columns of `both` over random sets of its rows, shape (draws, 2)."""
    n = len(both)
    if n * draws <= 4_000_000:
        return np.asarray(_bits(n, draws, seed) @ both, dtype=np.float64)
    rng = np.random.default_rng(seed)
    size = max(1, 2_000_000 // n)
    parts = [
        rng.integers(0, 2, size=(min(size, draws - start), n), dtype=np.int8).astype(np.float64) @ both
        for start in range(0, draws, size)
    ]
    return np.concatenate(parts)


def _sampled(
    empty: MeanTest, x: FloatArray, w: FloatArray, tail: float, *, draws: int, seed: int
) -> MeanTest:
    if tail * (draws + 1) < 25:
        draws = min(_MOST_DRAWS, math.ceil(25 / tail))
    sums = _drawn(np.column_stack([w * x, w]), draws, seed)
    bound = _EQUAL * float(np.abs(w * x).sum())
    hits = int((sums[:, 0] <= bound).sum()), int((sums[:, 0] >= -bound).sum())
    p = min(1.0, 2 * (min(hits) + 1) / (draws + 1))
    method = f"Monte Carlo, {draws} draws"
    if min(hits) < _FEW_HITS and (x != 0).sum() <= _MOST_CONVOLVED:
        p, method = min(1.0, 2 * _grid_tail(w * x)), f"{method}; p on a grid"
    k = math.floor(tail * (draws + 1) * (1 + 1e-12))
    result = replace(empty, pvalue=p, method=method)
    if k < 1:
        return result
    filled = sums[:, 1] > 0
    means = sums[filled, 0] / sums[filled, 1]
    means.partition([k - 1, means.size - k])
    return replace(result, low=float(means[k - 1]), high=float(means[means.size - k]))


def _grid_tail(wd: FloatArray) -> float:
    """Smaller tail of the flips of `wd`, never below the exact one: sizes on a grid, the sum upwards."""
    sizes = np.abs(wd[wd != 0])
    if not sizes.size:
        return 1.0
    unit = float(sizes.sum()) / _GRID
    rest = min(float(-wd[wd < 0].sum()), float(wd[wd > 0].sum())) / unit
    whole = np.rint(sizes / unit).astype(np.int64)
    slack = float(np.maximum(whole - sizes / unit, 0).sum()) + _EQUAL * _GRID
    kept = whole[whole > 0]
    upto = min(math.floor(rest + slack), int(kept.sum()))
    return min(1.0, float(null_probabilities(kept, upto).sum()))
