"""One comparison of two optimizers in the same blocks: every test and interval of it, and its verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np

from optbench.stats.collapses import FEWEST_RUNS, collapse_counts
from optbench.stats.common import FloatArray, differences
from optbench.stats.corrections import adjust
from optbench.stats.crossed import CrossedMean, Crossing, complete_table, crossed_mean, grid, refused
from optbench.stats.effects import (
    MeanDifference,
    RankEffect,
    StandardizedDifference,
    mean_difference,
    rank_effect,
    standardized_difference,
)
from optbench.stats.equivalence import Equivalence, equivalence
from optbench.stats.flips import MeanTest
from optbench.stats.missing import Sensitivity
from optbench.stats.paired import (
    EXACT_FLIPS,
    Interval,
    PairCorrelation,
    PairedTResult,
    SignedRankResult,
    SignFlipResult,
    hodges_lehmann,
    pair_correlation,
    paired_t,
    sign_flip,
    signed_rank,
)
from optbench.stats.power import attainability
from optbench.stats.skew import join, mean_test, skewed_mean
from optbench.stats.verdict import MEAN, TYPICAL, MeanSays, Verdict, collapses_told, no_collapse, verdict

if TYPE_CHECKING:
    from optbench.stats.sequential_verdict import Decision

#: How the method of an interval ends that a later step of the correction cut at 0.
CUT = "cut at 0 by the correction's step"
UNDECIDED = Verdict("inconclusive", "not decided yet")


@dataclass(frozen=True)
class Settings:
    """What was declared: `family` is "baseline" (each against `baseline`) or "all" (all pairs).

    `resolution` is the step of the metric's values, for all datasets or by dataset. `families` of this kind
    answer one question together: corrected p-values are multiplied by it (Bonferroni).
    """

    baseline: str | None
    family: Literal["baseline", "all"]
    alpha: float = 0.05
    correction: str = "holm"
    margin: float | None = None
    resolution: float | Mapping[str, float] | None = None
    families: int = 1

    @property
    def together(self) -> int:
        """By how many families an error is shared; 1 under the corrections "none" and "bh"."""
        return 1 if self.correction in ("none", "bh") else self.families

    def step(self, scope: str) -> float | None:
        """The step of the metric's values on a dataset; None if it is not known."""
        return self.resolution.get(scope) if isinstance(self.resolution, Mapping) else self.resolution

    def pairs(self, names: Sequence[str]) -> list[tuple[int, int]]:
        """Indices (candidate, baseline) of every comparison of the family."""
        if self.family == "all":
            return list(combinations(range(len(names)), 2))
        base = list(names).index(str(self.baseline))
        return [(i, base) for i in range(len(names)) if i != base]


@dataclass(frozen=True)
class PairedComparison:
    """Two optimizers in the same blocks; every difference is positive where the candidate is better.

    `n` pairs were used and `n_missing` blocks of the family lack one of the two. `p_adjusted` and
    `smallest_adjusted_p`, which it could have had beside the others as they are, are after the family's
    correction. `sign_flip` is None above 30 pairs, where `t`
    serves. `mean` and `hodges_lehmann` have intervals of this comparison alone; `average` (the mean, by sign
    flips, with Hall's t against a longer tail) and `simultaneous` (the Hodges-Lehmann shift) have the level
    that holds for the family together, as `p_adjusted` and `average_p_adjusted` do.
    `n_collapsed_*` count runs far below their optimizer's median. `sensitivity` is None where no run is
    missing. Where the seeds of two streams are crossed, `crossed` decides (`p_adjusted` is its own): the
    blocks are not independent, and the other tests describe these blocks only. Under a sequential design
    `sequential` decides: `p_adjusted` and the verdict are those of its look.
    """

    candidate: str
    baseline: str
    n: int
    n_missing: int
    n_diverged_candidate: int
    n_diverged_baseline: int
    signed_rank: SignedRankResult | None = None
    p_adjusted: float = math.nan
    smallest_adjusted_p: float = math.nan
    sign_flip: SignFlipResult | None = None
    t: PairedTResult | None = None
    mean: MeanDifference | None = None
    hodges_lehmann: Interval | None = None
    simultaneous: Interval | None = None
    average: MeanTest | None = None
    average_p_adjusted: float = math.nan
    n_collapsed_candidate: int = 0
    n_collapsed_baseline: int = 0
    standardized: StandardizedDifference | None = None
    rank: RankEffect | None = None
    correlation: PairCorrelation | None = None
    equivalence: Equivalence | None = None
    equivalence_p_adjusted: float = math.nan
    crossed: CrossedMean | None = None
    sensitivity: Sensitivity | None = None
    attainable: str = "n=0: no block holds both optimizers"
    verdict: Verdict = UNDECIDED
    sequential: Decision | None = None


