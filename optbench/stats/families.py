"""One family of paired comparisons: k optimizers in the same blocks, every pair of interest, one correction.

The blocks are the seeds of one dataset, or the datasets of a benchmark (one value per cell); the procedure is
the same, and `compare_family` is the only place where it is written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np

from optbench.stats.common import FloatArray, StatsError, differences
from optbench.stats.corrections import adjust
from optbench.stats.effects import (
    MeanDifference,
    RankEffect,
    StandardizedDifference,
    mean_difference,
    rank_effect,
    standardized_difference,
)
from optbench.stats.paired import (
    EXACT_FLIPS,
    EquivalenceResult,
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
    tost,
)
from optbench.stats.power import attainability
from optbench.stats.ranks import (
    FriedmanResult,
    bonferroni_dunn_cd,
    compact_letters,
    friedman,
    mean_rank_bootstrap,
    nemenyi_cd,
    rank_intervals,
)
from optbench.stats.verdict import Verdict, verdict


@dataclass(frozen=True)
class Settings:
    """What was declared: `family` is "baseline" (each against `baseline`) or "all" (all pairs)."""

    baseline: str | None
    family: Literal["baseline", "all"]
    alpha: float = 0.05
    correction: str = "holm"
    margin: float | None = None

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
    `smallest_adjusted_p` are after the family's correction. `sign_flip` is None above 30 pairs, where `t`
    serves.
    """

    candidate: str
    baseline: str
    n: int
    n_missing: int
    n_diverged_candidate: int
    n_diverged_baseline: int
    signed_rank: SignedRankResult | None
    p_adjusted: float
    smallest_adjusted_p: float
    sign_flip: SignFlipResult | None
    t: PairedTResult | None
    mean: MeanDifference | None
    hodges_lehmann: Interval | None
    standardized: StandardizedDifference | None
    rank: RankEffect | None
    correlation: PairCorrelation | None
    equivalence: EquivalenceResult | None
    equivalence_p_adjusted: float
    attainable: str
    verdict: Verdict


@dataclass(frozen=True)
class FamilyResult:
    """All comparisons in one set of blocks. `scope` is the dataset's name, or "new datasets".

    `means` are in the metric's own units, NaN where a trial diverged. The letters, rank intervals and
    Nemenyi's critical difference come with the family "all", Bonferroni-Dunn's with "baseline".
    """

    scope: str
    optimizers: tuple[str, ...]
    n_blocks: int
    n_complete_blocks: int
    means: tuple[float, ...]
    correction: str
    comparisons: tuple[PairedComparison, ...]
    friedman: FriedmanResult | None
    mean_rank_low: tuple[float, ...]
    mean_rank_high: tuple[float, ...]
    letters: tuple[str, ...] | None
    rank_intervals: tuple[tuple[int, int], ...] | None
    critical_difference: float
    notes: tuple[str, ...]


