"""Walsh averages: their order statistics, and the ranks among them that bound a Hodges-Lehmann interval."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from optbench.stats.common import FloatArray, IntArray
from optbench.stats.signed_rank_null import tail_probabilities


def walsh_order(x: FloatArray, wanted: list[int]) -> list[float]:
    """Order statistics of the n (n + 1) / 2 Walsh averages, without holding them all when n is large.

    Parameters
    ----------
    x : ndarray, shape (n,)
        Without NaN.
    wanted : list of int
        0-based ranks among the averages (x_i + x_j) / 2, i <= j.

    Returns
    -------
    list of float

    Notes
    -----
    Exact. Sorted by size, the pairs with an average of at most v are counted in n log n steps; bisection over
    v brackets a rank until few candidates are left, and only those are formed.

    Examples
    --------
    >>> walsh_order(np.array([1.0, 3.0]), [0, 1, 2])
    [1.0, 2.0, 3.0]
    """
    n, x = int(x.size), np.sort(x)
    if n <= 100 or not np.isfinite(x).all():
        i, j = np.triu_indices(n)
        walsh = (x[i] + x[j]) / 2
        walsh.partition(wanted)
        return [float(walsh[k]) for k in wanted]

    def partners(v: float) -> IntArray:  # per i, the number of j >= i whose average with i is at most v
        counts: IntArray = np.searchsorted(x, 2 * v - x, side="right") - np.arange(n)
        return np.maximum(counts, 0)

    result = []
    for k in wanted:
        below, above = np.zeros(n, dtype=np.int64), np.arange(n, 0, -1)
        low, high = float(x[0]), float(x[-1])
        while int((above - below).sum()) > 4 * n and low < (middle := (low + high) / 2) < high:
            counts = partners(middle)
            if int(counts.sum()) > k:
                high, above = middle, counts
            else:
                low, below = middle, counts
        size = above - below
        i = np.repeat(np.arange(n), size)
        j = np.arange(i.size) - np.repeat(np.cumsum(size) - size, size) + i + np.repeat(below, size)
        candidates = (x[i] + x[j]) / 2
        rank = k - int(below.sum())
        result.append(float(np.partition(candidates, rank)[rank]))
    return result


@lru_cache(maxsize=256)
def interval_rank(n: int, confidence: float) -> int:
    """The largest k with P(W < k) <= (1 - confidence) / 2 for n pairs without ties; 0 if there is none.

    Parameters
    ----------
    n : int
    confidence : float

    Returns
    -------
    int
        The interval of the Walsh averages from the k-th smallest to the k-th largest has this confidence; a
        test at 1 - confidence rejects where the smaller rank sum is below k.

    Examples
    --------
    >>> interval_rank(5, 0.95), interval_rank(6, 0.95)
    (0, 1)
    """
    tail = (1 - confidence) / 2
    ranks = np.arange(1, n + 1, dtype=np.int64)
    low, high = 0, n * (n + 1) // 4
    while low < high:
        middle = (low + high + 1) // 2
        if tail_probabilities(ranks, middle - 1)[0] <= tail:
            low = middle
        else:
            high = middle - 1
    return low
