"""Process-wide state that a trial's custom code may change, restored before the next trial."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

#: Descriptors of standard input, output and errors, and the objects that Python has of them.
_STREAMS = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))
_Handlers = dict[signal.Signals, Any]


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Restore the working directory, the standard streams, signal handlers and alarms.

    A framework's own settings are restored by :func:`optbench.backends.engine`, which every job calls.
    """
    folder = _folder()
    streams = {name: getattr(sys, name) for _, name, _ in _STREAMS}
    copies = {number: copy for number, _, _ in _STREAMS if (copy := _copy(number)) is not None}
    handlers = _handlers()
    try:
        yield
    finally:
        for signal_number, handler in handlers.items():
            if signal.getsignal(signal_number) is not handler:
                signal.signal(signal_number, handler)
        if handlers and hasattr(signal, "setitimer") and signal.getitimer(signal.ITIMER_REAL)[0]:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, name, mode in _STREAMS:
            if number in copies:
                with contextlib.suppress(OSError):  # the trial may have closed every descriptor
                    os.dup2(copies[number], number)
                    os.close(copies[number])
            setattr(sys, name, _usable(streams[name], number, mode))
        if folder is not None and _folder() != folder:
            with contextlib.suppress(OSError):  # it may be gone
                os.chdir(folder)


class Interruption:
    """Tells whether a signal has asked this process to stop.

    A person's Ctrl-C and a ``KeyboardInterrupt`` that a trial's code raises look alike to who catches them.
    Use as a context manager around that code; only the main thread is ever interrupted.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):
                    self._before[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._before[number](number, frame)


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:
        return None


def _copy(number: int) -> int | None:
    """Duplicate a descriptor, out of the way of code that closes the first few; None if it is closed."""
    try:
        return os.dup(number)
    except OSError:
        return None


def _handlers() -> _Handlers:
    """Handlers of this process's signals, those that Python can set again; only the main thread may."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {number: signal.getsignal(number) for number in signal.Signals if _catchable(number)}
    return {number: handler for number, handler in found.items() if handler is not None}


def _catchable(number: signal.Signals) -> bool:
    return number.name not in ("SIGKILL", "SIGSTOP")


def _usable(stream: Any, number: int, mode: str) -> Any:
    """Return the stream, or another one on the same descriptor if it was closed."""
    if stream is None or not getattr(stream, "closed", False):
        return stream
    try:
        return open(number, mode, closefd=False)
    except OSError:
        return open(os.devnull, mode)
