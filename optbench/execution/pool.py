"""Many trials side by side on this machine: warm worker processes that a killed trial cannot take along."""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pebble import ProcessExpired, ProcessPool

from optbench import backends
from optbench.datasets.base import Dataset, DatasetInfo
from optbench.environment import available_bytes
from optbench.errors import UserError
from optbench.execution.checkpoint import Checkpoints
from optbench.execution.estimate import calibrate, work
from optbench.execution.jobs import LAST, DatasetKey, Executor, InProcess, Setting, crashed, now, run_job
from optbench.execution.shared import SharedFolder
from optbench.execution.stacks import Job, best_size
from optbench.suite.spec import PlannedTrial
from optbench.trial import TrialRecord, TrialSpec

#: Environment variables by which libraries learn how many threads to start.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
#: Attempts at a job whose worker died or ran out of time.
ATTEMPTS = 2
#: Workers that may die before they begin a job.
STARTS = 6
#: Workers side by side must train so many times more than one alone.
WORTH = 1.05
#: Guessed seconds of a suite that is trained without workers, since to start them takes about as long, and of
#: one that is worth a measurement, which takes about one.
SHORT, LONG = 0.5, 40.0
#: Memory that a worker may need: a framework, a dataset, a small model.
WORKER_BYTES = 1024**3
#: Arrays of a dataset, written once and mapped into every worker.
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class SharedData:
    """A dataset whose arrays lie in files."""

    path: Path
    info: DatasetInfo
    notes: tuple[str, ...]
    digest: str

    def open(self) -> Dataset:
        """Map the arrays into memory."""
        arrays = {
            name: np.load(self.path / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS
        }
        dataset = Dataset(info=self.info, notes=self.notes, **arrays)
        vars(dataset)["digest"] = self.digest  # what the cached property would compute again
        return dataset


@dataclass
class _Pending:
    """A job in a worker's hands."""

    number: int
    job: Job
    slot: int
    attempts: int = 0
    starts: int = 0


class Pool:
    """Warm worker processes; see :class:`optbench.execution.jobs.Executor`.

    Parameters
    ----------
    workers : int
        Processes, each with ``OPTBENCH_THREADS`` threads.
    time_limit : float, optional
        Seconds that a trial may take.

    Notes
    -----
    A worker that is killed, runs out of memory or exceeds the limit is replaced; its job is tried once more
    and is then recorded as crashed. Workers tell of their epochs by datagrams, which need no lock that a
    killed worker could hold; one that is lost is a line not drawn.
    """

    here = True

    def __init__(self, workers: int, *, time_limit: float | None = None) -> None:
        self._workers, self._limit = workers, time_limit
        self._news = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._news.bind(("127.0.0.1", 0))
        self._news.setblocking(False)
        self._folder = SharedFolder()
        self._shared: dict[DatasetKey, SharedData] = {}
        threads = os.environ.get("OPTBENCH_THREADS", "1")
        self._before = {name: os.environ.get(name) for name in THREADS}
        os.environ.update(dict.fromkeys(THREADS, threads))  # also for the workers that replace others
        self._slots: list[Any] = []
        self._frameworks: list[str] = []
        self._pending: dict[Any, _Pending] = {}

    def prepare(self, trials: Sequence[PlannedTrial]) -> None:
        """See :class:`Executor`: the workers import their frameworks while jobs are cut."""
        self.open({trial.spec.backend for trial in trials})

    def best_size(self, trials: Sequence[PlannedTrial], setting: Setting) -> int:
        """See :class:`Executor`; 1 where it cannot be measured."""
        specs = tuple(trial.spec for trial in trials)
        data = self._share(specs[0].workload.dataset, setting)
        try:
            return int(self._slots[0].schedule(_best_size, args=(specs, data)).result())
        except (ProcessExpired, BrokenProcessPool):
            self._replace(0)
        except Exception:  # it will be said where the trial is run
            pass
        return 1

    def run(self, jobs: Iterable[Job], setting: Setting) -> Iterator[tuple[Job, list[TrialRecord]]]:
        """See :class:`Executor`. Records say how many ran side by side: their times are not compared."""
        facts = {**setting.facts, "concurrent": self._workers}
        ordered = blocks_first(jobs)
        waiting = iter(enumerate(ordered))
        free = list(range(self._workers))
        pending = self._pending
        pending.clear()
        started = now()

        def submit(given: _Pending) -> None:
            specs = tuple(trial.spec for trial in given.job)
            data = self._share(specs[0].workload.dataset, setting)
            limit = self._limit * len(given.job) if self._limit else None
            work = (given.number, specs, data, facts, setting.checkpoints, self._news.getsockname())
            pending[self._slots[given.slot].schedule(_work, args=work, timeout=limit)] = given

        while True:
            while free and (following := next(waiting, None)) is not None:
                for trial in following[1]:
                    setting.started(trial)
                submit(_Pending(*following, slot=free.pop()))
            if not pending:
                return
            done, _ = wait(pending, timeout=0.1, return_when=FIRST_COMPLETED)
            self._tell({given.number: given.job for given in pending.values()}, setting)
            for future in done:
                given = pending[future]
                try:
                    records = future.result()
                except (ProcessExpired, BrokenProcessPool, FutureTimeoutError) as error:
                    self._replace(given.slot)
                    # A worker that dies before it has begun has not tried the job.
                    given.attempts += not isinstance(error, BrokenProcessPool)
                    given.starts += 1
                    if given.attempts < ATTEMPTS and given.starts < STARTS:
                        del pending[future]
                        submit(given)
                        continue
                    reason = _reason(error, self._limit)
                    records = [
                        crashed(trial.spec, reason, environment=facts, started=started) for trial in given.job
                    ]
                yield given.job, records
                del pending[future]  # once it is stored: until then drain() has it
                free.append(given.slot)

    def drain(self) -> Iterator[tuple[Job, list[TrialRecord]]]:
        """See :class:`Executor`."""
        done, _ = wait(self._pending, timeout=LAST)
        for future in done:
            if future.exception() is None:
                yield self._pending[future].job, future.result()

    def open(self, frameworks: Iterable[str]) -> None:
        """Start the workers, if there are none; each imports its frameworks before the first limit counts."""
        if not self._slots:
            self._frameworks = sorted(frameworks)
            self._slots = [self._worker() for _ in range(self._workers)]
            for slot in self._slots:
                slot.schedule(os.getpid)  # the first task starts the process

    def gain(self, spec: TrialSpec) -> float:
        """How many times more trials all workers train than one of them alone, by a few steps of this one."""
        for _ in range(2):  # the first time the workers compile what they need
            probes = [slot.schedule(calibrate, args=(spec,)) for slot in self._slots]
            together = max(probe.result() for probe in probes)
        alone = self._slots[0].schedule(calibrate, args=(spec,)).result()
        return float(self._workers * alone / together)

    def _worker(self) -> ProcessPool:
        """Start a worker in a pool of its own: what a killed one held, no other needs."""
        return ProcessPool(
            max_workers=1,
            initializer=_start,
            initargs=(os.getpid(), self._frameworks),
            context=multiprocessing.get_context("spawn"),
        )

    def _replace(self, slot: int) -> None:
        broken, self._slots[slot] = self._slots[slot], self._worker()
        broken.stop()
        broken.join()

    def close(self) -> None:
        """See :class:`Executor`."""
        for slot in self._slots:
            slot.stop()
        for slot in self._slots:
            slot.join()
        self._news.close()
        self._folder.close()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def _share(self, key: DatasetKey, setting: Setting) -> SharedData:
        """Write a dataset's arrays where workers map them into their memory."""
        if key not in self._shared:
            dataset = setting.datasets[key]
            path = self._folder.path / str(len(self._shared))
            path.mkdir()
            for name in _ARRAYS:
                np.save(path / f"{name}.npy", getattr(dataset, name), allow_pickle=False)
            self._shared[key] = SharedData(path, dataset.info, dataset.notes, dataset.digest)
        return self._shared[key]

    def _tell(self, told: Mapping[int, Job], setting: Setting) -> None:
        """Pass on the epochs that workers have told of."""
        while True:
            try:
                number, k, epoch, row = json.loads(self._news.recv(65536))
            except BlockingIOError:
                return
            if number in told:
                setting.epoch(told[number][k], epoch, row)


class AutoPool:
    """As many workers as this machine trains the suite's longest job fastest with.

    A short suite is over before workers have started. All others get one for each core (and its threads), as
    far as memory goes, unless that proves useless: for a long suite, and where trials share a GPU, a few
    steps are timed in one worker and in all at once. If side by side they train no more an hour than one
    alone, one trains.
    """

    here = True

    def __init__(self, *, time_limit: float | None = None) -> None:
        self._limit = time_limit
        self._chosen: Executor = InProcess()
        self._settled = False

    def prepare(self, trials: Sequence[PlannedTrial]) -> None:
        """See :class:`Executor`; a few short trials settle nothing for those that come later."""
        if not self._settled:
            self._chosen, self._settled = self._choose(trials)
        self._chosen.prepare(trials)

    def best_size(self, trials: Sequence[PlannedTrial], setting: Setting) -> int:
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
        most = min(most_workers(), len(trials))
        seconds = sum(work(trial.spec) for trial in trials)
        if self._limit is None and (most < 2 or seconds < SHORT):
            return InProcess(), False
        pool = Pool(most, time_limit=self._limit)
        if most < 2 or (seconds < LONG and all(trial.spec.device == "cpu" for trial in trials)):
            return pool, True
        try:
            pool.prepare(trials)
            gain = pool.gain(max((trial.spec for trial in trials), key=work))
        except (ProcessExpired, UserError):  # what is wrong will be said where the trial is run
            gain = math.inf
        if gain > WORTH:
            return pool, True
        pool.close()
        return (InProcess() if self._limit is None else Pool(1, time_limit=self._limit)), True


def most_workers() -> int:
    """Workers for which there are cores and memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = cores // int(os.environ.get("OPTBENCH_THREADS", "1"))
    if (available := available_bytes()) is not None:
        most = min(most, available // WORKER_BYTES)
    return max(1, most)


def blocks_first(jobs: Iterable[Job]) -> list[Job]:
    """Order jobs so that whole blocks end early, and the longest of them begin first."""
    places: dict[tuple[Any, ...], int] = {}

    def place(job: Job) -> tuple[int, float]:
        seeds = places.setdefault((job[0].spec.seeds, job[0].spec.backend), len(places))
        return seeds, -cost(job)

    return sorted(jobs, key=place)


def cost(job: Job) -> float:
    """Guess how long a job takes, see :func:`optbench.execution.estimate.work`."""
    return work(job[0].spec) * len(job)


_parent = 0
_news: socket.socket | None = None


def _start(parent: int, frameworks: list[str]) -> None:
    """Prepare a worker: Ctrl-C is the parent's business, and without a parent there is nothing to do."""
    global _parent
    _parent = parent
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch_parent, daemon=True).start()
    for name in frameworks:
        with contextlib.suppress(UserError):  # a trial that asks for it will say what is missing
            backends.engine(name)


