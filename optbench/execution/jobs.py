"""The unit of work: one trial, or a few that are trained as one program; and who runs it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from optbench import backends
from optbench.backends.base import NotStackableError, is_out_of_memory
from optbench.datasets.base import Dataset
from optbench.environment import Context, now
from optbench.execution import stacks
from optbench.execution.checkpoint import Checkpoints
from optbench.execution.process_state import Interruption, restored
from optbench.execution.protocol import run_trial
from optbench.execution.stacks import Job, StackSize
from optbench.suite.spec import PlannedTrial
from optbench.suite.validation import one_line, shown
from optbench.trial import OwnData, TrialRecord, TrialSpec, block_id, trial_id

Result = TypeVar("Result")
DatasetKey = str | OwnData
#: Seconds for which an interrupted run waits for trials that are about to end.
LAST = 0.5
#: Characters of a trial's traceback that its record keeps.
MOST_ERROR = 100_000
#: Called after an epoch with the trial's place in the job, the epoch, and its row of the history.
OnJobEpoch = Callable[[int, int, Mapping[str, float]], None]
#: Fact of a record whose trial was to be trained in a stack and was not: the reason.
NOT_STACKED = "not_stacked"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all jobs of a run share."""

    context: Context
    datasets: Mapping[DatasetKey, Dataset]
    facts: Mapping[str, Any]
    checkpoints: Checkpoints | None
    started: Callable[[PlannedTrial], None]
    epoch: Callable[[PlannedTrial, int, Mapping[str, float]], None]


