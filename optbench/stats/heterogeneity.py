"""Do workloads agree? Cochran's Q with I2, and Gail and Simon's test of effects of opposite sign."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from optbench.stats.common import FloatArray


@dataclass(frozen=True)
class Heterogeneity:
    """How much the mean differences of workloads differ beyond what their seeds explain.

    `q` is Cochran's statistic, `q_pvalue` its p after Welch's correction for estimated variances, `i2` the
    share of the variance of the means that is not noise. `opposite` is Gail and Simon's min(Q+, Q-) and
    `opposite_pvalue` its p: small where some workloads favour the candidate and others the baseline.
    `n_used` workloads enter: those with 2 pairs or more that are not all equal.
    """

    q: float
    q_pvalue: float
    i2: float
    opposite: float
    opposite_pvalue: float
    n_used: int
    reason: str | None = None


def heterogeneity(parts: Sequence[FloatArray]) -> Heterogeneity:
    """Compare the mean differences of several workloads.

    Parameters
    ----------
    parts : sequence of ndarray, shape (n_w,)
        Differences of each workload.

    Returns
    -------
    Heterogeneity
        NaN with a reason where fewer than 2 workloads have a spread, or a trial diverged.

    Notes
    -----
    Q weighs by estimated variances, so its chi-square p is far too small for a few seeds; Welch's F corrects
    that. Gail and Simon's test takes known variances: each workload's t is first brought to the normal z of
    the same tail.

    References
    ----------
    Cochran (1954), Biometrics 10, 101-129; Higgins and Thompson (2002), Stat. Med. 21, 1539-1558; Welch
    (1951), Biometrika 38, 330-336; Gail and Simon (1985), Biometrics 41, 361-372.

    Examples
    --------
    >>> h = heterogeneity([np.array([1.0, 1.1, 0.9, 1.05]), np.array([-1.0, -1.1, -0.9, -0.95])])
    >>> h.opposite_pvalue < 0.01, round(h.i2, 2)
    (True, 1.0)
    """
    nan = math.nan
    if not all(np.isfinite(part).all() for part in parts):
        return Heterogeneity(nan, nan, nan, nan, nan, 0, "undefined: a diverged trial has no finite value")
    used = [p for p in parts if p.size > 1 and np.ptp(p) > 1e-9 * float(np.abs(p).max())]
    k = len(used)
    if k < 2:
        few = f"undefined: needs 2 workloads whose differences vary, found {k}"
        return Heterogeneity(nan, nan, nan, nan, nan, k, few)
    sizes = np.array([p.size for p in used])
    means = np.array([p.mean() for p in used])
    weights = sizes / np.array([p.var(ddof=1) for p in used])
    centre = float((weights * means).sum() / weights.sum())
    q = float((weights * (means - centre) ** 2).sum())
    unequal = float(((1 - weights / weights.sum()) ** 2 / (sizes - 1)).sum())
    f = q / (k - 1) / (1 + 2 * (k - 2) / (k * k - 1) * unequal)
    p_q = float(special.fdtrc(k - 1, (k * k - 1) / (3 * unequal), f))
    z = _normal_scores(means * np.sqrt(weights), sizes - 1)
    opposite, p_opposite = gail_simon(z)
    i2 = max(0.0, (q - (k - 1)) / q) if q > 0 else 0.0
    reason = None if k == len(parts) else f"{len(parts) - k} of {len(parts)} workloads have no spread"
    return Heterogeneity(q, p_q, i2, opposite, p_opposite, k, reason)


def _normal_scores(t: FloatArray, df: ArrayLike) -> FloatArray:
    """The z of the same tail as each t."""
    tails = special.stdtr(df, -np.abs(t))
    return np.asarray(np.sign(t) * -special.ndtri(np.maximum(tails, 1e-300)), dtype=np.float64)


def gail_simon(z: ArrayLike) -> tuple[float, float]:
    """Gail and Simon's likelihood-ratio test of a qualitative interaction.

    Parameters
    ----------
    z : array_like, shape (k,)
        Effect over standard error in each of k >= 2 independent groups.

    Returns
    -------
    statistic : float
        min(Q+, Q-): the sums of z^2 over the groups on either side.
    pvalue : float
        Of the hypothesis that no two effects have opposite signs.

    References
    ----------
    Gail and Simon (1985), Biometrics 41, 361-372, equation 6; critical values in their table 1.

    Examples
    --------
    >>> round(gail_simon([2.71**0.5, -(2.71**0.5)])[1], 2)
    0.05
    """
    x = np.asarray(z, dtype=np.float64)
    k = x.size
    smaller = float(min((x[x > 0] ** 2).sum(), (x[x < 0] ** 2).sum()))
    if k < 2 or smaller == 0:
        return smaller, 1.0
    h = np.arange(1, k)
    share = special.comb(k - 1, h) * 0.5 ** (k - 1)
    return smaller, min(1.0, float((share * special.chdtrc(h, smaller)).sum()))
