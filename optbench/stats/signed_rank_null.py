"""The null distribution of a signed-rank sum: T = sum of w_i over the pairs whose sign is positive.

Under the null hypothesis each sign is a fair coin given the absolute differences, so T is the sum of
independent 0-or-w_i variables whatever the ties and zeros did to the ranks. Twice the midranks are integers,
so its distribution is a product of polynomials (1 + x^w_i) / 2, expanded here by dynamic programming.

References
----------
Pratt, J. W. (1959). Remarks on zeros and ties in the Wilcoxon signed rank procedures. JASA 54, 655-667.
Streitberg, B. and Roehmel, J. (1986). Exact distributions for permutation and rank tests. Stat. Softw. Newsl.
12, 10-17.
Daniels, H. E. (1987). Tail probability approximations. Int. Stat. Rev. 55, 37-48 (lattice variables).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.special import ndtr

from optbench.stats.common import FloatArray, IntArray

#: Exact up to this many additions: about 20 ms, and every case of up to 300 non-zero pairs.
_QUICK = 2e7
#: Exact up to this many additions where the approximation would be coarse (a few seconds).
_AFFORDABLE = 2e9
#: Without ties the distribution depends on n alone and is cached, up to this many non-zero pairs.
_CACHED = 1000
#: The approximation needs this many tie groups, in effect: 1 / sum of squared shares of the groups.
_EFFECTIVE_GROUPS = 6
_DRAWS = 19_999
#: Probabilities below this are reported as this: the floating range ends a little further.
SMALLEST = 2.0**-1000


def null_probabilities(weights: IntArray, upto: int) -> FloatArray:
    """P(T = 0), ..., P(T = upto) by adding one weight after the other.

    Parameters
    ----------
    weights : ndarray of int64, shape (m,)
        Positive.
    upto : int

    Returns
    -------
    ndarray, shape (upto + 1,)
        Relative error below m * 1e-16; what is below 1e-300 may be lost.

    Examples
    --------
    >>> null_probabilities(np.array([1, 2]), 3)
    array([0.25, 0.25, 0.25, 0.25])
    """
    p = np.zeros(upto + 1)
    p[0] = 1.0
    top = 0
    for i, w in enumerate(np.sort(weights).tolist(), start=1):
        top = min(top + w, upto)
        if w <= top:
            p[w : top + 1] += p[: top + 1 - w].copy()
        if i % 256 == 0:  # counts of sign patterns, scaled now and then to stay in the floating range
            p *= 2.0**-256
    return np.ldexp(p, -(len(weights) % 256))


@lru_cache(maxsize=32)
def _consecutive_cdf(first: int, size: int) -> FloatArray:
    """P(T <= t) for the weights first, first + 1, ... and t up to half of their sum."""
    weights = np.arange(first, first + size, dtype=np.int64)
    return np.cumsum(null_probabilities(weights, int(weights.sum()) // 2))


def _sampled_tails(groups: IntArray, counts: IntArray, statistic: int) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    t = np.zeros(_DRAWS, dtype=np.int64)
    for weight, count in zip(groups.tolist(), counts.tolist(), strict=True):
        t += weight * rng.binomial(count, 0.5, size=_DRAWS)
    return (int((t <= statistic).sum()) + 1) / (_DRAWS + 1), (int((t >= statistic).sum()) + 1) / (_DRAWS + 1)


def _saddlepoint_upper(groups: IntArray, counts: IntArray, excess: float) -> float:
    """P(T - E[T] >= excess) for excess > 0 on the lattice of integers; counts[i] weights are groups[i]."""
    half = groups / 2
    x = excess - 0.5  # the continuity correction of a lattice of span 1
    squares = counts * half**2
    sigma = math.sqrt(float(squares.sum()))
    if x <= 1e-3 * sigma:
        return float(ndtr(-x / sigma))
    t = 0.0
    for _ in range(
        200
    ):  # K' is concave for t > 0: Newton climbs to the root from the left and cannot overshoot
        tanh = np.tanh(t * half)
        step = (x - float((counts * half) @ tanh)) / float(squares @ (1 - tanh**2))
        t += step
        if abs(step) <= 1e-12 * max(t, 1e-300):
            break
    a = t * half
    cumulant = float(counts @ (a + np.log1p(np.exp(-2 * a)) - math.log(2)))
    curvature = float(squares @ (1 - np.tanh(a) ** 2))
    r = math.sqrt(2 * (t * x - cumulant))
    u = 2 * math.sinh(t / 2) * math.sqrt(curvature)
    density = math.exp(-r * r / 2) / math.sqrt(2 * math.pi)
    return float(ndtr(-r)) + density * (1 / u - 1 / r)


def saddlepoint_uppers(weights: IntArray, excess: FloatArray) -> FloatArray:
    """P(T - E[T] >= excess) for many sets of weights at once, by the approximation of large tables.

    Parameters
    ----------
    weights : ndarray of int64, shape (rows, m)
        Not negative, of greatest common divisor 1 in each row; zeros count for nothing.
    excess : ndarray, shape (rows,)
        Positive.

    Returns
    -------
    ndarray, shape (rows,)

    Examples
    --------
    >>> w = np.arange(1, 41)[None, :]
    >>> exact = tail_probabilities(w[0], 600)[1]
    >>> bool(abs(saddlepoint_uppers(w, np.array([600 - 410.0]))[0] / exact - 1) < 0.01)
    True
    """
    half = weights / 2
    x = excess - 0.5
    variance = (half**2).sum(axis=1)
    sigma = np.sqrt(np.maximum(variance, 1e-300))
    near = x <= 1e-3 * sigma
    wanted = np.where(near, sigma * 1e-3, np.minimum(x, half.sum(axis=1) - 0.25))
    t = np.zeros(len(half))
    for _ in range(100):
        tanh = np.tanh(t[:, None] * half)
        step = (wanted - (half * tanh).sum(axis=1)) / (half**2 * (1 - tanh**2)).sum(axis=1)
        t += step
        if (np.abs(step) <= 1e-9 * np.maximum(t, 1e-300)).all():
            break
    a = t[:, None] * half
    cumulant = (a + np.log1p(np.exp(-2 * a)) - math.log(2)).sum(axis=1)
    curvature = (half**2 * (1 - np.tanh(a) ** 2)).sum(axis=1)
    r = np.sqrt(np.maximum(2 * (t * wanted - cumulant), 1e-300))
    u = 2 * np.sinh(t / 2) * np.sqrt(curvature)
    tail = ndtr(-r) + np.exp(-r * r / 2) / math.sqrt(2 * math.pi) * (1 / u - 1 / r)
    found = np.where(near, ndtr(-x / sigma), tail)
    return np.asarray(np.clip(found, SMALLEST, 1.0), dtype=np.float64)


def tail_probabilities(weights: IntArray, statistic: int) -> tuple[float, float, str]:
    """Probabilities of both tails of T under random signs.

    Parameters
    ----------
    weights : ndarray of int64, shape (m,)
        Positive integers (twice the midranks of the non-zero pairs).
    statistic : int
        The observed T, 0 <= T <= sum of weights.

    Returns
    -------
    (float, float, str)
        P(T <= statistic), P(T >= statistic), and ``exact``, ``saddlepoint`` or ``Monte Carlo``.

    Notes
    -----
    Exact for m <= 300, for m <= 1000 without ties, and wherever the table is small. Beyond, the lattice-
    corrected saddlepoint approximation, with a relative error of p below 1e-4 with ordinary ties and
    below 0.5 % in the worst cases built for ``benchmarks/statistics_simulations.py``; where a few tie groups
    dominate it would be coarser, so these cases stay exact as long as that takes seconds, and are sampled
    (19,999 draws) after that.

    Examples
    --------
    >>> tail_probabilities(np.array([1, 2, 3]), 6)
    (1.0, 0.125, 'exact')
    """
    return _tails(np.ascontiguousarray(weights, dtype=np.int64).tobytes(), statistic)


@lru_cache(maxsize=256)
def _tails(stored: bytes, statistic: int) -> tuple[float, float, str]:
    """The same for weights as bytes: test, interval and count of datasets ask for one tail three times."""
    weights = np.frombuffer(stored, dtype=np.int64)
    if weights.size == 0:
        return 1.0, 1.0, "exact"
    divisor = int(np.gcd.reduce(weights))
    w = weights // divisor
    total, t = int(w.sum()), statistic // divisor
    # By symmetry P(T >= t) = P(T <= total - t): only the smaller tail is expanded.
    low = min(t, total - t)
    groups, counts = np.unique(w, return_counts=True)
    first, m = int(groups[0]), int(w.size)
    cost = m * (low + 1.0)
    method = "exact"
    if 30 <= m <= _CACHED and groups.size == m and int(groups[-1]) - first + 1 == m:
        cdf = _consecutive_cdf(first, m)
        tail, below = float(cdf[low]), float(cdf[low - 1]) if low else 0.0
    elif cost <= _QUICK or (cost <= _AFFORDABLE and _effective(counts) < _EFFECTIVE_GROUPS):
        p = null_probabilities(w, low)
        tail, below = float(p.sum()), float(p[:low].sum())
    elif _effective(counts) >= _EFFECTIVE_GROUPS:
        tail = _saddlepoint_upper(groups, counts, total / 2 - low) if 2 * low < total else 0.5
        below = _saddlepoint_upper(groups, counts, total / 2 - low + 1)
        method = "saddlepoint"
    else:
        return *_sampled_tails(groups, counts, t), "Monte Carlo"
    tail = max(tail, SMALLEST)
    lower, upper = (tail, 1.0 - below) if t == low else (1.0 - below, tail)
    return min(1.0, lower), min(1.0, upper), method


def _effective(counts: IntArray) -> float:
    return float(counts.sum()) ** 2 / float((counts.astype(np.float64) ** 2).sum())
