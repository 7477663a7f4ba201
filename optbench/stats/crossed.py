"""Means over two crossed factors: seeds of two streams, or seeds x test examples.

With seeds {init: [0, 1], order: 8} there are 16 differences and 2 initialisations: the trials that share one
are no independent trials. The mean is then tested against the variance that either factor brings. So it is
with trained seeds on shared test examples: new seeds and new examples are two samples, not one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from optbench.stats.common import FloatArray, IntArray, StatsError, check_fraction
from optbench.stats.effects import mean_difference
from optbench.stats.paired import DIVERGED_REASON, paired_t

_SMALLEST = 1e-12


@dataclass(frozen=True)
class CrossedMean:
    """A mean over a table of two crossed factors, for new levels of both.

    `components` are the variances of one cell that come from the first factor, the second, and the rest (not
    below 0); `shares` how much each adds to the variance of the mean. `levels` are the numbers of levels,
    `names` the factors'. NaN with a `reason` where the analysis is not possible.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    pvalue: float
    standard_error: float
    levels: tuple[int, int]
    names: tuple[str, str]
    components: tuple[float, float, float]
    shares: tuple[float, float, float]
    method: str
    reason: str | None = None


def crossed_mean(
    table: ArrayLike, *, confidence: float = 0.95, names: tuple[str, str] = ("rows", "columns")
) -> CrossedMean:
    """Test that the mean of a complete two-way table is zero, for new levels of both factors.

    Parameters
    ----------
    table : array_like, shape (a, b)
        One difference per combination of levels, a and b at least 2.
    confidence : float
    names : (str, str)
        Of the factors.

    Returns
    -------
    CrossedMean

    Notes
    -----
    The crossed random-effects model without replication. The variance of the mean is estimated by (MS_a +
    MS_b - MS_rest) / ab, not below the larger of the first two alone, and compared with the average of the t
    quantiles on a - 1 and b - 1 degrees of freedom, weighted by MS_a and MS_b (Cochran and Cox). Where a
    factor has 2 levels each mean square has its own quantile. Satterthwaite's degrees of freedom, the usual
    choice, reject in up to 12 % where one factor has 2 or 3 levels; these stay within Monte Carlo error of
    5 % in the settings of the table in docs/statistics.md. With 2 levels of a factor that matters hardly
    anything can be shown about new ones.

    References
    ----------
    Cochran and Cox (1957), Experimental Designs, section 4.14; Searle, Casella and McCulloch (1992), Variance
    Components; Obuchowski and Rockette (1995), Commun. Stat. Simul. 24, 285-308 (readers x cases).

    Examples
    --------
    >>> result = crossed_mean([[1.0, 1.2, 0.9, 1.1], [1.1, 1.3, 1.0, 1.2], [0.9, 1.1, 0.8, 1.0]])
    >>> result.pvalue < 0.01, result.levels
    (True, (3, 4))
    """
    check_fraction(confidence, "confidence")
    d = np.asarray(table, dtype=np.float64)
    if d.ndim != 2 or min(d.shape) < 2:
        raise StatsError(
            f"table: found shape {d.shape}; allowed is (a, b) with 2 levels of each factor at least"
        )
    levels = (d.shape[0], d.shape[1])
    nan3 = (math.nan,) * 3
    if not np.isfinite(d).all():
        return CrossedMean(*nan3, confidence, *nan3[:2], levels, names, nan3, nan3, "none", DIVERGED_REASON)
    squares = mean_squares(d)
    return _from_squares(float(d.mean()), squares, levels, confidence, names)


def mean_squares(d: FloatArray) -> tuple[float, float, float]:
    """Mean squares of the rows, of the columns, and of what is left.

    Parameters
    ----------
    d : ndarray, shape (a, b)

    Returns
    -------
    (float, float, float)

    Examples
    --------
    >>> mean_squares(np.array([[1.0, 1.0], [3.0, 3.0]]))
    (4.0, 0.0, 0.0)
    """
    a, b = d.shape
    mean, rows, columns = d.mean(), d.mean(axis=1), d.mean(axis=0)
    row = b * float(((rows - mean) ** 2).sum()) / (a - 1)
    column = a * float(((columns - mean) ** 2).sum()) / (b - 1)
    total = float(((d - mean) ** 2).sum())
    rest = max(0.0, total - row * (a - 1) - column * (b - 1)) / ((a - 1) * (b - 1))
    return row, column, rest


