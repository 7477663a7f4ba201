"""Rank methods for k treatments in n blocks: Friedman, critical differences, letters, intervals.

Tables have one row per block (a dataset or a seed) and one column per treatment (an optimizer), oriented so
that larger is better; ``-inf`` stands for a diverged outcome. Rank 1 is the best; ties share the mean rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from optbench.stats.common import FloatArray, StatsError, check_fraction, midranks, round_significant

#: The permutation distribution is enumerated while its table of rank sums has at most this many rows.
_MAX_ROWS = 20_000
#: No range of normal values is wider, for any level and number of treatments in use.
_WIDEST = 40.0
#: Blocks are merged one by one, which takes long for more than this many.
_MAX_BLOCKS = 1000
#: Above this many cells a permutation test adds nothing to the F approximation.
_MAX_CELLS = 400


@dataclass(frozen=True)
class FriedmanResult:
    """Friedman's test; `pvalue` is the one to report: by permutation, or from F for big tables.

    `statistic`, `p_chi2`, `iman_davenport` and `p_iman_davenport` are corrected for ties; the fields that end
    in `uncorrected` are from Friedman's own formula, as in Demsar (2006).
    """

    statistic: float
    statistic_uncorrected: float
    pvalue: float
    method: str
    p_chi2: float
    iman_davenport: float
    p_iman_davenport: float
    kendall_w: float
    mean_ranks: tuple[float, ...]
    n: int
    k: int
    p_chi2_uncorrected: float = math.nan
    iman_davenport_uncorrected: float = math.nan
    p_iman_davenport_uncorrected: float = math.nan


def rank_table(values: ArrayLike) -> FloatArray:
    """Ranks within each row, 1 = best (largest), ties share the mean rank.

    Parameters
    ----------
    values : array_like, shape (n, k)
        Oriented so that larger is better, without NaN; values equal to 9 significant places are tied.

    Returns
    -------
    ndarray, shape (n, k)

    Examples
    --------
    >>> rank_table([[0.9, 0.8, 0.9]])
    array([[1.5, 3. , 1.5]])
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 2 or min(x.shape) < 1 or np.isnan(x).any():
        raise StatsError(
            f"values: found shape {x.shape} with {int(np.isnan(x).sum())} NaN; allowed is (n, k) with none: "
            "leave out incomplete blocks and count them"
        )
    return midranks(-round_significant(x))


def friedman(values: ArrayLike, *, draws: int = 9999, seed: int = 0) -> FriedmanResult:
    """Friedman's test of k treatments in n blocks, by permutation within blocks and by its approximations.

    Parameters
    ----------
    values : array_like, shape (n, k)
        n >= 2 blocks, k >= 2 treatments, larger is better, no NaN.
    draws : int
        Random permutations where enumeration is too large; p = (b + 1) / (draws + 1).
    seed : int
        Seed of those draws.

    Returns
    -------
    FriedmanResult
        `statistic` is chi-square corrected for ties, and the Iman-Davenport F follows from it; Friedman's own
        formula and its F, as in Demsar (2006), stand beside them. If every block is fully tied: statistic 0,
        p = 1, W = 0.

    Notes
    -----
    `method` says which p is reported: "exact" (all permutations), "Monte Carlo" or "F approximation" (more
    than 400 cells). Kendall's W = statistic / (n (k - 1)).

    References
    ----------
    Friedman (1937), JASA 32, 675-701; Iman and Davenport (1980), Commun. Stat. A9, 571-595; Demsar (2006),
    JMLR 7, 1-30.

    Examples
    --------
    >>> friedman([[3, 2, 1], [3, 2, 1], [3, 2, 1]]).pvalue
    0.027777777777777776
    """
    ranks = rank_table(values)
    n, k = ranks.shape
    if n < 2 or k < 2:
        raise StatsError(f"friedman: found {n} blocks and {k} treatments, it needs at least 2 of both")
    mean = ranks.mean(axis=0)
    spread = float(((mean - (k + 1) / 2) ** 2).sum())
    uncorrected = 12 * n / (k * (k + 1)) * spread
    within = float(((ranks - (k + 1) / 2) ** 2).sum())
    if within == 0:
        no = (0.0, 0.0, 1.0, "exact", 1.0, 0.0, 1.0, 0.0)
        return FriedmanResult(*no, tuple(mean.tolist()), n, k, 1.0, 0.0, 1.0)
    chi2 = n * n * (k - 1) * spread / within
    f, p_f = _iman_davenport(chi2, n, k)
    f_uncorrected, p_f_uncorrected = _iman_davenport(uncorrected, n, k)
    p, method = _permutation_p(ranks, draws, seed)
    return FriedmanResult(
        statistic=chi2,
        statistic_uncorrected=uncorrected,
        pvalue=p_f if p is None else p,
        method=method,
        p_chi2=float(special.chdtrc(k - 1, chi2)),
        iman_davenport=f,
        p_iman_davenport=p_f,
        kendall_w=chi2 / (n * (k - 1)),
        mean_ranks=tuple(mean.tolist()),
        n=n,
        k=k,
        p_chi2_uncorrected=float(special.chdtrc(k - 1, uncorrected)),
        iman_davenport_uncorrected=f_uncorrected,
        p_iman_davenport_uncorrected=p_f_uncorrected,
    )