def compare_family(
    table: FloatArray,
    names: Sequence[str],
    *,
    settings: Settings,
    scope: str,
    maximise: bool = True,
    blocks: str = "blocks",
) -> FamilyResult:
    """Run the paired procedure on one table of blocks x optimizers.

    Parameters
    ----------
    table : ndarray, shape (n, k)
        Oriented so that larger is better; NaN is missing, ``-inf`` diverged.
    names : sequence of str, length k
        Optimizers.
    settings : Settings
    scope, blocks : str
        Names for the result and its sentences.
    maximise : bool
        Gives `means` back their sign.

    Returns
    -------
    FamilyResult

    Examples
    --------
    >>> table = np.array([[0.8, 0.9], [0.7, 0.8], [0.6, 0.8], [0.5, 0.7], [0.4, 0.7], [0.3, 0.6]])
    >>> result = compare_family(table, ["adam", "wame"], settings=Settings("adam", "baseline"), scope="toy")
    >>> result.comparisons[0].verdict.reason
    'wame beats adam: adjusted p = 0.0312 <= 0.05.'
    """
    pairs = settings.pairs(names)
    raw = [_compare(table[:, c], table[:, b], str(names[c]), str(names[b]), settings) for c, b in pairs]
    comparisons = _decide(raw, settings)
    complete = table[~np.isnan(table).any(axis=1)]
    with np.errstate(invalid="ignore"):
        means = [_mean(column) * (1 if maximise else -1) for column in table.T]
    notes = _missing_notes(table, names, blocks)
    omnibus = friedman(complete) if len(complete) >= 2 and len(names) > 2 else None
    if omnibus is None and len(names) > 2:
        notes.append(f"{scope}: {len(complete)} complete {blocks}, Friedman's test needs 2")
    low = high = np.full(len(names), np.nan)
    if len(complete) >= 6:
        low, high = mean_rank_bootstrap(complete)
    letters, intervals, distance = None, None, math.nan
    if settings.family == "all":
        letters, intervals = _letters(comparisons, names, complete)
    if len(complete) >= 2 and len(names) > 2:
        critical = nemenyi_cd if settings.family == "all" else bonferroni_dunn_cd
        distance = critical(len(names), len(complete), alpha=settings.alpha)
    return FamilyResult(
        scope=scope,
        optimizers=tuple(str(name) for name in names),
        n_blocks=len(table),
        n_complete_blocks=len(complete),
        means=tuple(means),
        correction=settings.correction,
        comparisons=tuple(comparisons),
        friedman=omnibus,
        mean_rank_low=tuple(low.tolist()),
        mean_rank_high=tuple(high.tolist()),
        letters=letters,
        rank_intervals=intervals,
        critical_difference=distance,
        notes=tuple(notes),
    )


def _mean(column: FloatArray) -> float:
    known = column[~np.isnan(column)]
    return float(known.mean()) if known.size and np.isfinite(known).all() else math.nan


def _missing_notes(table: FloatArray, names: Sequence[str], blocks: str) -> list[str]:
    missing = np.isnan(table).sum(axis=0)
    return [
        f"{name} lacks {count} of {len(table)} {blocks}"
        for name, count in zip(names, missing.tolist(), strict=True)
        if count
    ]


def _compare(
    a: FloatArray, b: FloatArray, candidate: str, baseline: str, settings: Settings
) -> PairedComparison:
    keep = ~(np.isnan(a) | np.isnan(b))
    counts = {
        "candidate": candidate,
        "baseline": baseline,
        "n": int(keep.sum()),
        "n_missing": int((~keep).sum()),
        "n_diverged_candidate": int(np.isneginf(a).sum()),
        "n_diverged_baseline": int(np.isneginf(b).sum()),
    }
    a, b = a[keep], b[keep]
    pending = Verdict("inconclusive", "")
    if a.size == 0:
        nothing = dict.fromkeys(
            (
                "signed_rank",
                "sign_flip",
                "t",
                "mean",
                "hodges_lehmann",
                "standardized",
                "rank",
                "correlation",
                "equivalence",
            )
        )
        return PairedComparison(
            **counts,  # type: ignore[arg-type]
            **nothing,  # type: ignore[arg-type]
            p_adjusted=math.nan,
            smallest_adjusted_p=math.nan,
            equivalence_p_adjusted=math.nan,
            attainable="n=0: no block holds both optimizers",
            verdict=pending,
        )
    d = differences(a, b)
    return PairedComparison(
        **counts,  # type: ignore[arg-type]
        signed_rank=signed_rank(d),
        p_adjusted=math.nan,
        smallest_adjusted_p=math.nan,
        sign_flip=sign_flip(d) if d.size <= EXACT_FLIPS else None,
        t=paired_t(d),
        mean=mean_difference(d, confidence=1 - settings.alpha),
        hodges_lehmann=hodges_lehmann(d, confidence=1 - settings.alpha),
        standardized=standardized_difference(d),
        rank=rank_effect(d),
        correlation=pair_correlation(a, b),
        equivalence=None if settings.margin is None else tost(d, margin=settings.margin),
        equivalence_p_adjusted=math.nan,
        attainable="",
        verdict=pending,
    )


