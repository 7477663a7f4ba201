"""Which executor runs a suite on this machine: this process, or workers, and how many."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from optbench import backends
from optbench.environment import Context, available_bytes, visible_gpus
from optbench.errors import UserError
from optbench.execution.estimate import calibrate, work
from optbench.execution.jobs import Executor, InProcess, ProcessEndedError, Result, Setting
from optbench.execution.pool import Pool
from optbench.execution.stacks import Job, StackSize
from optbench.execution.tryout import Tryouts
from optbench.execution.worker import unguarded_call
from optbench.optimizers import has_rule
from optbench.suite.spec import PlannedTrial
from optbench.trial import TrialRecord, custom_code

#: How many times more than one worker alone several must train.
WORTH = 1.05
#: Guessed seconds of a suite that is trained without workers, since to start them takes about as long, and of
#: one that is worth a measurement, which takes about one.
SHORT, LONG = 0.5, 40.0
#: Seconds of trials on a GPU for which no second worker is started, those for which a few more are tried, and
#: how many share a GPU then.
GPU_SHORT, GPU_LONG, GPU_SHARERS = 30.0, 120.0, 4
#: Memory that a worker may need: a framework, a dataset, a small model.
WORKER_BYTES = 1024**3


class _Chooser:
    """An executor that chooses another one when it knows the trials, and leaves the work to it."""

    is_local = True

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


@contextmanager
def isolated(trials: Sequence[PlannedTrial], context: Context) -> Iterator[Executor]:
    """Run trials one at a time, or functions about them; custom code in a process that it may end."""
    executor = OneByOne(context)
    try:
        executor.prepare(trials)
        yield executor
    finally:
        executor.close()


def try_optimizers(trials: Sequence[PlannedTrial], context: Context) -> None:
    """Try the optimizers of a plan that are not optbench's own, as a run would before it trains.

    Those of a backend that is not installed are skipped; it is reported elsewhere.

    Raises
    ------
    TryoutError
        If some cannot train.
    """
    here = backends.installed()
    foreign = [t for t in trials if not has_rule(t.spec.optimizer) and t.spec.backend in here]
    if foreign:
        with isolated(foreign, context) as executor:
            Tryouts(context).check(foreign, executor.call)


class AutoPool(_Chooser):
    """As many workers as this machine trains the suite's longest job fastest with.

    A short suite is over before workers have started. All others get one for each core (and its threads), as
    far as memory goes, unless that proves useless: for a long suite a few steps are timed in one worker and
    in all at once. If side by side they train no more an hour than one alone, one trains.

    Trials that share a GPU are another matter: a worker costs seconds and a share of its memory to start, and
    mostly waits for the others. So a few steps are timed first; only a suite of minutes has more than one
    worker a GPU tried, and keeps them if they train more.
    """

    def _choose(self, trials: Sequence[PlannedTrial]) -> tuple[Executor, bool]:
        most = min(most_workers(self._context.threads), len(trials))
        if all(trial.spec.device == "cuda" for trial in trials):
            return self._choose_on_gpus(trials, most), True
        seconds = sum(work(trial.spec) for trial in trials)
        if self._limit is None and (most < 2 or seconds < SHORT):
            return self._one(trials), False
        pool = Pool(most, self._context, time_limit=self._limit)
        if most < 2 or (seconds < LONG and all(trial.spec.device == "cpu" for trial in trials)):
            return pool, True
        return (pool if self._gain(pool, trials) > WORTH else self._fewest(trials)), True

    def _choose_on_gpus(self, trials: Sequence[PlannedTrial], most: int) -> Executor:
        """One trial at a time, a worker a GPU, or several a GPU."""
        gpus = max(1, len(visible_gpus()))
        longest = max((trial.spec for trial in trials), key=work)
        one = self._fewest(trials)
        one.prepare(trials)
        try:
            seconds = one.call(calibrate, longest, self._context)
        except (ProcessEndedError, UserError):  # reported where the trial is run
            return one
        left = seconds * sum(work(trial.spec) for trial in trials) / work(longest)
        wanted = min(most, gpus * (GPU_SHARERS if left / gpus > GPU_LONG else 1))
        if wanted < 2 or left < GPU_SHORT:
            return one
        one.close()
        pool = Pool(wanted, self._context, time_limit=self._limit)
        if wanted <= gpus or self._gain(pool, trials) > WORTH * gpus:
            return pool
        return Pool(gpus, self._context, time_limit=self._limit) if gpus > 1 else self._fewest(trials)

    def _gain(self, pool: Pool, trials: Sequence[PlannedTrial]) -> float:
        """Measure what a pool trains more than one of its workers; it is closed if that is not enough."""
        try:
            pool.prepare(trials)
            gain = pool.gain(max((trial.spec for trial in trials), key=work))
        except (ProcessEndedError, UserError):  # reported where the trial is run
            gain = math.inf
        if gain <= WORTH:
            pool.close()
        return gain

    def _fewest(self, trials: Sequence[PlannedTrial]) -> Executor:
        if self._limit is None:
            return self._one(trials)
        return Pool(1, self._context, time_limit=self._limit)


def most_workers(threads: int) -> int:
    """Workers for which there are cores and memory, each with this many threads."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = cores // threads
    if (available := available_bytes()) is not None:
        most = min(most, available // WORKER_BYTES)
    return max(1, most)
