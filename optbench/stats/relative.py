"""Which of two groups of independent runs has the better typical run: chances, tested by permutation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from optbench.stats.common import FloatArray, one_dimensional

#: All divisions of the runs are counted up to this many, sampled above.
EXACT_DIVISIONS = 200_000
_DRAWS = 9_999
_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class RelativeEffect:
    """The chance that a run of the first group beats one of the second (a tie counts half), and its test."""

    effect: float
    pvalue: float
    method: str


def relative_effect(x: ArrayLike, y: ArrayLike, *, draws: int = _DRAWS, seed: int = 0) -> RelativeEffect:
    """Permutation test of Brunner and Munzel's statistic: is the chance of a better run one half?

    Parameters
    ----------
    x, y : array_like, shape (n,), (m,)
        Larger is better; diverged runs may be infinite.
    draws, seed : int
        Random divisions where there are more than 200,000; p = (b + 1) / (draws + 1).

    Returns
    -------
    RelativeEffect
        NaN for p where a group has fewer than 2 runs.

    Notes
    -----
    Exact where both groups have one distribution. The statistic is studentised, so that the level also holds
    in larger groups of unequal spread and shape whose chance is one half.

    References
    ----------
    Brunner and Munzel (2000), Biom. J. 42, 17-25; Neubert and Brunner (2007), Comput. Stat. Data Anal. 51,
    5192-5204.

    Examples
    --------
    >>> relative_effect([4.0, 5.0, 6.0], [1.0, 2.0, 3.0])
    RelativeEffect(effect=1.0, pvalue=0.1, method='exact')
    """
    a, b = one_dimensional(x, "x"), one_dimensional(y, "y")
    n, m = int(a.size), int(b.size)
    pooled = np.concatenate([a, b])
    below = stats.rankdata(pooled, "min") - 1
    to = stats.rankdata(pooled, "max")
    order = np.argsort(pooled, kind="stable")
    place = np.empty(n + m, dtype=np.int64)
    place[order] = np.arange(n + m)
    first, last = below[order].astype(np.int64), to[order].astype(np.int64)
    effect, observed = _statistics(place[None, :n], first, last, n, m)
    chance = float(effect[0])
    if min(n, m) < 2:
        return RelativeEffect(chance, math.nan, "none")
    bound = abs(float(observed[0])) * (1 - 1e-9)
    if math.comb(n + m, n) <= EXACT_DIVISIONS:
        chosen = divisions(n, m)
        size = max(1, _AT_ONCE // (n + m))
        hits = sum(
            int((np.abs(_statistics(chosen[i : i + size], first, last, n, m)[1]) >= bound).sum())
            for i in range(0, len(chosen), size)
        )
        return RelativeEffect(chance, hits / len(chosen), "exact")
    rng = np.random.default_rng(seed)
    hits, size = 0, max(1, min(1000, _AT_ONCE // (n + m)))
    for start in range(0, draws, size):
        count = min(size, draws - start)
        chosen = np.argpartition(rng.random((count, n + m)), n - 1, axis=1)[:, :n]
        hits += int((np.abs(_statistics(chosen, first, last, n, m)[1]) >= bound).sum())
    return RelativeEffect(chance, (hits + 1) / (draws + 1), f"Monte Carlo, {draws} draws")


@lru_cache(maxsize=2)
def divisions(n: int, m: int) -> NDArray[np.int64]:
    """All sets of n of n + m places, one a row; the first is 0 .. n - 1.

    Examples
    --------
    >>> divisions(1, 2).tolist()
    [[0], [1], [2]]
    """
    return np.array(list(combinations(range(n + m), n)), dtype=np.int64)


def _statistics(
    chosen: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64], n: int, m: int
) -> tuple[FloatArray, FloatArray]:
    """Chance of the first group, and Brunner and Munzel's statistic, for each division.

    `chosen` are places in the sorted runs; those from `first` to before `last` are tied with a run.
    """
    member = np.zeros((len(chosen), n + m), dtype=bool)
    np.put_along_axis(member, chosen, True, axis=1)
    counts = np.zeros((len(chosen), n + m + 1))
    np.cumsum(member, axis=1, out=counts[:, 1:])
    beaten = (counts[:, first] + counts[:, last]) / 2  # runs of the first group that each run beats
    other = (first + last) / 2 - beaten
    of_first, of_second = np.where(member, other, 0.0), np.where(member, 0.0, beaten)
    mean_first, mean_second = of_first.sum(axis=1) / n, of_second.sum(axis=1) / m
    chance = mean_first / m
    var_first = np.maximum((of_first**2).sum(axis=1) - n * mean_first**2, 0) / max(1, n - 1)
    var_second = np.maximum((of_second**2).sum(axis=1) - m * mean_second**2, 0) / max(1, m - 1)
    error = np.sqrt(var_first / (n * m**2) + var_second / (m * n**2))
    gap, flat = chance - 0.5, error <= 1e-9
    with np.errstate(divide="ignore", invalid="ignore"):
        t = gap / np.where(flat, 1.0, error)
    infinite = np.where(np.abs(gap) > 1e-12, np.copysign(np.inf, gap), 0.0)
    return np.asarray(chance), np.asarray(np.where(flat, infinite, t))
