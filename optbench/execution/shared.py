"""Copies of data that worker processes map into their memory: each belongs to one run, and goes with it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import filelock

PREFIX = "optbench-"
#: Held by the owner; the operating system frees it when the process ends, however it ends.
LOCK = "owner.lock"


class SharedFolder:
    """A temporary folder that :func:`sweep` removes once its process is gone, if :meth:`close` did not."""

    def __init__(self) -> None:
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
            self._lock = filelock.FileLock(self.path / LOCK, timeout=0)
            with contextlib.suppress(filelock.Timeout, FileNotFoundError):  # swept before it was locked
                with contextlib.suppress(NotImplementedError):  # a file system without locks: never swept
                    self._lock.acquire()
                if (self.path / LOCK).exists():
                    return

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()


def sweep() -> None:
    """Remove the folders whose process is gone, as after ``kill -9``."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{LOCK}"):
        # Another user's, or that of a running run.
        with (
            contextlib.suppress(filelock.Timeout, OSError, NotImplementedError),
            filelock.FileLock(path, timeout=0),
        ):
            shutil.rmtree(path.parent, ignore_errors=True)
