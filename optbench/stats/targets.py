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
from optbench.stats.skew import hall, third_moment


@dataclass(frozen=True)
class TargetResult:
    """One group against a fixed number, one-sided. `sd` is the known one, or estimated from the runs.

    With a known sd the mean is tested: `pvalue` is z's, and `bound` the confidence bound of the mean. With an
    estimated one the typical (median) run is: `pvalue` is that of the exact sign test, and `bound` the
    confidence bound of the median; `p_mean` is t's, skewness allowed for. `reached` needs both.
    """

    n: int
    mean: float
    sd: float
    known_sd: bool
    target: float
    statistic: float
    pvalue: float
    p_mean: float
    bound: float
    alpha: float
    reached: bool
    reason: str | None = None

    @property
    def mixed(self) -> bool:
        """Whether of the typical run and the mean only one is shown to be beyond the target."""
        return (self.pvalue < self.alpha) != (self.p_mean < self.alpha)


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
    """Is the typical run, or with a known sd the mean, beyond a fixed number? One-sided.

    Parameters
    ----------
    values : array_like, shape (n,)
    target : float
    side : {"below", "above"}
        Where the mean should be.
    sd : float, optional
        Known standard deviation of a run: a z test of the mean. By default the exact sign test of the median,
        for any distribution, and Student's t of the mean as a second condition, with Hall's transformation
        where the longer tail lies on the other side.
    alpha : float

    Returns
    -------
    TargetResult
        `reached` is p < alpha. NaN with a reason for diverged runs and, without a known sd, where so few runs
        cannot reach alpha whatever they are, and for runs without spread.

    Notes
    -----
    No test of a mean keeps its level for few runs whose tail may be longer than it looks: t finds 5 runs of
    a lognormal shape beyond a target that is their mean in 19 %. Runs equal to the target count against.

    References
    ----------
    Dixon and Mood (1946), JASA 41, 557-566 (sign test and its interval).

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
    elif sd is None and n < (needed := fewest(alpha)):
        reason = f"{n} runs cannot reach p < {alpha:g}: {needed} are needed, or a known sd"
    elif sd is None and np.ptp(x) <= 1e-12 * float(np.abs(x).max()):
        reason = "undefined: all runs are equal"
    if reason is not None:
        mean = float(x.mean()) if np.isfinite(x).all() else nan
        return TargetResult(n, mean, nan, sd is not None, target, nan, nan, nan, nan, alpha, False, reason)
    if sd is None:
        return _typical(x, target, sign, alpha)
    error = sd / math.sqrt(n)
    statistic = float(x.mean() - target) / error
    p = float(special.ndtr(-sign * statistic))
    bound = float(x.mean()) - sign * float(special.ndtri(1 - alpha)) * error
    return TargetResult(n, float(x.mean()), sd, True, target, statistic, p, p, bound, alpha, p < alpha)


def fewest(alpha: float) -> int:
    """The fewest runs of which a sign test can be below alpha, one-sided.

    Examples
    --------
    >>> fewest(0.05), fewest(0.001)
    (5, 10)
    """
    return next(n for n in range(1, 1075) if math.ldexp(1.0, -n) < alpha)


def _typical(x: FloatArray, target: float, sign: float, alpha: float) -> TargetResult:
    """The exact sign test of the median and its bound, and t of the mean, skewness allowed for."""
    n, gap = int(x.size), float(x.mean()) - target
    beyond = int((sign * (x - target) > 0).sum())
    p = float(special.bdtrc(beyond - 1, n, 0.5)) if beyond else 1.0
    # The bound is beyond the target exactly if p < alpha: the run that must be beyond it, counted from afar.
    counts = special.bdtrc(np.arange(n), n, 0.5)  # P(at least 1, 2, .. n beyond)
    least = int(np.flatnonzero(counts < alpha)[0]) + 1
    bound = sign * float(np.sort(sign * x)[::-1][least - 1])
    sd = float(x.std(ddof=1))
    error = sd / math.sqrt(n)
    skewness = third_moment(x) / n**2 / error**3
    t = gap / error
    if skewness * sign < 0:  # runs that were not seen may lie beyond the target
        t = min(t, hall(t, skewness)) if sign > 0 else max(t, hall(t, skewness))
    p_mean = float(special.stdtr(n - 1, -sign * t))
    reached = p < alpha and p_mean < alpha
    return TargetResult(n, float(x.mean()), sd, False, target, t, p, p_mean, bound, alpha, reached)


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
