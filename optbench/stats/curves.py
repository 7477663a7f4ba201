"""Training curves: one pre-declared scalar, and a test of the whole curve at a family-wise level."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from optbench.stats.common import FloatArray, StatsError, check_fraction

#: All sign patterns are counted up to this many pairs, sampled above.
_EXACT_PAIRS = 12


@dataclass(frozen=True)
class CurveTest:
    """Max-T sign-flip test of a mean difference curve.

    `adjusted_p` holds for all points together; `pvalue` is its minimum, the test of "anywhere". `low` and
    `high` are the simultaneous band mean +- critical * standard error; `pointwise_low` and `pointwise_high`
    are description only.
    """

    mean: FloatArray
    statistic: FloatArray
    adjusted_p: FloatArray
    pvalue: float
    critical: float
    low: FloatArray
    high: FloatArray
    pointwise_low: FloatArray
    pointwise_high: FloatArray
    n: int
    method: str
    smallest_attainable_p: float


def log_loss_area(steps: ArrayLike, loss: ArrayLike) -> float:
    """Mean log-loss over the steps: the area under log(loss) against steps, divided by the range of steps.

    Parameters
    ----------
    steps : array_like, shape (t,)
        Strictly increasing.
    loss : array_like, shape (t,)
        Positive; a non-finite value means the run diverged.

    Returns
    -------
    float
        In natural-log units, trapezoidal; smaller is better. ``inf`` for a diverged run.

    Examples
    --------
    >>> log_loss_area([0, 1, 2], [1.0, 1.0, 1.0])
    0.0
    """
    x, y = np.asarray(steps, dtype=np.float64), np.asarray(loss, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or x.size < 2 or not (np.diff(x) > 0).all():
        raise StatsError(
            f"curve: found shapes {x.shape}, {y.shape}; allowed are increasing steps, one loss each"
        )
    if not np.isfinite(y).all():
        return math.inf
    if (y <= 0).any():
        raise StatsError(
            f"loss: found {y.min()}, allowed are values > 0, because the area is under log(loss)"
        )
    log = np.log(y)
    return float((np.diff(x) * (log[1:] + log[:-1]) / 2).sum() / (x[-1] - x[0]))


def max_t(curves: ArrayLike, *, alpha: float = 0.05, draws: int = 4999, seed: int = 0) -> CurveTest:
    """Test a curve of paired differences at all points at once, by sign flips of whole curves.

    Parameters
    ----------
    curves : array_like, shape (n, t)
        One difference curve per pair, positive where the candidate is better; finite.
    alpha : float
        Family-wise level over the t points.
    draws, seed : int
        Random sign patterns above 12 pairs; p = (b + 1) / (draws + 1).

    Returns
    -------
    CurveTest

    Notes
    -----
    Flipping whole curves keeps the correlation of neighbouring points, so the family-wise error is exact
    under symmetry however many points are drawn. The band uses flips of the centred curves, and is
    approximate for small n (see docs/statistics.md for its coverage).

    References
    ----------
    Westfall and Young (1993), Resampling-Based Multiple Testing; Nichols and Holmes (2002),
    Hum. Brain Mapp. 15, 1-25.

    Examples
    --------
    >>> max_t([[1.0, 0.1], [1.1, -0.1], [0.9, 0.2], [1.2, 0.0], [1.0, -0.2], [1.1, 0.1]]).adjusted_p.round(3)
    array([0.031, 1.   ])
    """
    check_fraction(alpha, "alpha")
    d = np.asarray(curves, dtype=np.float64)
    if d.ndim != 2 or d.shape[0] < 2 or d.shape[1] < 1 or not np.isfinite(d).all():
        raise StatsError(
            f"curves: found shape {d.shape} with {int((~np.isfinite(d)).sum())} not finite; allowed is "
            "(pairs, points), at least 2 pairs: compare diverged runs by their outcome"
        )
    n = d.shape[0]
    if n <= _EXACT_PAIRS:
        bits = (np.arange(2 ** (n - 1))[:, None] >> np.arange(n)) & 1
        method, smallest = "exact", 2.0 ** (1 - n)
    else:
        bits = np.random.default_rng(seed).integers(0, 2, size=(draws, n))
        method, smallest = f"Monte Carlo, {draws} draws", 1 / (draws + 1)
    signs: FloatArray = 1.0 - 2.0 * bits.astype(np.float64)
    observed = np.abs(_t(d.mean(axis=0), d))
    largest = _largest(signs, d)
    # The tolerance lets the identity pattern, computed by another route, count as equal to the observed
    # curve.
    reached = largest[:, None] >= observed[None, :] * (1 - 1e-9)
    p = reached.mean(axis=0) if method == "exact" else (reached.sum(axis=0) + 1) / (draws + 1)
    mean, error = d.mean(axis=0), d.std(axis=0, ddof=1) / math.sqrt(n)
    centred = _largest(signs, d - mean)
    critical = (
        float(np.quantile(centred[np.isfinite(centred)], 1 - alpha))
        if np.isfinite(centred).any()
        else math.nan
    )
    pointwise = float(special.stdtrit(n - 1, 1 - alpha / 2))
    return CurveTest(
        mean=mean,
        statistic=_t(mean, d),
        adjusted_p=p,
        pvalue=float(p.min()),
        critical=critical,
        low=mean - critical * error,
        high=mean + critical * error,
        pointwise_low=mean - pointwise * error,
        pointwise_high=mean + pointwise * error,
        n=n,
        method=method,
        smallest_attainable_p=smallest,
    )


def _t(mean: FloatArray, d: FloatArray) -> FloatArray:
    """T statistics of flipped means: the sum of squares of the flipped curves is that of the curves."""
    n = len(d)
    square = (d**2).mean(axis=0)
    variance = np.maximum(square - mean**2, 0.0)
    flat = variance <= 1e-12 * square
    with np.errstate(divide="ignore", invalid="ignore"):
        t = mean * np.sqrt((n - 1) / np.where(flat, 1.0, variance))
        return np.where(flat, np.where(square > 0, np.sign(mean) * np.inf, 0.0), t)


def _largest(signs: FloatArray, d: FloatArray) -> FloatArray:
    result = np.empty(len(signs))
    for start in range(0, len(signs), 500):  # in parts: patterns x points may be large
        part = signs[start : start + 500]
        result[start : start + len(part)] = np.abs(_t(part @ d / len(d), d)).max(axis=1)
    return result
