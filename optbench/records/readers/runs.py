"""A run as another tool recorded it: curves on epochs, how each ends, and what is missing in it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optbench.datasets.numbers import Numbers
from optbench.records.readers.naming import HISTORY, LogError
from optbench.trial import Status

MOST_EPOCHS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class RunLog:
    """One training as another tool recorded it.

    Attributes
    ----------
    source : str
        File or folder, for people.
    kind : str
        Format, of :data:`optbench.records.readers.formats.FORMATS`.
    history : mapping of str to float64 array
        Columns of :data:`HISTORY`, one value an epoch from epoch 0, NaN where there is none.
    metrics : mapping of str to float
        Final numbers that no history holds, such as ``test_accuracy``.
    ignored : tuple of str
        Names that were found and not taken over.
    ends : mapping of str to float
        Of each metric with a curve the value that it ends with; none where the last cells are blank.
    diverged : frozenset of str
        Metrics that end with a written NaN or infinity.
    unfinished : frozenset of str
        Metrics whose last values are missing.
    notes : tuple of str
        What was decided in reading it.
    directions : mapping of str to {"higher", "lower"}
        What is better, where the tool itself says so.
    """

    source: str
    kind: str
    dataset: str
    model: str
    optimizer: str
    seed: int
    lr: float | None = None
    backend: str = "imported"
    device: str = "unknown"
    status: Status = "completed"
    history: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    ends: Mapping[str, float] = field(default_factory=dict)
    diverged: frozenset[str] = frozenset()
    unfinished: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    directions: Mapping[str, str] = field(default_factory=dict)


def numbers(values: Sequence[Any]) -> Numbers:
    """Values of a tool's own file as a column: None is a gap, NaN and infinities were written."""
    array = np.array([math.nan if v is None else float(v) for v in values], dtype=np.float64)
    written = np.array([v is not None for v in values], dtype=bool)
    return Numbers(array, written & ~np.isfinite(array))


def run_log(
    *,
    source: str,
    kind: str,
    facts: Mapping[str, Any],
    epochs: NDArray[np.float64] | None,
    columns: Mapping[str, Numbers],
    ignored: Sequence[str] = (),
    status: Status = "completed",
    notes: Sequence[str] = (),
    directions: Mapping[str, str] | None = None,
) -> RunLog:
    """Make a run of columns by metric.

    Parameters
    ----------
    source, kind, ignored, status, notes, directions
        See :class:`RunLog`.
    facts : mapping
        Dataset, optimizer, seed, and optionally model, backend, device.
    epochs : array, optional
        Of each row, rising, from 0; None for a run of one row without a curve.
    columns : mapping of str to Numbers
        One value a row.

    Raises
    ------
    LogError
        If the epochs are no whole numbers that rise.
    """
    placed = (
        {name: place(epochs, column, source) for name, column in columns.items()}
        if epochs is not None
        else {}
    )
    history, metrics, ends = {}, {}, {}
    diverged, unfinished = set(), set()
    last = max((_last(c) for name, c in placed.items() if not _tested(name)), default=-1)
    whole = max((_last(c) for c in placed.values()), default=-1)
    for name, column in columns.items():
        if name == "lr":
            continue
        curve = placed.get(name)
        end = end_of(curve, until(name, curve, last, whole)) if curve else end_of(column, None)
        if end is None:
            unfinished.add(name)
        elif not math.isfinite(end):
            diverged.add(name)
        elif curve and name in HISTORY:
            ends[name] = end
        else:
            metrics[name] = end
        if curve and name in HISTORY:
            history[name] = curve.values
    rates = columns["lr"].values if "lr" in columns else np.empty(0)
    rates = rates[np.isfinite(rates)]
    if "lr" in placed:
        history["lr"] = placed["lr"].values
    kept = {name: facts[name] for name in ("backend", "device") if facts.get(name)}
    return RunLog(
        source=source,
        kind=kind,
        dataset=str(facts["dataset"]),
        model=str(facts.get("model", "")),
        optimizer=str(facts["optimizer"]),
        seed=facts["seed"],
        **kept,
        lr=float(rates[0]) if rates.size else None,
        status=status,
        history=history if status != "crashed" else {},
        metrics=metrics if status != "crashed" else {},
        ends=ends if status != "crashed" else {},
        ignored=tuple(ignored),
        diverged=frozenset(diverged),
        unfinished=frozenset(unfinished),
        notes=tuple(notes),
        directions=dict(directions or {}),
    )


