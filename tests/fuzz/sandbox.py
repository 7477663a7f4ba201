"""A folder in which one command line at a time runs, watched: exit code, words, time, files."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from optbench.cli import app
from optbench.errors import UserError

#: Seconds that a command may take.
LIMIT = 20.0
ALLOWED = (0, 2, 3)
#: A message has one line a problem.
MOST_LINES = 100
MOST_CHARACTERS = 900


@dataclass(frozen=True)
class Outcome:
    """How a command ended; ``written`` lists files outside the results folder that it made or changed.

    Every line of a message must say one of the ``names``: of the file, or of what else is wrong.
    """

    arguments: tuple[str, ...]
    names: tuple[str, ...]
    code: int | None
    stdout: str
    stderr: str
    error: str
    written: tuple[str, ...]

    def complaint(self) -> str | None:
        """What is wrong with this ending, if anything."""
        if self.error:
            return self.error
        if self.code not in ALLOWED:
            return f"exit code {self.code}: {self.stderr[-500:]}"
        if "Traceback (most recent" in self.stderr + self.stdout:
            return "a traceback in the output"
        if "Warning: " in self.stderr:
            return f"a Python warning: {self.stderr[-500:]}"
        if self.written:
            return f"wrote {', '.join(self.written)}"
        return self._unclear() if self.code else None

    def _unclear(self) -> str | None:
        """What is wrong with the message of a command that failed."""
        lines = self.stderr.strip().splitlines()
        if not lines:
            return f"exit code {self.code} without a word"
        if len(lines) > MOST_LINES:
            return f"a message of {len(lines)} lines"
        if lines[0].startswith("Usage: "):  # typer's own, in a frame
            return None
        for line in lines:
            if len(line) > MOST_CHARACTERS:
                return f"a line of {len(line)} characters: {line[:200]}"
            if self.names and not any(name in line for name in self.names):
                return f"a line names none of {', '.join(self.names)}: {line}"
        return None


class _TooLong(BaseException):
    pass


class Sandbox:
    """``root/a/b/work`` is the working directory, ``results`` in it the only place to write to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.work = root / "a" / "b" / "inside"
        self.results = self.work / "results"
        self.results.mkdir(parents=True)

    def run(self, *arguments: object, names: Sequence[str] = (), limit: float = LIMIT) -> Outcome:
        """Run optbench in this process."""
        words = tuple(map(str, arguments))
        return self._watched(words, lambda: app(words, prog_name="optbench"), names, limit)

    def call(
        self, function: Callable[[], object], *, names: Sequence[str] = (), limit: float = LIMIT
    ) -> Outcome:
        """Call a function as a command would."""

        def command() -> None:
            try:
                function()
            except UserError as error:
                print(error, file=sys.stderr)
                raise SystemExit(error.exit_code) from None

        return self._watched((), command, names, limit)

    def _watched(
        self, words: tuple[str, ...], command: Callable[[], object], names: Sequence[str], limit: float
    ) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        code: int | None = 0
        error = ""
        before = self._listing()
        with (
            _surroundings(self.work),
            warnings.catch_warnings(record=True) as warned,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            warnings.simplefilter("always")
            try:
                with _limited(limit):
                    command()
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
            except _TooLong:
                error = f"no end within {limit:g} s\n" + traceback.format_exc(limit=-6)
            except BaseException:
                error = traceback.format_exc()
        # Python's own filter would show each once a process.
        err.write("".join(f"{w.category.__name__}: {w.message}\n" for w in warned if _shown(w.category)))
        after = self._listing()
        written = tuple(sorted(name for name in after if after[name] != before.get(name)))
        return Outcome(words, tuple(names), code, out.getvalue(), err.getvalue(), error, written)

    def _listing(self) -> dict[str, tuple[int, int]]:
        found = {}
        for folder, folders, files in os.walk(self.root):
            if Path(folder) == self.work:
                folders.remove("results")
            for name in files:
                path = Path(folder, name)
                facts = path.lstat()
                found[str(path.relative_to(self.root))] = (facts.st_size, facts.st_mtime_ns)
        return found


def _shown(category: type[Warning]) -> bool:
    return not issubclass(
        category, DeprecationWarning | PendingDeprecationWarning | ImportWarning | ResourceWarning
    )


@contextlib.contextmanager
def _surroundings(folder: Path) -> Iterator[None]:
    here, environment = Path.cwd(), dict(os.environ)
    handler = signal.getsignal(signal.SIGTERM)
    os.chdir(folder)
    os.environ["COLUMNS"] = "140"
    try:
        yield
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(environment)
        signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """End what takes so many seconds of a core, or ten times as long: the machine may be busy."""
    began, spent = time.monotonic(), time.process_time()

    def stop(number: int, frame: object) -> None:
        if time.process_time() - spent >= seconds or time.monotonic() - began >= 10 * seconds:
            raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
