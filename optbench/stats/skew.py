"""A mean of skewed differences: sign flips, joined on the side of the longer tail by Hall's t.

A sample whose long tail lies below its mean has, on average, seen too little of it: mean and spread err
together, and sign flips, which assume symmetry, as well as Student's t find too much. Hall's transformation
of t allows for the skewness that is seen. It is monotone, so that test and interval are one statement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from optbench.stats.common import FloatArray, check_fraction, one_dimensional
from optbench.stats.flips import MeanTest, mean_of_means

#: The skewness of n values of a skewed shape is too small on average; it is counted 1 + 4 / n times.
SMALL_SAMPLE = 4.0


@dataclass(frozen=True)
class SkewedMean:
    """Hall's test that a mean is zero, and its interval. NaN with a `reason` where it cannot be made.

    `skewness` is that of the mean's estimate: of one sample, its own over the root of n.
    """

    skewness: float
    pvalue: float
    low: float
    high: float
    n: int
    reason: str | None = None

    def against(self, direction: float) -> bool:
        """Does the longer tail lie on the other side of `direction`, so that unseen values may too?"""
        return self.skewness * direction < 0


def hall(t: float, skewness: float) -> float:
    """Hall's monotone transformation of a studentised mean.

    Parameters
    ----------
    t : float
        Mean over its standard error.
    skewness : float
        Of the mean's estimate.

    Returns
    -------
    float
        Near to Student's t in distribution for skewed values, too. Beyond the point of inflection, 3 over the
        skewness, the cubic says nothing: a mean so far out is infinite.

    References
    ----------
    Hall (1992), J. R. Stat. Soc. B 54, 221-228, equation 2.4; for two samples Zhou and Dinh (2005),
    Biostatistics 6, 187-200.

    Examples
    --------
    >>> hall(2.0, 0.0), hall(2.0, -0.5) < 2.0
    (2.0, True)
    """
    a = skewness
    if a * t <= -3:
        return math.copysign(math.inf, t)
    return t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6


def hall_inverse(value: float, skewness: float) -> float:
    """The t whose transformation by :func:`hall` is `value`.

    Examples
    --------
    >>> round(hall_inverse(hall(1.7, 0.4), 0.4), 12)
    1.7
    """
    a = skewness
    return float(3 / a * (np.cbrt(max(0.0, 1 + a * (value - a / 6))) - 1)) if abs(a) > 1e-9 else value


def skewed_test(
    estimate: float, error: float, skewness: float, df: float, *, n: int, confidence: float
) -> SkewedMean:
    """Hall's test and interval from the mean, its standard error, its skewness and its degrees of freedom.

    Examples
    --------
    >>> round(skewed_test(2.0, 1.0, 0.0, 10, n=11, confidence=0.95).pvalue, 4)
    0.0734
    """
    half = float(special.stdtrit(df, (1 + confidence) / 2))
    p = float(2 * special.stdtr(df, -abs(hall(estimate / error, skewness))))
    low = estimate - error * hall_inverse(half, skewness)
    return SkewedMean(skewness, p, low, estimate - error * hall_inverse(-half, skewness), n)


def third_moment(x: FloatArray) -> float:
    """Third central moment, unbiased, times the factor for small samples; from 3 values on.

    Examples
    --------
    >>> third_moment(np.array([1.0, 2.0, 3.0]))
    0.0
    """
    n = x.size
    return float(((x - x.mean()) ** 3).sum()) * n / ((n - 1) * (n - 2)) * (1 + SMALL_SAMPLE / n)


def skewed_mean(parts: Sequence[ArrayLike], *, confidence: float = 0.95) -> SkewedMean:
    """Hall's t for the average over workloads of the mean difference, each workload weighing the same.

    Parameters
    ----------
    parts : sequence of array_like, shape (n_w,)
        Differences of each workload.
    confidence : float

    Returns
    -------
    SkewedMean
        With Satterthwaite's degrees of freedom for several workloads. NaN with a reason where one has fewer
        than 3 pairs, a trial diverged, or nothing varies.

    Notes
    -----
    Sign flips reject a mean of 0 in 11 to 15 % of samples of a lognormal shape. Skewness is counted 1 + 4 / n
    times, as small samples show too little of it (by simulation; docs/statistics.md has the levels).

    References
    ----------
    Hall (1992), J. R. Stat. Soc. B 54, 221-228; Satterthwaite (1946), Biometrics Bulletin 2, 110-114.

    Examples
    --------
    >>> skewed_mean([[1.0, 1.2, 0.9, 0.1]]).low < 0
    True
    """
    check_fraction(confidence, "confidence")
    samples = [one_dimensional(part) for part in parts]
    n, nan = sum(x.size for x in samples), math.nan
    reason = None
    scale = max(float(np.abs(x).max()) for x in samples)
    if min(x.size for x in samples) < 3 or not math.isfinite(scale):
        reason = "undefined: a skewness needs 3 finite pairs of each workload"
    elif scale == 0 or max(float(np.ptp(x)) for x in samples) <= 1e-9 * scale:
        reason = "undefined: all differences of a workload are equal, so their standard deviation is 0"
    if reason is not None:
        return SkewedMean(nan, nan, nan, nan, n, reason)
    k = len(samples)
    mean = variance = third = weight = 0.0
    for x in samples:
        z = x / scale
        v = float(z.var(ddof=1)) / z.size / k**2
        mean, variance, weight = mean + float(z.mean()) / k, variance + v, weight + v * v / (z.size - 1)
        third += third_moment(z) / z.size**2 / k**3
    found = skewed_test(
        mean, math.sqrt(variance), third / variance**1.5, variance**2 / weight, n=n, confidence=confidence
    )
    return replace(found, low=found.low * scale, high=found.high * scale)


def join(test: MeanTest, skewed: SkewedMean) -> MeanTest:
    """A test of a mean that must also hold where the longer tail lies on the other side of the finding.

    Parameters
    ----------
    test : MeanTest
    skewed : SkewedMean
        At the same confidence.

    Returns
    -------
    MeanTest
        A mean on the side of the longer tail is rejected if both reject it; the interval holds what is kept.

    Examples
    --------
    >>> d = [1.0, 1.2, 0.9, 1.1, 1.3, -1.0, 1.2, 1.0]
    >>> plain = mean_of_means([np.array(d)])
    >>> join(plain, skewed_mean([d])).low < plain.low
    True
    """
    if skewed.reason is not None or math.isnan(test.pvalue) or skewed.skewness == 0:
        return test
    below = skewed.skewness < 0
    low = min(test.low, skewed.low) if below else test.low
    high = test.high if below else max(test.high, skewed.high)
    p = max(test.pvalue, skewed.pvalue) if skewed.against(test.estimate) else test.pvalue
    same = (low, high, p) == (test.low, test.high, test.pvalue)
    method = test.method if same else f"{test.method}; Hall's t against the longer tail"
    return replace(test, low=low, high=high, pvalue=p, method=method)


def mean_test(parts: Sequence[FloatArray], *, confidence: float = 0.95) -> MeanTest:
    """Test and interval of the average mean difference: sign flips, and Hall's t against the longer tail.

    Parameters
    ----------
    parts : sequence of ndarray, shape (n_w,)
        Differences of each workload, positive where the candidate is better; none empty.
    confidence : float

    Returns
    -------
    MeanTest

    Examples
    --------
    >>> mean_test([np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0])]).pvalue
    0.03125
    """
    test = mean_of_means(parts, confidence=confidence)
    return join(test, skewed_mean(parts, confidence=confidence)) if math.isfinite(test.estimate) else test