def until(name: str, curve: Numbers, last: int, whole: int) -> int | None:
    """Where a curve should end: with the training, or, of a test made more than once, with the log."""
    if not _tested(name):
        return last
    return whole if (~curve.gaps).sum() > 1 else None


def _tested(name: str) -> bool:
    """Whether a metric belongs to the test part, which may be evaluated when training is over."""
    return name.lower().startswith("test")


def _last(column: Numbers | None) -> int:
    written = np.flatnonzero(~column.gaps) if column is not None else np.empty(0)
    return int(written[-1]) if written.size else -1


def end_of(column: Numbers, last: int | None) -> float | None:
    """Value that a curve ends with; None if its last values are missing.

    Parameters
    ----------
    column : Numbers
        One value an epoch.
    last : int, optional
        Position of the last epoch of the run. A curve that is written every second epoch may end one before
        it; one that is written every epoch may not. None asks for no more than a last value.

    Returns
    -------
    float or None
        NaN or an infinity if that was written: it diverged.

    Examples
    --------
    >>> every_second = numbers([None, 0.5, None, 0.6, None])
    >>> end_of(every_second, 4), end_of(numbers([0.4, 0.5, 0.6, None]), 3)
    (0.6, None)
    """
    written = np.flatnonzero(~column.gaps)
    if not written.size:
        return None
    value = float(column.values[written[-1]])
    if last is None:
        return value
    behind = last - int(written[-1])
    if behind <= 0:
        return value
    if written.size < 2:
        return None
    apart, counts = np.unique(np.diff(written), return_counts=True)
    usual = int(apart[counts == counts.max()].max())
    return value if behind < usual else None


def place(epochs: NDArray[np.float64], column: Numbers, where: str) -> Numbers:
    """Place values at their epochs; epochs without a row are gaps."""
    check_epochs(epochs, where)
    values = np.full(int(epochs[-1]) + 1, np.nan)
    diverged = np.zeros(len(values), dtype=bool)
    values[epochs.astype(int)] = np.where(column.diverged, np.nan, column.values)
    diverged[epochs.astype(int)] = column.diverged
    return Numbers(values, diverged)


def check_epochs(epochs: NDArray[np.float64], where: str) -> None:
    """Refuse epochs that are no whole numbers from 0 that rise."""
    if not len(epochs) or not np.isfinite(epochs).all() or (epochs % 1).any() or epochs[0] < 0:
        raise LogError(f"{where}: epoch: whole numbers from 0 belong here")
    _check_rising(epochs, where, "epoch")
    if epochs[-1] > MOST_EPOCHS:
        raise LogError(f"{where}: epoch: found {epochs[-1]:g}; at most {MOST_EPOCHS:,} are read")


def _check_rising(axis: NDArray[np.float64], where: str, name: str, *, strictly: bool = True) -> None:
    steps = np.diff(axis)
    falls = np.flatnonzero(steps <= 0 if strictly else steps < 0)
    if falls.size:
        at = int(falls[0])
        raise LogError(
            f"{where}: {name}: found {axis[at + 1]:g} after {axis[at]:g}; {name}s of one run rise: is it the "
            "log of two runs? Split it, or give each run a file of its own"
        )


def merged(
    where: str, name: str, axis: NDArray[np.float64], columns: Mapping[str, Numbers]
) -> tuple[NDArray[np.float64], dict[str, Numbers]]:
    """Rows of one epoch or step that fill disjoint cells become one row.

    Raises
    ------
    LogError
        If the axis falls, or a metric has two values at one place: then two logs are mixed.
    """
    if not np.isfinite(axis).all():
        raise LogError(f"{where}: {name}: a cell is empty or no number; every row needs its {name}")
    _check_rising(axis, where, name, strictly=False)
    unique, group = np.unique(axis, return_inverse=True)
    if len(unique) == len(axis):
        return axis, dict(columns)
    joined = {}
    for metric, column in columns.items():
        written = np.flatnonzero(~column.gaps)
        counts = np.bincount(group[written], minlength=len(unique))
        if counts.size and counts.max() > 1:
            at = unique[int(counts.argmax())]
            raise LogError(
                f"{where}: {name}: {metric} has {counts.max()} values at {name} {at:g}; {name}s of one run "
                "rise: is it the log of two runs? Split it, or give each run a file of its own"
            )
        joined[metric] = _at(len(unique), group[written], column, written)
    return unique, joined