def _from_squares(
    estimate: float,
    squares: tuple[float, float, float],
    levels: tuple[int, int],
    confidence: float,
    names: tuple[str, str],
) -> CrossedMean:
    a, b = levels
    cells = a * b
    row, column, rest = squares
    parts = (max(0.0, (row - rest) / b), max(0.0, (column - rest) / a), rest)
    added = (parts[0] / a, parts[1] / b, parts[2] / cells)
    whole = sum(added)
    first, second, third = (x / whole if whole > 0 else math.nan for x in added)
    shares = (first, second, third)
    if row + column <= 0:
        nan = math.nan
        reason = "undefined: all differences are equal, so their standard deviation is 0"
        return CrossedMean(
            estimate, nan, nan, confidence, nan, 0.0, levels, names, parts, shares, "none", reason
        )
    variance = max(row + column - rest, row, column) / cells
    two = min(a, b) == 2

    def half(confidence: float) -> float:
        """Half the width of the interval at a confidence."""
        upper = (1 + confidence) / 2
        t_row, t_column = float(special.stdtrit(a - 1, upper)), float(special.stdtrit(b - 1, upper))
        if two:
            return math.sqrt((t_row**2 * row + t_column**2 * column) / cells)
        return (t_row * row + t_column * column) / (row + column) * math.sqrt(variance)

    low, high = 0.0, 1.0 - _SMALLEST
    for _ in range(60):  # the confidence whose interval just reaches 0
        middle = (low + high) / 2
        low, high = (middle, high) if half(middle) < abs(estimate) else (low, middle)
    width = half(confidence)
    pvalue = 1 - low if low > 0 else 1.0
    method = "two-way, a t of its own for each factor" if two else "two-way, Cochran-Cox"
    return CrossedMean(
        estimate,
        estimate - width,
        estimate + width,
        confidence,
        pvalue,
        math.sqrt(variance),
        levels,
        names,
        parts,
        shares,
        method,
    )


def complete_table(d: FloatArray, first: IntArray, second: IntArray) -> tuple[FloatArray, int]:
    """Arrange differences by the levels of two factors; levels with holes are left out until none is left.

    Parameters
    ----------
    d : ndarray, shape (n,)
        One difference per block, NaN where missing.
    first, second : ndarray of int, shape (n,)
        Levels of the two factors; each combination once at most.

    Returns
    -------
    table : ndarray, shape (a, b)
        Complete.
    left_out : int
        Differences that were known and are not in it.

    Examples
    --------
    >>> complete_table(np.array([1.0, 2.0, 3.0]), np.array([0, 0, 1]), np.array([0, 1, 0]))
    (array([[1., 2.]]), 1)
    """
    _, i = np.unique(first, return_inverse=True)
    _, j = np.unique(second, return_inverse=True)
    table = np.full((int(i.max()) + 1, int(j.max()) + 1), np.nan)
    table[i, j] = d
    known = int((~np.isnan(table)).sum())
    while np.isnan(table).any():
        holes = np.isnan(table)
        rows, columns = holes.mean(axis=1), holes.mean(axis=0)
        if rows.max() >= columns.max():
            table = np.delete(table, int(rows.argmax()), axis=0)
        else:
            table = np.delete(table, int(columns.argmax()), axis=1)
    return table, known - table.size


def is_crossed(first: IntArray, second: IntArray) -> bool:
    """Do levels of two factors repeat in a grid, so that blocks are not independent?

    Examples
    --------
    >>> is_crossed(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])), is_crossed(np.arange(4), np.arange(4))
    (True, False)
    """
    repeats = min(np.unique(x).size for x in (first, second)) < first.size
    return bool(repeats and np.unique(first).size > 1 and np.unique(second).size > 1)