def simultaneous_confidence(comparisons: int, settings: Settings) -> float:
    """The level of each interval so that all of a family hold together (Bonferroni).

    Parameters
    ----------
    comparisons : int
        Those that can be made.
    settings : Settings
        Under the corrections "none" and "bh" nothing holds together: each interval has 1 - alpha.

    Returns
    -------
    float

    Examples
    --------
    >>> simultaneous_confidence(5, Settings(None, "all"))
    0.99
    """
    together = 1 if settings.correction in ("none", "bh") else max(1, comparisons)
    return 1 - settings.alpha / (together * settings.together)


def compare_pair(
    a: FloatArray,
    b: FloatArray,
    candidate: str,
    baseline: str,
    settings: Settings,
    level: float,
    scope: str,
    brief: bool = False,
) -> PairedComparison:
    """Every test and interval of one comparison, before its family's correction.

    Parameters
    ----------
    a, b : ndarray, shape (n,)
        Candidate and baseline by block; larger is better, NaN missing, ``-inf`` diverged.
    candidate, baseline : str
    settings : Settings
    level : float
        Confidence of the intervals that hold for the family together.
    scope : str
        The dataset, for the step of its values.
    brief : bool
        Of a very large family: leave out what takes long (Hodges-Lehmann intervals, flips, equivalence,
        correlation); the mean's test and interval are Student's, with Hall's against a longer tail.

    Returns
    -------
    PairedComparison
        Without adjusted p-values and verdict.

    Examples
    --------
    >>> grow = np.arange(1.0, 7.0)
    >>> compare_pair(grow, 0 * grow, "x", "y", Settings("y", "baseline"), 0.95, "d").signed_rank.pvalue
    0.03125
    """
    keep = ~(np.isnan(a) | np.isnan(b))
    counted = PairedComparison(
        candidate=candidate,
        baseline=baseline,
        n=int(keep.sum()),
        n_missing=int((~keep).sum()),
        n_diverged_candidate=int(np.isneginf(a).sum()),
        n_diverged_baseline=int(np.isneginf(b).sum()),
    )
    if not keep.any():
        return counted
    a, b = a[keep], b[keep]
    d = differences(a, b, resolution=settings.step(scope))
    if brief:
        mean = mean_difference(d, confidence=1 - settings.alpha)
        return replace(
            counted,
            signed_rank=signed_rank(d),
            t=paired_t(d),
            mean=mean,
            rank=rank_effect(d),
            average=_student(d, level),
        )
    fell = collapse_counts(a, b)
    alone = hodges_lehmann(d, confidence=1 - settings.alpha)
    return replace(
        counted,
        signed_rank=signed_rank(d),
        sign_flip=sign_flip(d) if d.size <= EXACT_FLIPS else None,
        t=paired_t(d),
        mean=mean_difference(d, confidence=1 - settings.alpha),
        hodges_lehmann=alone,
        simultaneous=alone if level == 1 - settings.alpha else hodges_lehmann(d, confidence=level),
        average=mean_test([d], confidence=level),
        n_collapsed_candidate=fell[0],
        n_collapsed_baseline=fell[1],
        standardized=standardized_difference(d),
        rank=rank_effect(d),
        correlation=pair_correlation(a, b),
        equivalence=None
        if settings.margin is None
        else equivalence(d, margin=settings.margin, collapsed=sum(fell)),
    )


def _student(d: FloatArray, level: float) -> MeanTest:
    m, t = mean_difference(d, confidence=level), paired_t(d)
    plain = MeanTest(m.estimate, m.low, m.high, level, t.pvalue, 0.0, m.n, 1, "Student's t", m.reason)
    return join(plain, skewed_mean([d], confidence=level)) if m.reason is None else plain


def with_crossing(
    c: PairedComparison, a: FloatArray, b: FloatArray, level: float, crossing: Crossing | None
) -> PairedComparison:
    """The same comparison with its analysis by crossed streams."""
    if crossing is None or c.n == 0:
        return c
    d = np.full(a.size, np.nan)
    known = ~(np.isnan(a) | np.isnan(b))
    d[known] = differences(a[known], b[known])
    table, _ = complete_table(d, crossing.levels)
    # Equivalence takes the pairs to be independent, so it is not tested here.
    if min(table.shape, default=0) < 2:
        return replace(c, crossed=refused(table.shape, crossing.names, confidence=level), equivalence=None)
    return replace(c, crossed=crossed_mean(table, confidence=level, names=crossing.names), equivalence=None)


def correction_used(pvalues: Sequence[float], settings: Settings) -> str:
    """The declared correction, or Holm's where Shaffer's or Bergmann-Hommel's lack a pair (NaN).

    Examples
    --------
    >>> correction_used([0.1, math.nan, 0.2], Settings(None, "all", correction="shaffer"))
    'holm'
    """
    every_pair = settings.correction in ("shaffer", "bergmann-hommel")
    return "holm" if every_pair and any(math.isnan(p) for p in pvalues) else settings.correction


