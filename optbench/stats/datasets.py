"""Several datasets, two separate questions: *on these datasets* and *on new datasets*.

On these datasets, the seeds are the sample: the quantity is the average over datasets of the mean difference,
each dataset weighing the same. On new datasets, the dataset is the unit: D datasets give D differences,
however many seeds went in. Seeds x datasets are never pooled as if independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from optbench.stats.cells import collapse, pair_cells
from optbench.stats.common import FloatArray
from optbench.stats.corrections import partial_conjunction
from optbench.stats.families import (
    FamilyResult,
    Settings,
    compare_family,
)
from optbench.stats.paired import one_sided_pvalues
from optbench.stats.ranks import rank_table
from optbench.stats.these_datasets import StratifiedComparison, on_these_datasets, paired_columns

__all__ = [
    "FEWEST_DATASETS",
    "Conjunction",
    "Stability",
    "StratifiedComparison",
    "collapse",
    "compare_new_datasets",
    "conjunctions",
    "leave_one_out",
    "on_these_datasets",
    "paired_columns",
]

#: Below this many datasets no signed-rank test over datasets can reach 0.05.
FEWEST_DATASETS = 6


@dataclass(frozen=True)
class Conjunction:
    """On at least how many of the D datasets the candidate is better, and worse, with confidence."""

    candidate: str
    baseline: str
    n_datasets: int
    better_on_at_least: int
    worse_on_at_least: int
    level: float


@dataclass(frozen=True)
class Stability:
    """Does the order by mean rank hold when one optimizer is left out? `flips` names the pairs that swap."""

    order: tuple[str, ...]
    flips: tuple[str, ...]


def compare_new_datasets(
    tables: Mapping[str, FloatArray],
    names: Sequence[str],
    *,
    settings: Settings,
    scope: str = "new datasets",
    blocks: str = "datasets",
    maximise: bool = True,
) -> FamilyResult:
    """Compare on new datasets: the dataset is the unit, and a pair's cells come from the pair's own blocks.

    Parameters
    ----------
    tables : mapping of dataset to ndarray, shape (n_d, k)
    names : sequence of str
    settings : Settings
    scope, blocks, maximise
        As of `optbench.stats.families.compare_family`.

    Returns
    -------
    FamilyResult
        Its means, ranks and Friedman's test are over the blocks that all optimizers share.

    Examples
    --------
    >>> tables = {str(i): np.array([[2.0, 1.0], [2.5, 1.0]]) for i in range(6)}
    >>> compare_new_datasets(tables, ["x", "y"], settings=Settings("y", "baseline")).comparisons[0].n
    6
    """

    def columns(candidate: int, baseline: int) -> tuple[FloatArray, FloatArray]:
        return pair_cells(tables, candidate, baseline)[:2]

    cells = collapse(tables)[0]
    # Where nothing is missing or diverged, the cells of a pair are those of the table.
    whole = all(np.isfinite(table).all() for table in tables.values())
    return compare_family(
        cells,
        names,
        settings=settings,
        scope=scope,
        maximise=maximise,
        blocks=blocks,
        columns=None if whole else columns,
    )


def conjunctions(
    tables: Mapping[str, FloatArray], names: Sequence[str], *, settings: Settings
) -> tuple[Conjunction, ...]:
    """On at least how many datasets is the candidate better, and on at least how many worse?

    Parameters
    ----------
    tables : mapping of dataset to ndarray, shape (n_d, k)
    names : sequence of str
    settings : Settings

    Returns
    -------
    tuple of Conjunction
        All statements of the family hold together with confidence 1 - alpha: each is made at alpha / (2 m)
        for m pairs and two directions.

    References
    ----------
    Benjamini and Heller (2008), Biometrics 64, 1215-1222.

    Examples
    --------
    >>> grow = np.arange(1.0, 9.0)
    >>> tables = {"a": np.column_stack([grow, 0 * grow]), "b": np.column_stack([grow, 0 * grow])}
    >>> conjunctions(tables, ["x", "y"], settings=Settings("y", "baseline"))[0].better_on_at_least
    2
    """
    pairs = settings.pairs(names)
    level = settings.alpha / (2 * len(pairs))
    result = []
    for c, b in pairs:
        columns = [paired_columns(t, c, b, resolution=settings.step(d)) for d, t in tables.items()]
        parts = [d for d in columns if d.size]
        sides = np.array([one_sided_pvalues(d) for d in parts]).reshape(-1, 2)
        better, worse = (int((partial_conjunction(p) <= level).sum()) if parts else 0 for p in sides.T)
        result.append(Conjunction(str(names[c]), str(names[b]), len(parts), better, worse, level))
    return tuple(result)


def leave_one_out(cells: FloatArray, names: Sequence[str]) -> Stability:
    """Leave each optimizer out in turn and see whether the order of the others by mean rank changes.

    Parameters
    ----------
    cells : ndarray, shape (D, k)
        Complete cells.
    names : sequence of str

    Returns
    -------
    Stability

    Notes
    -----
    Mean ranks depend on who else is in the table; pairwise signed-rank tests do not. A flip is a warning
    about the leaderboard, not about the verdicts.

    Examples
    --------
    >>> leave_one_out(np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), ["x", "y", "z"]).flips
    ()
    """
    k = len(names)
    mean = rank_table(cells).mean(axis=0)
    order = np.argsort(mean, kind="stable")
    flips = []
    for out in range(k):
        rest = [i for i in range(k) if i != out]
        sub = rank_table(cells[:, rest]).mean(axis=0)
        for x in range(k - 1):
            for y in range(x + 1, k - 1):
                i, j = rest[x], rest[y]
                if (mean[i] - mean[j]) * (sub[x] - sub[y]) < 0:
                    flips.append(f"{names[i]} and {names[j]} without {names[out]}")
    return Stability(tuple(str(names[i]) for i in order), tuple(flips))
