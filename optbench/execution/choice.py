"""Which executor runs a suite on this machine: this process, or workers, and how many."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from optbench.environment import Context, available_bytes
from optbench.errors import UserError
from optbench.execution.estimate import work
from optbench.execution.jobs import Executor, InProcess, ProcessEndedError, Result, Setting
from optbench.execution.pool import Pool
from optbench.execution.stacks import Job, StackSize
from optbench.execution.worker import unguarded_call
from optbench.suite.spec import PlannedTrial
from optbench.trial import TrialRecord, custom_code

#: Workers side by side must train so many times more than one alone.
WORTH = 1.05
#: Guessed seconds of a suite that is trained without workers, since to start them takes about as long, and of
#: one that is worth a measurement, which takes about one.
SHORT, LONG = 0.5, 40.0
#: Memory that a worker may need: a framework, a dataset, a small model.
WORKER_BYTES = 1024**3


class _Chooser:
    """An executor that chooses another one when it knows the trials, and leaves the work to it."""

    here = True

    def __init__(self, context: Context | None = None, *, time_limit: float | None = None) -> None:
        self._context, self._limit = context or Context(), time_limit
        self._chosen: Executor = InProcess()
        self._settled = False

    def prepare(self, trials: Sequence[PlannedTrial]) -> None:
        """See :class:`Executor`; a choice that settles nothing is made again for later trials."""
        if not self._settled:
            self._chosen, self._settled = self._choose(trials)
        self._chosen.prepare(trials)

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """See :class:`Executor`."""
        return self._chosen.call(function, *arguments)

    def best_size(self, trials: Sequence[PlannedTrial], setting: Setting) -> StackSize:
        """See :class:`Executor`."""
        return self._chosen.best_size(trials, setting)

    def run(self, jobs: Iterable[Job], setting: Setting) -> Iterator[tuple[Job, list[TrialRecord]]]:
        """See :class:`Executor`."""
        return self._chosen.run(jobs, setting)

    def drain(self) -> Iterator[tuple[Job, list[TrialRecord]]]:
        """See :class:`Executor`."""
        return self._chosen.drain()

    def close(self) -> None:
        """See :class:`Executor`."""
        self._chosen.close()

    def _choose(self, trials: Sequence[PlannedTrial]) -> tuple[Executor, bool]:
        """Choose for these trials; the second says whether for all others too."""
        raise NotImplementedError

    def _one(self, trials: Sequence[PlannedTrial]) -> Executor:
        """One trial at a time: in this process, but custom code in one that may end without harm.

        All trials go the same way, so that their times compare.
        """
        if not any(custom_code(trial.spec) for trial in trials):
            return InProcess()
        if (place := unguarded_call()) is not None:
            warnings.warn(
                f"custom code runs in this process, and can end it: {place[0]} starts the run outside of "
                'if __name__ == "__main__": (line '
                f"{place[1]}), so that no other process can be started",
                stacklevel=2,
            )
            return InProcess()
        return Pool(1, self._context)


class OneByOne(_Chooser):
    """One trial after the other; custom code in a process of its own, which it may end without harm."""

    def _choose(self, trials: Sequence[PlannedTrial]) -> tuple[Executor, bool]:
        chosen = self._one(trials)
        return chosen, isinstance(chosen, Pool)


class AutoPool(_Chooser):
    """As many workers as this machine trains the suite's longest job fastest with.

    A short suite is over before workers have started. All others get one for each core (and its threads), as
    far as memory goes, unless that proves useless: for a long suite, and where trials share a GPU, a few
    steps are timed in one worker and in all at once. If side by side they train no more an hour than one
    alone, one trains.
    """

    def _choose(self, trials: Sequence[PlannedTrial]) -> tuple[Executor, bool]:
        most = min(most_workers(self._context.threads), len(trials))
        seconds = sum(work(trial.spec) for trial in trials)
        if self._limit is None and (most < 2 or seconds < SHORT):
            return self._one(trials), False
        pool = Pool(most, self._context, time_limit=self._limit)
        if most < 2 or (seconds < LONG and all(trial.spec.device == "cpu" for trial in trials)):
            return pool, True
        try:
            pool.prepare(trials)
            gain = pool.gain(max((trial.spec for trial in trials), key=work))
        except (ProcessEndedError, UserError):  # what is wrong will be said where the trial is run
            gain = math.inf
        if gain > WORTH:
            return pool, True
        pool.close()
        if self._limit is None:
            return self._one(trials), True
        return Pool(1, self._context, time_limit=self._limit), True


def most_workers(threads: int) -> int:
    """Workers of so many threads for which there are cores and memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = cores // threads
    if (available := available_bytes()) is not None:
        most = min(most, available // WORKER_BYTES)
    return max(1, most)
