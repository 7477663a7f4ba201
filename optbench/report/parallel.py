"""Work on many items with the cores of this machine, where a process can be forked cheaply."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

T = TypeVar("T")
R = TypeVar("R")

#: Fewer items than this are not worth a process.
FEWEST_ITEMS = 4
MOST_PROCESSES = 4


def map_forked(function: Callable[[T], R], items: Sequence[T], *, lost: Callable[[T, str], R]) -> list[R]:
    """Apply a function to items, sharing them out among forked processes where there are many.

    Parameters
    ----------
    function : callable
        May be a closure; its results must be picklable.
    items : sequence
    lost : callable
        ``lost(item, how)`` gives the result of an item whose process ended early (killed, out of memory).

    Returns
    -------
    list
        Results in the order of the items.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, MOST_PROCESSES, len(items) // (FEWEST_ITEMS // 2))
    # Forking is safe here on Linux alone: elsewhere system libraries keep threads of their own.
    if workers < 2 or sys.platform != "linux":
        return [function(item) for item in items]
    import multiprocessing  # here, as a small report needs no process

    context = multiprocessing.get_context("fork")

    def work(share: int, end: Connection) -> None:
        end.send([function(item) for item in items[share::workers]])
        end.close()

    started = []
    for share in range(1, workers):
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(share, theirs), daemon=True)
        process.start()
        theirs.close()
        started.append((share, process, mine))
    results: dict[int, R] = dict(
        zip(range(0, len(items), workers), map(function, items[::workers]), strict=True)
    )
    for share, process, mine in started:
        ours = items[share::workers]
        try:
            part = mine.recv()
        except EOFError:
            process.join()
            how = f"a process of the report ended early (exit code {process.exitcode})"
            part = [lost(item, how) for item in ours]
        process.join()
        results.update(zip(range(share, len(items), workers), part, strict=True))
    return [results[number] for number in range(len(items))]
