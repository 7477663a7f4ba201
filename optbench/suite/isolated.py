"""Call custom functions of data and models in a process of their own, which they may end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optbench.suite.references import is_file

#: Arrays, or plain data.
Answer = tuple[tuple[NDArray[Any], ...], Any]
_BEGIN = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from optbench.suite.isolated import main; main()"
)
_ANSWER, _ARRAYS = "answer.json", "arrays.npz"


class EndedError(RuntimeError):
    """The function ended the process in which it was called; the message says how."""


def call_isolated(target: str, reference: str, **options: Any) -> Answer:
    """Call one of optbench's functions that runs custom code in a new process.

    Parameters
    ----------
    target : str
        ``module:function`` of optbench; it returns arrays and JSON-ready data.
    reference : str
        The custom code, to see whether a new process finds it: what this process made up itself, in an
        interactive session say, is called here.
    **options
        JSON-ready arguments of the function.

    Returns
    -------
    arrays, plain
        What it returned.

    Raises
    ------
    EndedError
        If the process ended before it had an answer.
    """
    if not _found_elsewhere(reference) or not sys.executable:
        return _function(target)(**options)
    with tempfile.TemporaryDirectory(prefix="optbench-call-") as folder:
        given = json.dumps({"target": target, "options": options, "folder": folder})
        with subprocess.Popen(
            [sys.executable, "-c", _BEGIN, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=sys.stderr.fileno() if _has_descriptor(sys.stderr) else subprocess.DEVNULL,
        ) as process:
            try:
                process.communicate(given.encode())
            finally:
                end_group(process.pid)
                process.kill()
        place = Path(folder)
        if not (place / _ANSWER).is_file():
            code = process.returncode
            how = f"exit code {code}" if code >= 0 else f"signal {-code}"
            raise EndedError(f"it ended its process ({how})")
        plain = json.loads((place / _ANSWER).read_text("utf-8"))
        with np.load(place / _ARRAYS, allow_pickle=False) as arrays:
            return tuple(arrays[name] for name in arrays.files), plain


def own_group() -> None:
    """Be the first of a group of processes: what custom code starts from here on ends with this process."""
    if hasattr(os, "setpgid"):
        with contextlib.suppress(OSError):  # the leader of a session is one already
            os.setpgid(0, 0)


def end_group(leader: int) -> None:
    """End what is left of the group that this process began; nothing if it began none."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(OSError):
            os.killpg(leader, signal.SIGKILL)


def main() -> None:
    """Answer one call, as :func:`call_isolated` writes it to the standard input."""
    own_group()
    given = json.loads(sys.stdin.buffer.read())
    place = Path(given["folder"])
    try:
        arrays, plain = _function(given["target"])(**given["options"])
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    np.savez(place / _ARRAYS, *arrays)
    unfinished = place / "unfinished"
    unfinished.write_text(json.dumps(plain), "utf-8")
    os.replace(unfinished, place / _ANSWER)
    sys.stdout.flush()
    os._exit(0)  # whatever threads the custom code has left


def _function(target: str) -> Callable[..., Answer]:
    module, _, name = target.partition(":")
    function: Callable[..., Answer] = getattr(import_module(module), name)
    return function


def _found_elsewhere(reference: str) -> bool:
    """Whether a new process would find this code."""
    if is_file(reference):
        return True
    module = sys.modules.get(reference.rpartition(":")[0])
    return module is None or (module.__name__ != "__main__" and getattr(module, "__file__", None) is not None)


def _has_descriptor(stream: Any) -> bool:
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True
