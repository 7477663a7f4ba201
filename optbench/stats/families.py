"""One family of paired comparisons: k optimizers in the same blocks, every pair of interest, one correction.

The blocks are the seeds of one dataset, or the datasets of a benchmark (one value per cell); the procedure is
the same, and `compare_family` is the only place where it is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from optbench.stats.brief import compare_pairs, differences_of, usable
from optbench.stats.common import FloatArray, StatsError
from optbench.stats.corrections import adjust
from optbench.stats.crossed import Crossing
from optbench.stats.missing import sensitivities
from optbench.stats.pairs import (
    PairedComparison,
    Settings,
    adjust_family,
    compare_pair,
    correction_used,
    decide,
    simultaneous_confidence,
    with_crossing,
)
from optbench.stats.ranks import (
    FriedmanResult,
    bonferroni_dunn_cd,
    compact_letters,
    friedman,
    mean_rank_intervals,
    nemenyi_cd,
    rank_intervals,
    rank_table,
)
from optbench.stats.verdict import TYPICAL

#: Families of more comparisons than this are analysed in brief, with a note.
BRIEF = 500
#: Letters of more optimizers than this would take long and be unreadable.
_MOST_LETTERS = 26

__all__ = [
    "BRIEF",
    "Crossing",
    "FamilyResult",
    "PairedComparison",
    "Settings",
    "adjust_family",
    "check_settings",
    "compare_family",
    "correction_used",
    "simultaneous_confidence",
]


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
    columns: Callable[[int, int], tuple[FloatArray, FloatArray]] | None = None,
    crossing: Crossing | None = None,
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
    columns : callable, optional
        The values of a candidate and a baseline, by their numbers, where a pair is not compared by the
        columns of `table` (see `optbench.stats.datasets.pair_cells`).
    crossing : Crossing, optional
        The streams whose seeds are crossed in these blocks.

    Returns
    -------
    FamilyResult

    Examples
    --------
    >>> table = np.array([[0.8, 0.9], [0.7, 0.8], [0.6, 0.8], [0.5, 0.7], [0.4, 0.7], [0.3, 0.6]])
    >>> result = compare_family(table, ["adam", "wame"], settings=Settings("adam", "baseline"), scope="toy")
    >>> result.comparisons[0].verdict.reason.split(";")[0]
    'wame beats adam in the typical run: adjusted p = 0.0312 <= 0.05'
    """
    pairs = settings.pairs(names)
    values = [columns(c, b) if columns else (table[:, c], table[:, b]) for c, b in pairs]
    usable = sum(bool((~np.isnan(a) & ~np.isnan(b)).any()) for a, b in values)
    level = simultaneous_confidence(usable, settings)
    brief = len(pairs) > BRIEF
    raw = _at_once(table, names, settings, level, scope) if brief and not (columns or crossing) else None
    raw = raw or [
        with_crossing(
            compare_pair(*pair, str(names[c]), str(names[b]), settings, level, scope, brief),
            *pair,
            level,
            crossing,
        )
        for pair, (c, b) in zip(values, pairs, strict=True)
    ]
    known = sensitivities(
        values,
        adjust=lambda p: adjust_family(p, settings),
        alpha=settings.alpha,
        resolution=settings.step(scope),
    )
    comparisons = [
        c if s is None or c.crossed else replace(c, sensitivity=s)
        for c, s in zip(decide(raw, settings, claim=_claim(blocks)), known, strict=True)
    ]
    complete = table[~np.isnan(table).any(axis=1)]
    means = [_mean(column) * (1 if maximise else -1) for column in table.T]
    notes = _missing_notes(table, names, blocks)
    if brief:
        notes.append(
            f"{len(pairs)} comparisons: in brief, without Hodges-Lehmann intervals, sign flips, collapsed "
            "runs and equivalence; p above 30 pairs by the saddlepoint; name a baseline for all of it"
        )
    omnibus = friedman(complete) if len(complete) >= 2 and len(names) > 2 else None
    if omnibus is None and len(names) > 2:
        notes.append(f"{scope}: {len(complete)} complete {blocks}, Friedman's test needs 2")
    low = high = np.full(len(names), np.nan)
    if len(complete) and len(names) > 1:
        low, high = mean_rank_intervals(complete)
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
        correction=correction_used([c.p_adjusted for c in comparisons], settings),
        comparisons=tuple(comparisons),
        friedman=omnibus,
        mean_rank_low=tuple(low.tolist()),
        mean_rank_high=tuple(high.tolist()),
        letters=letters,
        rank_intervals=intervals,
        critical_difference=distance,
        notes=tuple(notes),
    )


def _claim(blocks: str) -> str:
    """What better is said of: the blocks are runs, or datasets or workloads as a sample of their kind."""
    kinds = {"datasets": "on the typical dataset", "workloads": "on the typical workload"}
    return kinds.get(blocks, TYPICAL)


def _at_once(
    table: FloatArray, names: Sequence[str], settings: Settings, level: float, scope: str
) -> list[PairedComparison] | None:
    """All pairs of a complete table together, in brief; None where one of them needs more than that."""
    pairs = settings.pairs(names)
    if not np.isfinite(table).all():
        return None
    d = differences_of(table, pairs, settings.step(scope))
    if not usable(d):
        return None
    named = [(str(names[c]), str(names[b])) for c, b in pairs]
    return compare_pairs(d, named, confidence=level, alpha=settings.alpha)


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


def _letters(
    comparisons: Sequence[PairedComparison], names: Sequence[str], complete: FloatArray
) -> tuple[tuple[str, ...] | None, tuple[tuple[int, int], ...]]:
    k = len(names)
    signs = np.zeros((k, k), dtype=np.int64)
    for (i, j), c in zip(combinations(range(k), 2), comparisons, strict=True):
        found = {"better": 1, "worse": -1}.get(c.verdict.word, 0)
        signs[i, j], signs[j, i] = found, -found
    if k > _MOST_LETTERS:
        return None, tuple(rank_intervals(signs))
    merit = (
        np.argsort(rank_table(complete).mean(axis=0), kind="stable").tolist() if len(complete) > 1 else None
    )
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
