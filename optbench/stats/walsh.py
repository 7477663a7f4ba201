"""Walsh averages: their order statistics, and the ranks among them that bound a Hodges-Lehmann interval."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from optbench.stats.common import FloatArray, IntArray
from optbench.stats.signed_rank_null import tail_probabilities

#: Up to this many distinct values (rounded results) their averages are counted with multiplicity.
_FEW_VALUES = 1000
#: The search for an end stops after this many further steps without a shift that is kept.
_PATIENCE = 8


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

    unique, counts = np.unique(x, return_counts=True)
    if unique.size <= min(_FEW_VALUES, n // 2):
        return _of_few_values(unique, counts, wanted)

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


def _of_few_values(unique: FloatArray, counts: IntArray, wanted: list[int]) -> list[float]:
    """The same from the distinct values and how often each occurs."""
    i, j = np.triu_indices(unique.size)
    times = np.where(i == j, counts[i] * (counts[i] + 1) // 2, counts[i] * counts[j])
    averages = (unique[i] + unique[j]) / 2
    order = np.argsort(averages, kind="stable")
    upto = np.cumsum(times[order])
    return [float(averages[order[np.searchsorted(upto, k, side="right")]]) for k in wanted]


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


def kept_shifts(
    x: FloatArray, kept: Callable[[float], bool], guess: tuple[float, float]
) -> tuple[float, float]:
    """The smallest interval that holds every shift which a signed-rank test of ties and zeros keeps.

    Parameters
    ----------
    x : ndarray, shape (n,)
        Differences; infinities of one sign are allowed.
    kept : callable
        Does the test keep this shift? Its p-value changes at Walsh averages only, so it is asked at them and
        between them.
    guess : (float, float)
        Ends to search from, such as those without ties.

    Returns
    -------
    low, high : float
        Walsh averages, or infinite. With ties the kept shifts may have a gap; it lies within.

    Examples
    --------
    >>> kept_shifts(np.array([1.0, 2.0, 3.0]), lambda shift: 1.2 < shift < 2.2, (1.0, 3.0))
    (1.0, 2.0)
    """
    i, j = np.triu_indices(x.size)
    averages = (x[i] + x[j]) / 2
    averages = np.sort(averages[np.isfinite(averages)])
    scale = max(abs(float(averages[0])), abs(float(averages[-1])))
    apart = np.r_[True, np.diff(averages) > 1e-12 * scale]
    walsh = averages[apart]
    last = 2 * walsh.size  # odd places are Walsh averages, even ones lie between them and outside

    def shift(place: int) -> float:
        if place % 2:
            return float(walsh[place // 2])
        if place in (0, last):
            wide = scale + float(walsh[-1] - walsh[0]) + 1.0
            return float(walsh[0] - wide if place == 0 else walsh[-1] + wide)
        return float((walsh[place // 2 - 1] + walsh[place // 2]) / 2)

    def end(start: float, outward: int) -> float:
        place = int(np.clip(2 * np.searchsorted(walsh, start), 0, last))
        while 0 <= place - outward <= last and not kept(shift(place)):
            place -= outward
        best, waited = place, 0
        while 0 <= place + outward <= last and waited < _PATIENCE:
            place += outward
            best, waited = (place, 0) if kept(shift(place)) else (best, waited + 1)
        if best in (0, last):
            return outward * np.inf
        inner = best // 2
        return float(walsh[inner] if best % 2 or outward > 0 else walsh[inner - 1])

    return end(guess[0], -1), end(guess[1], 1)
