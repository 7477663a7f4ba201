"""Tidy tables of trials: what they must hold, which direction is better, and blocks x optimizers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optbench.stats.common import FloatArray, IntArray, StatsError
from optbench.task import known, undeclared

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("dataset", "optimizer", "seed")
RESERVED = (*KEYS, "status", "reached", "time", "budget")
STATUSES = ("completed", "diverged", "crashed")


@dataclass(frozen=True)
class InputSummary:
    """What was found in the table. `missing` counts crashed trials and values that are absent (NaN)."""

    rows: int
    datasets: tuple[str, ...]
    optimizers: tuple[str, ...]
    metric: str
    maximise: bool
    direction: str
    completed: int
    diverged: int
    missing: int


def direction_of(metric: str, maximise: bool | None = None) -> tuple[bool, str]:
    """Decide whether larger values of a metric are better.

    Parameters
    ----------
    metric : str
    maximise : bool, optional
        The declared direction; None takes that of the known metric (:func:`optbench.task.known`).

    Returns
    -------
    maximise : bool
    direction : str
        One sentence for the report.

    Raises
    ------
    StatsError
        If the direction is neither declared nor known: a wrong guess would turn every verdict round.

    Examples
    --------
    >>> direction_of("test_accuracy")
    (True, 'larger test_accuracy is better (by its name)')
    """
    like = known(metric)
    found = None if like is None or like.direction is None else like.maximised
    if maximise is not None:
        against = "" if found in (None, maximise) else ", against what its name means elsewhere"
        return maximise, f"{'larger' if maximise else 'smaller'} {metric} is better (declared{against})"
    if found is None:
        raise StatsError(undeclared(metric, "--maximise or --minimise (maximise=True or False)"))
    return found, f"{'larger' if found else 'smaller'} {metric} is better (by its name)"


def check_columns(frame: pd.DataFrame, metric: str) -> None:
    """Raise StatsError unless the columns of a table of trials are there and every trial has its labels."""
    lacking = [c for c in (*KEYS, metric) if c not in frame.columns]
    if lacking:
        raise StatsError(
            f"columns: {', '.join(lacking)} not found; found are {', '.join(map(str, frame.columns))}; "
            "needed are dataset, optimizer, seed and the metric"
        )
    if not len(frame):
        raise StatsError("the table has no rows; a comparison needs at least 2 optimizers and one block")
    for column in KEYS:
        if frame[column].isna().any():
            row = int(np.flatnonzero(frame[column].isna().to_numpy())[0])
            raise StatsError(
                f"{column}: row {row} is empty; every trial needs a dataset, an optimizer and a seed"
            )


def summarise(
    frame: pd.DataFrame, values: FloatArray, *, metric: str, maximise: bool, direction: str
) -> InputSummary:
    """Say what was found in a table, whose oriented values are given."""
    return InputSummary(
        rows=len(frame),
        datasets=tuple(map(str, frame["dataset"].unique())),
        optimizers=tuple(map(str, frame["optimizer"].unique())),
        metric=metric,
        maximise=maximise,
        direction=direction,
        completed=int(np.isfinite(values).sum()),
        diverged=int(np.isneginf(values).sum()),
        missing=int(np.isnan(values).sum()),
    )


def oriented(frame: pd.DataFrame, metric: str, larger: bool) -> FloatArray:
    """The metric oriented so that larger is better, -inf for diverged and NaN for missing."""
    try:
        values: FloatArray = frame[metric].to_numpy(dtype=np.float64, na_value=np.nan).copy()
    except (TypeError, ValueError) as error:
        raise StatsError(f"{metric}: the column holds something that is not a number ({error})") from None
    if not larger:
        values = -values
    if "status" in frame:
        status = frame["status"].fillna("completed").astype(str)
        unknown = sorted(set(status.unique()) - set(STATUSES))
        if unknown:
            raise StatsError(f"status: found {', '.join(unknown)}; allowed are {', '.join(STATUSES)}")
        values[(status == "crashed").to_numpy()] = np.nan
        values[(status == "diverged").to_numpy()] = -np.inf
    if np.isposinf(values).any():
        row = int(np.flatnonzero(np.isposinf(values))[0])
        raise StatsError(
            f"{metric}: row {row} is infinitely good ({frame[metric].iloc[row]}); check the direction "
            "(--maximise or --minimise) or correct the value"
        )
    return values


def block_tables(frame: pd.DataFrame, values: FloatArray) -> tuple[dict[str, FloatArray], list[str]]:
    """Arrange one value per trial as one table of blocks x optimizers per dataset.

    Parameters
    ----------
    frame : DataFrame
        With the columns dataset, optimizer and seed.
    values : ndarray, shape (rows,)

    Returns
    -------
    tables : dict of dataset to ndarray, shape (n_d, k)
        Rows are the seeds of that dataset, sorted by label where labels can be sorted; NaN where a trial is
        absent.
    names : list of str
        Optimizers, in order of appearance.

    Raises
    ------
    StatsError
        If a (dataset, optimizer, seed) appears twice.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"dataset": ["a", "a"], "optimizer": ["x", "y"], "seed": [0, 0]})
    >>> block_tables(frame, np.array([1.0, 2.0]))
    ({'a': array([[1., 2.]])}, ['x', 'y'])
    """
    import pandas as pd

    codes: dict[str, IntArray] = {}
    labels: dict[str, list[str]] = {}
    for column in KEYS:
        code, unique = pd.factorize(frame[column], sort=False)
        codes[column], labels[column] = code.astype(np.int64), [str(u) for u in unique]
        if len(set(labels[column])) < len(labels[column]):
            raise StatsError(f"{column}: two labels read the same as text (such as 1 and '1'); make them one")
    k = len(labels["optimizer"])
    order = np.argsort(codes["dataset"], kind="stable")
    ends = np.searchsorted(codes["dataset"][order], np.arange(len(labels["dataset"]) + 1))
    tables = {}
    for number, dataset in enumerate(labels["dataset"]):
        rows = order[ends[number] : ends[number + 1]]
        seeds, block = np.unique(codes["seed"][rows], return_inverse=True)
        cell = block * k + codes["optimizer"][rows]
        counts = np.bincount(cell, minlength=len(seeds) * k)
        if counts.max() > 1:
            first = int(rows[cell == int(counts.argmax())][1])
            key = ", ".join(str(frame[c].iloc[first]) for c in KEYS)
            raise StatsError(
                f"rows: (dataset, optimizer, seed) = ({key}) appears {int(counts.max())} times, for example "
                f"in row {first}; a trial may appear once: remove repeats or give them their own seeds"
            )
        table = np.full(len(seeds) * k, np.nan)
        table[cell] = values[rows]
        tables[dataset] = table.reshape(len(seeds), k)
    return tables, labels["optimizer"]
