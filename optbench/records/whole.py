"""Files are written whole: whatever ends the process leaves the old file or the new one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a place to write a file to, which takes its name when all of it is there.

    Parameters
    ----------
    path : Path

    Yields
    ------
    Path
        Beside it, with the same ending; what an earlier process left there is replaced.
    """
    unfinished = path.with_name(f".unfinished-{path.name}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
