"""Missing runs: would the verdict hold, whatever they had been?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from optbench.stats.common import FloatArray, differences
from optbench.stats.effects import rank_effect
from optbench.stats.paired import signed_rank


@dataclass(frozen=True)
class Sensitivity:
    """The verdict's word of the typical run, if all missing runs had been worst, or best, for the candidate.

    `p_worst` and `p_best` are adjusted like the comparison's own. A verdict that is the same in both cases
    does not hang on what is missing.
    """

    n_missing: int
    worst: str
    p_worst: float
    best: str
    p_best: float

    @property
    def sentence(self) -> str:
        """One sentence for a report."""
        runs = "1 pair lacks a run" if self.n_missing == 1 else f"{self.n_missing} pairs lack a run"
        if self.worst == self.best:
            return (
                f"{runs}; its typical run is {self.worst} whether what is missing was all worst or all best"
            )
        worst = f"its typical run would be {self.worst} if what is missing was all worst for it"
        return f"{runs}; {worst}, {self.best} if all best"


def extreme_differences(
    candidate: FloatArray, baseline: FloatArray, *, resolution: float | None = None
) -> tuple[FloatArray, FloatArray]:
    """Differences of all blocks that hold one of the two, with what is missing at its worst and at its best.

    Parameters
    ----------
    candidate, baseline : ndarray, shape (n,)
        Larger is better, ``-inf`` diverged, NaN missing.
    resolution : float, optional
        Step of the values.

    Returns
    -------
    worst, best : ndarray, shape (m,)
        ``-inf`` and ``+inf`` where a run is missing. Blocks without both are left out.

    References
    ----------
    Manski (1990), Am. Econ. Rev. 80, 319-323 (worst-case bounds).

    Examples
    --------
    >>> extreme_differences(np.array([1.0, np.nan]), np.array([0.5, 0.5]))
    (array([ 0.5, -inf]), array([0.5, inf]))
    """
    begun = ~(np.isnan(candidate) & np.isnan(baseline))
    a, b = candidate[begun], baseline[begun]
    lacking = np.isnan(a) | np.isnan(b)
    d = np.zeros(a.size)
    if not lacking.all():
        d[~lacking] = differences(a[~lacking], b[~lacking], resolution=resolution)
    return np.where(lacking, -np.inf, d), np.where(lacking, np.inf, d)


def sensitivities(
    values: Sequence[tuple[FloatArray, FloatArray]],
    *,
    adjust: Callable[[Sequence[float]], FloatArray],
    alpha: float,
    resolution: float | None = None,
) -> list[Sensitivity | None]:
    """What missing runs could change, for each comparison of a family.

    Parameters
    ----------
    values : sequence of (ndarray, ndarray)
        Candidate and baseline of each comparison, NaN missing.
    adjust : callable
        The family's correction.
    alpha : float
    resolution : float, optional
        Step of the values.

    Returns
    -------
    list of Sensitivity or None
        None where no run is missing.

    Examples
    --------
    >>> grow = np.arange(1.0, 9.0)
    >>> pair = np.r_[grow, np.nan], np.zeros(9)
    >>> found = sensitivities([pair], adjust=np.asarray, alpha=0.05)[0]
    >>> found.worst, found.best
    ('inconclusive', 'better')
    """
    if not any((np.isnan(a) != np.isnan(b)).any() for a, b in values):
        return [None] * len(values)
    ends = [extreme_differences(a, b, resolution=resolution) for a, b in values]
    sides = [[_tested(pair[side]) for pair in ends] for side in (0, 1)]
    adjusted = [adjust([p for p, _ in side]) for side in sides]
    found: list[Sensitivity | None] = []
    for i, (worst, best) in enumerate(ends):
        lacking = int((worst != best).sum())
        words = [_word(float(p[i]), side[i][1], alpha) for p, side in zip(adjusted, sides, strict=True)]
        p_worst, p_best = float(adjusted[0][i]), float(adjusted[1][i])
        found.append(Sensitivity(lacking, words[0], p_worst, words[1], p_best) if lacking else None)
    return found


def _tested(d: FloatArray) -> tuple[float, float]:
    """Two-sided signed-rank p and the direction of the effect; NaN and 0 without differences."""
    return (signed_rank(d).pvalue, rank_effect(d).rank_biserial) if d.size else (math.nan, 0.0)


def _word(p_adjusted: float, direction: float, alpha: float) -> str:
    if math.isnan(p_adjusted) or p_adjusted > alpha or direction == 0:
        return "inconclusive"
    return "better" if direction > 0 else "worse"
