"""A worker: one process of this machine that does one task after the other and reports its progress.

The pipe between a worker and the run is theirs alone: a worker that is killed in the middle of a message
blocks no other. Whatever ends a worker closes its pipe too, so the run notices.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from optbench import backends
from optbench.environment import LIBRARY_THREADS, Context, adopt, set_framework_variables, snapshot
from optbench.errors import UserError
from optbench.execution.processes import STARTER
from optbench.suite.isolated import end_group

#: Seconds in which the last words of a process that has ended are read.
LAST_WORDS = 1.0


class WorkersError(UserError, RuntimeError):
    """Workers that cannot be started; the message says why."""


@dataclass(frozen=True)
class Ready:
    """The worker has imported its frameworks."""


@dataclass(frozen=True)
class Began:
    """The worker has begun its task."""


@dataclass(frozen=True)
class Progress:
    """A progress message that the task gave to ``tell``."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Done:
    """The task's result."""

    result: Any


@dataclass(frozen=True)
class Failed:
    """The task raised an exception: its traceback as text, and its exit code if it was an expected error."""

    error: str
    exit_code: int | None
    trace: str

    def exception(self) -> Exception:
        """Make the exception again, for the run."""
        if self.exit_code is None:
            return RuntimeError(f"a worker failed:\n{self.trace}")
        error = UserError(self.error)
        error.exit_code = self.exit_code
        return error


@dataclass(frozen=True)
class Ended:
    """The process is gone: its exit code, negative for a signal's number.

    ``cut`` says that its end of the pipe was closed, or written to by others, while it lived; it was then
    killed.
    """

    exit_code: int | None
    cut: bool = False


Message = Ready | Began | Progress | Done | Failed | Ended
#: Messages of all workers of a pool, in the order of arrival.
Inbox = SimpleQueue["tuple[Worker, Message]"]


class Worker:
    """A process for tasks; its messages arrive in the inbox.

    Parameters
    ----------
    inbox : Inbox
        Of the pool.
    frameworks : sequence of str
        Backends that it imports at its start.
    context : Context
        Its threads, for the numerical libraries too.
    gpu : str, optional
        The one that it sees, as ``CUDA_VISIBLE_DEVICES`` names it; all of them if not given.
    """

    def __init__(
        self, inbox: Inbox, frameworks: Sequence[str], context: Context, *, gpu: str | None = None
    ) -> None:
        self._inbox, self.gpu = inbox, gpu
        start = STARTER.context(frameworks, context)
        self._pipe, theirs = start.Pipe()
        # A child has the environment of its parent, and its libraries read these when they are loaded.
        given = dict.fromkeys(LIBRARY_THREADS, str(context.threads))
        before = set_framework_variables(given, override=True)
        try:
            environment = {**snapshot(), **({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu})}
            arguments = (theirs, environment, tuple(frameworks), context)
            self._process = start.Process(target=_serve, args=arguments, daemon=True)
            self._process.start()
        finally:
            set_framework_variables(before, override=True)
        theirs.close()  # so that the pipe ends with the process
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def give(self, task: Callable[..., Any], *arguments: Any) -> None:
        """Have the worker call ``task(tell, *arguments)``, once it is ready and has done all before."""
        with contextlib.suppress(OSError):  # it has ended: the inbox will say so
            self._pipe.send((task, arguments))

    def kill(self) -> None:
        """End the process, whatever it is doing, and what custom code has started in it."""
        self._process.kill()
        end_group(self._process.pid)

    def lost(self) -> bool:
        """Whether the process is gone and its pipe is still open, as a process that it started has it too."""
        if self._process.is_alive():
            return False
        self._reader.join(LAST_WORDS)
        return self._reader.is_alive()

    def exit_code(self) -> int | None:
        """How the process ended; None while it runs."""
        code: int | None = self._process.exitcode
        return code

    def close(self) -> None:
        """Wait for the end of a process that was killed, and free what is held for it."""
        self._process.join()
        self._reader.join(LAST_WORDS)
        if not self._reader.is_alive():
            self._pipe.close()

    def _read(self) -> None:
        """Pass on the worker's messages, until one is cut off or not in the worker's format."""
        while True:
            try:
                message = self._pipe.recv()
            except Exception:  # the end of the pipe, or bytes of a trial's code that found the descriptor
                break
            if not isinstance(message, Message):
                break
            self._inbox.put((self, message))
        self._process.join(LAST_WORDS)
        cut = self._process.is_alive()
        self.kill()
        self._process.join()
        self._inbox.put((self, Ended(self._process.exitcode, cut)))