def _iman_davenport(chi2: float, n: int, k: int) -> tuple[float, float]:
    """The F of Friedman's chi-square, and its p."""
    limit = n * (k - 1)
    if chi2 >= limit * (1 - 1e-12):
        return math.inf, 0.0
    f = (n - 1) * chi2 / (limit - chi2)
    return f, float(special.fdtrc(k - 1, (k - 1) * (n - 1), f))


def _permutation_p(ranks: FloatArray, draws: int, seed: int) -> tuple[float | None, str]:
    n, k = ranks.shape
    doubled = np.rint(2 * ranks).astype(np.int64)
    observed = int((doubled.sum(axis=0) ** 2).sum())
    exact = _exact_p(doubled, observed)
    if exact is not None:
        return exact, "exact"
    if n * k > _MAX_CELLS:
        return None, "F approximation"
    rng = np.random.default_rng(seed)
    hits = 0
    for start in range(0, draws, 1000):
        size = min(1000, draws - start)
        shuffled = rng.permuted(np.broadcast_to(doubled, (size, n, k)), axis=2)
        hits += int(((shuffled.sum(axis=1) ** 2).sum(axis=1) >= observed).sum())
    return (hits + 1) / (draws + 1), f"Monte Carlo, {draws} draws"


def _exact_p(doubled: NDArray[np.int64], observed: int) -> float | None:
    """P(sum of squared rank sums >= observed) over all permutations, None if the table grows large.

    The statistic does not depend on the order of the columns and every later permutation is uniform, so rank
    sums may be sorted and merged after each block.
    """
    k = doubled.shape[1]
    if k > 6 or len(doubled) > _MAX_BLOCKS:
        return None
    states, weights = np.sort(doubled[:1], axis=1), np.ones(1, dtype=np.float64)
    for row in doubled[1:]:
        moves = np.array(sorted(set(permutations(row.tolist()))), dtype=np.int64)
        if len(states) * len(moves) > _MAX_ROWS:
            return None
        reached = np.sort((states[:, None, :] + moves[None, :, :]).reshape(-1, k), axis=1)
        states, where = np.unique(reached, axis=0, return_inverse=True)
        weights = np.bincount(where.ravel(), np.repeat(weights / len(moves), len(moves))).astype(np.float64)
    return min(1.0, float(weights[(states**2).sum(axis=1) >= observed].sum()))


def nemenyi_cd(k: int, n: int, *, alpha: float = 0.05) -> float:
    """Nemenyi's critical difference of mean ranks, all pairs of k treatments over n blocks.

    Parameters
    ----------
    k, n : int
        Treatments (2 or more) and blocks.
    alpha : float

    Returns
    -------
    float
        In ranks.

    References
    ----------
    Demsar (2006), JMLR 7, section 3.2.2 and table 5(a).

    Examples
    --------
    >>> round(nemenyi_cd(4, 14), 2)
    1.25
    """
    check_fraction(alpha, "alpha")
    return _studentized_range(k, alpha) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n))


