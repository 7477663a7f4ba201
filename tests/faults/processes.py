"""A command with all the processes that it starts, however far they went from it (Linux)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Seconds after which a command is taken to hang.
PATIENCE = 600
#: Seconds that processes may outlive the command that started them.
GRACE = 60
#: Environment variable that every process of a command inherits.
MARK = "FAULTS_COMMAND"


@dataclass(frozen=True)
class Found:
    """A process of the system; ``words`` is its command line."""

    pid: int
    parent: int
    session: int
    words: str
    marked: bool


def _look(task: Path, mark: bytes) -> Found | None:
    try:
        state, parent, _, session = (task / "stat").read_text().rpartition(")")[2].split()[:4]
        words = (task / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None
    if state in "ZX":
        return None
    try:
        marked = mark in (task / "environ").read_bytes().split(b"\0")
    except OSError:  # it has just ended, or belongs to somebody else
        marked = False
    return Found(int(task.name), int(parent), int(session), words, marked)


def of_mark(value: str, session: int) -> list[Found]:
    """Processes that inherited a mark or belong to a session, and all that they have started."""
    mark = f"{MARK}={value}".encode()
    there = [found for task in Path("/proc").glob("[0-9]*") if (found := _look(task, mark)) is not None]
    mine = {found.pid for found in there if found.marked or found.session == session}
    while more := {found.pid for found in there if found.parent in mine} - mine:
        mine |= more
    return [found for found in there if found.pid in mine and found.pid != os.getpid()]


class Running:
    """A command under way in a session of its own, with its output in a file beside its folder.

    A pipe would be held open by processes that outlive the command.
    """

    def __init__(
        self,
        words: Sequence[str | Path],
        folder: Path,
        *,
        environment: Mapping[str, str],
        stdin: int | None = None,
    ) -> None:
        self.folder = folder
        number = len(list(folder.parent.glob(f"{folder.name}.output-*")))
        self._output = folder.with_name(f"{folder.name}.output-{number}")
        self._mark = f"{self._output}"
        with self._output.open("wb") as file:
            self.process = subprocess.Popen(
                [str(word) for word in words],
                cwd=folder,
                env={**environment, MARK: self._mark},
                stdin=stdin,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def members(self) -> list[Found]:
        """Every process of the command that lives."""
        return of_mark(self._mark, self.process.pid)

    def send(self, number: int) -> None:
        """Send every process a signal."""
        for found in self.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.pid, number)

    def kill(self) -> None:
        """End every process as a power cut does."""
        end = time.monotonic() + GRACE
        while self.members():
            self.send(signal.SIGKILL)
            self.process.poll()
            assert time.monotonic() < end, f"these cannot be killed: {self.members()}"
        self.process.wait()

    def wait(self, seconds: float = PATIENCE) -> int | None:
        """Wait for the end, and give the exit code; None, and all are killed, where it does not come."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def left(self) -> list[Found]:
        """Processes that are still there :data:`GRACE` seconds after the command's end; they are killed."""
        end = time.monotonic() + GRACE
        while (found := self.members()) and time.monotonic() < end:
            time.sleep(0.05)
        if found:
            self.kill()
        return found
