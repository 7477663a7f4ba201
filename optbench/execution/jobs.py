"""The unit of work: one trial, or a few that are trained as one program; and who runs it."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Protocol

from optbench import backends
from optbench.datasets.base import Dataset
from optbench.execution import stacks
from optbench.execution.checkpoint import Checkpoints
from optbench.execution.protocol import OnEpoch, run_trial
from optbench.execution.stacks import Job
from optbench.suite.spec import PlannedTrial
from optbench.trial import OwnData, TrialRecord, TrialSpec, block_id, trial_id

DatasetKey = str | OwnData
#: Seconds for which an interrupted run waits for trials that are about to end.
LAST = 0.5
#: Told of a trial's epoch: which trial of the job, the epoch, its row of the history.
OnJobEpoch = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all jobs of a run share."""

    datasets: Mapping[DatasetKey, Dataset]
    facts: Mapping[str, Any]
    checkpoints: Checkpoints | None
    started: Callable[[PlannedTrial], None]
    epoch: Callable[[PlannedTrial, int, Mapping[str, float]], None]


class Executor(Protocol):
    """Runs jobs somewhere; may be used several times.

    Attributes
    ----------
    here : bool
        Whether they run on this machine.
    """

    here: bool

    def prepare(self, trials: Sequence[PlannedTrial]) -> None:
        """Be told of trials that are to be run: what takes time to start may start now."""

    def best_size(self, trials: Sequence[PlannedTrial], setting: Setting) -> int:
        """Measure how many to train together, in the place where they will be: see ``stacks.best_size``."""

    def run(self, jobs: Iterable[Job], setting: Setting) -> Iterator[tuple[Job, list[TrialRecord]]]:
        """Yield each job with its records as it ends; a crash is a record too."""

    def drain(self) -> Iterator[tuple[Job, list[TrialRecord]]]:
        """Yield what has ended, or ends within :data:`LAST`, after :meth:`run` was interrupted.

        What :meth:`run` yielded last may come again.
        """

    def close(self) -> None:
        """Stop what still runs, at once."""


class InProcess:
    """One job after the other, in this process."""

    here = True

    def prepare(self, trials: Sequence[PlannedTrial]) -> None:
        """See :class:`Executor`."""

    def best_size(self, trials: Sequence[PlannedTrial], setting: Setting) -> int:
        """See :class:`Executor`."""
        spec = trials[0].spec
        dataset = setting.datasets[spec.workload.dataset]
        return stacks.best_size([trial.spec for trial in trials], backends.engine(spec.backend), dataset)

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
    facts: Mapping[str, Any],
    checkpoints: Checkpoints | None,
    on_epoch: OnJobEpoch,
) -> list[TrialRecord]:
    """Train the trials of a job, together if there are several; an exception becomes a record."""

    def tell(k: int) -> OnEpoch:
        return lambda epoch, row: on_epoch(k, epoch, row)

    engine = backends.engine(specs[0].backend)
    if len(specs) > 1:
        # Together or not at all: what goes wrong with one of them is found when it is trained alone.
        with contextlib.suppress(Exception):
            return stacks.run_stack(
                specs, engine, dataset, environment=facts, on_epoch=tell, checkpoints=checkpoints
            )
    records = []
    for k, spec in enumerate(specs):
        started = now()
        try:
            record = run_trial(
                spec, engine, dataset, environment=facts, on_epoch=tell(k), checkpoints=checkpoints
            )
        except Exception:
            # Whatever went wrong belongs to this trial alone; it is missing data, and the others go on.
            record = crashed(spec, traceback.format_exc(), environment=facts, started=started)
        records.append(record)
    return records


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


def now() -> str:
    """The time, as records write it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