def adjust_family(pvalues: Sequence[float], settings: Settings) -> FloatArray:
    """Adjust the p-values of a family as declared; NaN stays NaN and is not counted.

    Parameters
    ----------
    pvalues : sequence of float
        In the order of ``settings.pairs``.
    settings : Settings

    Returns
    -------
    ndarray, the length of `pvalues`

    Examples
    --------
    >>> adjust_family([0.01, 0.04], Settings("adam", "baseline"))
    array([0.02, 0.04])
    """
    method = correction_used(pvalues, settings)
    adjusted = adjust(pvalues, method=method, all_pairs=settings.family == "all")
    return np.minimum(1.0, adjusted * settings.together)


def decide(
    raw: list[PairedComparison], settings: Settings, *, claim: str = TYPICAL
) -> list[PairedComparison]:
    """Correct the comparisons of a family and give each its verdict.

    Parameters
    ----------
    raw : list of PairedComparison
        From `compare_pair`, in the order of ``settings.pairs``.
    settings : Settings
    claim : str
        What better and worse are said of; by default the typical run.

    Returns
    -------
    list of PairedComparison

    Examples
    --------
    >>> grow = np.arange(1.0, 7.0)
    >>> declared = Settings("y", "baseline")
    >>> decide([compare_pair(grow, 0 * grow, "x", "y", declared, 0.95, "d")], declared)[0].verdict.word
    'better'
    """
    p = [_deciding_p(c) for c in raw]
    adjusted = adjust_family(p, settings)
    same = adjust_family([c.equivalence.pvalue if c.equivalence else math.nan for c in raw], settings)
    means = adjust_family([c.average.pvalue if c.average else math.nan for c in raw], settings)
    # The first step of every step-down method multiplies the smallest p by the size of the family.
    factor = 1 if settings.correction in ("none", "bh") else sum(not math.isnan(x) for x in p)
    factor *= settings.together
    reach = _reaches(raw, p, adjusted, settings, factor)
    decided = []
    for i, c in enumerate(raw):
        p_adjusted, p_same = float(adjusted[i]), float(same[i])
        if c.signed_rank is None or c.rank is None:
            no_pairs = verdict(pvalue=math.nan, direction=0.0, candidate=c.candidate, baseline=c.baseline)
            decided.append(replace(c, verdict=no_pairs))
            continue
        smallest, steps = reach[i]
        direction = c.rank.rank_biserial if c.crossed is None else c.crossed.estimate
        reason = verdict(
            pvalue=p_adjusted,
            direction=direction,
            alpha=settings.alpha,
            margin=settings.margin,
            equivalence_pvalue=p_same,
            smallest_p=smallest,
            mean=None if c.crossed else mean_says(c, float(means[i]), settings.alpha, runs=claim == TYPICAL),
            identical_in=c.n if c.signed_rank.n_zeros == c.n else 0,
            candidate=c.candidate,
            baseline=c.baseline,
            claim=MEAN if c.crossed else claim,
            note="" if c.crossed or claim != TYPICAL else left_open(c),
        )
        decided.append(
            replace(
                c,
                p_adjusted=p_adjusted,
                smallest_adjusted_p=smallest,
                equivalence_p_adjusted=p_same,
                average_p_adjusted=float(means[i]),
                simultaneous=_cut_shift(c.simultaneous, direction, found=p_adjusted <= settings.alpha),
                average=_cut_mean(c.average, found=float(means[i]) <= settings.alpha),
                attainable=_independent(c.crossed)
                if c.crossed
                else _attainable(c.n - c.signed_rank.n_zeros, c.n, settings.alpha, steps),
                verdict=_crossed_verdict(reason, c.crossed) if c.crossed else reason,
            )
        )
    return decided


def _reaches(
    raw: Sequence[PairedComparison],
    p: Sequence[float],
    adjusted: FloatArray,
    settings: Settings,
    factor: int,
) -> list[tuple[float, int]]:
    """The smallest adjusted p that each comparison could have had beside the others, and its multiplier.

    By Holm's steps what others have found is no longer counted, so that fewer pairs reach the level.
    """
    known = np.sort([x for x in p if not math.isnan(x)])
    steps = np.sort(adjusted[~np.isnan(adjusted)])
    found = []
    for c, mine in zip(raw, adjusted.tolist(), strict=True):
        if c.signed_rank is None or c.crossed is not None:
            found.append((math.nan, factor))
            continue
        alone, count = c.signed_rank.smallest_attainable_p, factor
        first = min(1.0, alone * factor)
        if correction_used(p, settings) == "holm":
            before = int(np.searchsorted(known, alone * (1 - 1e-12)))
            count = max(1, known.size - before) * settings.together
            first = min(1.0, max(alone * count, float(steps[before - 1]) if before else 0.0))
        found.append((min(first, mine), count))
    return found


