"""Runs of other tools: find the files of a source, and give each to the reader of its format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from optbench.records.readers.formats import FORMATS, TABLES, recognised
from optbench.records.readers.naming import HISTORY, LogError, Naming
from optbench.records.readers.runs import RunLog

__all__ = ["HISTORY", "LogError", "Naming", "RunLog", "read"]


def read(
    sources: Sequence[Path],
    naming: Naming,
    *,
    notes: list[str] | None = None,
) -> list[RunLog]:
    """Read tables and logs.

    Parameters
    ----------
    sources : sequence of Path
        Files, or folders that are searched.
    naming : Naming
    notes : list of str, optional
        Gets what was found in a folder and left out.

    Raises
    ------
    LogError
        If there is nothing to read, or a file does not fit.
    """
    found: list[RunLog] = []
    kind = naming.kind or ("text" if naming.line else None)
    for source in sources:
        if not source.exists():
            raise LogError(f"{source}: not found; give a table or log, or a folder with logs")
        below = source if source.is_dir() else source.parent
        files = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
        by_format, left = recognised(files, kind=kind, alone=not source.is_dir())
        before = len(found)
        for name, paths in by_format.items():
            found += FORMATS[name].read(paths, below, naming)
        if left and notes is not None:
            notes.append(_left_out(source, left))
        if len(found) == before:
            what = "table or log" if kind is None else FORMATS[kind].title
            raise LogError(
                f"{source}: found no {what}; give a file, or a folder with logs, or say with --as which of "
                f"{', '.join(FORMATS)} it is, or what a line of a text log looks like with --line"
            )
    naming.check_met(" ".join(map(str, sources)))
    return found


def is_table(path: Path, naming: Naming) -> bool:
    """Whether a file is a table of results: of cells, unless what the user says makes a log of it.

    A download of a chart has the runs of a table if a pattern tells them apart.
    """
    if path.is_dir() or naming.line is not None:
        return False
    if naming.kind is not None:
        return naming.kind == "table"
    by_format, _ = recognised([path], alone=True)
    downloads = {"tensorboard-csv", "wandb-history"} if naming.pattern is not None else set()
    return not by_format or set(by_format) <= TABLES - downloads


def _left_out(source: Path, files: Sequence[Path]) -> str:
    kinds = Counter(path.suffix.lower() or path.name for path in files)
    listed = ", ".join(f"{count} {suffix}" for suffix, count in kinds.most_common(5))
    return f"{source}: {len(files)} other files are left out ({listed})"
