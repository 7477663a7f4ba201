"""What tuning costs: the expected best after k tuning trials, and warnings about the edge of a grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from optbench.stats.common import FloatArray, StatsError, check_fraction, one_dimensional


@dataclass(frozen=True)
class TuningCurve:
    """Best validation result after k = 1 .. n trials.

    `unbiased` and `biased` estimate the expectation. `median_low` and `median_high` hold the median of the
    best of k for all k together with the given confidence, without assumptions on the distribution; infinite
    where n is too small to bound it.
    """

    k: tuple[int, ...]
    unbiased: tuple[float, ...]
    biased: tuple[float, ...]
    median: tuple[float, ...]
    median_low: tuple[float, ...]
    median_high: tuple[float, ...]
    n: int
    n_diverged: int
    confidence: float


def expected_best(values: ArrayLike, k: int, *, unbiased: bool = True) -> float:
    """Expected maximum of k independent tuning trials.

    Parameters
    ----------
    values : array_like, shape (n,)
        Results of n independent trials (random search), larger is better; ``-inf`` for a diverged one.
    k : int
        Budget; 1 <= k <= n for the unbiased estimator.
    unbiased : bool
        True: the U-statistic, the mean over all subsets of size k. False: the V-statistic, draws with
        replacement from the n results, biased downwards, more so as k nears n.

    Returns
    -------
    float
        ``-inf`` if a diverged trial can be the best of k.

    References
    ----------
    Dodge et al. (2019), EMNLP, 2185-2194 (biased); Tang et al. (2020), ACL, 2683-2687 (unbiased).

    Examples
    --------
    >>> [round(expected_best([1.0, 2.0, 3.0], 2, unbiased=u), 4) for u in (True, False)]
    [2.6667, 2.4444]
    """
    y = np.sort(one_dimensional(values, "values"))
    n = y.size
    if k < 1 or (unbiased and k > n):
        raise StatsError(f"k: found {k}, allowed are 1 to {n} trials; run more for a larger budget")
    i = np.arange(1, n + 1)
    if unbiased:
        log = special.gammaln(i) - special.gammaln(np.maximum(i - k, 0) + 1) - special.gammaln(k)
        total = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
        weights = np.where(i >= k, np.exp(log - total), 0.0)
    else:
        weights = (i / n) ** k - ((i - 1) / n) ** k
    used = weights > 0
    return float((weights[used] * y[used]).sum() / weights.sum())


def tuning_curve(values: ArrayLike, *, confidence: float = 0.95) -> TuningCurve:
    """The whole tuning curve with both estimators and a distribution-free band.

    Parameters
    ----------
    values : array_like, shape (n,)
        As in `expected_best`.
    confidence : float

    Returns
    -------
    TuningCurve

    Notes
    -----
    The median of the best of k is the quantile 0.5^(1/k) of one trial. The Dvoretzky-Kiefer-Wolfowitz
    inequality with Massart's constant bounds the distribution function everywhere at once, so the band holds
    for all k together.

    References
    ----------
    Massart (1990), Ann. Probab. 18, 1269-1283; Lourie, Cho and He (2024), Show Your Work with Confidence,
    NAACL.

    Examples
    --------
    >>> curve = tuning_curve([0.1, 0.4, 0.2, 0.3])
    >>> curve.unbiased[0], curve.unbiased[-1]
    (0.25, 0.4)
    """
    check_fraction(confidence, "confidence")
    y = np.sort(one_dimensional(values, "values"))
    n = int(y.size)
    ks = np.arange(1, n + 1)
    slack = math.sqrt(math.log(2 / (1 - confidence)) / (2 * n))
    level = 0.5 ** (1 / ks)
    return TuningCurve(
        k=tuple(ks.tolist()),
        unbiased=tuple(expected_best(y, k) for k in ks.tolist()),
        biased=tuple(expected_best(y, k, unbiased=False) for k in ks.tolist()),
        median=tuple(_quantile(y, level).tolist()),
        median_low=tuple(_quantile(y, level - slack).tolist()),
        median_high=tuple(_quantile(y, level + slack).tolist()),
        n=n,
        n_diverged=int(np.isneginf(y).sum()),
        confidence=confidence,
    )


def _quantile(y: FloatArray, level: FloatArray) -> FloatArray:
    """Smallest value whose empirical distribution function reaches the level; infinite outside (0, 1]."""
    n = y.size
    index = np.ceil(level * n - 1e-9).astype(int) - 1
    inside = y[np.clip(index, 0, n - 1)]
    return np.where(level > 1, np.inf, np.where(level <= 0, -np.inf, inside))


def edge_warnings(best: dict[str, float], grids: dict[str, ArrayLike]) -> tuple[str, ...]:
    """Warn where the best hyperparameter lies at the edge of what was searched.

    Parameters
    ----------
    best : dict of name to value
        The chosen setting.
    grids : dict of name to array_like
        The values searched for each hyperparameter, or the two ends of its range.

    Returns
    -------
    tuple of str
        One sentence per hyperparameter in the outer 5 % of its range (on a log scale where all values
        are positive);
        a grid with fewer than two values is not searched and gives no warning.

    Examples
    --------
    >>> edge_warnings({"lr": 0.1}, {"lr": [0.001, 0.01, 0.1]})
    ('lr = 0.1 is at the upper edge of the searched range 0.001 to 0.1: the optimum may lie beyond it',)
    """
    said = []
    for name, value in best.items():
        grid = np.unique(np.asarray(grids.get(name, []), dtype=np.float64))
        if grid.size < 2:
            continue
        low, high = float(grid[0]), float(grid[-1])
        scale = math.log if low > 0 and value > 0 else float
        place = (scale(value) - scale(low)) / (scale(high) - scale(low))
        if place <= 0.05 or place >= 0.95:
            side = "lower" if place <= 0.05 else "upper"
            said.append(
                f"{name} = {value:g} is at the {side} edge of the searched range {low:g} to {high:g}: "
                "the optimum may lie beyond it"
            )
    return tuple(said)
