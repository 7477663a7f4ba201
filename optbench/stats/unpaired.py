"""Independent runs: no block holds both optimizers, so groups are compared as groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from optbench.stats.collapses import FEWEST_RUNS, collapsed
from optbench.stats.common import FloatArray, StatsError, check_fraction, one_dimensional
from optbench.stats.corrections import adjust
from optbench.stats.paired import DIVERGED_REASON
from optbench.stats.pairs import one_side
from optbench.stats.relative import EXACT_DIVISIONS, RelativeEffect, divisions, relative_effect
from optbench.stats.skew import skewed_test, third_moment
from optbench.stats.verdict import Verdict, collapses_told, no_collapse, verdict

_DRAWS = 9_999
#: The most draws for the smallest p-values of a large family, and how many hits make more of them needless.
_MOST_DRAWS, _FEW_HITS = 99_999, 20


@dataclass(frozen=True)
class WelchResult:
    """Welch's t test and interval of a difference of means, first minus second."""

    estimate: float
    low: float
    high: float
    confidence: float
    statistic: float
    df: float
    pvalue: float
    reason: str | None = None


@dataclass(frozen=True)
class PermutationResult:
    """Two-sided permutation test on Welch's t (or, where runs diverged, on rank sums)."""

    pvalue: float
    method: str
    smallest_attainable_p: float


@dataclass(frozen=True)
class UnpairedComparison:
    """Two groups of independent runs; positive differences favour the candidate.

    `welch` is the mean's test and interval, with the skewness seen allowed for on the side of the longer
    tail, at the level that holds for the family together; `welch_p_adjusted` is its p and `p_adjusted` that
    of the permutation test. `typical` is the chance that a run of the candidate beats one of the baseline,
    `typical_p_adjusted` its p. "Better" and "worse" are said of the typical run, and need all three.
    """

    candidate: str
    baseline: str
    n_candidate: int
    n_baseline: int
    welch: WelchResult
    permutation: PermutationResult
    p_adjusted: float
    welch_p_adjusted: float
    typical: RelativeEffect
    typical_p_adjusted: float
    verdict: Verdict


@dataclass(frozen=True)
class Duplicates:
    """Values that several runs of a group share to all digits.

    `expected` is how many pairs would share a value by chance, from the spread and the step of the values.
    """

    group: str
    values: tuple[float, ...]
    runs: tuple[tuple[str, ...], ...]
    extra: int
    expected: float

    @property
    def sentence(self) -> str:
        """One sentence for a report."""
        named = "; ".join(f"{', '.join(r)} ({v:g})" for v, r in zip(self.values, self.runs, strict=True))
        return (
            f"{self.group}: probable duplicates, equal to all digits: runs {named}; {self.expected:.2g} such "
            "pairs are expected by chance"
        )


def welch(x: ArrayLike, y: ArrayLike, *, confidence: float = 0.95) -> WelchResult:
    """Difference of two means with unequal variances.

    Parameters
    ----------
    x, y : array_like, shape (n,), (m,)
        Independent runs, at least 2 of each for a test.
    confidence : float

    Returns
    -------
    WelchResult
        NaN with a reason for fewer runs, no spread at all, or diverged runs.

    References
    ----------
    Welch (1947), Biometrika 34, 28-35.

    Examples
    --------
    >>> round(welch([1.0, 2.0, 3.0], [2.0, 3.0, 7.0]).df, 3)
    2.56
    """
    check_fraction(confidence, "confidence")
    a, b = one_dimensional(x, "x"), one_dimensional(y, "y")
    nan = math.nan
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return WelchResult(nan, nan, nan, confidence, nan, nan, nan, DIVERGED_REASON)
    estimate = float(a.mean() - b.mean())
    if min(a.size, b.size) < 2:
        reason = f"undefined: a spread needs 2 runs, found {a.size} and {b.size}"
        return WelchResult(estimate, nan, nan, confidence, nan, nan, nan, reason)
    u, v = float(a.var(ddof=1)) / a.size, float(b.var(ddof=1)) / b.size
    if u + v <= (1e-12 * max(float(np.abs(a).max()), float(np.abs(b).max()))) ** 2:
        reason = "undefined: the runs of both groups are all equal"
        return WelchResult(estimate, nan, nan, confidence, nan, nan, nan, reason)
    df = (u + v) ** 2 / (u**2 / (a.size - 1) + v**2 / (b.size - 1))
    error = math.sqrt(u + v)
    half = float(special.stdtrit(df, (1 + confidence) / 2)) * error
    t = estimate / error
    p = float(2 * special.stdtr(df, -abs(t)))
    return WelchResult(estimate, estimate - half, estimate + half, confidence, t, df, p)


