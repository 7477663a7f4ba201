"""What n pairs can show, known before any compute: smallest attainable p, pairs needed, detectable effect."""

from __future__ import annotations

import math

from optbench.stats.common import StatsError, check_fraction


def smallest_attainable_p(n: int, *, comparisons: int = 1) -> float:
    """Smallest two-sided p that the signed-rank (or sign-flip) test can reach with n pairs, after Holm.

    Parameters
    ----------
    n : int
        Pairs, >= 0; without zeros among the differences.
    comparisons : int
        Size of the family; Holm's first step multiplies the smallest p by it.

    Returns
    -------
    float
        min(1, comparisons * 2^(1 - n)).

    Examples
    --------
    >>> smallest_attainable_p(5)
    0.0625
    >>> smallest_attainable_p(6, comparisons=3)
    0.09375
    """
    _check_counts(n, comparisons)
    return min(1.0, comparisons * math.ldexp(2.0, -n))


def pairs_needed_to_reject(*, alpha: float = 0.05, comparisons: int = 1) -> int:
    """Fewest pairs with which a two-sided signed-rank test can reject at all, after Holm.

    Parameters
    ----------
    alpha : float
        Level of the family.
    comparisons : int
        Size of the family.

    Returns
    -------
    int

    Examples
    --------
    >>> pairs_needed_to_reject(), pairs_needed_to_reject(comparisons=3)
    (6, 7)
    """
    check_fraction(alpha, "alpha")
    n = 1
    while smallest_attainable_p(n, comparisons=comparisons) > alpha:
        n += 1
    return n


def attainability(n: int, *, alpha: float = 0.05, comparisons: int = 1) -> str:
    """Say in one sentence what n pairs can reach.

    Parameters
    ----------
    n : int
    alpha : float
    comparisons : int

    Returns
    -------
    str

    Examples
    --------
    >>> print(attainability(11, comparisons=3))
    n=11: smallest attainable two-sided p is 0.000977, 0.00293 after Holm over 3
    """
    alone = smallest_attainable_p(n)
    text = f"n={n}: smallest attainable two-sided p is {alone:.3g}"
    if comparisons > 1 and alone <= alpha:
        text += f", {smallest_attainable_p(n, comparisons=comparisons):.3g} after Holm over {comparisons}"
    if smallest_attainable_p(n, comparisons=comparisons) <= alpha:
        return text
    text += f", no test can reject at {alpha:g}; {pairs_needed_to_reject(alpha=alpha)} pairs are needed"
    if comparisons > 1:
        text += (
            f", {pairs_needed_to_reject(alpha=alpha, comparisons=comparisons)} with Holm over {comparisons}"
        )
    return text


def _check_counts(n: int, comparisons: int) -> None:
    if n < 0 or comparisons < 1:
        raise StatsError(
            f"found n={n} pairs and {comparisons} comparisons; allowed are n >= 0 and at least 1 comparison"
        )
