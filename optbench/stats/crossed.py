"""Means over two crossed factors: seeds of two streams, or seeds x test examples.

With seeds {init: [0, 1], order: 8} there are 16 differences and 2 initialisations: the trials that share one
are no independent trials. The mean is then tested against the variance that either factor brings. So it is
with trained seeds on shared test examples: new seeds and new examples are two samples, not one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    """A mean over a table of crossed factors, for new levels of all of them.

    `components` are the variances of one cell that come from each factor, and from the rest (not below 0);
    `shares` how much each adds to the variance of the mean. `levels` are the numbers of levels, `names` the
    factors'. NaN with a `reason` where the analysis is not possible.
    """

    estimate: float
    low: float
    high: float
    confidence: float
    pvalue: float
    standard_error: float
    levels: tuple[int, ...]
    names: tuple[str, ...]
    components: tuple[float, ...]
    shares: tuple[float, ...]
    method: str
    reason: str | None = None


@dataclass(frozen=True)
class Crossing:
    """Levels of the streams (such as init and order) that repeat over blocks, shape (n,) for each name."""

    names: tuple[str, ...]
    levels: tuple[IntArray, ...]

    @property
    def sentence(self) -> str:
        """How many levels there are of each: "2 init x 8 order"."""
        return grid(self.names, [np.unique(x).size for x in self.levels])


def grid(names: Sequence[str], levels: Sequence[int]) -> str:
    """Write the levels of crossed factors.

    Examples
    --------
    >>> grid(["init", "order"], [2, 8])
    '2 init x 8 order'
    """
    return " x ".join(f"{count} {name}" for name, count in zip(names, levels, strict=True))


def find_crossing(streams: Mapping[str, ArrayLike]) -> Crossing | None:
    """Do blocks share levels of streams, so that they are not independent?

    Parameters
    ----------
    streams : mapping of str to array_like, shape (n,)
        The seed of each stream in each block.

    Returns
    -------
    Crossing or None
        None where every block has seeds of its own. Streams with one seed do not vary, and streams that
        always change together are one factor.

    Examples
    --------
    >>> find_crossing({"init": [0, 0, 1, 1], "order": [0, 1, 0, 1], "split": [0, 0, 0, 0]}).sentence
    '2 init x 2 order'
    >>> find_crossing({"init": [0, 1, 2], "order": [0, 1, 2]}) is None
    True
    """
    found: dict[bytes, tuple[str, IntArray]] = {}
    for name, seeds in streams.items():
        _, first, codes = np.unique(np.asarray(seeds), return_index=True, return_inverse=True)
        order = np.argsort(np.argsort(first))  # numbered by appearance, so that equal partitions look equal
        levels = order[np.ravel(codes)].astype(np.int64)
        if levels.size and levels.max() > 0:
            found.setdefault(levels.tobytes(), (name, levels))
    factors = list(found.values())
    if len(factors) < 2:
        return None
    return Crossing(tuple(name for name, _ in factors), tuple(levels for _, levels in factors))


def crossed_mean(
    table: ArrayLike, *, confidence: float = 0.95, names: Sequence[str] = ("rows", "columns")
) -> CrossedMean:
    """Test that the mean of a complete table of crossed factors is zero, for new levels of all of them.

    Parameters
    ----------
    table : array_like, shape (a, b, ...)
        One difference per combination of levels, at least 2 of each of 2 factors or more.
    confidence : float
    names : sequence of str
        Of the factors.

    Returns
    -------
    CrossedMean

    Notes
    -----
    The crossed random-effects model without replication. The variance of the mean is estimated by (MS_a +
    MS_b - MS_rest) / ab, not below the larger of the first two alone, and compared with the average of the t
    quantiles on a - 1 and b - 1 degrees of freedom, weighted by MS_a and MS_b (Cochran and Cox). Where a
    factor has 2 levels, or there are 3 factors or more, each mean square has its own quantile; their sum
    counts interactions of factors twice, to the safe side. Satterthwaite's degrees of freedom, the usual
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
    if d.ndim < 2 or min(d.shape) < 2:
        raise StatsError(
            f"table: found shape {d.shape}; allowed is (a, b, ...) with 2 levels of each factor at least"
        )
    if not np.isfinite(d).all():
        return _undefined(math.nan, math.nan, confidence, d.shape, tuple(names), DIVERGED_REASON)
    return _from_squares(float(d.mean()), mean_squares(d), d.shape, confidence, tuple(names))


def refused(levels: Sequence[int], names: Sequence[str], *, confidence: float) -> CrossedMean:
    """Say that too few combinations of crossed seeds are complete.

    Examples
    --------
    >>> refused([1, 8], ["init", "order"], confidence=0.95).reason
    'refused: 1 init x 8 order seeds are complete'
    """
    reason = f"refused: {grid(names, levels)} seeds are complete"
    return _undefined(math.nan, math.nan, confidence, tuple(levels), tuple(names), reason)


def _undefined(
    estimate: float,
    error: float,
    confidence: float,
    levels: tuple[int, ...],
    names: tuple[str, ...],
    reason: str,
    components: tuple[float, ...] = (),
) -> CrossedMean:
    nan, unknown = math.nan, (math.nan,) * (len(levels) + 1)
    return CrossedMean(
        estimate,
        nan,
        nan,
        confidence,
        nan,
        error,
        levels,
        names,
        components or unknown,
        unknown,
        "none",
        reason,
    )


