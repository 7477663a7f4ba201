"""Runs of a table: one row each, or one row an epoch, brought to one value a run by one rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from optbench.datasets.numbers import Numbers
from optbench.records.readers.names import plain
from optbench.records.readers.naming import LogError, Naming, seed_number
from optbench.records.readers.runs import RunLog, by_epoch, end_of, run_log, until
from optbench.records.readers.table import ResultsTable
from optbench.trial import Status

if TYPE_CHECKING:
    import pandas as pd

_KEYS = ("dataset", "model", "backend", "device", "optimizer", "seed")
_WORST: Mapping[str, int] = {"completed": 0, "diverged": 1, "crashed": 2}


def axes_of(frame: pd.DataFrame) -> list[str]:
    """Columns that number the rows of a run, if runs have several rows."""
    axes = [name for name in ("epoch", "step") if name in frame]
    keys = [name for name in _KEYS if name in frame]
    return axes if axes and bool(frame.duplicated(keys).any()) else []


def sorted_out(columns: Mapping[str, str | None], path: Path | str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Names by metric, and names that mean none.

    Raises
    ------
    LogError
        If two names mean one metric.
    """
    taken: dict[str, str] = {}
    for name, metric in columns.items():
        if metric is None:
            continue
        if metric in taken:
            raise LogError(
                f"{path}: {taken[metric]!r} and {name!r} both mean {metric}; leave one out with "
                f"--map '{name}='"
            )
        taken[metric] = name
    return taken, tuple(name for name, metric in columns.items() if metric is None)


def table_runs(table: ResultsTable, path: Path, naming: Naming, *, kind: str = "table") -> Iterator[RunLog]:
    """Read the runs of a table.

    Raises
    ------
    LogError
        If a run has several rows and no epoch tells them apart, or a seed is no whole number.
    """
    frame = table.frame.copy()
    taken, ignored = sorted_out(
        {name: _metric(name, table, naming) for name in (*table.metrics, *table.settings)}, path
    )
    directions = {
        metric: table.directions[name] for metric, name in taken.items() if name in table.directions
    }
    ignored = tuple(name for name in ignored if name not in table.settings)
    for name, default in (("model", ""), ("backend", "imported"), ("device", "unknown")):
        if name not in frame:
            frame[name] = naming.given.get(name, default)
    axes = axes_of(frame)
    seeds: dict[int, str] = {}
    for key, rows in frame.groupby(list(_KEYS), sort=False, dropna=False).indices.items():
        facts = dict(zip(_KEYS, cast(tuple[Any, ...], key), strict=True))
        where = (
            f"{path}: optimizer {facts['optimizer']!r}, dataset {facts['dataset']!r}, seed {facts['seed']}"
        )
        if not axes and len(rows) > 1:
            raise LogError(f"{where}: has {len(rows)} rows; add a column epoch, or a seed for each")
        columns = {metric: _numbers(table, name, rows) for metric, name in taken.items()}
        notes = list(table.notes)
        epochs = None
        if axes:
            epoch, step = (frame[a].to_numpy()[rows] if a in axes else None for a in ("epoch", "step"))
            epochs, columns = by_epoch(where, epoch, step, columns, notes)
        seed = seed_number(facts["seed"], path)
        other = seeds.setdefault(seed, str(facts["seed"]))
        if other != str(facts["seed"]):
            raise LogError(f"{where}: the seed {other!r} is the same number; write both in one way")
        yield run_log(
            source=f"{path}",
            kind=kind,
            facts={**facts, "seed": seed},
            epochs=epochs,
            columns=columns,
            ignored=ignored,
            status=status_of(frame, rows),
            notes=notes,
            directions=directions,
        )


def _metric(name: str, table: ResultsTable, naming: Naming) -> str | None:
    """Metric that a column means; one whose direction the tool itself says is one by that."""
    meant = naming.metric(name)
    if meant is None and name not in naming.names and name in table.directions:
        return f"val_{plain(name)}"
    return meant


def status_of(frame: pd.DataFrame, rows: Any) -> Status:
    """Status of a run: that of its last row, or a crash in any."""
    if "status" not in frame:
        return "completed"
    found = frame["status"].to_numpy()[rows]
    return cast(Status, "crashed" if "crashed" in found else found[-1])


def _numbers(table: ResultsTable, name: str, rows: Any) -> Numbers:
    values = table.frame[name].to_numpy(dtype=np.float64)[rows]
    diverged = table.diverged.get(name)
    return Numbers(values, diverged[rows] if diverged is not None else np.zeros(len(values), dtype=bool))