def _adjusted(pvalues: list[float], settings: Settings) -> FloatArray:
    """Shaffer and Bergmann-Hommel need every pair; where one could not be made, Holm stands in."""
    method = settings.correction
    if method in ("shaffer", "bergmann-hommel") and any(math.isnan(p) for p in pvalues):
        method = "holm"
    return adjust(pvalues, method=method, all_pairs=settings.family == "all")


def _decide(raw: list[PairedComparison], settings: Settings) -> list[PairedComparison]:
    nan = math.nan
    p = [c.signed_rank.pvalue if c.signed_rank else nan for c in raw]
    adjusted = _adjusted(p, settings)
    same = _adjusted([c.equivalence.pvalue if c.equivalence else nan for c in raw], settings)
    family = sum(not math.isnan(x) for x in p)
    decided = []
    for i, c in enumerate(raw):
        smallest = c.signed_rank.smallest_attainable_p if c.signed_rank else nan
        # The best case of this comparison with the others as they are, and none of them smaller: the first
        # step of every step-down method multiplies by the size of the family.
        factor = 1 if settings.correction in ("none", "bh") else family
        smallest_adjusted = min(1.0, smallest * factor) if not math.isnan(smallest) else nan
        useful = c.signed_rank.n - c.signed_rank.n_zeros if c.signed_rank else 0
        decided.append(
            replace(
                c,
                p_adjusted=float(adjusted[i]),
                smallest_adjusted_p=smallest_adjusted,
                equivalence_p_adjusted=float(same[i]),
                attainable=c.attainable or _attainable(useful, c.n, settings.alpha, factor),
                verdict=verdict(
                    pvalue=float(adjusted[i]),
                    direction=c.rank.rank_biserial if c.rank else 0.0,
                    alpha=settings.alpha,
                    margin=settings.margin,
                    equivalence_pvalue=float(same[i]),
                    smallest_p=smallest_adjusted if not math.isnan(smallest_adjusted) else None,
                    candidate=c.candidate,
                    baseline=c.baseline,
                ),
            )
        )
    return decided


def _attainable(useful: int, n: int, alpha: float, comparisons: int) -> str:
    text = attainability(useful, alpha=alpha, comparisons=comparisons)
    return text if useful == n else f"{n - useful} of {n} pairs are equal; {text}"


def _letters(
    comparisons: Sequence[PairedComparison], names: Sequence[str], complete: FloatArray
) -> tuple[tuple[str, ...], tuple[tuple[int, int], ...]]:
    k = len(names)
    signs = np.zeros((k, k), dtype=np.int64)
    for (i, j), c in zip(combinations(range(k), 2), comparisons, strict=True):
        found = {"better": 1, "worse": -1}.get(c.verdict.word, 0)
        signs[i, j], signs[j, i] = found, -found
    merit = np.argsort(friedman(complete).mean_ranks, kind="stable").tolist() if len(complete) >= 2 else None
    return tuple(compact_letters(signs != 0, order=merit)), tuple(rank_intervals(signs))


def check_settings(settings: Settings, names: Sequence[str]) -> None:
    """Raise StatsError if the declared analysis does not fit the optimizers found.

    Parameters
    ----------
    settings : Settings
    names : sequence of str

    Examples
    --------
    >>> check_settings(Settings("adam", "baseline"), ["adam", "sgd"])
    """
    if len(names) < 2:
        raise StatsError(f"optimizer: found only {', '.join(names) or 'none'}; a comparison needs at least 2")
    if settings.family == "baseline" and settings.baseline not in names:
        raise StatsError(f"baseline: found {settings.baseline!r}, allowed are {', '.join(names)}")
    if settings.family not in ("baseline", "all"):
        raise StatsError(f"family: found {settings.family!r}, allowed are baseline, all")
    adjust([1.0] * len(settings.pairs(names)), method=settings.correction, all_pairs=settings.family == "all")