def mean_squares(d: FloatArray) -> tuple[float, ...]:
    """Mean squares of each factor's levels, and of what is left.

    Parameters
    ----------
    d : ndarray, shape (a, b, ...)

    Returns
    -------
    tuple of float, one more than there are factors

    Examples
    --------
    >>> mean_squares(np.array([[1.0, 1.0], [3.0, 3.0]]))
    (4.0, 0.0, 0.0)
    """
    mean, squares, explained, df = d.mean(), [], 0.0, d.size - 1
    for axis, levels in enumerate(d.shape):
        others = tuple(i for i in range(d.ndim) if i != axis)
        sum_of_squares = d.size / levels * float(((d.mean(axis=others) - mean) ** 2).sum())
        squares.append(sum_of_squares / (levels - 1))
        explained, df = explained + sum_of_squares, df - (levels - 1)
    return *squares, max(0.0, float(((d - mean) ** 2).sum()) - explained) / df


def _from_squares(
    estimate: float,
    squares: tuple[float, ...],
    levels: tuple[int, ...],
    confidence: float,
    names: tuple[str, ...],
) -> CrossedMean:
    cells = math.prod(levels)
    *factors, rest = squares
    parts = [max(0.0, (ms - rest) * count / cells) for ms, count in zip(factors, levels, strict=True)]
    added = [part / count for part, count in zip(parts, levels, strict=True)] + [rest / cells]
    whole = sum(added)
    components = (*parts, rest)
    if sum(factors) <= 0:
        reason = "undefined: all differences are equal, so their standard deviation is 0"
        return _undefined(estimate, 0.0, confidence, levels, names, reason, components)
    each = len(levels) > 2 or min(levels) == 2
    # Never below one factor's own, whose estimate the rest could take below it.
    variance = sum(factors) if each else max(sum(factors) - rest, *factors)
    error = math.sqrt(variance / cells)

    def half(confidence: float) -> float:
        """Half the width of the interval at a confidence."""
        t = [float(special.stdtrit(count - 1, (1 + confidence) / 2)) for count in levels]
        if each:
            return math.sqrt(sum(x**2 * ms for x, ms in zip(t, factors, strict=True)) / cells)
        return sum(x * ms for x, ms in zip(t, factors, strict=True)) / sum(factors) * error

    low, high = 0.0, 1.0 - _SMALLEST
    for _ in range(60):  # the confidence whose interval just reaches 0
        middle = (low + high) / 2
        low, high = (middle, high) if half(middle) < abs(estimate) else (low, middle)
    width = half(confidence)
    return CrossedMean(
        estimate,
        estimate - width,
        estimate + width,
        confidence,
        1 - low if low > 0 else 1.0,
        error,
        levels,
        names,
        components,
        tuple(x / whole if whole > 0 else math.nan for x in added),
        "a t of its own for each factor" if each else "two-way, Cochran-Cox",
    )


def complete_table(d: FloatArray, factors: Sequence[IntArray]) -> tuple[FloatArray, int]:
    """Arrange differences by the levels of factors; levels with holes are left out until none is left.

    Parameters
    ----------
    d : ndarray, shape (n,)
        One difference per block, NaN where missing.
    factors : sequence of ndarray of int, shape (n,)
        Levels of each factor; each combination once at most.

    Returns
    -------
    table : ndarray, shape (a, b, ...)
        Complete.
    left_out : int
        Differences that were known and are not in it.

    Examples
    --------
    >>> complete_table(np.array([1.0, 2.0, 3.0]), [np.array([0, 0, 1]), np.array([0, 1, 0])])
    (array([[1., 2.]]), 1)
    """
    codes = [np.unique(levels, return_inverse=True)[1] for levels in factors]
    table = np.full([int(code.max()) + 1 for code in codes], np.nan)
    table[tuple(codes)] = d
    known = int((~np.isnan(table)).sum())
    while np.isnan(table).any():
        holes = np.isnan(table)
        shares = [
            holes.mean(axis=tuple(i for i in range(table.ndim) if i != axis)) for axis in range(table.ndim)
        ]
        worst = max(range(table.ndim), key=lambda axis: float(shares[axis].max()))
        table = np.delete(table, int(shares[worst].argmax()), axis=worst)
    return table, known - table.size


def crossed_power(
    levels: Sequence[int],
    effect: float,
    *,
    shares: Sequence[float] | None = None,
    alpha: float = 0.05,
    draws: int = 2000,
    seed: int = 0,
) -> float:
    """Power of `crossed_mean` for a mean of `effect` standard deviations of one difference.

    Parameters
    ----------
    levels : sequence of int
    effect : float
        Mean over the standard deviation of one difference.
    shares : sequence of float, optional
        Of the variance of one difference: each factor, and the rest; they sum to 1. Equal if not given.
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
    sizes = tuple(levels)
    deviations = [math.sqrt(s) for s in shares or [1 / (len(sizes) + 1)] * (len(sizes) + 1)]
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(draws):
        d = effect + deviations[-1] * rng.normal(size=sizes)
        for axis, count in enumerate(sizes):
            shape = [1] * len(sizes)
            shape[axis] = count
            d = d + deviations[axis] * rng.normal(size=shape)
        result = crossed_mean(d, confidence=1 - alpha)
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
