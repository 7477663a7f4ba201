"""Bayesian comparison with a region of practical equivalence (ROPE): probabilities instead of p-values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from optbench.stats.common import StatsError, one_dimensional
from optbench.stats.paired import spread_reason


@dataclass(frozen=True)
class Posterior:
    """Posterior probabilities that the candidate is worse, practically equivalent, or better."""

    worse: float
    equivalent: float
    better: float
    rope: float
    n: int
    reason: str | None = None


@dataclass(frozen=True)
class PosteriorOf:
    """The posterior of one comparison; `scope` is the dataset, or "new datasets"."""

    scope: str
    candidate: str
    baseline: str
    posterior: Posterior


def _rope(rope: float) -> None:
    if not (math.isfinite(rope) and rope >= 0):
        raise StatsError(f"rope: found {rope!r}, allowed is a difference >= 0 in the metric's units")


def bayesian_signed_rank(
    d: ArrayLike, *, rope: float, prior: float = 0.5, draws: int = 20_000, seed: int = 0
) -> Posterior:
    """Bayesian signed-rank test over datasets, with a Dirichlet process prior.

    Parameters
    ----------
    d : array_like, shape (n,)
        One difference per dataset, positive where the candidate is better; infinities (diverged) are allowed.
    rope : float
        Half-width of the region of practical equivalence.
    prior : float
        Weight of one pseudo-observation at 0, > 0.
    draws, seed : int
        Of the Monte Carlo sampling of the Dirichlet posterior (standard error at most 0.0036 with 20,000).

    Returns
    -------
    Posterior
        Probability that each region has the largest share of the pairwise averages (d_i + d_j) / 2.

    References
    ----------
    Benavoli, Mangili, Corani, Zaffalon and Ruggeri (2014), ICML; Benavoli, Corani, Demsar and Zaffalon
    (2017), JMLR 18(77).

    Examples
    --------
    >>> bayesian_signed_rank([0.1, 0.2, 0.15, 0.12, 0.3, 0.2, 0.1, 0.2], rope=0.01).better > 0.95
    True
    """
    _rope(rope)
    if not prior > 0:
        raise StatsError(f"prior: found {prior!r}, allowed is a weight > 0")
    x = np.concatenate([[0.0], one_dimensional(d)])
    with np.errstate(invalid="ignore"):
        average = (x[:, None] + x[None, :]) / 2
    average[np.isnan(average)] = 0.0  # +inf and -inf: one diverged for each side, undecided
    low, high = (average < -rope).astype(float), (average > rope).astype(float)
    rng = np.random.default_rng(seed)
    wins = np.zeros(3)
    for start in range(0, draws, 2000):
        size = min(2000, draws - start)
        w = rng.dirichlet(np.concatenate([[prior], np.ones(x.size - 1)]), size=size)
        left, right = ((w @ low) * w).sum(axis=1), ((w @ high) * w).sum(axis=1)
        shares = np.column_stack([left, 1 - left - right, right])
        best = shares >= shares.max(axis=1, keepdims=True) - 1e-12
        wins += (best / best.sum(axis=1, keepdims=True)).sum(axis=0)
    worse, equal, better = (wins / draws).tolist()
    return Posterior(worse, equal, better, rope, x.size - 1)


def correlated_t(d: ArrayLike, *, rope: float, correlation: float = 0.0) -> Posterior:
    """Bayesian correlated t test on one dataset.

    Parameters
    ----------
    d : array_like, shape (n,)
        Differences of matched trials.
    rope : float
        Half-width of the region of practical equivalence.
    correlation : float
        Correlation of the differences: 0 for independent seeds; the share of test data in resampled splits
        (Nadeau and Bengio's heuristic), for example 0.1 in 10-fold cross-validation. In [0, 1).

    Returns
    -------
    Posterior
        NaN with a reason where the spread is undefined.

    References
    ----------
    Corani and Benavoli (2015), Mach. Learn. 100, 285-304; Benavoli et al. (2017), JMLR 18(77).

    Examples
    --------
    >>> p = correlated_t([0.01, 0.02, 0.03], rope=0.0)
    >>> round(p.worse + p.better, 9)
    1.0
    """
    _rope(rope)
    if not 0 <= correlation < 1:
        raise StatsError(f"correlation: found {correlation!r}, allowed is 0 <= correlation < 1")
    x = one_dimensional(d)
    n, reason = int(x.size), spread_reason(x)
    if reason is not None:
        return Posterior(math.nan, math.nan, math.nan, rope, n, reason)
    scale = math.sqrt((1 / n + correlation / (1 - correlation)) * float(x.var(ddof=1)))
    worse = float(special.stdtr(n - 1, (-rope - x.mean()) / scale))
    better = float(special.stdtr(n - 1, (x.mean() - rope) / scale))
    return Posterior(worse, max(0.0, 1 - worse - better), better, rope, n)