def _at(length: int, places: NDArray[Any], column: Numbers, rows: NDArray[Any]) -> Numbers:
    values, diverged = np.full(length, np.nan), np.zeros(length, dtype=bool)
    values[places] = column.values[rows]
    diverged[places] = column.diverged[rows]
    return Numbers(values, diverged)


def by_epoch(
    where: str,
    epochs: NDArray[np.float64] | None,
    steps: NDArray[np.float64] | None,
    columns: Mapping[str, Numbers],
    notes: list[str],
    *,
    first: int = 1,
) -> tuple[NDArray[np.float64], dict[str, Numbers]]:
    """Bring rows of any log to one row an epoch, or a row a point of evaluation.

    Parameters
    ----------
    where : str
    epochs, steps : array, optional
        Of each row; one of them at least. A row without an epoch belongs to the next that has one.
    columns : mapping of str to Numbers
    notes : list of str
        Gets what was decided.
    first : int
        Number of the first point, where evaluations are numbered.

    Raises
    ------
    LogError
        If an axis falls or a metric has two values at one place.
    """
    if steps is not None and not np.isfinite(steps).all():
        steps = None
    if epochs is not None:
        epochs = _filled(epochs)
        whole = bool(np.isfinite(epochs).all()) and not (epochs % 1).any()
        if whole:
            return _by_whole_epochs(where, epochs, steps, columns, notes)
        steps = epochs if steps is None else steps
        _check_rising(epochs, where, "epoch", strictly=False)
    if steps is None:
        raise LogError(f"{where}: epoch: a cell is empty or no number; every row needs its epoch or step")
    axis, columns = merged(where, "step", steps, columns)
    evaluated = [c for name, c in columns.items() if name.startswith(("val_", "test_", "train_"))]
    rows = np.zeros(len(axis), dtype=bool)
    for column in evaluated:
        rows |= ~column.gaps
    if not rows.any():
        rows[:] = True
    kept = np.flatnonzero(rows)
    thinned = {}
    for name, column in columns.items():
        if any(column is other for other in evaluated):
            thinned[name] = Numbers(column.values[kept], column.diverged[kept])
            continue
        # What is written more often than evaluations: its last value up to each.
        seen = np.maximum.accumulate(np.where(column.gaps, -1, np.arange(len(axis))))[kept]
        values = np.where(seen < 0, np.nan, column.values[seen])
        thinned[name] = Numbers(values, np.where(seen < 0, False, column.diverged[seen]))
    notes.append(
        f"evaluations at steps {axis[kept[0]]:g} to {axis[kept[-1]]:g} are numbered in place of epochs"
    )
    return np.arange(len(kept), dtype=np.float64) + first, thinned


def _filled(epochs: NDArray[np.float64]) -> NDArray[np.float64]:
    """A row without an epoch belongs to the next one that has it, or else to the last."""
    import pandas as pd

    filled = pd.Series(np.where(np.isfinite(epochs), epochs, np.nan)).bfill().ffill()
    return np.asarray(filled, dtype=np.float64)


def _by_whole_epochs(
    where: str,
    epochs: NDArray[np.float64],
    steps: NDArray[np.float64] | None,
    columns: Mapping[str, Numbers],
    notes: list[str],
) -> tuple[NDArray[np.float64], dict[str, Numbers]]:
    if (np.diff(epochs) > 0).all():
        return epochs, dict(columns)
    _check_rising(epochs, where, "epoch", strictly=False)
    if steps is None:
        return merged(where, "epoch", epochs, columns)
    steps_, columns = merged(where, "step", steps, columns)
    # The epoch of a step is that of its last row.
    epochs = epochs[np.searchsorted(steps, steps_, side="right") - 1]
    unique, group = np.unique(epochs, return_inverse=True)
    joined, several = {}, []
    for name, column in columns.items():
        written = np.flatnonzero(~column.gaps)
        if written.size and np.bincount(group[written]).max() > 1:
            several.append(name)
        joined[name] = _at(len(unique), group[written], column, written)
    if several:
        notes.append(f"{', '.join(several)}: several values an epoch; the last of each is taken")
    return unique, joined
