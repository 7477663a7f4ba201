"""Tests and intervals for n paired differences: one dataset, two optimizers, n matched blocks.

All functions take differences oriented so that positive means the candidate is better. ``+inf`` and ``-inf``
stand for pairs in which only the baseline or only the candidate diverged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from optbench.stats.common import (
    FloatArray,
    IntArray,
    StatsError,
    check_alternative,
    check_fraction,
    midranks,
    one_dimensional,
    round_significant,
)
from optbench.stats.signed_rank_null import tail_probabilities
from optbench.stats.walsh import interval_rank, kept_shifts, walsh_order

#: The sign-flip test counts all sign patterns up to this many non-zero pairs, and samples them above.
EXACT_FLIPS = 30
#: Up to this many pairs an interval of tied differences inverts the tied test; above, ties hardly matter.
_INVERTED = 60
DIVERGED_REASON = "undefined: a diverged trial has no finite value (ranks still count it, as the worst)"


@dataclass(frozen=True)
class SignedRankResult:
    """Wilcoxon's signed-rank test; `statistic` is the sum of the Pratt ranks of positive differences."""

    statistic: float
    pvalue: float
    n: int
    n_zeros: int
    n_ties: int
    method: str
    smallest_attainable_p: float
    alternative: str = "two-sided"


@dataclass(frozen=True)
class SignFlipResult:
    """Permutation test of the mean under random signs. NaN with a `reason` where the mean is undefined."""

    statistic: float
    pvalue: float
    n: int
    method: str
    smallest_attainable_p: float
    reason: str | None = None


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; `reason` says why a part is NaN or infinite."""

    estimate: float
    low: float
    high: float
    confidence: float
    n: int
    method: str
    reason: str | None = None


@dataclass(frozen=True)
class PairedTResult:
    """Student's t test of paired differences."""

    statistic: float
    pvalue: float
    df: int
    reason: str | None = None


@dataclass(frozen=True)
class EquivalenceResult:
    """Two one-sided tests: `pvalue` is the larger of the two."""

    pvalue: float
    p_lower: float
    p_upper: float
    margin: float
    n: int
    reason: str | None = None


@dataclass(frozen=True)
class PairCorrelation:
    """What the pairing bought: r, and the variance of an unpaired over that of the paired difference."""

    pearson: float
    variance_ratio: float
    n: int
    reason: str | None = None


def pratt_weights(d: FloatArray) -> tuple[IntArray, IntArray]:
    """Twice the Pratt midranks of the non-zero differences, and the sign of each.

    Parameters
    ----------
    d : ndarray, shape (n,)
        Differences, already rounded; infinities tie with each other.

    Returns
    -------
    weights : ndarray of int64, shape (m,)
    signs : ndarray of int64, shape (m,)
        +1 or -1.

    Examples
    --------
    >>> pratt_weights(np.array([0.0, 1.0, -1.0, 2.0]))
    (array([5, 5, 8]), array([ 1, -1,  1]))
    """
    ranks = midranks(np.abs(d))
    nonzero = d != 0
    return np.rint(2 * ranks[nonzero]).astype(np.int64), np.sign(d[nonzero]).astype(np.int64)


def signed_rank(d: ArrayLike, *, alternative: str = "two-sided") -> SignedRankResult:
    """Wilcoxon signed-rank test with Pratt's zeros, exact under ties.

    Parameters
    ----------
    d : array_like, shape (n,)
        Differences, positive where the candidate is better; ``inf`` allowed, NaN not.
    alternative : {"two-sided", "greater", "less"}
        ``greater``: the candidate is better.

    Returns
    -------
    SignedRankResult
        `n` counts all pairs, `n_zeros` those with d = 0, `n_ties` the non-zero pairs that share their size.
        `smallest_attainable_p` is what the non-zero pairs could have reached if all had the same sign.

    Notes
    -----
    The null distribution is that of random signs given the absolute differences (see `signed_rank_null`):
    exact to rounding for up to 300 non-zero pairs (1,000 without ties), with a relative error of p below 0.5
    % beyond. The two-sided p-value doubles the smaller tail. All differences zero gives p = 1.

    References
    ----------
    Wilcoxon (1945), Biometrics Bulletin 1, 80-83; Pratt (1959), JASA 54, 655-667.

    Examples
    --------
    >>> signed_rank([0.1, 0.2, 0.3, 0.4, 0.5]).pvalue
    0.0625
    """
    check_alternative(alternative)
    x = round_significant(one_dimensional(d))
    weights, signs = pratt_weights(x)
    statistic = int(weights[signs > 0].sum())
    lower, upper, method = tail_probabilities(weights, statistic)
    pvalue = {"two-sided": min(1.0, 2 * min(lower, upper)), "greater": upper, "less": lower}[alternative]
    _, counts = np.unique(weights, return_counts=True)
    m = int(weights.size)
    sides = 2 if alternative == "two-sided" else 1
    return SignedRankResult(
        statistic=statistic / 2,
        pvalue=pvalue,
        n=int(x.size),
        n_zeros=int(x.size) - m,
        n_ties=int(counts[counts > 1].sum()),
        method=method,
        smallest_attainable_p=min(1.0, sides * math.ldexp(1.0, -min(m, 1000))),
        alternative=alternative,
    )


