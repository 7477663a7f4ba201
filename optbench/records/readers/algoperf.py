"""AlgoPerf's trees of measurements: submission/study/workload_framework/trial/measurements.csv."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from optbench.datasets.cells import read_cells
from optbench.records.readers.epochs import header, log_of
from optbench.records.readers.naming import LogError, Naming
from optbench.records.readers.runs import RunLog

_FILES = ("eval_measurements.csv", "measurements.csv")


def is_measurements(path: Path, head: bytes) -> bool:
    """Whether a file has the measurements of a trial."""
    return path.name in _FILES and "global_step" in header(path, head)


def read(paths: Sequence[Path], below: Path, naming: Naming) -> Iterator[RunLog]:
    """Read one trial a study and workload; its evaluations are the points.

    Raises
    ------
    LogError
        If a study has several trials of one workload: those are searches over settings, no repetitions.
    """
    trials = {path.parent for path in paths}
    kept = []
    for folder in sorted(trials):
        # Both files have the evaluations; the shorter one has nothing else.
        path = next(folder / name for name in _FILES if folder / name in paths)
        if naming.pattern is None or _fits(path, below, naming):
            kept.append(path)
    if not kept:
        raise LogError(f"{below}: no trial fits --pattern {naming.pattern!r}")
    by_workload: dict[Path, list[Path]] = {}
    for path in kept:
        if re.fullmatch(r"trial_\d+", path.parent.name):
            by_workload.setdefault(path.parent.parent, []).append(path)
    for workload, found in by_workload.items():
        if len(found) > 1:
            raise LogError(
                f"{workload}: found {len(found)} trials, which are settings tried out and no repetitions; "
                "name the one to take, as in --pattern '{optimizer}/study_{seed}/{dataset}_*/trial_1'"
            )
    left = len(trials) - len(kept)
    for path in kept:
        log = log_of(read_cells(path), below, naming, kind="algoperf", known_facts=_facts(path))
        notes = (f"{left} other trials do not fit --pattern and are left out",) if left else ()
        yield replace(log, notes=(*log.notes, *notes))


def _fits(path: Path, below: Path, naming: Naming) -> bool:
    try:
        naming.matched(path, below)
    except LogError:
        return False
    return True


def _facts(path: Path) -> dict[str, str]:
    """What the folders say; each level may be missing but the workload's."""
    parts = list(path.resolve().parts[:-1])
    found: dict[str, str] = {}
    if parts and re.fullmatch(r"trial_\d+", parts[-1]):
        parts.pop()
    if parts:
        framework = re.fullmatch(r"(.+)_(jax|pytorch)", parts[-1])
        if framework:
            found |= {
                "dataset": framework[1],
                "backend": {"pytorch": "torch"}.get(framework[2], framework[2]),
            }
            parts.pop()
            study = re.fullmatch(r"study_(\d+)", parts[-1]) if parts else None
            if study:
                found["seed"] = study[1]
                parts.pop()
            if parts:
                found["optimizer"] = parts[-1]
    return found