def skewed_welch(x: ArrayLike, y: ArrayLike, *, confidence: float = 0.95) -> WelchResult:
    """Welch's test and interval, joined by Hall's transformation on the side of the longer tail.

    Parameters
    ----------
    x, y : array_like, shape (n,), (m,)
    confidence : float

    Returns
    -------
    WelchResult
        A mean on the side of the longer tail is rejected only if both reject it.

    References
    ----------
    Zhou and Dinh (2005), Biostatistics 6, 187-200.

    Examples
    --------
    >>> x, y = [1.0, 1.1, 0.9, 1.2, 0.6], [0.7, 0.6, 0.5, 0.7, 0.6]
    >>> skewed_welch(x, y).pvalue > welch(x, y).pvalue
    True
    """
    plain = welch(x, y, confidence=confidence)
    a, b = one_dimensional(x, "x"), one_dimensional(y, "y")
    if plain.reason is not None or min(a.size, b.size) < 3:
        return plain
    error = plain.estimate / plain.statistic if plain.statistic else math.nan
    if not error > 0:
        error = math.sqrt(float(a.var(ddof=1)) / a.size + float(b.var(ddof=1)) / b.size)
    skewness = (third_moment(a) / a.size**2 - third_moment(b) / b.size**2) / error**3
    both = skewed_test(plain.estimate, error, skewness, plain.df, n=a.size + b.size, confidence=confidence)
    return replace(
        plain,
        low=min(plain.low, both.low) if skewness < 0 else plain.low,
        high=max(plain.high, both.high) if skewness > 0 else plain.high,
        pvalue=max(plain.pvalue, both.pvalue) if both.against(plain.estimate) else plain.pvalue,
    )


def permutation_test(x: ArrayLike, y: ArrayLike, *, draws: int = _DRAWS, seed: int = 0) -> PermutationResult:
    """Two-sided permutation test of two groups, on Welch's t.

    Parameters
    ----------
    x, y : array_like, shape (n,), (m,)
        Diverged runs may be infinite: the test is then on rank sums.
    draws, seed : int
        Random divisions where there are more than 200,000; p = (b + 1) / (draws + 1). Above 9,999 the draws
        end once 20 of them are as extreme.

    Returns
    -------
    PermutationResult

    Notes
    -----
    Exact where both groups have one distribution; since the statistic is studentised, the level also holds in
    large groups of equal means and unequal spread.

    References
    ----------
    Pitman (1937), Suppl. JRSS 4, 119-130; Janssen (1997), Stat. Probab. Lett. 36, 9-21; Chung and Romano
    (2013), Ann. Stat. 41, 484-507; Phipson and Smyth (2010), SAGMB 9(1), 39.

    Examples
    --------
    >>> permutation_test([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]).pvalue
    0.1
    """
    a, b = one_dimensional(x, "x"), one_dimensional(y, "y")
    n, m = int(a.size), int(b.size)
    pooled = np.concatenate([a, b])
    if not np.isfinite(pooled).all():
        pooled = np.searchsorted(np.sort(pooled), pooled, side="left") + np.searchsorted(
            np.sort(pooled), pooled, side="right"
        ).astype(np.float64)
    pooled = pooled - pooled.mean()
    ways = math.comb(n + m, n)
    if ways <= EXACT_DIVISIONS:
        chosen = divisions(n, m)
        values = _studentised(pooled, chosen, n, m)
        # The first division is the one observed.
        p = float((values >= values[0] * (1 - 1e-9)).mean())
        smallest = (2 if n == m else 1) / ways
        return PermutationResult(p, "exact", min(1.0, smallest))
    rng = np.random.default_rng(seed)
    observed = _studentised(pooled, np.arange(n)[None, :], n, m)[0]
    hits = drawn = 0
    # The first draws settle what is far from any level; a small p gets all of them.
    while drawn < draws and not (drawn >= _DRAWS and hits >= _FEW_HITS):
        size = min(1000, draws - drawn)
        chosen = np.argpartition(rng.random((size, n + m)), n - 1, axis=1)[:, :n]
        hits += int((_studentised(pooled, chosen, n, m) >= observed * (1 - 1e-9)).sum())
        drawn += size
    return PermutationResult((hits + 1) / (drawn + 1), f"Monte Carlo, {drawn} draws", 1 / (draws + 1))