def _serve(
    pipe: Connection, environment: Mapping[str, str], frameworks: Sequence[str], context: Context
) -> None:
    """Do tasks until the run ends. Ctrl-C is the run's business; without it there is nothing to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_first()
    adopt(environment)  # a fork of the server has that of the time when it started
    threading.Thread(target=_watch, daemon=True).start()
    for name in frameworks:
        with contextlib.suppress(UserError):  # a trial that asks for it will say what is missing
            backends.engine(name, context)
    pipe.send(Ready())
    while True:
        try:
            task, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(Began())
        try:
            answer: Message = Done(task(lambda *values: pipe.send(Progress(values)), *arguments))
        except Exception as error:
            code = error.exit_code if isinstance(error, UserError) else None
            answer = Failed(str(error), code, traceback.format_exc())
        pipe.send(answer)


def die_first() -> None:
    """Have the system end this process, not the run, where memory runs out (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def _watch() -> None:
    """End with the run; it may be no parent of this process, so a pipe tells of its end."""
    run = multiprocessing.parent_process()
    if run is not None:
        run.join()
    end_group(os.getpid())
    os._exit(1)


def check_main_guard(option: str) -> None:
    """Refuse to start workers from a script that would run once more in each of them.

    A new process imports the script that started it, so that a call outside
    ``if __name__ == "__main__":`` is made again there.

    Parameters
    ----------
    option : str
        What asks for workers, for the message.

    Raises
    ------
    WorkersError
        If the running script has no such guard around this call.
    """
    if (place := unguarded_call()) is not None:
        raise WorkersError(
            f"{option} starts processes, each of which imports {place[0]} and would run its line {place[1]} "
            'again; put what starts the run under `if __name__ == "__main__":`. Nothing was run'
        )


def unguarded_call() -> tuple[str, int] | None:
    """Find the line of the main script that is being executed outside of a guard: its file and number."""
    import ast

    frame: Any = sys._getframe()
    while frame is not None:
        script = frame.f_globals.get("__name__") in ("__main__", "__mp_main__")
        if script and frame.f_code.co_name == "<module>":
            break
        frame = frame.f_back
    path = frame.f_globals.get("__file__") if frame is not None else None
    if path is None:  # an interactive session, or python -c: nothing that a child could import
        return None
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):  # no source
        return None
    line = frame.f_lineno
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and any(
            isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test)
        ):
            last = node.body[-1].end_lineno or node.body[-1].lineno
            if node.lineno <= line <= last:
                return None
    return path, line


def describe_end(end: Ended, attempts: int) -> str:
    """Say why a trial has no result, as its worker has ended."""
    exit_code = end.exit_code
    if end.cut:
        return (
            "the process of this trial closed its connection to the run, or something wrote to it: look in "
            "the code that the trial runs for what closes or writes to descriptors that it has not opened"
        )
    if exit_code is not None and exit_code >= 0:
        return (
            f"the process of this trial ended itself with exit code {exit_code}, as by os._exit(): look in "
            "the code that the trial runs, and the libraries under it"
        )
    name = "unknown"
    if exit_code is not None:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-exit_code).name
    return (
        f"the worker process died {attempts} times (exit code {exit_code}, {name}): killed, crashed in "
        "native code, or out of memory; run fewer at once with --workers"
    )


def ignore(*values: object) -> None:
    """Drop the task's progress messages."""


__all__ = [
    "Began",
    "Done",
    "Ended",
    "Failed",
    "Inbox",
    "Message",
    "Progress",
    "Ready",
    "Worker",
    "WorkersError",
    "check_main_guard",
    "describe_end",
    "ignore",
    "unguarded_call",
]
