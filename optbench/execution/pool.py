"""Many trials side by side on this machine: warm worker processes, replaced when a trial kills one."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from optbench.datasets.base import Dataset, DatasetInfo
from optbench.environment import Context, now, visible_gpus
from optbench.execution import worker as processes
from optbench.execution.checkpoint import Checkpoints
from optbench.execution.estimate import calibrate, work
from optbench.execution.jobs import (
    LAST,
    DatasetKey,
    ProcessEndedError,
    Result,
    Setting,
    crashed,
    measure_stack,
    run_job,
)
from optbench.execution.shared import SharedFolder
from optbench.execution.stacks import Job, StackSize
from optbench.execution.worker import Worker, WorkersError
from optbench.suite.isolated import own_group
from optbench.suite.spec import PlannedTrial
from optbench.task import CustomMetric
from optbench.trial import TrialRecord, TrialSpec, custom_code

#: Attempts at a job whose worker was killed or ran out of time.
ATTEMPTS = 2
#: Workers that may die before they begin a job.
STARTS = 6
#: Seconds for which a trial with custom code may say nothing, neither of an epoch nor of its end, before it
#: is taken for one that hangs; where no limit is declared.
SILENCE = 3600.0
#: Seconds between two checks of time limits and of workers that may have ended silently.
LOOK = 0.1
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
class _Task:
    """What a worker has to do, and how often it was tried."""

    job: Job
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    limit: float | None = None
    starts: int = 0
    attempts: int = 0
    deadline: float | None = None
    late: bool = False
    silent: bool = False
    records: list[TrialRecord] | None = None


class Pool:
    """Warm worker processes; see :class:`optbench.execution.jobs.Executor`.

    Parameters
    ----------
    workers : int
        Processes.
    context : Context, optional
        Settings of each, its threads among them; the defaults if not given.
    time_limit : float, optional
        Seconds that a trial may take.
    gpus : sequence of str, optional
        Those of this machine, dealt out to the workers where trials need one; asked for if not given.

    Notes
    -----
    A worker that ends in any way, or exceeds the limit, is replaced. Its job is recorded as crashed, after a
    second try if it was killed: one that ends itself would do so again. A worker that has run custom code is
    replaced too, so that nothing of what that code changed (a patched framework, settings, threads) is there
    for the next trial.
    """

    is_local = True

    def __init__(
        self,
        workers: int,
        context: Context | None = None,
        *,
        time_limit: float | None = None,
        gpus: Sequence[str] | None = None,
    ) -> None:
        self._gpus, self._dealt = gpus, False
        self._count, self._limit, self._context = workers, time_limit, context or Context()
        self._inbox: processes.Inbox = queue.SimpleQueue()
        self._folder = SharedFolder()
        self._shared: dict[DatasetKey, SharedData] = {}
        self._workers: list[Worker] = []
        self._frameworks: list[str] = []
        self._tasks: dict[Worker, _Task] = {}
        self._seen_ready = False
        self._spare: Worker | None = None

    def prepare(self, trials: Sequence[PlannedTrial]) -> None:
        """See :class:`Executor`: the workers import their frameworks while jobs are cut."""
        self._dealt = any(trial.spec.device == "cuda" for trial in trials)
        self.open({trial.spec.backend for trial in trials})

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """See :class:`Executor`."""
        try:
            result: Result = self._call(self._workers[:1], function, *arguments)[0]
        finally:
            if _are_own_code(arguments):
                self._replace(self._workers[0])
        return result

    def best_size(self, trials: Sequence[PlannedTrial], setting: Setting) -> StackSize:
        """See :class:`Executor`."""
        specs = tuple(trial.spec for trial in trials)
        data = self._share(specs[0].workload.dataset, setting)
        try:
            return self.call(_best_size, specs, data, setting.context)
        except ProcessEndedError as error:
            return StackSize(1, refused=f"not measured: {error}")

    def run(self, jobs: Iterable[Job], setting: Setting) -> Iterator[tuple[Job, list[TrialRecord]]]:
        """See :class:`Executor`. Records say how many ran side by side: their times are not compared."""
        facts = {**setting.facts, "concurrent": self._count}
        waiting = iter(blocks_first(jobs))
        self._tasks.clear()
        free = list(reversed(self._workers))
        started = now()
        while True:
            while free and (job := next(waiting, None)) is not None:
                for trial in job:
                    setting.started(trial)
                specs = tuple(trial.spec for trial in job)
                data = self._share(specs[0].workload.dataset, setting)
                limit = self._limit * len(job) if self._limit else None
                arguments = (specs, data, setting.context, facts, setting.checkpoints)
                self._submit(free.pop(), _Task(job, _work, arguments, limit))
                if self._spare is None and not self._dealt and _runs_own_code(job):
                    self._spare = self._start()  # it starts while that job is trained
            if not self._tasks:
                return
            for worker, message in self._messages():
                task = self._tasks[worker]
                match message:
                    case processes.Progress(values=(k, epoch, row)):
                        setting.epoch(task.job[k], epoch, row)
                    case processes.Done(result=records):
                        task.records = records
                    case processes.Failed():
                        raise message.exception()
                    case processes.Ended():
                        if self._try_again(task, message):
                            self._submit(worker, task)
                            continue
                        reason = self._reason(task, message)
                        task.records = [
                            crashed(trial.spec, reason, environment=facts, started=started)
                            for trial in task.job
                        ]
                if task.records is not None:
                    yield task.job, task.records
                    del self._tasks[worker]  # once it is stored: until then drain() has it
                    free.append(self._replace(worker) if _runs_own_code(task.job) else worker)

    def drain(self) -> Iterator[tuple[Job, list[TrialRecord]]]:
        """See :class:`Executor`."""
        end = time.monotonic() + LAST
        while time.monotonic() < end and any(task.records is None for task in self._tasks.values()):
            for worker, message in self._messages():
                if isinstance(message, processes.Done):
                    self._tasks[worker].records = message.result
        for task in self._tasks.values():
            if task.records is not None:
                yield task.job, task.records

    def open(self, frameworks: Iterable[str]) -> None:
        """Start the workers, if there are none; each imports its frameworks before the first limit counts."""
        if not self._workers:
            self._frameworks = sorted(frameworks)
            for _ in range(self._count):
                self._workers.append(self._start())

    def gain(self, spec: TrialSpec) -> float:
        """How many times more trials all workers train than one of them alone, by a few steps of this one."""
        for _ in range(2):  # the first time the workers compile what they need
            together = max(self._call(self._workers, calibrate, spec, self._context))
        (alone,) = self._call(self._workers[:1], calibrate, spec, self._context)
        return float(self._count * alone / together)

    def close(self) -> None:
        """See :class:`Executor`."""
        started = [*self._workers, *([self._spare] if self._spare is not None else [])]
        for worker in started:
            worker.kill()
        for worker in started:
            worker.close()
        self._folder.close()

    def _start(self) -> Worker:
        """Start a worker, on the GPU that the fewest have; with one GPU or none it sees what there is."""
        gpus = visible_gpus() if self._gpus is None else list(self._gpus)
        gpu: str | None = None
        if self._dealt and len(gpus) > 1:
            taken = [worker.gpu for worker in self._workers]
            gpu = min(gpus, key=taken.count)
        return Worker(self._inbox, self._frameworks, self._context, gpu=gpu)

    def _submit(self, worker: Worker, task: _Task) -> Worker:
        """Give a task to a worker, or to a fresh one in the place of one that has ended."""
        if worker.exit_code() is not None:
            self._tasks.pop(worker, None)
            worker = self._replace(worker)
        task.deadline, task.late, task.silent = None, False, False
        self._tasks[worker] = task
        worker.give(task.function, *task.arguments)
        return worker

    def _replace(self, worker: Worker) -> Worker:
        """End a worker and start a fresh one in its place."""
        worker.kill()
        worker.close()
        place = self._workers.index(worker)
        del self._workers[place]
        fresh, self._spare = self._spare or self._start(), None
        self._workers.insert(place, fresh)
        return fresh

    def _messages(self) -> Iterator[tuple[Worker, processes.Message]]:
        """Wait briefly for messages of the busy workers, and kill those over their time limit."""
        try:
            worker, message = self._inbox.get(timeout=LOOK)
        except queue.Empty:
            for worker in [worker for worker, task in self._tasks.items() if task.records is None]:
                if worker.lost():
                    yield worker, processes.Ended(worker.exit_code())
        else:
            self._seen_ready = self._seen_ready or isinstance(message, processes.Ready)
            if (task := self._tasks.get(worker)) is not None:
                if isinstance(message, processes.Began):
                    task.attempts += 1
                    task.deadline = None if task.limit is None else time.monotonic() + task.limit
                if task.limit is None and (not task.job or _runs_own_code(task.job)):
                    task.deadline, task.silent = time.monotonic() + SILENCE, True
                yield worker, message
        for worker, task in self._tasks.items():
            if task.deadline is not None and time.monotonic() > task.deadline and not task.late:
                task.late = True
                worker.kill()

    def _try_again(self, task: _Task, end: processes.Ended) -> bool:
        """Whether to try a task once more whose worker has ended.

        Raises
        ------
        WorkersError
            If no worker of this pool has ever started.
        """
        task.starts += 1
        if task.attempts:
            by_itself = end.cut or (end.exit_code is not None and end.exit_code >= 0)
            return task.attempts < ATTEMPTS and task.starts < STARTS and not by_itself
        if task.starts < STARTS:
            return True
        if not self._seen_ready:
            raise WorkersError(
                f"no worker process starts: {STARTS} ended with exit code {end.exit_code} before they began. "
                'Is the call that starts the run under `if __name__ == "__main__":`, and is there memory for '
                "the frameworks? Nothing was recorded"
            )
        return False

    def _reason(self, task: _Task, end: processes.Ended) -> str:
        if task.late and task.silent:
            return (
                f"said nothing for {SILENCE:g} seconds, {task.attempts} times, and was taken to hang: look "
                "in its code; where an epoch takes longer, say how long a trial may with --time-limit"
            )
        if task.late:
            return (
                f"took longer than the limit of {self._limit:g} seconds, {task.attempts} times; allow more "
                "with --time-limit"
            )
        return processes.describe_end(end, max(task.attempts, 1))

    def _call(self, workers: Sequence[Worker], function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call a function in some workers at once; results in their order."""
        results: dict[Worker, Any] = {}
        self._tasks.clear()
        called = [
            self._submit(worker, _Task((), _call, (function, arguments), self._limit)) for worker in workers
        ]
        try:
            while len(results) < len(called):
                for worker, message in self._messages():
                    if isinstance(message, processes.Done):
                        results[worker] = message.result
                    elif isinstance(message, processes.Failed):
                        raise message.exception()
                    elif isinstance(message, processes.Ended):
                        raise ProcessEndedError(processes.describe_end(message, 1))
        finally:
            self._tasks.clear()
        return [results[worker] for worker in called]

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


