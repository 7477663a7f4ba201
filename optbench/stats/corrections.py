"""Corrections for several comparisons: adjusted p-values, so that `adjusted <= alpha` decides.

Adjusted p-values keep the order of the input. NaN p-values (a comparison that could not be made) stay NaN and
are not counted in the family.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optbench.stats.common import FloatArray, StatsError


def _checked(pvalues: ArrayLike) -> tuple[FloatArray, FloatArray]:
    p = np.atleast_1d(np.asarray(pvalues, dtype=np.float64))
    known = p[~np.isnan(p)]
    if p.ndim != 1 or ((known < 0) | (known > 1)).any():
        raise StatsError(
            f"pvalues: found shape {p.shape} with values {known}; allowed is one row of numbers in [0, 1]"
        )
    return p, known


def _spread(p: FloatArray, adjusted: FloatArray) -> FloatArray:
    result = np.full(p.shape, np.nan)
    result[~np.isnan(p)] = np.minimum(adjusted, 1.0)
    return result


def holm(pvalues: ArrayLike) -> FloatArray:
    """Holm's step-down correction: controls the family-wise error under any dependence.

    Parameters
    ----------
    pvalues : array_like, shape (m,)

    Returns
    -------
    ndarray, shape (m,)

    References
    ----------
    Holm (1979), Scand. J. Statist. 6, 65-70.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    p, known = _checked(pvalues)
    m = known.size
    return _step_down(p, known, np.arange(m, 0, -1))


def _step_down(p: FloatArray, known: FloatArray, multipliers: ArrayLike) -> FloatArray:
    order = np.argsort(known, kind="stable")
    adjusted = np.empty_like(known)
    adjusted[order] = np.maximum.accumulate(known[order] * np.asarray(multipliers, dtype=np.float64))
    return _spread(p, adjusted)


def bonferroni(pvalues: ArrayLike) -> FloatArray:
    """Bonferroni's correction (Bonferroni-Dunn when the family is "each against a baseline").

    Parameters
    ----------
    pvalues : array_like, shape (m,)

    Returns
    -------
    ndarray, shape (m,)

    References
    ----------
    Dunn (1961), JASA 56, 52-64.

    Examples
    --------
    >>> bonferroni([0.01, 0.04])
    array([0.02, 0.08])
    """
    p, known = _checked(pvalues)
    return _spread(p, known * known.size)


def benjamini_hochberg(pvalues: ArrayLike) -> FloatArray:
    """Benjamini-Hochberg step-up correction: false discovery rate, for exploration only.

    Parameters
    ----------
    pvalues : array_like, shape (m,)

    Returns
    -------
    ndarray, shape (m,)

    Notes
    -----
    Controls the expected share of false discoveries under independence or positive dependence, not the chance
    of one false claim: verdicts use a family-wise correction.

    References
    ----------
    Benjamini and Hochberg (1995), JRSS B 57, 289-300.

    Examples
    --------
    >>> benjamini_hochberg([0.01, 0.04, 0.03])
    array([0.03, 0.04, 0.04])
    """
    p, known = _checked(pvalues)
    order = np.argsort(known, kind="stable")[::-1]
    m = known.size
    adjusted = np.empty_like(known)
    adjusted[order] = np.minimum.accumulate(known[order] * m / np.arange(m, 0, -1))
    return _spread(p, adjusted)


def pair_count(k: int) -> int:
    """Number of pairwise comparisons of k algorithms, k (k - 1) / 2.

    Examples
    --------
    >>> pair_count(5)
    10
    """
    return k * (k - 1) // 2


def _algorithms(p: FloatArray, method: str) -> int:
    k = round((1 + math.sqrt(1 + 8 * p.size)) / 2)
    if pair_count(k) != p.size or k < 2 or np.isnan(p).any():
        raise StatsError(
            f"{method}: found {p.size} p-values, {int(np.isnan(p).sum())} of them NaN; it needs all "
            "k (k - 1) / 2 pairs of k algorithms in the order of itertools.combinations; otherwise use holm"
        )
    return k


@lru_cache(maxsize=32)
def possible_true_counts(k: int) -> tuple[int, ...]:
    """How many of the pairwise equalities of k algorithms can be true at once, ascending.

    Parameters
    ----------
    k : int
        Number of algorithms, >= 0.

    Returns
    -------
    tuple of int

    References
    ----------
    Shaffer (1986), JASA 81, 826-831.

    Examples
    --------
    >>> possible_true_counts(5)
    (0, 1, 2, 3, 4, 6, 10)
    """
    if k < 2:
        return (0,)
    found = {pair_count(j) + rest for j in range(1, k + 1) for rest in possible_true_counts(k - j)}
    return tuple(sorted(found))