def _deciding_p(c: PairedComparison) -> float:
    if c.crossed is not None:
        return c.crossed.pvalue
    return c.signed_rank.pvalue if c.signed_rank else math.nan


def _independent(crossed: CrossedMean) -> str:
    cells = math.prod(crossed.levels)
    return f"crossed seeds: {grid(crossed.names, crossed.levels)}, not {cells} independent pairs"


def _crossed_verdict(found: Verdict, crossed: CrossedMean) -> Verdict:
    if crossed.reason is not None:
        return Verdict("inconclusive", f"{_independent(crossed)}: {crossed.reason}.")
    return replace(found, reason=f"{found.reason[:-1]} ({_independent(crossed)}).")


def one_side(low: float, high: float, direction: float, *, found: bool) -> tuple[float, float]:
    """Cut a simultaneous interval at 0 where a later step of the correction found the difference.

    Bonferroni's intervals hold together, but Holm finds more; an interval compatible with Holm's decisions
    ends at 0 there (Strassburger and Bretz 2008, Stat. Med. 27, 4914-4927; Guilbaud 2008, Biom. J. 50,
    678-692).

    Examples
    --------
    >>> one_side(-0.1, 0.9, 1.0, found=True)
    (0.0, 0.9)
    """
    if not found or not low <= 0 <= high:
        return low, high
    return (0.0, high) if direction > 0 else (low, 0.0)


def _cut_mean(mean: MeanTest | None, *, found: bool) -> MeanTest | None:
    if mean is None:
        return None
    low, high = one_side(mean.low, mean.high, mean.estimate, found=found)
    return (
        mean if (low, high) == (mean.low, mean.high) else replace(mean, low=low, high=high, method=_cut(mean))
    )


def _cut_shift(shift: Interval | None, direction: float, *, found: bool) -> Interval | None:
    if shift is None:
        return None
    low, high = one_side(shift.low, shift.high, direction, found=found)
    same = (low, high) == (shift.low, shift.high)
    return shift if same else replace(shift, low=low, high=high, method=_cut(shift))


def _cut(interval: MeanTest | Interval) -> str:
    return f"{interval.method}, {CUT}"


def mean_says(c: PairedComparison, p_adjusted: float, alpha: float, *, runs: bool = True) -> MeanSays | None:
    """What the mean shows beside the typical run; None where it was not computed.

    Parameters
    ----------
    c : PairedComparison
        Its ``average`` and collapsed runs are read; none are told where ``n`` is below 5.
    p_adjusted : float
        Of the mean.
    alpha : float
    runs : bool
        Are the pairs runs, of which the collapsed ones are told?
    """
    if c.average is None:
        return None
    mean = c.average
    fell = _collapsed(c)
    if math.isnan(mean.pvalue) and math.isfinite(mean.estimate):
        sign = (mean.estimate > 0) - (mean.estimate < 0)
        return MeanSays(mean.estimate, sign, fell, tested=False)
    if math.isnan(mean.pvalue):  # a diverged run is infinitely bad: the mean favours who has fewer
        lost, theirs = c.n_diverged_candidate, c.n_diverged_baseline
        sign = (theirs > lost) - (theirs < lost)
        said = f"diverged runs: {lost} of {c.candidate}, {theirs} of {c.baseline}"
        return MeanSays(sign * math.inf if sign else 0.0, sign, said, tested=False)
    sign = ((mean.estimate > 0) - (mean.estimate < 0)) if p_adjusted <= alpha else 0
    said = f"its adjusted p = {p_adjusted:.3g}"
    return MeanSays(mean.estimate, sign, f"{said}; {fell}" if c.n >= FEWEST_RUNS and runs else said)


def _collapsed(c: PairedComparison) -> str:
    return collapses_told(
        (c.candidate, c.n_collapsed_candidate, c.n), (c.baseline, c.n_collapsed_baseline, c.n)
    )


def left_open(c: PairedComparison) -> str:
    """What a word about the typical run leaves open: the runs that collapsed, or the rate still possible."""
    if c.n < FEWEST_RUNS or c.average is None:
        return ""
    return _collapsed(c) if c.n_collapsed_candidate or c.n_collapsed_baseline else no_collapse(c.n)


def _attainable(useful: int, n: int, alpha: float, comparisons: int) -> str:
    if n and not useful:
        return f"{n} of {n} pairs are equal: no test of a difference can be made"
    text = attainability(useful, alpha=alpha, comparisons=comparisons)
    verb = "is" if n - useful == 1 else "are"
    return text if useful == n else f"{n - useful} of {n} pairs {verb} equal; {text}"