class Executor(Protocol):
    """Runs jobs somewhere; may be used several times.

    Attributes
    ----------
    is_local : bool
        Whether they run on this machine.
    """

    is_local: bool

    def prepare(self, trials: Sequence[PlannedTrial]) -> None:
        """Announce trials that will be run, so that processes can start early."""

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function in a process in which trials run.

        Raises
        ------
        ProcessEndedError
            If that process ends in the call.
        """

    def best_size(self, trials: Sequence[PlannedTrial], setting: Setting) -> StackSize:
        """Measure how many to train together, in the place where they will be: see ``stacks.best_size``."""

    def run(self, jobs: Iterable[Job], setting: Setting) -> Iterator[tuple[Job, list[TrialRecord]]]:
        """Yield each job with its records as it ends; a crash is a record too."""

    def drain(self) -> Iterator[tuple[Job, list[TrialRecord]]]:
        """Yield what has ended, or ends within :data:`LAST`, after :meth:`run` was interrupted.

        What :meth:`run` yielded last may come again.
        """

    def close(self) -> None:
        """Stop what still runs, at once."""


class ProcessEndedError(RuntimeError):
    """A process that ended while it was to do something; the message says how."""


class InProcess:
    """One job after the other, in this process."""

    is_local = True

    def prepare(self, trials: Sequence[PlannedTrial]) -> None:
        """See :class:`Executor`."""

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """See :class:`Executor`."""
        return function(*arguments)

    def best_size(self, trials: Sequence[PlannedTrial], setting: Setting) -> StackSize:
        """See :class:`Executor`."""
        specs = tuple(trial.spec for trial in trials)
        return measure_stack(specs, setting.datasets[specs[0].workload.dataset], setting.context)

    def run(self, jobs: Iterable[Job], setting: Setting) -> Iterator[tuple[Job, list[TrialRecord]]]:
        """See :class:`Executor`."""
        for job in jobs:
            for trial in job:
                setting.started(trial)
            yield (
                job,
                run_job(
                    [trial.spec for trial in job],
                    setting.datasets[job[0].spec.workload.dataset],
                    context=setting.context,
                    facts=setting.facts,
                    checkpoints=setting.checkpoints,
                    on_epoch=lambda k, epoch, row, job=job: setting.epoch(job[k], epoch, row),  # type: ignore[misc]
                ),
            )

    def drain(self) -> Iterator[tuple[Job, list[TrialRecord]]]:
        """See :class:`Executor`; nothing ends beside the process that was interrupted."""
        return iter(())

    def close(self) -> None:
        """See :class:`Executor`."""


def run_job(
    specs: Sequence[TrialSpec],
    dataset: Dataset,
    *,
    context: Context,
    facts: Mapping[str, Any],
    checkpoints: Checkpoints | None,
    on_epoch: OnJobEpoch | None = None,
) -> list[TrialRecord]:
    """Train the trials of a job, together if there are several; whatever a trial raises becomes its record.

    Parameters
    ----------
    specs : sequence of TrialSpec
        Several differ in their seeds alone.
    dataset : Dataset
        Their data.
    context : Context
        Settings of the engine.
    facts : mapping
        About the machine, for the records.
    checkpoints : Checkpoints, optional
        Where running trials are saved.
    on_epoch : callable, optional
        Called after each epoch; its exceptions pass through.

    Returns
    -------
    list of TrialRecord
        In the order of ``specs``. A stack that is refused, or too large for the memory, is trained one by
        one, and its records say why (:data:`NOT_STACKED`).

    Raises
    ------
    KeyboardInterrupt
        If a signal asks this process to stop; one that a trial's code raises is that trial's crash.
    """
    listener = _Listener(on_epoch)
    if len(specs) == 1:
        return [_run_alone(specs[0], 0, dataset, context, facts, checkpoints, listener)]
    engine = backends.engine(specs[0].backend, context)
    started, reason = now(), ""
    with restored(), Interruption() as interruption:
        try:
            return stacks.run_stack(
                specs, engine, dataset, environment=facts, on_epoch=listener.of, checkpoints=checkpoints
            )
        except NotStackableError as error:
            reason = str(error)
        except BaseException as error:
            if interruption.requested or listener.raised(error):
                raise
            if not is_out_of_memory(error):
                where = f"in a stack of {len(specs)}; `batch_seeds: off` trains one by one"
                text = f"{crash_text(error).rstrip()} ({where})"
                return [crashed(spec, text, environment=facts, started=started) for spec in specs]
            reason = f"out of memory with {len(specs)} trials at once ({one_line(error)})"
    records = [
        _run_alone(spec, k, dataset, context, facts, checkpoints, listener) for k, spec in enumerate(specs)
    ]
    return [with_fact(record, NOT_STACKED, reason) for record in records]


def _run_alone(
    spec: TrialSpec,
    k: int,
    dataset: Dataset,
    context: Context,
    facts: Mapping[str, Any],
    checkpoints: Checkpoints | None,
    listener: _Listener,
) -> TrialRecord:
    """Train trial ``k`` of a job."""
    engine, started = backends.engine(spec.backend, context), now()
    with restored(), Interruption() as interruption:
        try:
            record = run_trial(
                spec, engine, dataset, environment=facts, on_epoch=listener.of(k), checkpoints=checkpoints
            )
        except BaseException as error:
            # Whatever went wrong belongs to this trial alone; it is missing data, and the others go on.
            if interruption.requested or listener.raised(error):
                raise
            record = crashed(spec, crash_text(error), environment=facts, started=started)
        if interruption.requested:  # the trial's code has caught the exception
            raise KeyboardInterrupt
    return record


class _Listener:
    """Calls a listener after each epoch of a job, and tells its exceptions from those of a trial."""

    def __init__(self, on_epoch: OnJobEpoch | None) -> None:
        self._on_epoch = on_epoch
        self._error: BaseException | None = None

    def of(self, k: int) -> Callable[[int, Mapping[str, float]], None]:
        """Listen to trial ``k`` of the job."""

        def tell(epoch: int, row: Mapping[str, float]) -> None:
            if self._on_epoch is None:
                return
            try:
                self._on_epoch(k, epoch, row)
            except BaseException as error:
                self._error = error
                raise

        return tell

    def raised(self, error: BaseException) -> bool:
        """Whether the listener raised the exception."""
        return error is self._error


def measure_stack(specs: Sequence[TrialSpec], dataset: Dataset, context: Context) -> StackSize:
    """Measure how many of these trials to train together, in this process; see ``stacks.best_size``.

    What goes wrong is no reason to stop: the trials are then trained one by one, and say so.
    """
    with restored(), Interruption() as interruption:
        try:
            return stacks.best_size(specs, backends.engine(specs[0].backend, context), dataset)
        except BaseException as error:
            if interruption.requested:
                raise
            return StackSize(1, refused=f"not measured: {type(error).__name__}: {one_line(error)}")


def crash_text(error: BaseException) -> str:
    """Traceback of a trial's exception; what was meant to end the process is explained in the last line."""
    text = _storable("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, SystemExit):
        try:
            code = shown(error.code)
        except Exception:  # it is an object of the trial's code
            code = "..."
        return f"{text}\nthe trial's code called sys.exit({code})"
    if isinstance(error, KeyboardInterrupt):
        return f"{text}\nthe trial's code raised KeyboardInterrupt; nobody pressed Ctrl-C"
    return f"{text}\n"


def _storable(text: str) -> str:
    """What a store can hold of a text: no halves of characters, and of a very long one its two ends."""
    if len(text) > MOST_ERROR:
        half = MOST_ERROR // 2
        text = f"{text[:half]}\n... {len(text) - 2 * half:,} characters ...\n{text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode()


def with_fact(record: TrialRecord, name: str, value: str) -> TrialRecord:
    """Add a fact to a record's environment; an empty one, or one that it has, changes nothing."""
    if not value or name in record.environment:
        return record
    return replace(record, environment={**record.environment, name: value})


def crashed(spec: TrialSpec, error: str, *, environment: Mapping[str, Any], started: str) -> TrialRecord:
    """Record a crash: no history, no metrics, only what went wrong."""
    return TrialRecord(
        trial_id=trial_id(spec),
        block_id=block_id(spec),
        spec=spec,
        status="crashed",
        fingerprints=None,
        history={},
        metrics={},
        timings={},
        predictions={},
        environment=environment,
        started=started,
        error=error,
    )
