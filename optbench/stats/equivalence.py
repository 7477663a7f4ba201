"""Equivalence of the typical run, with the mean and the collapsed runs looked at on their own.

A mean can be carried by runs that are too rare to be seen: if one run in twenty loses 0.8 accuracy, a third
of all samples of 20 hold no such run, and no test can tell them from samples without collapses. Student's
two one-sided tests then call a mean difference exactly at the margin equivalent in 7, 19 and 47 % at n = 5,
10 and 20. What n pairs can show is that the median difference lies inside the margin, which the sign test
shows whatever the shape of the differences. So that is the claim; a visible collapse, or one pair that
carries the mean, refuses it, and the rate of collapses that n pairs leave possible is said beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from optbench.stats.collapses import unseen_rate
from optbench.stats.common import StatsError, one_dimensional
from optbench.stats.paired import spread_reason, tost


@dataclass(frozen=True)
class Equivalence:
    """Is the typical difference inside (-margin, margin)?

    `pvalue` is the largest of four: the two one-sided sign tests of the median (`p_median` is the larger) and
    Student's two one-sided tests of the mean (`p_mean`, by which the mean seen must lie inside as well).
    `unseen_rate` is the rate of collapses that n pairs without one leave possible at 95 %.
    `smallest_attainable_p` is 2^-n.
    """

    pvalue: float
    p_median: float
    p_mean: float
    margin: float
    n: int
    unseen_rate: float
    smallest_attainable_p: float
    reason: str | None = None


def equivalence(d: ArrayLike, *, margin: float, collapsed: int = 0) -> Equivalence:
    """Test that the typical (median) difference is smaller than the margin, both ways.

    Parameters
    ----------
    d : array_like, shape (n,)
        Differences.
    margin : float
        The largest difference that does not matter, in the metric's units, declared beforehand; > 0.
    collapsed : int
        Collapsed runs among the pairs (see `optbench.stats.collapses`).

    Returns
    -------
    Equivalence
        Refused (NaN, with a reason) where a run collapsed or diverged, where one pair moves the mean by more
        than half of the margin, for n < 2 and for sd(d) = 0.

    Notes
    -----
    Differences equal to a margin count against equivalence. The level holds for the median of any
    distribution, ties included. Nothing is claimed about the mean beyond the runs that were seen.

    References
    ----------
    Schuirmann (1987), J. Pharmacokinet. Biopharm. 15, 657-680; Wellek (2010), Testing Statistical Hypotheses
    of Equivalence and Noninferiority, section 5.3 (paired sign test).

    Examples
    --------
    >>> equivalence([0.01, -0.01, 0.005, -0.002, 0.001], margin=0.02).p_median
    0.03125
    """
    if not (math.isfinite(margin) and margin > 0):
        raise StatsError(f"margin: found {margin!r}, allowed is a positive number in the metric's units")
    x = one_dimensional(d)
    n = int(x.size)
    rate, smallest = unseen_rate(n), math.ldexp(1.0, -min(n, 1000))
    reason = _refusal(x, margin, collapsed)
    if reason is not None:
        return Equivalence(math.nan, math.nan, math.nan, margin, n, rate, smallest, reason)
    inside = min(int((x > -margin).sum()), int((x < margin).sum()))
    p_median = float(special.bdtrc(inside - 1, n, 0.5)) if inside else 1.0
    p_mean = tost(x, margin=margin).pvalue
    return Equivalence(max(p_median, p_mean), p_median, p_mean, margin, n, rate, smallest)


def _refusal(x: np.ndarray[tuple[int], np.dtype[np.float64]], margin: float, collapsed: int) -> str | None:
    reason = spread_reason(x)
    if reason is not None:
        return reason
    if collapsed:
        return f"refused: {collapsed} collapsed runs carry the mean, which the typical run does not show"
    moved = float(np.abs(x - np.median(x)).max()) / x.size
    if moved > margin / 2:
        return f"refused: one pair moves the mean by {moved:.3g}, more than half of the margin {margin:g}"
    return None
