"""CSV files that trackers let one download: TensorBoard's scalars, wandb's history of a chart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from optbench.datasets.cells import Cells, read_cells
from optbench.datasets.numbers import Locale, Numbers
from optbench.records.readers.curves import Curve, check_steps, folder_facts, on_steps, run_of
from optbench.records.readers.epochs import header
from optbench.records.readers.names import plain
from optbench.records.readers.naming import LogError, Naming
from optbench.records.readers.runs import RunLog

_SCALAR = re.compile(r"(?:run-)?(.*?)[-_]?tag-(.+)\.csv", re.IGNORECASE)
_PARTS = {"train": "", "training": "", "validation": "val_", "val": "val_", "test": "test_"}
_EXTREME = re.compile(r"(.+?)__(MIN|MAX)", re.IGNORECASE)


def is_scalars(path: Path, head: bytes) -> bool:
    """Whether a file is a download of TensorBoard: wall time, step, value."""
    return [plain(name) for name in header(path, head)] == ["wall_time", "step", "value"]


def read_scalars(paths: Sequence[Path], below: Path, naming: Naming) -> Iterator[RunLog]:
    """Read downloads of TensorBoard; the files of one run, a tag each, are one run.

    The name that TensorBoard gives a file, ``run-<run>-tag-<tag>.csv``, says run and tag; of another name the
    metric is said by --map Value=METRIC and the run by its path.
    """
    runs: dict[tuple[str, Path], dict[str, Curve]] = {}
    for path in paths:
        cells = read_cells(path)
        run, tag = _named(path, naming)
        place = (run, path.parent if run else path)
        curve = _steps(cells)
        check_steps(str(path), {tag: curve})
        if tag in runs.setdefault(place, {}):
            raise LogError(f"{path}: another file of run {run!r} has {tag!r} too; leave one out")
        runs[place][tag] = curve
    for (run, path), curves in runs.items():
        where = f"{path}: {run}" if run else str(path)
        steps, columns = on_steps(curves)
        facts = naming.facts(path, below, run=run, known=folder_facts(path / run if run else path, below))
        yield run_of(where, "tensorboard-csv", naming, facts, columns, steps=steps)


def _named(path: Path, naming: Naming) -> tuple[str, str]:
    """Run and tag of a file."""
    found = _SCALAR.fullmatch(path.name)
    if found is None:
        if naming.names.get("Value"):
            return "", "Value"
        raise LogError(
            f"{path}: metric: not known; TensorBoard calls such a file run-RUN-tag-TAG.csv: keep that name, "
            "or say --map Value=METRIC"
        )
    run, tag = found[1], found[2]
    for part, prefix in _PARTS.items():
        if re.search(rf"[_\-./]{part}$", run):
            return run[: -len(part) - 1], prefix + tag.removeprefix("epoch_")
    return run, tag


def _steps(cells: Cells) -> list[tuple[float, float]]:
    named = {name: cells.column(k) for k, name in enumerate(cells.names) if k}
    locale = Locale(cells.path, named, cells.lines)
    step, value = (locale.column(cells.names[k], cells.column(k)).values for k in (1, 2))
    return list(zip(step.tolist(), value.tolist(), strict=True))


def is_history(path: Path, head: bytes) -> bool:
    """Whether a file is the history of a chart of wandb: steps, and columns ``run - metric``."""
    names = header(path, head)
    first = plain(names[0]) if names else ""
    return first in ("step", "epoch", "trainer_global_step", "global_step", "relative_time_process") and any(
        " - " in name for name in names[1:]
    )


def read_history(paths: Sequence[Path], below: Path, naming: Naming) -> Iterator[RunLog]:
    """Read histories of charts: a column a run and metric, whose run name --pattern takes apart."""
    runs: dict[str, dict[str, Curve]] = {}
    sources: dict[str, Path] = {}
    for path in paths:
        cells = read_cells(path)
        columns = _columns(cells)
        for name, values in columns.items():
            run, _, metric = name.rpartition(" - ")
            if not run or metric.startswith("_"):
                continue
            curve = [(s, v) for s, v, gap in zip(*values, strict=True) if not gap]
            check_steps(f"{path}: {run}", {metric: curve})
            if metric in runs.setdefault(run, {}):
                raise LogError(f"{path}: run {run!r} has {metric!r} in {sources[run]} too; leave one out")
            runs[run][metric] = curve
            sources.setdefault(run, path)
    for run, curves in runs.items():
        steps, columns_ = on_steps(curves)
        path = sources[run]
        facts = naming.facts(path, below, run=run, known=folder_facts(Path(run), Path()))
        yield run_of(f"{path}: {run}", "wandb-history", naming, facts, columns_, steps=steps)


def _columns(cells: Cells) -> dict[str, tuple[list[float], list[float], list[bool]]]:
    """Steps, values and gaps of each column; refused where the extremes show a mean of several runs."""
    locale = Locale(cells.path, {n: cells.column(k) for k, n in enumerate(cells.names)}, cells.lines)
    read: dict[str, Numbers] = {
        name: locale.column(name, cells.column(k)) for k, name in enumerate(cells.names)
    }
    steps = read[cells.names[0]].values.tolist()
    found = {}
    for name, column in read.items():
        extreme = _EXTREME.fullmatch(name)
        if extreme is not None and extreme[1] in read:
            both = ~column.gaps & ~read[extreme[1]].gaps
            if not np.array_equal(column.values[both], read[extreme[1]].values[both], equal_nan=True):
                raise LogError(
                    f"{cells.path}: column {name!r} differs from {extreme[1]!r}, which is thus a mean over "
                    "runs or steps; export the runs ungrouped, or the runs table"
                )
        elif name != cells.names[0]:
            found[name] = (steps, column.values.tolist(), column.gaps.tolist())
    return found
