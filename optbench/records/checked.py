"""Whether a store's file is untouched since a run checked every digest of it.

To read every digest again takes most of the time of a large suite that has nothing left to do. What is kept
beside the file cannot hide an edit: any write changes it. It does not see a disk that returns other bytes
than were written; reports, which check all, do.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

SUFFIX = "-checked"


def mark(path: Path) -> None:
    """Note that the file is as it was written; without a note every digest is read next time."""
    with contextlib.suppress(OSError):
        _note(path).write_text(json.dumps(_state(path)))


def unmark(path: Path) -> bool:
    """Remove the note, and say whether the file was untouched since it was made."""
    unfinished = path.with_name(f"{path.name}-wal")
    try:
        found = json.loads(_note(path).read_text())
        same = found == _state(path) and not (unfinished.exists() and unfinished.stat().st_size)
        _note(path).unlink()
    except (OSError, ValueError, RecursionError):
        return False
    return same


def _note(path: Path) -> Path:
    return path.with_name(path.name + SUFFIX)


def _state(path: Path) -> list[int]:
    """What any write changes, and a copy does not keep."""
    facts = os.stat(path)
    return [facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]
