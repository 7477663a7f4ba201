"""Performance profiles over workloads, their exact integral, and AlgoPerf's rule for held-out workloads."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from optbench.stats.common import FloatArray, StatsError


def performance_ratios(times: ArrayLike) -> FloatArray:
    """Time over the best time on the same workload.

    Parameters
    ----------
    times : array_like, shape (w, k)
        Positive times of k optimizers on w workloads; ``inf`` where the target was not reached.

    Returns
    -------
    ndarray, shape (w, k)
        1 for the best; ``inf`` everywhere on a workload that nobody solved.

    References
    ----------
    Dolan and More (2002), Math. Program. 91, 201-213.

    Examples
    --------
    >>> performance_ratios([[10.0, 20.0], [float("inf"), 5.0]])
    array([[ 1.,  2.],
           [inf,  1.]])
    """
    t = np.asarray(times, dtype=np.float64)
    if t.ndim != 2 or t.size == 0 or np.isnan(t).any() or (t <= 0).any():
        raise StatsError(
            f"times: found shape {t.shape}; allowed is (workloads, optimizers) with positive times, "
            "inf for a target that was not reached, no NaN"
        )
    best = t.min(axis=1, keepdims=True)
    return np.where(np.isinf(t), np.inf, t / np.where(np.isinf(best), 1.0, best))


def performance_profile(times: ArrayLike, taus: ArrayLike) -> FloatArray:
    """Share of workloads solved within a factor tau of the best.

    Parameters
    ----------
    times : array_like, shape (w, k)
    taus : array_like, shape (m,)
        Factors >= 1.

    Returns
    -------
    ndarray, shape (m, k)

    References
    ----------
    Dolan and More (2002), Math. Program. 91, 201-213.

    Examples
    --------
    >>> performance_profile([[10.0, 20.0], [float("inf"), 5.0]], [1.0, 2.0])
    array([[0.5, 0.5],
           [0.5, 1. ]])
    """
    ratios = performance_ratios(times)
    tau = np.asarray(taus, dtype=np.float64)
    return np.asarray((ratios[None, :, :] <= tau[:, None, None]).mean(axis=1), dtype=np.float64)


def profile_score(times: ArrayLike, *, r_max: float = 4.0, grid: int | None = None) -> FloatArray:
    """Normalised area under the performance profile from 1 to r_max.

    Parameters
    ----------
    times : array_like, shape (w, k)
    r_max : float
        Largest factor, > 1; AlgoPerf uses 4.
    grid : int, optional
        Instead of the exact integral, the trapezoid rule on this many equal steps, as AlgoPerf's scoring code
        computes it (100 points): off by up to about half a grid step per workload.

    Returns
    -------
    ndarray, shape (k,)
        In [0, 1]; exact: mean over workloads of clip((r_max - r) / (r_max - 1), 0, 1).

    References
    ----------
    Dahl et al. (2023), Benchmarking Neural Network Training Algorithms, arXiv:2306.07179.

    Examples
    --------
    >>> profile_score([[10.0, 25.0]])
    array([1. , 0.5])
    """
    if not r_max > 1:
        raise StatsError(f"r_max: found {r_max!r}, allowed is a factor above 1")
    if grid is None:
        ratios = performance_ratios(times)
        return np.asarray(np.clip((r_max - ratios) / (r_max - 1), 0.0, 1.0).mean(axis=0), dtype=np.float64)
    tau = np.linspace(1.0, r_max, grid)
    rho = performance_profile(times, tau)
    return np.asarray((rho[1:] + rho[:-1]).sum(axis=0) / 2 / (grid - 1), dtype=np.float64)


def with_held_out(times: ArrayLike, held_out: ArrayLike, *, factor: float = 4.0) -> FloatArray:
    """Withdraw a workload's time where the optimizer fails on its held-out variant.

    Parameters
    ----------
    times, held_out : array_like, shape (w, k)
        Times on the workloads and on their variants; NaN in `held_out` where a workload has no variant.
    factor : float
        A variant is failed above this multiple of the fastest time on it.

    Returns
    -------
    ndarray, shape (w, k)

    References
    ----------
    AlgoPerf RULES.md, "Scoring submissions with held-out workloads".

    Examples
    --------
    >>> with_held_out([[10.0, 20.0]], [[50.0, 10.0]])
    array([[inf, 20.]])
    """
    t, h = np.asarray(times, dtype=np.float64), np.asarray(held_out, dtype=np.float64)
    if t.shape != h.shape or t.ndim != 2:
        raise StatsError(f"found shapes {t.shape} and {h.shape}; both are (workloads, optimizers)")
    known = ~np.isnan(h)
    best = np.where(known, h, np.inf).min(axis=1, keepdims=True)
    failed = known & (np.isinf(h) | (h > factor * best))
    return np.where(failed, np.inf, t)