def shaffer(pvalues: ArrayLike) -> FloatArray:
    """Shaffer's static correction for all pairwise comparisons: Holm, using that equalities are transitive.

    Parameters
    ----------
    pvalues : array_like, shape (k (k - 1) / 2,)
        In the order of ``itertools.combinations(range(k), 2)``.

    Returns
    -------
    ndarray, the shape of `pvalues`

    References
    ----------
    Shaffer (1986), JASA 81, 826-831; Garcia and Herrera (2008), JMLR 9, 2677-2694.

    Examples
    --------
    >>> shaffer([0.01, 0.04, 0.03])
    array([0.03, 0.04, 0.03])
    """
    p, known = _checked(pvalues)
    counts = np.array(possible_true_counts(_algorithms(p, "shaffer")))
    at_most = np.arange(known.size, 0, -1)
    return _step_down(p, known, counts[np.searchsorted(counts, at_most, side="right") - 1])


@lru_cache(maxsize=8)
def _exhaustive_sets(k: int) -> NDArray[np.bool_]:
    """Each way to split k algorithms into groups of equals, as the set of pairs that are then equal."""
    partitions = [[0]]
    for _ in range(k - 1):
        partitions = [[*group, g] for group in partitions for g in range(max(group) + 2)]
    labels = np.array(partitions)
    i, j = np.triu_indices(k, 1)
    sets: NDArray[np.bool_] = labels[:, i] == labels[:, j]
    return sets[sets.any(axis=1)]


def bergmann_hommel(pvalues: ArrayLike) -> FloatArray:
    """Bergmann-Hommel's correction for all pairs of 2 to 9 algorithms, the most powerful here.

    Parameters
    ----------
    pvalues : array_like, shape (k (k - 1) / 2,)
        In the order of ``itertools.combinations(range(k), 2)``.

    Returns
    -------
    ndarray, the shape of `pvalues`

    Notes
    -----
    The adjusted p of a hypothesis is the largest |I| min p_j (j in I) over the exhaustive sets I that hold
    it. The exhaustive sets are the partitions of the algorithms: 21,147 for k = 9, about 116,000 for k = 10.

    References
    ----------
    Bergmann and Hommel (1988), in Multiple Hypothesenpruefung, 100-115; Garcia and Herrera (2008), JMLR 9,
    2677-2694.

    Examples
    --------
    >>> bergmann_hommel([0.01, 0.04, 0.03])
    array([0.03, 0.04, 0.03])
    """
    p, known = _checked(pvalues)
    k = _algorithms(p, "bergmann_hommel")
    if k > 9:
        raise StatsError(f"bergmann_hommel: found {k} algorithms, allowed are 2 to 9; use shaffer")
    sets = _exhaustive_sets(k)
    value = sets.sum(axis=1) * np.where(sets, known, np.inf).min(axis=1)
    adjusted: FloatArray = np.where(sets, value[:, None], 0.0).max(axis=0)
    return np.minimum(adjusted, 1.0)


def partial_conjunction(pvalues: ArrayLike) -> FloatArray:
    """Adjusted p for "at least u of the D effects are real", for u = 1 .. D.

    Parameters
    ----------
    pvalues : array_like, shape (D,)
        One-sided p-values, one per dataset.

    Returns
    -------
    ndarray, shape (D,)
        Entry u - 1 is max over v <= u of (D - v + 1) p_(v): the number of entries at or below alpha is a
        lower confidence bound, at level 1 - alpha, of the number of datasets with a real effect, under any
        dependence.

    References
    ----------
    Benjamini and Heller (2008), Biometrics 64, 1215-1222 (Bonferroni combination).

    Examples
    --------
    >>> partial_conjunction([0.001, 0.01, 0.5])
    array([0.003, 0.02 , 0.5  ])
    """
    p, known = _checked(pvalues)
    if known.size < p.size:
        raise StatsError(
            f"partial_conjunction: found {p.size - known.size} NaN among {p.size} p-values; leave them out"
        )
    return np.sort(holm(known))


CORRECTIONS: Mapping[str, Callable[[ArrayLike], FloatArray]] = MappingProxyType(
    {
        "holm": holm,
        "shaffer": shaffer,
        "bergmann-hommel": bergmann_hommel,
        "bonferroni": bonferroni,
        "bh": benjamini_hochberg,
        "none": lambda p: _checked(p)[0],
    }
)


def adjust(pvalues: ArrayLike, *, method: str = "holm", all_pairs: bool = False) -> FloatArray:
    """Adjust a family of p-values by a named method.

    Parameters
    ----------
    pvalues : array_like, shape (m,)
    method : {"holm", "shaffer", "bergmann-hommel", "bonferroni", "bh", "none"}
    all_pairs : bool
        True if the family is all pairs of k algorithms; shaffer and bergmann-hommel need that.

    Returns
    -------
    ndarray, shape (m,)

    Examples
    --------
    >>> adjust([0.01, 0.04], method="holm")
    array([0.02, 0.04])
    """
    if method not in CORRECTIONS:
        raise StatsError(f"correction: found {method!r}, allowed are {', '.join(CORRECTIONS)}")
    if method in ("shaffer", "bergmann-hommel") and not all_pairs:
        raise StatsError(
            f"correction: {method} is for all pairs; for comparisons against a baseline use holm"
        )
    return CORRECTIONS[method](pvalues)
