"""A mean of skewed differences: Johnson's t, which allows for the skewness that is seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from optbench.stats.common import FloatArray, one_dimensional
from optbench.stats.paired import spread_reason


@dataclass(frozen=True)
class SkewedMean:
    """Johnson's test that a mean is zero. NaN with a `reason` where there is no spread, or n < 3."""

    skewness: float
    statistic: float
    pvalue: float
    n: int
    reason: str | None = None

    def against(self, direction: float) -> bool:
        """Does the longer tail lie on the other side of `direction`, so that unseen values may too?"""
        return self.skewness * direction < 0


def johnson_t(d: ArrayLike) -> SkewedMean:
    """Student's t with the skewness of the sample allowed for, two-sided.

    Parameters
    ----------
    d : array_like, shape (n,)

    Returns
    -------
    SkewedMean
        `skewness` is the third standardised moment, unbiased in its numerator.

    Notes
    -----
    A sample whose long tail lies below its mean has, on average, seen too little of it: mean and spread err
    together, and t is too large. The statistic is [m + k / (6 s^2 n) + k m^2 / (3 s^4)] sqrt(n) / s with the
    third moment k, on n - 1 degrees of freedom. Sign flips and t reject a mean of 0 in 11 to 15 % of samples
    of a lognormal shape; see docs/statistics.md for what is left.

    References
    ----------
    Johnson (1978), JASA 73, 536-544, equation 2.5.

    Examples
    --------
    >>> round(johnson_t([1.0, 2.0, 3.0]).statistic, 4)
    3.4641
    """
    x = one_dimensional(d)
    n, reason = int(x.size), spread_reason(x)
    if reason is None and n < 3:
        reason = f"undefined: a skewness needs 3 pairs, found {n}"
    if reason is not None:
        return SkewedMean(math.nan, math.nan, math.nan, n, reason)
    sd = float(x.std(ddof=1))
    z = x / sd
    mean = float(z.mean())
    third = float(((z - mean) ** 3).sum()) * n / ((n - 1) * (n - 2))
    t = float(np.clip((mean + third / (6 * n) + third * mean**2 / 3) * math.sqrt(n), -1e150, 1e150))
    return SkewedMean(third, t, float(2 * special.stdtr(n - 1, -abs(t))), n)


def johnson_mean_of_means(parts: Sequence[FloatArray]) -> SkewedMean:
    """Johnson's t for the average over workloads of the mean difference, each workload weighing the same.

    Parameters
    ----------
    parts : sequence of ndarray, shape (n_w,)

    Returns
    -------
    SkewedMean
        With the cumulants of the average in place of a sample's, and Satterthwaite's degrees of freedom. NaN
        with a reason where a workload has fewer than 3 pairs or nothing varies.

    References
    ----------
    Johnson (1978), JASA 73, 536-544; Satterthwaite (1946), Biometrics Bulletin 2, 110-114.

    Examples
    --------
    >>> x = np.array([1.0, 2.0, 4.0])
    >>> round(johnson_mean_of_means([x]).statistic - johnson_t(x).statistic, 9)
    0.0
    """
    n = sum(p.size for p in parts)
    if min(p.size for p in parts) < 3 or not all(np.isfinite(p).all() for p in parts):
        reason = "undefined: needs 3 finite pairs in each workload"
        return SkewedMean(math.nan, math.nan, math.nan, n, reason)
    scale = max(float(np.abs(p).max()) for p in parts)
    if scale == 0 or max(float(np.ptp(p)) for p in parts) <= 1e-9 * scale:
        return SkewedMean(math.nan, math.nan, math.nan, n, "undefined: nothing varies within the workloads")
    d = len(parts)
    variance = third = weight = mean = 0.0
    for p in parts:
        z, m = p / scale, p.size
        v = float(z.var(ddof=1)) / m / d**2
        k3 = float(((z - z.mean()) ** 3).sum()) * m / ((m - 1) * (m - 2))
        mean, variance, weight = mean + float(z.mean()) / d, variance + v, weight + v * v / (m - 1)
        third += k3 / m**2 / d**3
    t = (mean + third / (6 * variance) + third * mean**2 / (3 * variance**2)) / math.sqrt(variance)
    t = float(np.clip(t, -1e150, 1e150))
    p_value = float(2 * special.stdtr(variance**2 / weight, -abs(t)))
    return SkewedMean(third / variance**1.5, t, p_value, n)
