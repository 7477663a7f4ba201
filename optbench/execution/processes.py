"""How the process of a worker starts.

A framework does not survive a fork once it has computed, so a worker is a process of its own. On Linux
PyTorch is imported once, in a server that does nothing else and of which the workers are forks: sixteen of
them start in the time of one, and share the memory of its code. All other frameworks start threads when they
are imported, and all other systems have reasons of their own: a fresh process there.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from optbench.environment import Context

#: What the server imports for PyTorch's workers; none of it makes a call of CUDA or starts a thread.
PRELOADED = ("optbench.backends.torch.engine", "optbench.execution.pool", "optbench.execution.server")


#: Of the temporary folder: what it may have so that the server's socket, 32 characters behind it, can be.
LONGEST_FOLDER = 70


class Starter:
    """Knows how workers start; a process has one server, with the settings of the first that asked."""

    def __init__(self) -> None:
        self._threads: int | None = None

    def context(self, frameworks: Sequence[str], context: Context) -> Any:
        """Give the context of ``multiprocessing`` in which to start a worker of these frameworks.

        Libraries read their threads when they are loaded, so that a server is for one number of them.
        """
        if sys.platform != "linux" or list(frameworks) != ["torch"]:
            return multiprocessing.get_context("spawn")
        if self._threads is None:
            self._threads = context.threads
            multiprocessing.get_context("forkserver").set_forkserver_preload(list(PRELOADED))
        # The server's socket lies in the temporary folder, and a socket's path has at most 107 characters.
        short = len(tempfile.gettempdir()) <= LONGEST_FOLDER
        how = "forkserver" if self._threads == context.threads and short else "spawn"
        return multiprocessing.get_context(how)


#: Of this process.
STARTER = Starter()
