"""One value per dataset and optimizer: the cells in which the dataset is the unit."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from optbench.stats.common import FloatArray


def collapse(tables: Mapping[str, FloatArray]) -> tuple[FloatArray, tuple[str, ...]]:
    """One value per dataset and optimizer: the mean over its seeds, or the median where a trial diverged.

    Parameters
    ----------
    tables : mapping of dataset to ndarray, shape (n_d, k)

    Returns
    -------
    cells : ndarray, shape (D, k)
        NaN where an optimizer has no trial on a dataset.
    medians : tuple of str
        The datasets that were collapsed by the median, for all of their optimizers, because a mean with a
        diverged trial has no value; the median counts it as the worst.

    Notes
    -----
    Cells are formed on the blocks that all optimizers of the dataset share, if there are any, so that a
    missing seed does not shift one of them.

    Examples
    --------
    >>> collapse({"a": np.array([[1.0, 2.0], [3.0, -np.inf]]), "b": np.array([[1.0, 2.0], [3.0, 4.0]])})
    (array([[  1., -inf],
           [  2.,   3.]]), ('a',))
    """
    cells, medians = [], []
    for dataset, table in tables.items():
        present = ~np.isnan(table).all(axis=0)
        complete = table[~np.isnan(table[:, present]).any(axis=1)] if present.any() else table[:0]
        use = complete if len(complete) else table
        by_median = bool(np.isinf(use).any())
        if by_median:
            medians.append(dataset)
        cells.append([_cell(column, by_median) for column in use.T])
    return np.array(cells, dtype=np.float64), tuple(medians)


def pair_cells(
    tables: Mapping[str, FloatArray], candidate: int, baseline: int
) -> tuple[FloatArray, FloatArray, tuple[str, ...]]:
    """One value per dataset for each of two optimizers, from the blocks that these two share.

    Parameters
    ----------
    tables : mapping of dataset to ndarray, shape (n_d, k)
    candidate, baseline : int
        Columns.

    Returns
    -------
    candidate, baseline : ndarray, shape (D,)
    medians : tuple of str
        As of `collapse`; what a third optimizer lacks or loses does not matter here.

    Examples
    --------
    >>> table = np.array([[1.0, 2.0, np.nan], [3.0, 5.0, 1.0]])
    >>> pair_cells({"a": table}, 0, 1)
    (array([2.]), array([3.5]), ())
    """
    cells, medians = collapse({d: t[:, [candidate, baseline]] for d, t in tables.items()})
    return cells[:, 0], cells[:, 1], medians


def _cell(column: FloatArray, by_median: bool) -> float:
    known = np.sort(column[~np.isnan(column)])
    if not known.size:
        return math.nan
    if not by_median:
        return float(known.mean())
    # The lower median: half of the seeds diverged is a diverged cell, and -inf is never averaged.
    return float(known[(known.size - 1) // 2])