@lru_cache(maxsize=256)
def _studentized_range(k: int, alpha: float) -> float:
    """Quantile of the range of k standard normal values, by bisection.

    What ``scipy.stats.studentized_range.ppf(1 - alpha, k, inf)`` gives, without importing scipy.stats, which
    takes longer than pandas. P(range <= q) is k times the integral of phi(z) (Phi(z) - Phi(z - q))^(k - 1);
    the trapezoid rule is exact to rounding, as the integrand and its derivatives vanish at both ends.
    """
    z = np.linspace(-9.0, 9.0 + _WIDEST, 4001)
    density = k * (z[1] - z[0]) * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    low, high = 0.0, _WIDEST
    for _ in range(60):
        q = (low + high) / 2
        if density @ (special.ndtr(z) - special.ndtr(z - q)) ** (k - 1) < 1 - alpha:
            low = q
        else:
            high = q
    return (low + high) / 2


def bonferroni_dunn_cd(k: int, n: int, *, alpha: float = 0.05) -> float:
    """Bonferroni-Dunn critical difference of mean ranks, k - 1 treatments against a baseline.

    Parameters
    ----------
    k, n : int
        Treatments (2 or more) and blocks.
    alpha : float

    Returns
    -------
    float
        In ranks.

    References
    ----------
    Demsar (2006), JMLR 7, section 3.2.2 and table 5(b).

    Examples
    --------
    >>> round(bonferroni_dunn_cd(4, 14), 2)
    1.17
    """
    check_fraction(alpha, "alpha")
    q = float(special.ndtri(1 - alpha / (2 * (k - 1))))
    return q * math.sqrt(k * (k + 1) / (6 * n))


def rank_z_pvalues(mean_ranks: Sequence[float], *, n: int) -> FloatArray:
    """Two-sided p of each pairwise difference of mean ranks, by the normal approximation.

    Parameters
    ----------
    mean_ranks : sequence of float, length k
    n : int
        Blocks.

    Returns
    -------
    ndarray, shape (k (k - 1) / 2,)
        In the order of ``itertools.combinations(range(k), 2)``, unadjusted.

    Notes
    -----
    The familiar post-hoc test; it depends on which other treatments are in the table (Benavoli, Corani and
    Mangili 2016, JMLR 17(5)), so verdicts use pairwise signed-rank tests instead.

    References
    ----------
    Demsar (2006), JMLR 7, section 3.2.2; Garcia and Herrera (2008), JMLR 9.

    Examples
    --------
    >>> rank_z_pvalues([1.0, 2.0], n=6).round(4)
    array([0.0143])
    """
    r = np.asarray(mean_ranks, dtype=np.float64)
    k = r.size
    i, j = np.triu_indices(k, 1)
    z = np.abs(r[i] - r[j]) / math.sqrt(k * (k + 1) / (6 * n))
    return np.asarray(2 * special.ndtr(-z), dtype=np.float64)


def rank_intervals(signs: ArrayLike) -> list[tuple[int, int]]:
    """Simultaneous confidence intervals for the ranks of k treatments, from corrected pairwise decisions.

    Parameters
    ----------
    signs : array_like of int, shape (k, k)
        +1 where the row treatment was found better than the column treatment, -1 worse, 0 undecided.

    Returns
    -------
    list of (int, int)
        [1 + number found better, k - number found worse]. If the decisions control the family-wise error at
        alpha, all intervals cover together with probability 1 - alpha.

    References
    ----------
    Mogstad, Romano, Shaikh and Wilhelm (2024), Rev. Econ. Stud. 91, 476-518.

    Examples
    --------
    >>> rank_intervals([[0, 1, 1], [-1, 0, 0], [-1, 0, 0]])
    [(1, 1), (2, 3), (2, 3)]
    """
    s = np.asarray(signs, dtype=np.int64)
    k = len(s)
    return [(1 + int((row < 0).sum()), k - int((row > 0).sum())) for row in s]