def _studentised(
    pooled: FloatArray, chosen: np.ndarray[tuple[int, int], np.dtype[np.int64]], n: int, m: int
) -> FloatArray:
    """|Welch's t| of each division (n - 1 replaced by n: the same order, and defined for one run)."""
    first = pooled[chosen]
    total, squares = float(pooled.sum()), float((pooled**2).sum())
    sum_a, square_a = first.sum(axis=1), (first**2).sum(axis=1)
    mean_a, mean_b = sum_a / n, (total - sum_a) / m
    var_a = np.maximum(square_a / n - mean_a**2, 0) / max(1, n - 1)
    var_b = np.maximum((squares - square_a) / m - mean_b**2, 0) / max(1, m - 1)
    error = np.sqrt(var_a + var_b)
    gap = np.abs(mean_a - mean_b)
    flat = error <= 1e-9 * math.sqrt(squares / (n + m))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = gap / np.where(flat, 1.0, error)
    return np.asarray(np.where(flat, np.where(gap > 1e-12, np.inf, 0.0), t), dtype=np.float64)


def compare_unpaired(
    groups: Mapping[str, ArrayLike],
    *,
    baseline: str | None = None,
    maximise: bool = True,
    alpha: float = 0.05,
    correction: str = "holm",
) -> tuple[UnpairedComparison, ...]:
    """Compare groups of independent runs, each with the baseline or all pairs.

    Parameters
    ----------
    groups : mapping of optimizer to array_like, shape (n,)
    baseline : str, optional
        One of them; None compares all pairs.
    maximise : bool
        Is larger better?
    alpha : float
    correction : str
        See `optbench.stats.corrections.adjust`.

    Returns
    -------
    tuple of UnpairedComparison

    Raises
    ------
    StatsError
        If the baseline is no group, or there are fewer than 2 groups.

    Notes
    -----
    The word is "better" or "worse" only where the interval of the means and the test of the chance that a run
    of one beats a run of the other show the same; where some show a difference and others do not, it is
    "mixed".

    Examples
    --------
    >>> compare_unpaired({"x": [1.0, 2.0, 3.0, 2.5], "y": [5.0, 6.0, 7.0, 6.5]}, baseline="x")[0].verdict.word
    'better'
    """
    check_fraction(alpha, "alpha")
    names = list(groups)
    if len(names) < 2:
        raise StatsError(f"groups: found {', '.join(names) or 'none'}; a comparison needs at least 2")
    if baseline is not None and baseline not in names:
        raise StatsError(f"baseline: found {baseline!r}, allowed are {', '.join(names)}")
    pairs = (
        list(combinations(names, 2)) if baseline is None else [(n, baseline) for n in names if n != baseline]
    )
    sign = 1.0 if maximise else -1.0
    values = {name: sign * one_dimensional(v, name) for name, v in groups.items()}
    together = 1 if correction in ("none", "bh") else len(pairs)
    raw = []
    for c, b in pairs:
        means = skewed_welch(values[c], values[b], confidence=1 - alpha / together)
        draws = max(_DRAWS, min(_MOST_DRAWS, 2 * math.ceil(together / alpha)))
        raw.append(
            UnpairedComparison(
                candidate=c,
                baseline=b,
                n_candidate=values[c].size,
                n_baseline=values[b].size,
                welch=means,
                permutation=permutation_test(values[c], values[b], draws=draws),
                p_adjusted=math.nan,
                welch_p_adjusted=math.nan,
                typical=relative_effect(values[c], values[b], draws=draws),
                typical_p_adjusted=math.nan,
                verdict=Verdict("inconclusive", ""),
            )
        )
    adjusted = adjust([r.permutation.pvalue for r in raw], method=correction, all_pairs=baseline is None)
    by_mean = adjust([r.welch.pvalue for r in raw], method=correction, all_pairs=baseline is None)
    by_runs = adjust([r.typical.pvalue for r in raw], method=correction, all_pairs=baseline is None)
    result = []
    for r, p, p_mean, p_runs in zip(raw, adjusted.tolist(), by_mean.tolist(), by_runs.tolist(), strict=True):
        low, high = one_side(r.welch.low, r.welch.high, r.welch.estimate, found=p_mean <= alpha)
        said = replace(
            r,
            welch=replace(r.welch, low=low, high=high),
            p_adjusted=p,
            welch_p_adjusted=p_mean,
            typical_p_adjusted=p_runs,
        )
        result.append(replace(said, verdict=_word(said, values, alpha, together)))
    return tuple(result)


