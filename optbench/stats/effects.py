"""Effect sizes of paired differences: in raw units, in standard deviations, and by rank.

Differences are oriented so that positive means the candidate is better; infinities stand for diverged trials.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from optbench.stats.common import check_fraction, one_dimensional, round_significant
from optbench.stats.paired import DIVERGED_REASON, pratt_weights, spread_reason


@dataclass(frozen=True)
class MeanDifference:
    """Mean difference in raw units with its t interval; `sd` is the standard deviation of the differences."""

    estimate: float
    low: float
    high: float
    n: int
    sd: float
    confidence: float
    reason: str | None = None


@dataclass(frozen=True)
class StandardizedDifference:
    """`d_z` = mean / sd of the differences; `g_z` is Hedges' small-sample correction of it."""

    d_z: float
    g_z: float
    n: int
    reason: str | None = None


@dataclass(frozen=True)
class RankEffect:
    """Matched-pairs rank-biserial correlation, P(candidate wins) + P(tie) / 2, and the counts."""

    rank_biserial: float
    superiority: float
    wins: int
    ties: int
    losses: int


def mean_difference(d: ArrayLike, *, confidence: float = 0.95) -> MeanDifference:
    """Mean difference with Student's t interval (model-based: exact for normal differences).

    Parameters
    ----------
    d : array_like, shape (n,)
    confidence : float
        Between 0 and 1.

    Returns
    -------
    MeanDifference
        In the metric's units. With a diverged trial everything is NaN; with n = 1 or equal differences only
        the interval is. `reason` says so.

    Examples
    --------
    >>> m = mean_difference([1.0, 2.0, 3.0])
    >>> m.estimate, round(m.low, 3), round(m.high, 3)
    (2.0, -0.484, 4.484)
    """
    check_fraction(confidence, "confidence")
    x = one_dimensional(d)
    n, nan = int(x.size), math.nan
    if not np.isfinite(x).all():
        return MeanDifference(nan, nan, nan, n, nan, confidence, DIVERGED_REASON)
    mean, reason = float(x.mean()), spread_reason(x)
    if reason is not None:
        return MeanDifference(mean, nan, nan, n, 0.0 if n > 1 else nan, confidence, reason)
    sd = float(x.std(ddof=1))
    half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * sd / math.sqrt(n)
    return MeanDifference(mean, mean - half, mean + half, n, sd, confidence)


def standardized_difference(d: ArrayLike) -> StandardizedDifference:
    """d_z = mean / sd of the differences, and g_z = J(n - 1) d_z with Hedges' exact gamma-function J.

    Parameters
    ----------
    d : array_like, shape (n,)

    Returns
    -------
    StandardizedDifference
        NaN with a reason where the spread is undefined. g_z needs n >= 3.

    References
    ----------
    Hedges (1981), J. Educ. Stat. 6, 107-128, eq. 6e; Gibbons, Hedeker and Davis (1993), J. Educ. Stat. 18,
    271-279.

    Examples
    --------
    >>> s = standardized_difference([1.0, 2.0, 3.0])
    >>> s.d_z, round(s.g_z, 4)
    (2.0, 1.1284)
    """
    x = one_dimensional(d)
    n, reason = int(x.size), spread_reason(x)
    if reason is not None:
        return StandardizedDifference(math.nan, math.nan, n, reason)
    d_z = float(x.mean() / x.std(ddof=1))
    if n < 3:
        return StandardizedDifference(d_z, math.nan, n, f"g_z undefined: it needs 3 pairs, found {n}")
    df = n - 1
    log_j = special.gammaln(df / 2) - special.gammaln((df - 1) / 2) - 0.5 * math.log(df / 2)
    return StandardizedDifference(d_z, d_z * math.exp(log_j), n)


def rank_effect(d: ArrayLike) -> RankEffect:
    """Effects by rank, defined for every input, diverged trials included.

    Parameters
    ----------
    d : array_like, shape (n,)

    Returns
    -------
    RankEffect
        `rank_biserial` = (R+ - R-) / (R+ + R-) over the Pratt ranks that the signed-rank test uses, in [-1,
        1], 0 if all differences are 0. `superiority` = P(candidate wins) + P(tie) / 2 within pairs, in [0,
        1].

    References
    ----------
    Kerby (2014), Comprehensive Psychology 3, 11.IT.3.1; King, Rosopa and Minium (2011), Statistical
    Reasoning, ch. 19.

    Examples
    --------
    >>> rank_effect([1.0, 2.0, -3.0, 0.0])
    RankEffect(rank_biserial=0.1111111111111111, superiority=0.625, wins=2, ties=1, losses=1)
    """
    x = round_significant(one_dimensional(d))
    weights, signs = pratt_weights(x)
    wins, losses = int((x > 0).sum()), int((x < 0).sum())
    ties = int(x.size) - wins - losses
    biserial = float((weights * signs).sum() / weights.sum()) if weights.size else 0.0
    return RankEffect(biserial, (wins + ties / 2) / x.size, wins, ties, losses)