def mean_rank_intervals(values: ArrayLike, *, confidence: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Confidence intervals of the mean ranks that cover at any number of blocks.

    Parameters
    ----------
    values : array_like, shape (n, k)
    confidence : float
        Of each treatment's interval.

    Returns
    -------
    low, high : ndarray, shape (k,)
        Within [1, k].

    Notes
    -----
    A mean rank is 1 plus the chances of each other treatment to be better. Each chance gets Clopper and
    Pearson's bounds at 1 - (1 - confidence) / (k - 1), a tie counted for the wider side, and the bounds are
    added: wide, but never short. A percentile bootstrap covers 88 % instead of 95 at n = 6, Student's t 86 %
    where most blocks agree.

    References
    ----------
    Clopper and Pearson (1934), Biometrika 26, 404-413.

    Examples
    --------
    >>> low, high = mean_rank_intervals([[2, 1]] * 8)
    >>> low.round(2).tolist(), high.round(2).tolist()
    ([1.0, 1.63], [1.37, 2.0])
    """
    check_fraction(confidence, "confidence")
    x = -round_significant(np.asarray(values, dtype=np.float64))
    n, k = x.shape
    tail = (1 - confidence) / (k - 1) / 2
    low, high = np.ones(k), np.ones(k)
    for i in range(k):
        others = np.delete(x, i, axis=1)
        before = (others < x[:, [i]]).sum(axis=0)
        at_most = (others <= x[:, [i]]).sum(axis=0)
        some, all_ = before > 0, at_most == n
        least = special.betaincinv(np.where(some, before, 1), n - before + 1, tail)
        most = special.betaincinv(at_most + 1, np.where(all_, 1, n - at_most), 1 - tail)
        low[i] += np.where(some, least, 0.0).sum()
        high[i] += np.where(all_, 1.0, most).sum()
    return low, high


def mean_rank_bootstrap(
    values: ArrayLike, *, draws: int = 2000, confidence: float = 0.95, seed: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Percentile bootstrap intervals of the mean ranks: too short for few blocks, kept to be compared with.

    Parameters
    ----------
    values : array_like, shape (n, k)
    draws, seed : int
    confidence : float

    Returns
    -------
    low, high : ndarray, shape (k,)
        NaN below n = 6 blocks, where a percentile bootstrap means nothing; above 200 the normal limit of the
        bootstrap is used.

    Examples
    --------
    >>> low, high = mean_rank_bootstrap([[2, 1]] * 8)
    >>> low.tolist(), high.tolist()
    ([1.0, 2.0], [1.0, 2.0])
    """
    check_fraction(confidence, "confidence")
    ranks = rank_table(values)
    n, k = ranks.shape
    if n < 6:
        return np.full(k, np.nan), np.full(k, np.nan)
    if n > 200:
        half = float(special.ndtri((1 + confidence) / 2)) * ranks.std(axis=0) / math.sqrt(n)
        return ranks.mean(axis=0) - half, ranks.mean(axis=0) + half
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)
    low, high = np.quantile(counts @ ranks / n, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return low, high


def compact_letters(different: ArrayLike, *, order: Sequence[int] | None = None) -> list[str]:
    """Compact letter display: two treatments share a letter exactly if neither was found better.

    Parameters
    ----------
    different : array_like of bool, shape (k, k)
        Symmetric; True where a difference was found.
    order : sequence of int, optional
        Treatments from best to worst: letters are handed out in this order, so the best carries "a".

    Returns
    -------
    list of str, length k

    References
    ----------
    Piepho (2004), J. Comput. Graph. Stat. 13, 456-466 (insert and absorb).

    Examples
    --------
    >>> compact_letters([[False, False, True], [False, False, False], [True, False, False]])
    ['a', 'ab', 'b']
    """
    d = np.asarray(different, dtype=bool)
    k = len(d)
    if d.shape != (k, k) or (d != d.T).any() or d.diagonal().any():
        raise StatsError(
            f"different: found {d.shape}, allowed is a symmetric (k, k) table, False on the diagonal"
        )
    sequence = list(range(k)) if order is None else list(order)
    groups = [frozenset(range(k))]
    for a in range(k):
        for b in range(a + 1, k):
            if d[a, b]:
                split = {part for g in groups for part in ((g - {a}, g - {b}) if {a, b} <= g else (g,))}
                groups = [g for g in split if g and not any(g < other for other in split)]
    groups.sort(key=lambda g: [sequence.index(i) for i in sorted(g, key=sequence.index)])
    return ["".join(_letter(number) for number, g in enumerate(groups) if i in g) for i in range(k)]


def _letter(number: int) -> str:
    return chr(ord("a") + number % 26) + ("'" * (number // 26))
