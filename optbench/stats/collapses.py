"""Runs that collapsed: far worse than the typical run of their own optimizer."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from optbench.stats.common import FloatArray

#: A run has collapsed if it lies this many robust standard deviations below its optimizer's median.
FAR = 8.0
#: Below this many runs the median absolute deviation says too little to call a run collapsed.
FEWEST_RUNS = 5
_ALIKE = 1e-3
_NORMAL = 1.4826


def spread(values: FloatArray) -> float:
    """Robust standard deviation of the finite values: 1.4826 times the median absolute deviation.

    Parameters
    ----------
    values : ndarray, shape (n,)

    Returns
    -------
    float
        A thousandth of the median's size at least, for runs of which half are alike. NaN without a finite
        value.

    References
    ----------
    Hampel (1974), JASA 69, 383-393.

    Examples
    --------
    >>> round(spread(np.array([0.9, 0.91, 0.92, 0.93, 0.1])), 4)
    0.0148
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return math.nan
    middle = float(np.median(finite))
    return max(_NORMAL * float(np.median(np.abs(finite - middle))), _ALIKE * abs(middle))


def collapsed(values: FloatArray, *, scale: float | None = None) -> NDArray[np.bool_]:
    """Which runs of one optimizer collapsed.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Larger is better; ``-inf`` for a diverged run, no NaN.
    scale : float, optional
        Robust standard deviation; by default that of `values`.

    Returns
    -------
    ndarray of bool, shape (n,)
        True for diverged runs, and from 5 runs on for those more than 8 robust standard deviations below the
        median.

    Notes
    -----
    Of normal values none is called collapsed in practice (at n = 5, where the spread itself is uncertain,
    about one sample in thirty has one). The threshold does not see how well the others do: a run can only
    collapse against its own optimizer.

    Examples
    --------
    >>> collapsed(np.array([0.9, 0.91, 0.92, 0.93, 0.1])).tolist()
    [False, False, False, False, True]
    """
    diverged = np.isneginf(values)
    finite = values[np.isfinite(values)]
    if finite.size < FEWEST_RUNS:
        return np.asarray(diverged)
    width = spread(values) if scale is None else scale
    return np.asarray(diverged | (values < float(np.median(finite)) - FAR * width))


def collapse_counts(candidate: FloatArray, baseline: FloatArray) -> tuple[int, int]:
    """Collapsed runs of both members of the pairs, on the larger of their two spreads.

    Parameters
    ----------
    candidate, baseline : ndarray, shape (n,)
        Larger is better, no NaN.

    Returns
    -------
    (int, int)

    Examples
    --------
    >>> collapse_counts(np.array([0.9, 0.91, 0.92, 0.93, 0.1]), np.array([0.9, 0.91, 0.92, 0.93, 0.9]))
    (1, 0)
    """
    widths = [w for w in (spread(candidate), spread(baseline)) if not math.isnan(w)]
    scale = max(widths) if widths else None
    return int(collapsed(candidate, scale=scale).sum()), int(collapsed(baseline, scale=scale).sum())


def unseen_rate(n: int, *, confidence: float = 0.95) -> float:
    """The largest rate of an event that n runs without it leave possible.

    Parameters
    ----------
    n : int
    confidence : float

    Returns
    -------
    float
        1 - (1 - confidence)^(1 / n), Clopper and Pearson's one-sided bound; 1 for n = 0.

    References
    ----------
    Clopper and Pearson (1934), Biometrika 26, 404-413.

    Examples
    --------
    >>> round(unseen_rate(20), 3)
    0.139
    """
    return 1.0 if n < 1 else 1 - (1 - confidence) ** (1 / n)