def one_row_a_run(table: ResultsTable, path: Path) -> ResultsTable:
    """Bring a table with a row an epoch to a row a run, each metric with the value that it ends with."""
    import pandas as pd

    axes = axes_of(table.frame)
    if not axes:
        return table
    frame = table.frame
    keys = [name for name in _KEYS if name in frame]
    found: list[dict[str, Any]] = []
    diverged: dict[str, list[bool]] = {name: [] for name in table.metrics}
    notes = list(table.notes)
    lacking: dict[str, int] = {}
    for key, rows in frame.groupby(keys, sort=False, dropna=False).indices.items():
        facts = dict(zip(keys, cast(tuple[Any, ...], key), strict=True))
        where = ", ".join(f"{name} {value!r}" for name, value in facts.items())
        columns = {name: _numbers(table, name, rows) for name in table.metrics}
        epoch, step = (frame[a].to_numpy()[rows] if a in axes else None for a in ("epoch", "step"))
        run = run_ends(f"{path}: {where}", epoch, step, columns)
        for name, value in run.items():
            diverged[name].append(value is not None and not np.isfinite(value))
            if value is None:
                lacking[name] = lacking.get(name, 0) + 1
        row = {name: (np.nan if value is None else value) for name, value in run.items()}
        found.append({**facts, "status": status_of(frame, rows), **row})
    notes.append(f"a row an epoch: {len(found)} runs, each with the values that it ends with")
    notes += [f"{name}: {count} runs lack their last values" for name, count in lacking.items()]
    sizes = frame.groupby(keys, sort=False, dropna=False)[axes[0]].nunique()
    if sizes.min() < sizes.max():
        shortest = ", ".join(map(str, sizes.index[int(sizes.argmin())]))
        notes.append(
            f"runs have from {sizes.min()} to {sizes.max()} {axes[0]}s, the fewest ({shortest}): stopped "
            "early, or a log was cut short?"
        )
    return replace(
        table,
        frame=pd.DataFrame(found),
        diverged={name: np.array(values) for name, values in diverged.items()},
        notes=tuple(notes),
    )


def run_ends(where: str, epoch: Any, step: Any, columns: Mapping[str, Numbers]) -> dict[str, float | None]:
    """Value that each metric of one run ends with."""
    renamed = {
        name if name.lower().startswith(("val", "test", "train")) else f"val_{name}": name for name in columns
    }
    _, merged = by_epoch(where, epoch, step, {new: columns[name] for new, name in renamed.items()}, [])
    lasts = {name: max(np.flatnonzero(~column.gaps), default=-1) for name, column in merged.items()}
    last = max((int(at) for name, at in lasts.items() if not name.lower().startswith("test")), default=-1)
    whole = int(max(lasts.values(), default=-1))
    return {
        renamed[name]: end_of(column, until(name, column, last, whole)) for name, column in merged.items()
    }


def table_of_runs(logs: Sequence[RunLog], path: Path, notes: Sequence[str]) -> ResultsTable:
    """Bring runs of other tools to a table with a row a run, for the statistics alone."""
    import pandas as pd

    from optbench.records.foreign_metrics import choose_primary, declared, testable_metrics
    from optbench.records.foreign_notes import notes_of

    names = list(dict.fromkeys(name for log in logs for name in declared(log) if name != "lr"))
    rows: list[dict[str, Any]] = []
    diverged: dict[str, list[bool]] = {name: [] for name in names}
    for log in logs:
        ends = {**log.metrics, **log.ends}
        rows.append(
            {
                "dataset": log.dataset,
                "model": log.model,
                "optimizer": log.optimizer,
                "seed": str(log.seed),
                "status": log.status,
                **{name: ends.get(name, np.nan) for name in names},
            }
        )
        for name in names:
            diverged[name].append(name in log.diverged)
    custom = {name: name for name in names if name.startswith(("val_", "test_"))}
    order = (*testable_metrics({}), *custom)
    chosen, said = choose_primary(logs, order) if set(order) & set(names) else ("", [])
    if chosen:
        said = [f"{chosen} is compared; --metric chooses another of {', '.join(names)}", *said]
    kinds = ", ".join(dict.fromkeys(log.kind for log in logs))
    return ResultsTable(
        frame=pd.DataFrame(rows),
        form="long",
        metrics=tuple(names),
        chosen=chosen,
        explanation=f"{len(logs)} runs of {path.name} ({kinds})",
        diverged={name: np.array(values, dtype=bool) for name, values in diverged.items()},
        notes=(*notes, *(note.removesuffix(".") for note in (*said, *notes_of(logs)))),
        directions={name: word for log in logs for name, word in log.directions.items()},
    )
