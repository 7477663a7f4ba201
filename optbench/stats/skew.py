"""A mean of skewed differences: Johnson's t, which allows for the skewness that is seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from optbench.stats.common import one_dimensional
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