def _word(r: UnpairedComparison, values: Mapping[str, FloatArray], alpha: float, together: int) -> Verdict:
    a, b = values[r.candidate], values[r.baseline]
    with np.errstate(invalid="ignore"):
        wins = float(np.sign(a[:, None] - b[None, :]).sum())
    smallest = min(1.0, r.permutation.smallest_attainable_p * together)
    known = not math.isnan(r.welch.low)
    direction = r.welch.estimate if math.isfinite(r.welch.estimate) else wins
    found = verdict(
        pvalue=r.p_adjusted,
        direction=direction,
        alpha=alpha,
        smallest_p=smallest,
        candidate=r.candidate,
        baseline=r.baseline,
        note=_left_open(a, b, r),
    )
    if smallest > alpha and found.word == "inconclusive":
        return found
    runs = f"the typical run (one of {r.candidate} beats one of {r.baseline} in {r.typical.effect:.0%})"
    mean = f"the difference of means (adjusted p = {r.welch_p_adjusted:.3g})"
    shows = {
        mean: r.welch_p_adjusted <= alpha or not known,
        runs: r.typical_p_adjusted <= alpha and (r.typical.effect - 0.5) * direction > 0,
    }
    if found.word not in ("better", "worse"):
        too = known and shows[mean]
        return Verdict("mixed", f"{found.reason[:-1]} by permutations, but {mean} does.") if too else found
    silent = [text for text, yes in shows.items() if not yes]
    if not silent:
        return found
    verb = "beats" if direction > 0 else "loses to"
    test = f"adjusted p = {r.p_adjusted:.3g} <= {alpha:g} by permutations"
    both = f"{' and '.join(silent)} {'do' if len(silent) > 1 else 'does'} not show it"
    return Verdict("mixed", f"{r.candidate} {verb} {r.baseline}: {test}, but {both}.")


def _left_open(a: FloatArray, b: FloatArray, r: UnpairedComparison) -> str:
    """Collapsed runs of the two groups, or the rate that so many runs without one leave possible."""
    if min(a.size, b.size) < FEWEST_RUNS:
        return ""
    fell = int(collapsed(a).sum()), int(collapsed(b).sum())
    if not any(fell):
        return no_collapse(min(a.size, b.size))
    return collapses_told((r.candidate, fell[0], a.size), (r.baseline, fell[1], b.size))


def duplicates(
    values: ArrayLike, *, group: str = "", runs: Sequence[object] | None = None
) -> Duplicates | None:
    """Runs of one group that are equal to all digits.

    Parameters
    ----------
    values : array_like, shape (n,)
    group : str
    runs : sequence, length n, optional
        Their names; by default their numbers.

    Returns
    -------
    Duplicates or None
        None where all values differ. Diverged runs (infinite) and missing ones are no duplicates.

    Notes
    -----
    The pairs expected by chance are n (n - 1) / 2 x step / (2 sqrt(pi) sd), for normal values of the spread
    of the distinct ones, rounded to the step of their decimals.

    Examples
    --------
    >>> duplicates([0.51, 0.52, 0.51], group="g").runs
    (('0', '2'),)
    """
    x = np.asarray(values, dtype=np.float64)
    names = [str(r) for r in (range(x.size) if runs is None else runs)]
    found, counts = np.unique(x[np.isfinite(x)], return_counts=True)
    repeated = found[counts > 1]
    if not repeated.size:
        return None
    who = tuple(tuple(names[i] for i in np.flatnonzero(x == v)) for v in repeated)
    sd = float(found.std(ddof=1)) if found.size > 1 else math.nan
    step = _step(found)
    n = int(np.isfinite(x).sum())
    expected = n * (n - 1) / 2 * step / (2 * math.sqrt(math.pi) * sd) if sd > 0 else math.nan
    return Duplicates(group, tuple(repeated.tolist()), who, int((counts - 1).sum()), expected)


def _step(values: FloatArray) -> float:
    """The last decimal place that the values use."""
    for places in range(16):
        if (np.abs(values - np.round(values, places)) <= 1e-12 * np.maximum(1, np.abs(values))).all():
            return float(10.0**-places)
    return 1e-16