def _watch_parent() -> None:
    while os.getppid() == _parent:
        time.sleep(0.5)
    os._exit(1)


@cache
def _dataset(shared: SharedData) -> Dataset:
    return shared.open()


def _work(
    number: int,
    specs: tuple[TrialSpec, ...],
    data: SharedData,
    facts: Mapping[str, Any],
    checkpoints: Checkpoints | None,
    address: tuple[str, int],
) -> list[TrialRecord]:
    """Run a job in a worker."""
    global _news
    if _news is None:
        _news = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        _news.setblocking(False)
    news = _news

    def on_epoch(k: int, epoch: int, row: Mapping[str, float]) -> None:
        with contextlib.suppress(OSError):
            news.sendto(json.dumps([number, k, epoch, dict(row)]).encode(), address)

    return run_job(specs, _dataset(data), facts=facts, checkpoints=checkpoints, on_epoch=on_epoch)


def _best_size(specs: tuple[TrialSpec, ...], data: SharedData) -> int:
    """Measure in a worker."""
    return best_size(specs, backends.engine(specs[0].backend), _dataset(data))


def _reason(error: BaseException, limit: float | None) -> str:
    if not isinstance(error, FutureTimeoutError):
        code = getattr(error, "exitcode", "unknown")
        return (
            f"the worker process died {ATTEMPTS} times (exit code {code}): killed, or out of memory; "
            "run fewer at once with --workers"
        )
    return f"took longer than the limit of {limit:g} seconds, {ATTEMPTS} times; allow more with --time-limit"
