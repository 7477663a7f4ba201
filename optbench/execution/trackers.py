"""Experiment trackers beside the store: each trial becomes a run of TensorBoard, MLflow or Weights & Biases.

They get each record from the process that writes the store, when it is stored. The store
stays the result: a tracker that fails is left out from then on, with one warning.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from optbench.environment import pip_hint, set_framework_variables, variable
from optbench.errors import UserError
from optbench.trial import Status, TrialRecord, to_plain

if TYPE_CHECKING:
    from optbench.execution.local import Observer
    from optbench.suite.spec import PlannedTrial

Row = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class TrackedTrial:
    """A trial as trackers take it: ``config`` flat, ``epochs`` a row each from epoch 0; finite values."""

    name: str
    group: str
    status: Status
    config: Mapping[str, Any]
    epochs: Sequence[Row]
    metrics: Row


class Tracker(Protocol):
    """What writes trials to one tracker; made before anything is trained."""

    def __init__(self, suite: str, folder: Path) -> None: ...

    def log(self, trial: TrackedTrial) -> None:
        """Write one trial as a run of its own."""


class TensorBoard:
    """Event files under ``folder``: ``tensorboard --logdir results/<suite>/tensorboard``."""

    def __init__(self, suite: str, folder: Path) -> None:
        with _library("tensorboard"):
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.plugins.hparams.summary_v2 import hparams_pb
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        self._folder, self._event, self._summary = folder, Event, Summary
        self._hparams, self._writer = hparams_pb, EventFileWriter

    def log(self, trial: TrackedTrial) -> None:
        """Write scalars by epoch, the config as hyperparameters, and final metrics under ``final/``."""
        words = re.sub(r"[^\w./=+-]+", "_", trial.name).split("/")
        # Labels are the user's: none may lead out of the folder.
        place = self._folder.joinpath(*(word for word in words if word.strip(".")))
        writer = self._writer(str(place))
        try:
            writer.add_event(self._event(summary=self._hparams(dict(trial.config))))
            last = len(trial.epochs) - 1
            final = {f"final/{name}": value for name, value in trial.metrics.items()}
            for step, row in [*enumerate(trial.epochs), (max(last, 0), final)]:
                values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in row.items()]
                writer.add_event(self._event(step=step, summary=self._summary(value=values)))
        finally:
            writer.close()


class MLflow:
    """Runs of an experiment named as the suite, where ``MLFLOW_TRACKING_URI`` says, else under ``folder``."""

    def __init__(self, suite: str, folder: Path) -> None:
        with _library("mlflow"):
            from mlflow import MlflowClient
            from mlflow.entities import Metric, Param
        if not (uri := variable("MLFLOW_TRACKING_URI")):
            uri = folder.absolute().as_uri()
            set_framework_variables({"MLFLOW_ALLOW_FILE_STORE": "true"})  # asked for by newer versions
        self._client, self._metric, self._param = MlflowClient(tracking_uri=uri), Metric, Param
        self._suite = suite
        self._experiment: str | None = None

    def log(self, trial: TrackedTrial) -> None:
        """Write metrics by epoch, the config as parameters, and final metrics under ``final/``."""
        client = self._client
        if self._experiment is None:
            known = client.get_experiment_by_name(self._suite)
            self._experiment = known.experiment_id if known else client.create_experiment(self._suite)
        run = client.create_run(self._experiment, run_name=trial.name, tags={"status": trial.status}).info
        final = {f"final/{name}": value for name, value in trial.metrics.items()}
        rows = [*enumerate(trial.epochs), (max(len(trial.epochs) - 1, 0), final)]
        metrics = [
            self._metric(re.sub(r"[^\w./ -]", "_", name), value, run.start_time, step)
            for step, row in rows
            for name, value in row.items()
        ]
        params = [self._param(name, str(value)[:500]) for name, value in trial.config.items()]
        for start in range(0, len(params), 100):  # what one call may hold
            client.log_batch(run.run_id, params=params[start : start + 100])
        for start in range(0, len(metrics), 1000):
            client.log_batch(run.run_id, metrics=metrics[start : start + 1000])
        client.set_terminated(run.run_id, "FAILED" if trial.status == "crashed" else "FINISHED")


class WeightsAndBiases:
    """Offline runs under ``folder``; ``wandb sync`` sends them."""

    def __init__(self, suite: str, folder: Path) -> None:
        with _library("wandb"):
            import wandb
        self._wandb, self._suite, self._folder = wandb, suite, folder

    def log(self, trial: TrackedTrial) -> None:
        """Write rows by epoch, the config, and final metrics as the run's summary."""
        self._folder.mkdir(parents=True, exist_ok=True)
        run = self._wandb.init(
            project=self._suite,
            name=trial.name,
            group=trial.group,
            config=dict(trial.config),
            dir=str(self._folder),
            mode="offline",
            reinit="create_new",
            settings=self._wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )
        failed = True
        try:
            for step, row in enumerate(trial.epochs):
                run.log(row, step=step)
            run.summary.update({f"final/{name}": value for name, value in trial.metrics.items()})
            failed = trial.status == "crashed"
        finally:
            run.finish(exit_code=int(failed))


