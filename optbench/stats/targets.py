"""Independent runs against a fixed target, and a sequence of set-ups that each claim a record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from optbench.stats.common import FloatArray, StatsError, check_fraction, one_dimensional
from optbench.stats.paired import DIVERGED_REASON
from optbench.stats.skew import hall, hall_inverse, third_moment


@dataclass(frozen=True)
class TargetResult:
    """One group against a fixed number. `sd` is the known one, or estimated from the runs.

    `statistic` is z for a known and t for an estimated sd. `bound` is the one-sided confidence bound of the
    mean on the side of the target.
    """

    n: int
    mean: float
    sd: float
    known_sd: bool
    target: float
    statistic: float
    pvalue: float
    bound: float
    alpha: float
    reached: bool
    reason: str | None = None


@dataclass(frozen=True)
class Record:
    """One set-up in a sequence: is it below the target, in fewer steps than the record, and better than it?

    `difference` is the loss by which it is better than the record before it, on equal terms (steps exchanged
    for loss); `p_previous` the one-sided p of that.
    """

    group: str
    steps: float
    target: TargetResult
    is_record: bool
    previous: str | None
    difference: float
    p_previous: float
    beats_previous: bool


def against_target(
    values: ArrayLike,
    *,
    target: float,
    side: Literal["below", "above"] = "below",
    sd: float | None = None,
    alpha: float = 0.05,
) -> TargetResult:
    """Is the mean of independent runs beyond a fixed number? One-sided.

    Parameters
    ----------
    values : array_like, shape (n,)
    target : float
    side : {"below", "above"}
        Where the mean should be.
    sd : float, optional
        Known standard deviation of a run: a z test. By default it is estimated: a t test, from 2 runs on;
        with Hall's transformation from 3 on, where the longer tail lies beyond the target.
    alpha : float

    Returns
    -------
    TargetResult
        `reached` is p < alpha. NaN with a reason for one run without a known sd, for runs without spread, and
        for diverged runs.

    Examples
    --------
    >>> against_target([3.277, 3.278, 3.276, 3.277], target=3.28, sd=0.0013, alpha=0.001).reached
    True
    """
    check_fraction(alpha, "alpha")
    if sd is not None and not (math.isfinite(sd) and sd > 0):
        raise StatsError(f"sd: found {sd!r}, allowed is a positive number")
    x = one_dimensional(values, "values")
    n, sign, nan = int(x.size), -1.0 if side == "below" else 1.0, math.nan
    reason = None
    if not np.isfinite(x).all():
        reason = DIVERGED_REASON
    elif sd is None and n < 2:
        reason = f"undefined: a spread needs 2 runs, found {n}; or give a known sd"
    elif sd is None and np.ptp(x) <= 1e-12 * float(np.abs(x).max()):
        reason = "undefined: all runs are equal"
    if reason is not None:
        mean = float(x.mean()) if np.isfinite(x).all() else nan
        return TargetResult(n, mean, nan, sd is not None, target, nan, nan, nan, alpha, False, reason)
    width = float(x.std(ddof=1)) if sd is None else sd
    error = width / math.sqrt(n)
    if sd is None and n > 2:
        return _by_skewed_t(x, width, target, sign, alpha)
    statistic = float(x.mean() - target) / error
    p = float(special.stdtr(n - 1, -sign * statistic) if sd is None else special.ndtr(-sign * statistic))
    quantile = float(special.stdtrit(n - 1, 1 - alpha) if sd is None else special.ndtri(1 - alpha))
    bound = float(x.mean()) - sign * quantile * error
    return TargetResult(
        n, float(x.mean()), width, sd is not None, target, statistic, p, bound, alpha, p < alpha
    )


def _by_skewed_t(x: FloatArray, sd: float, target: float, sign: float, alpha: float) -> TargetResult:
    """Student's t at the target, and Hall's where the longer tail lies on the other side of the finding."""
    n, gap = int(x.size), float(x.mean()) - target
    error = sd / math.sqrt(n)
    skewness = third_moment(x) / n**2 / error**3
    quantile = float(special.stdtrit(n - 1, 1 - alpha))
    t, bound = gap / error, sign * quantile
    if skewness * sign < 0:  # runs that were not seen may lie beyond the target
        t = min(t, hall(t, skewness)) if sign > 0 else max(t, hall(t, skewness))
        inverse = hall_inverse(sign * quantile, skewness)
        bound = max(bound, inverse) if sign > 0 else min(bound, inverse)
    p = float(special.stdtr(n - 1, -sign * t))
    mean = float(x.mean())
    return TargetResult(n, mean, sd, False, target, t, p, mean - error * bound, alpha, p < alpha)


def records(
    groups: Mapping[str, tuple[float, ArrayLike]],
    *,
    target: float,
    sd: float,
    loss_per_step: float,
    alpha: float = 0.001,
) -> tuple[Record, ...]:
    """A sequence of set-ups against a target loss in ever fewer steps, and each against the record before.

    Parameters
    ----------
    groups : mapping of name to (steps, losses)
        In the order in which they came.
    target : float
        Mean loss to be below.
    sd : float
        Known standard deviation of one run.
    loss_per_step : float
        What a step is worth: losses of set-ups of different steps are compared after exchanging them.
    alpha : float
        One-sided, of each test.

    Returns
    -------
    tuple of Record
        `is_record`: below the target at alpha, and in fewer steps than the record before it.

    Examples
    --------
    >>> runs = [3.27] * 4
    >>> found = records({"a": (9, runs), "b": (8, runs)}, target=3.28, sd=0.001, loss_per_step=0)
    >>> [r.is_record for r in found], found[1].p_previous
    ([True, True], 0.5)
    """
    best: tuple[str, float, FloatArray] | None = None
    result = []
    for name, (steps, losses) in groups.items():
        x = one_dimensional(losses, name)
        test = against_target(x, target=target, sd=sd, alpha=alpha)
        gap, p = math.nan, math.nan
        if best is not None:
            gap = float(best[2].mean() - x.mean()) + loss_per_step * (best[1] - steps)
            p = float(special.ndtr(-gap / (sd * math.sqrt(1 / x.size + 1 / best[2].size))))
        record = test.reached and (best is None or steps < best[1])
        previous = best[0] if best else None
        result.append(Record(name, steps, test, record, previous, gap, p, p < alpha))
        if record:
            best = (name, steps, x)
    return tuple(result)
