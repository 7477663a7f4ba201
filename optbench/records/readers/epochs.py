"""Logs of cells with a row an epoch: Keras's CSVLogger, Lightning's metrics.csv, and alike."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optbench.datasets.cells import Cells, TableError, cells_of, decode, read_cells
from optbench.datasets.numbers import Locale, is_gap
from optbench.records.readers import names
from optbench.records.readers.curves import facts_beside
from optbench.records.readers.naming import LogError, Naming
from optbench.records.readers.runs import RunLog, by_epoch, run_log
from optbench.records.readers.tabled import sorted_out

_SUFFIXES = (".csv", ".tsv", ".log", ".tab", ".parquet")


def is_cells(path: Path, head: bytes) -> bool:
    """Whether a file is called as a table of cells is."""
    name = path.name.lower().removesuffix(".gz")
    if head.startswith(b"PAR1"):
        return True
    text = b"\0" not in head or head[:2] in (b"\xff\xfe", b"\xfe\xff")
    # A .log is more often lines of text than cells.
    return name.endswith(_SUFFIXES) and text and (not name.endswith(".log") or _has_axis(path, head))


def _has_axis(path: Path, head: bytes) -> bool:
    """Whether the first line names an epoch, a step or an optimizer among its columns."""
    roles = {role[0] for name in _names(path, head) if (role := names.role_of(name)) is not None}
    return bool({"epoch", "step", "optimizer"} & roles)


def header(path: Path, head: bytes) -> tuple[str, ...]:
    """Names of the columns, as far as the first bytes of a file tell them; none if they tell none."""
    return _names(path, head) if is_cells(path, head) else ()


def _names(path: Path, head: bytes) -> tuple[str, ...]:
    if head[:2] == b"\x1f\x8b" or head[:4] == b"PAR1":
        return ()
    try:
        text, _ = decode(head[: len(head) // 4 * 4], path)
        lines = text.splitlines(keepends=True)
        # A made row of blanks: the last line of the head may be cut.
        cells = cells_of("".join(lines[:-1] if len(lines) > 2 else lines) + "\n", path)
    except TableError:
        return ()
    return cells.names


def is_log(path: Path, head: bytes) -> bool:
    """Whether a file begins with its epochs or steps, and no column names an optimizer."""
    first = re.match(rb"(\xef\xbb\xbf)?\s*\"?(epoch|step)\"?\s*[,;\t]", head, re.IGNORECASE)
    columns = header(path, head)
    if not columns:
        return first is not None and is_cells(path, head)
    roles = {role[0] for name in columns if (role := names.role_of(name)) is not None and role[1] < 10}
    return bool({"epoch", "step"} & roles) and "optimizer" not in roles


def read(paths: Sequence[Path], below: Path, naming: Naming) -> Iterator[RunLog]:
    """Read a file a run."""
    for path in paths:
        facts = facts_beside(path, below)
        yield log_of(read_cells(path), below, naming, kind="keras", known_facts=facts)


def log_of(cells: Cells, below: Path, naming: Naming, *, kind: str, known_facts: Any = None) -> RunLog:
    """Read the log of one run.

    Raises
    ------
    LogError
        If the rows are those of two logs, or no column numbers them.
    """
    path = cells.path
    naming.meet(cells.names)
    if cells.repeated:
        raise LogError(
            f"{path}: line {cells.repeated[0]}: repeats the header: is it the log of two runs? Split it, or "
            "give each run a file of its own"
        )
    axes = {}
    for k, name in enumerate(cells.names):
        role = names.role_of(name) if name not in naming.names else (naming.names[name], 0)
        if role is not None and role[0] in ("epoch", "step") and role[0] not in axes:
            axes[role[0]] = k
    numbered = not axes and naming.kind == kind
    if not axes and not numbered:
        raise LogError(
            f"{path}: found {', '.join(cells.names)}; a log has a column epoch and a row an epoch; say which "
            "it is with --map COLUMN=epoch"
        )
    metrics = {name: naming.metric(name) for k, name in enumerate(cells.names) if k not in axes.values()}
    taken, ignored = sorted_out(metrics, path)
    index = {name: k for k, name in enumerate(cells.names)}
    used = {name: cells.column(index[name]) for name in taken.values()}
    wanted = {**used, **{cells.names[k]: cells.column(k) for k in axes.values()}}
    locale = Locale(path, wanted, cells.lines, point=naming.point)
    columns = {
        metric: locale.column(name, used[name], unit=cells.units.get(index[name], ""))
        for metric, name in taken.items()
    }
    places = {role: locale.column(cells.names[k], cells.column(k)).values for role, k in axes.items()}
    if "epoch" in places:
        known = places["epoch"][np.isfinite(places["epoch"])]
        places["epoch"] = places["epoch"] - (known[0] if known.size else 0) + naming.first_epoch
    notes = [*cells.notes, *locale.notes]
    if numbered:
        places["epoch"] = np.arange(len(cells.rows), dtype=np.float64) + naming.first_epoch
        notes.append("no column epoch or step: the rows are numbered")
    axis, columns = by_epoch(
        str(path), places.get("epoch"), places.get("step"), columns, notes, first=naming.first_epoch
    )
    return run_log(
        source=str(path),
        kind=kind,
        facts=naming.facts(path, below, known=known_facts),
        epochs=axis,
        columns=columns,
        ignored=[name for name in ignored if not _is_blank(cells, index[name])],
        notes=notes,
    )


def _is_blank(cells: Cells, k: int) -> bool:
    return all(is_gap(cell) for cell in cells.column(k))