TRACKERS: Mapping[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}


class Tracked:
    """An observer that passes everything on to another one, and finished trials to trackers too.

    Parameters
    ----------
    observer : Observer or None
        The other one.
    names : sequence of str
        Keys of ``TRACKERS``.
    suite : str
        Name of the suite.
    folder : Path
        Its store's folder; each tracker writes to a folder of its own there.

    Raises
    ------
    UserError
        If there is no such tracker, or its library is not installed.
    """

    def __init__(self, observer: Observer | None, names: Sequence[str], *, suite: str, folder: Path) -> None:
        from optbench.suite.load import known_choice

        self._observer = observer
        self._trackers = {
            name: TRACKERS[known_choice("--log", name, TRACKERS)](suite, folder / name)
            for name in dict.fromkeys(names)
        }

    def planned(self, plan: Sequence[PlannedTrial], statuses: Mapping[str, Status]) -> None:
        """See :class:`optbench.execution.local.Observer`."""
        if self._observer is not None:
            self._observer.planned(plan, statuses)

    def started(self, trial: PlannedTrial) -> None:
        """See :class:`optbench.execution.local.Observer`."""
        if self._observer is not None:
            self._observer.started(trial)

    def epoch(self, trial: PlannedTrial, epoch: int, row: Mapping[str, float]) -> None:
        """See :class:`optbench.execution.local.Observer`."""
        if self._observer is not None:
            self._observer.epoch(trial, epoch, row)

    def finished(self, trial: PlannedTrial, record: TrialRecord) -> None:
        """See :class:`optbench.execution.local.Observer`."""
        if self._observer is not None:
            self._observer.finished(trial, record)
        tracked = _tracked(trial, record)
        for name, tracker in list(self._trackers.items()):
            try:
                tracker.log(tracked)
            except Exception as error:  # a library and its server may fail in any way
                del self._trackers[name]
                warnings.warn(
                    f"--log {name}: failed at trial {record.trial_id} ({type(error).__name__}: {error}); "
                    "nothing more is logged there in this run, and the store has every trial",
                    stacklevel=2,
                )


def _tracked(trial: PlannedTrial, record: TrialRecord) -> TrackedTrial:
    names = list(record.history)
    columns = zip(*(record.history[name] for name in names), strict=True) if names else ()
    labels = {"workload": trial.workload, "optimizer": trial.optimizer, "role": trial.role}
    facts = {"trial_id": record.trial_id, "block_id": record.block_id, "status": record.status}
    return TrackedTrial(
        name=f"{trial.workload}/{trial.optimizer}/seed{trial.spec.seeds.init}-{record.trial_id[:8]}",
        group=trial.workload,
        status=record.status,
        config={**facts, **{f"label.{key}": v for key, v in labels.items()}, **_flat(to_plain(record.spec))},
        epochs=[_finite(dict(zip(names, row, strict=True))) for row in columns],
        metrics=_finite(record.metrics),
    )


def _finite(row: Mapping[str, float]) -> Row:
    return {name: float(value) for name, value in row.items() if math.isfinite(value)}


def _flat(plain: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Flatten a spec to dotted names; lists become JSON."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[before + key] = json.dumps(value) if isinstance(value, list) else value
    return flat


@contextlib.contextmanager
def _library(name: str) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"--log {name}: the library cannot be imported ({error}); run: {pip_hint(name)}"
        ) from None
