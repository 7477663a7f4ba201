"""What n pairs can show, known before any compute: smallest attainable p, pairs needed, detectable effect."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from optbench.stats.common import FloatArray, StatsError, check_fraction
from optbench.stats.walsh import interval_rank


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


#: Up to this many pairs power is simulated with the exact critical value; above, from the noncentral t.
_SIMULATED = 100
#: Asymptotic relative efficiency of the signed-rank test to the t test for normal differences.
_EFFICIENCY = 3 / math.pi
#: Pairs, and standard deviations, beyond which is not looked.
MOST_PAIRS, _LARGEST = 1_000_000, 1e6


@dataclass(frozen=True)
class Plan:
    """What n matched pairs and a declared family can show; effects are in d_z units (mean / sd)."""

    n: int
    comparisons: int
    alpha: float
    power: float
    smallest_p: float
    smallest_adjusted_p: float
    pairs_to_reject: int
    detectable_effect: float
    detectable_effect_adjusted: float
    sentence: str


@lru_cache(maxsize=8)
def _standard_normal(n: int, draws: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(draws, n))


def signed_rank_power(
    n: int, d_z: float, *, alpha: float = 0.05, comparisons: int = 1, draws: int = 4000, seed: int = 0
) -> float:
    """Power of the two-sided exact signed-rank test for normal differences with mean d_z and sd 1.

    Parameters
    ----------
    n : int
        Pairs.
    d_z : float
        Standardised mean difference.
    alpha : float
    comparisons : int
        The test is made at alpha / comparisons, the first step of Holm.
    draws, seed : int
        Of the simulation; the same draws serve every d_z, so the power is monotone in it.

    Returns
    -------
    float
        Monte Carlo standard error at most 0.008 with 4,000 draws; above 100 pairs the noncentral t with the
        efficiency 3 / pi.

    Examples
    --------
    >>> signed_rank_power(5, 3.0)
    0.0
    >>> signed_rank_power(11, 1.2) > 0.8
    True
    """
    _check_counts(n, comparisons)
    level = alpha / comparisons
    check_fraction(level, "alpha")
    if n > _SIMULATED:
        df, shift = n - 1, d_z * math.sqrt(n * _EFFICIENCY)
        critical = float(special.stdtrit(df, 1 - level / 2))
        from scipy import stats  # here, as it takes longer to import than pandas

        return float(stats.nct.sf(critical, df, shift) + stats.nct.cdf(-critical, df, shift))
    limit = interval_rank(n, 1 - level)
    x = _standard_normal(n, draws, seed) + d_z
    ranks = np.argsort(np.argsort(np.abs(x), axis=1), axis=1) + 1
    plus = np.where(x > 0, ranks, 0).sum(axis=1)
    smaller = np.minimum(plus, n * (n + 1) // 2 - plus)
    return float((smaller < limit).mean())


def detectable_effect(n: int, *, power: float = 0.8, alpha: float = 0.05, comparisons: int = 1) -> float:
    """Smallest d_z that the exact signed-rank test detects with the given power.

    Parameters
    ----------
    n : int
    power, alpha : float
    comparisons : int

    Returns
    -------
    float
        In standard deviations of the paired difference; infinite if no test can reject at this n.

    Examples
    --------
    >>> detectable_effect(5)
    inf
    >>> round(detectable_effect(11), 1)
    1.0
    """
    check_fraction(power, "power")
    if smallest_attainable_p(n, comparisons=comparisons) > alpha:
        return math.inf
    low, high = 0.0, 1.0
    while not signed_rank_power(n, high, alpha=alpha, comparisons=comparisons) >= power:
        if high > _LARGEST:  # at a level so small that its critical value is infinite
            return math.inf
        high *= 2
    for _ in range(20):
        middle = (low + high) / 2
        if signed_rank_power(n, middle, alpha=alpha, comparisons=comparisons) < power:
            low = middle
        else:
            high = middle
    return high


def pairs_needed(d_z: float, *, power: float = 0.8, alpha: float = 0.05, comparisons: int = 1) -> int:
    """Fewest pairs with which the exact signed-rank test detects d_z with the given power.

    Parameters
    ----------
    d_z : float
        Non-zero.
    power, alpha : float
    comparisons : int

    Returns
    -------
    int

    Raises
    ------
    StatsError
        If d_z is too small, or more than :data:`MOST_PAIRS` are needed.

    Examples
    --------
    >>> pairs_needed(1.0) <= 12
    True
    """
    check_fraction(power, "power")
    if not (math.isfinite(d_z) and abs(d_z) >= 0.01):
        raise StatsError(f"d_z: found {d_z!r}, allowed are effects of at least 0.01 standard deviations")

    def enough(n: int) -> bool:
        return signed_rank_power(n, abs(d_z), alpha=alpha, comparisons=comparisons) >= power

    low = pairs_needed_to_reject(alpha=alpha, comparisons=comparisons) - 1
    high = low + 1
    while not enough(high):
        if high > MOST_PAIRS:
            raise StatsError(f"more than {MOST_PAIRS:,} pairs would be needed")
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def plan_pairs(n: int, *, comparisons: int = 1, alpha: float = 0.05, power: float = 0.8) -> Plan:
    """Everything that can be said about a design before it is run.

    Parameters
    ----------
    n : int
        Matched pairs (seeds) per comparison.
    comparisons : int
        Size of the declared family: k - 1 against a baseline, k (k - 1) / 2 for all pairs.
    alpha, power : float

    Returns
    -------
    Plan

    Examples
    --------
    >>> plan_pairs(5, comparisons=3).pairs_to_reject
    7
    """
    alone = detectable_effect(n, power=power, alpha=alpha)
    adjusted = detectable_effect(n, power=power, alpha=alpha, comparisons=comparisons)
    sentence = attainability(n, alpha=alpha, comparisons=comparisons)
    if math.isfinite(adjusted):
        sentence += f"; {power:.0%} power for a mean difference of {adjusted:.2f} standard deviations"
    return Plan(
        n=n,
        comparisons=comparisons,
        alpha=alpha,
        power=power,
        smallest_p=smallest_attainable_p(n),
        smallest_adjusted_p=smallest_attainable_p(n, comparisons=comparisons),
        pairs_to_reject=pairs_needed_to_reject(alpha=alpha, comparisons=comparisons),
        detectable_effect=alone,
        detectable_effect_adjusted=adjusted,
        sentence=sentence,
    )