def crossed_power(
    levels: tuple[int, int],
    effect: float,
    *,
    shares: Sequence[float] = (1 / 3, 1 / 3, 1 / 3),
    alpha: float = 0.05,
    draws: int = 2000,
    seed: int = 0,
) -> float:
    """Power of `crossed_mean` for a mean of `effect` standard deviations of one difference.

    Parameters
    ----------
    levels : (int, int)
    effect : float
        Mean over the standard deviation of one difference.
    shares : sequence of float, length 3
        Of the variance of one difference: first factor, second, rest; they sum to 1.
    alpha : float
    draws, seed : int
        Of the simulation; standard error at most 0.011.

    Returns
    -------
    float

    Examples
    --------
    >>> crossed_power((2, 8), 1.0) < crossed_power((8, 8), 1.0)
    True
    """
    check_fraction(alpha, "alpha")
    a, b = levels
    first, second, rest = (math.sqrt(s) for s in shares)
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(draws):
        d = effect + first * rng.normal(size=(a, 1)) + second * rng.normal(size=(1, b))
        result = crossed_mean(d + rest * rng.normal(size=(a, b)), confidence=1 - alpha)
        hits += result.low > 0 or result.high < 0
    return hits / draws


def two_way_examples(candidate: ArrayLike, baseline: ArrayLike, *, confidence: float = 0.95) -> CrossedMean:
    """Is one optimizer better over new seeds *and* new test examples?

    Parameters
    ----------
    candidate, baseline : array_like, shape (s, n)
        Score of each of n test examples for each of s matched seeds (1 right, 0 wrong; or a loss, negated).

    Returns
    -------
    CrossedMean
        Of the differences; `shares` say what part of the uncertainty comes from seeds, from examples, and
        from which examples a seed happens to get right.

    Notes
    -----
    `crossed_mean` with seeds and examples as factors. Examples are taken as a sample of independent examples:
    augmented copies, frames of one film or pages of one book are not.

    References
    ----------
    As of `crossed_mean`; Sellam et al. (2022), The MultiBERTs, ICLR, for the same question by bootstrap.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> right = rng.random((5, 200)) < 0.8
    >>> two_way_examples(right, right).reason
    'undefined: all differences are equal, so their standard deviation is 0'
    """
    a, b = np.asarray(candidate, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2:
        raise StatsError(
            f"scores: found shapes {a.shape} and {b.shape}; allowed are two equal (seeds, examples)"
        )
    if min(a.shape) < 2:
        raise StatsError(f"scores: found {a.shape[0]} seeds and {a.shape[1]} examples; 2 of each are needed")
    return crossed_mean(a - b, confidence=confidence, names=("seeds", "examples"))


def independent_mean(d: FloatArray, *, confidence: float = 0.95) -> CrossedMean:
    """The mean of independent differences in the form of a crossed one, to be combined with such.

    Examples
    --------
    >>> independent_mean(np.array([1.0, 2.0, 3.0])).levels
    (3, 3)
    """
    m = mean_difference(d, confidence=confidence)
    parts, shares = (m.sd**2, 0.0, 0.0), (1.0, 0.0, 0.0)
    p, error, names = paired_t(d).pvalue, m.sd / math.sqrt(m.n), ("seeds", "seeds")
    return CrossedMean(
        m.estimate, m.low, m.high, confidence, p, error, (m.n, m.n), names, parts, shares, "t", m.reason
    )


def combine_means(
    parts: Sequence[CrossedMean], *, confidence: float = 0.95
) -> tuple[float, float, float, float]:
    """Average the means of several workloads, each weighing the same.

    Parameters
    ----------
    parts : sequence of CrossedMean
        With a value; workloads are independent.
    confidence : float

    Returns
    -------
    estimate, low, high, pvalue : float
        By the t of the fewest levels in any of them, a conservative choice.

    Examples
    --------
    >>> one = crossed_mean([[1.0, 1.2, 0.9], [1.1, 1.3, 1.0], [0.9, 1.1, 0.8]])
    >>> round(combine_means([one, one])[0], 3)
    1.033
    """
    estimate = float(np.mean([p.estimate for p in parts]))
    error = math.sqrt(sum(p.standard_error**2 for p in parts)) / len(parts)
    df = min(min(p.levels) for p in parts) - 1
    half = float(special.stdtrit(df, (1 + confidence) / 2)) * error
    pvalue = float(2 * special.stdtr(df, -abs(estimate) / error)) if error > 0 else math.nan
    return estimate, estimate - half, estimate + half, pvalue