def _runs_own_code(job: Job) -> bool:
    """Whether a job runs code that is not optbench's own."""
    return any(custom_code(trial.spec) for trial in job)


def _are_own_code(arguments: Iterable[Any]) -> bool:
    """Whether arguments of a call are specs or metrics with code that is not optbench's own."""
    return any(
        isinstance(one, CustomMetric)
        or (isinstance(one, TrialSpec) and bool(custom_code(one)))
        or (isinstance(one, tuple) and _are_own_code(one))
        for one in arguments
    )


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


#: Datasets that a worker keeps mapped.
@lru_cache(maxsize=8)
def _dataset(shared: SharedData) -> Dataset:
    return shared.open()


def _work(
    tell: Callable[..., None],
    specs: tuple[TrialSpec, ...],
    data: SharedData,
    context: Context,
    facts: Mapping[str, Any],
    checkpoints: Checkpoints | None,
) -> list[TrialRecord]:
    """Run a job in a worker."""
    if _are_own_code(specs):
        own_group()
    return run_job(
        specs,
        _dataset(data),
        context=context,
        facts=facts,
        checkpoints=checkpoints,
        on_epoch=lambda k, epoch, row: tell(k, epoch, dict(row)),
    )


def _best_size(specs: tuple[TrialSpec, ...], data: SharedData, context: Context) -> StackSize:
    """Measure in a worker."""
    return measure_stack(specs, _dataset(data), context)


def _call(tell: Callable[..., None], function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Call a function in a worker that has nothing to tell meanwhile."""
    if _are_own_code(arguments):
        own_group()
    return function(*arguments)