def one_sided_pvalues(d: ArrayLike) -> tuple[float, float]:
    """Both one-sided signed-rank p-values at the cost of one.

    Parameters
    ----------
    d : array_like, shape (n,)

    Returns
    -------
    (float, float)
        Of "the candidate is better" and of "the candidate is worse".

    Examples
    --------
    >>> one_sided_pvalues([1.0, 2.0, 3.0])
    (0.125, 1.0)
    """
    weights, signs = pratt_weights(round_significant(one_dimensional(d)))
    lower, upper, _ = tail_probabilities(weights, int(weights[signs > 0].sum()))
    return upper, lower


def sign_flip(d: ArrayLike, *, draws: int = 9999, seed: int = 0) -> SignFlipResult:
    """Two-sided permutation test of the mean: every sign pattern of the differences is equally likely.

    Parameters
    ----------
    d : array_like, shape (n,)
        Differences.
    draws : int
        Random sign patterns used above 30 non-zero pairs; the p-value is then (b + 1) / (draws + 1).
    seed : int
        Seed of those draws.

    Returns
    -------
    SignFlipResult
        `statistic` is the mean difference.

    Notes
    -----
    Up to 30 non-zero pairs all 2^m patterns are counted, by splitting the pairs into two halves and counting
    sums of sorted half-sums. Sums within 1e-9 of the observed one, relative to sum |d|, count as equal to it.

    References
    ----------
    Fisher (1935), The Design of Experiments, section 21; Phipson and Smyth (2010), SAGMB 9(1), 39, for
    (b+1)/(m+1).

    Examples
    --------
    >>> sign_flip([1.0, 2.0, 3.0]).pvalue
    0.25
    """
    x = one_dimensional(d)
    n = int(x.size)
    if not np.isfinite(x).all():
        return SignFlipResult(math.nan, math.nan, n, "none", math.nan, DIVERGED_REASON)
    x = round_significant(x)
    moving = x[x != 0]
    m = int(moving.size)
    smallest = min(1.0, math.ldexp(2.0, -m))
    mean = float(x.mean())
    if m == 0:
        return SignFlipResult(0.0, 1.0, n, "exact", 1.0)
    scale = float(np.abs(moving).sum())
    moving = moving / scale  # keeps subnormal and huge differences inside the floating range
    bound = abs(float(moving.sum())) - 1e-9
    if m <= EXACT_FLIPS:
        left, right = _flip_sums(moving[: m // 2]), np.sort(_flip_sums(moving[m // 2 :]))
        at_least = right.size - np.searchsorted(right, bound - left, side="left")
        count = int(at_least.sum())
        return SignFlipResult(mean, min(1.0, 2 * count / 2.0**m), n, "exact", smallest)
    rng = np.random.default_rng(seed)
    hits = 0
    for start in range(0, draws, 1000):
        signs = rng.integers(0, 2, size=(min(1000, draws - start), m), dtype=np.int8) * 2 - 1
        hits += int((np.abs(signs @ moving) >= bound).sum())
    return SignFlipResult(
        mean, (hits + 1) / (draws + 1), n, f"Monte Carlo, {draws} draws", max(smallest, 1 / (draws + 1))
    )


def _flip_sums(x: FloatArray) -> FloatArray:
    sums = np.zeros(1)
    for value in x.tolist():
        sums = np.concatenate([sums + value, sums - value])
    return sums


def paired_t(d: ArrayLike) -> PairedTResult:
    """Two-sided Student t test that the mean difference is zero (model-based: assumes normal differences).

    Parameters
    ----------
    d : array_like, shape (n,)

    Returns
    -------
    PairedTResult
        NaN with a reason for n < 2, equal differences (sd = 0) or diverged trials.

    References
    ----------
    Student (1908), Biometrika 6, 1-25.

    Examples
    --------
    >>> round(paired_t([1.0, 2.0, 3.0]).statistic, 4)
    3.4641
    """
    x = one_dimensional(d)
    reason = spread_reason(x)
    if reason is not None:
        return PairedTResult(math.nan, math.nan, max(0, int(x.size) - 1), reason)
    t = float(x.mean() / (x.std(ddof=1) / math.sqrt(x.size)))
    return PairedTResult(t, float(2 * special.stdtr(x.size - 1, -abs(t))), int(x.size) - 1)


def spread_reason(x: FloatArray) -> str | None:
    """Say why a spread-based quantity is undefined for these differences, or None when it is defined.

    Examples
    --------
    >>> spread_reason(np.array([1.0, 1.0]))
    'undefined: all differences are equal, so their standard deviation is 0'
    """
    if not np.isfinite(x).all():
        return DIVERGED_REASON
    if x.size < 2:
        return f"undefined: a spread needs 2 pairs, found {x.size}"
    if np.ptp(x) <= 1e-9 * float(np.abs(x).max()):
        return "undefined: all differences are equal, so their standard deviation is 0"
    return None


def hodges_lehmann(d: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Hodges-Lehmann shift (median of the Walsh averages) and the interval that inverts the signed-rank test.

    Parameters
    ----------
    d : array_like, shape (n,)
        Differences. Diverged trials of one side only are allowed: an infinite difference moves the median by
        rank.
    confidence : float
        Nominal level; the interval's true level for continuous symmetric differences is at least this.

    Returns
    -------
    Interval
        Unbounded, with a reason, where n is too small for the level (n < 6 at 95 %).

    Notes
    -----
    It holds exactly the shifts that `signed_rank` keeps, its zeros and ties included, up to 60 pairs. Above,
    the order statistics are those without ties (in O(n) memory), and 0 lies in the interval exactly if the
    test keeps it.

    References
    ----------
    Hodges and Lehmann (1963), Ann. Math. Statist. 34, 598-611; Hollander and Wolfe (1999),
    Nonparametric Statistical Methods, chapter 3.

    Examples
    --------
    >>> hodges_lehmann([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).estimate
    3.5
    """
    check_fraction(confidence, "confidence")
    x = one_dimensional(d)
    n, method = int(x.size), "Hodges-Lehmann"
    if np.isposinf(x).any() and np.isneginf(x).any():
        reason = "undefined: both optimizers diverged somewhere, the average of +inf and -inf has no value"
        return Interval(math.nan, math.nan, math.nan, confidence, n, method, reason)
    size, k = n * (n + 1) // 2, interval_rank(n, confidence)
    wanted = [(size - 1) // 2, size // 2, *([k - 1, size - k] if k else [])]
    low_mid, high_mid, *bounds = walsh_order(x, wanted)
    estimate = low_mid if low_mid == high_mid else (low_mid + high_mid) / 2
    if k == 0:
        needed = 1 + math.ceil(-math.log2(1 - confidence) - 1e-12)
        reason = f"unbounded: {confidence:.0%} confidence needs {needed} pairs, found {n}"
        return Interval(estimate, -math.inf, math.inf, confidence, n, method, reason)
    low, high = _inverted(x, bounds[0], bounds[1], confidence)
    return Interval(estimate, low, high, confidence, n, method)


def _inverted(x: FloatArray, low: float, high: float, confidence: float) -> tuple[float, float]:
    """Ends that fit the test with its ties and zeros, from the ends without."""
    scale = float(np.abs(x[np.isfinite(x)]).max(initial=0.0))

    def kept(shift: float) -> bool:
        moved = x - shift
        moved[np.abs(moved) <= 1e-12 * scale] = 0.0
        weights, signs = pratt_weights(round_significant(moved))
        lower, upper, _ = tail_probabilities(weights, int(weights[signs > 0].sum()))
        return 2 * min(lower, upper) > (1 - confidence) * (1 + 1e-12)

    tied = np.unique(np.abs(round_significant(x))).size < x.size or (x == 0).any()
    if tied and x.size <= _INVERTED and np.isfinite(x).any():
        low, high = kept_shifts(x, kept, (low, high))
    if low <= 0 <= high and not kept(0.0):
        # With ties a shift may be rejected between shifts that are kept: the nearer end moves to 0.
        low, high = (0.0, high) if high > -low else (low, 0.0)
    elif not low <= 0 <= high and kept(0.0):
        low, high = min(low, 0.0), max(high, 0.0)
    return low, high


def tost(d: ArrayLike, *, margin: float) -> EquivalenceResult:
    """Two one-sided t tests of equivalence: is the mean difference inside (-margin, margin)?

    Parameters
    ----------
    d : array_like, shape (n,)
    margin : float
        The largest difference that does not matter, in the metric's units, declared beforehand; > 0.

    Returns
    -------
    EquivalenceResult
        Refused (NaN, with a reason) for n < 2, sd(d) = 0 or diverged trials: without spread the p-value would
        be 0 or 1 by arithmetic, not by evidence.

    References
    ----------
    Schuirmann (1987), J. Pharmacokinet. Biopharm. 15, 657-680.

    Examples
    --------
    >>> tost([0.01, -0.01, 0.005, -0.002, 0.001], margin=0.02).pvalue < 0.01
    True
    """
    if not (math.isfinite(margin) and margin > 0):
        raise StatsError(f"margin: found {margin!r}, allowed is a positive number in the metric's units")
    x = one_dimensional(d)
    n, reason = int(x.size), spread_reason(x)
    if reason is not None:
        return EquivalenceResult(math.nan, math.nan, math.nan, margin, n, reason)
    error = float(x.std(ddof=1)) / math.sqrt(n)
    with np.errstate(over="ignore"):  # a margin of many orders more than the spread
        p_lower = float(special.stdtr(n - 1, -(x.mean() + margin) / error))
        p_upper = float(special.stdtr(n - 1, (x.mean() - margin) / error))
    return EquivalenceResult(max(p_lower, p_upper), p_lower, p_upper, margin, n)


def pair_correlation(candidate: ArrayLike, baseline: ArrayLike) -> PairCorrelation:
    """Correlation of the two members of the pairs, and what the pairing bought.

    Parameters
    ----------
    candidate, baseline : array_like, shape (n,)
        Values of the same blocks; pairs with an infinity (diverged) are left out and `n` counts the rest.

    Returns
    -------
    PairCorrelation
        `variance_ratio` is (var(a) + var(b)) / var(a - b): 4 means an unpaired comparison would need 4 times
        the runs.

    Examples
    --------
    >>> round(pair_correlation([1.0, 2.0, 3.0], [1.0, 2.0, 4.0]).pearson, 3)
    0.982
    """
    a, b = one_dimensional(candidate, "candidate"), one_dimensional(baseline, "baseline")
    if a.shape != b.shape:
        raise StatsError(
            f"found {a.size} candidate and {b.size} baseline values; pairs need the same number of both"
        )
    keep = np.isfinite(a) & np.isfinite(b)
    a, b = a[keep], b[keep]
    n = int(a.size)
    if n < 3:
        return PairCorrelation(
            math.nan, math.nan, n, f"undefined: a correlation needs 3 finite pairs, found {n}"
        )
    va, vb = float(a.var(ddof=1)), float(b.var(ddof=1))
    if min(va, vb) <= (1e-12 * float(np.abs([a, b]).max())) ** 2:
        return PairCorrelation(math.nan, math.nan, n, "undefined: one member of the pairs is constant")
    r = float(np.clip(((a - a.mean()) * (b - b.mean())).sum() / (n - 1) / math.sqrt(va * vb), -1, 1))
    vd = float((a - b).var(ddof=1))
    return PairCorrelation(r, (va + vb) / vd if vd > 0 else math.inf, n)
