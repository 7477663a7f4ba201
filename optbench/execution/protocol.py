"""The training protocol: one trial from its spec to its record, the same for every framework."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optbench import matching
from optbench.backends.base import Engine, PartName, Session, UnsavableError
from optbench.datasets.augmentation import Augmentation
from optbench.datasets.base import Dataset, TrialData, network, trial_data
from optbench.environment import SAME_BITS
from optbench.execution import evaluation
from optbench.execution.checkpoint import CheckpointError, Checkpoints, Saved, Slot, Slots
from optbench.execution.schedules import LearningRate
from optbench.matching import Indices
from optbench.models.layers import count_parameters
from optbench.optimizers.schedules import is_stepwise
from optbench.task import TASKS, sign_of
from optbench.trial import Fingerprints, Status, TrialRecord, TrialSpec, Workload, block_id, trial_id

#: Called after each evaluation with the epoch and its row of the history.
OnEpoch = Callable[[int, Mapping[str, float]], None]


def history_of(workload: Workload) -> tuple[str, ...]:
    """Columns of a trial's history: its task's, and those of the averaged weights where there are any."""
    task = TASKS[workload.task]
    averaged = (f"val_{name}_ema" for name in ("loss", *task.headline)) if workload.ema else ()
    return (*task.history, *averaged)


@dataclass(frozen=True, kw_only=True)
class EpochRequest:
    """Training that a trial asks for: see :meth:`optbench.backends.base.Session.train_epoch`.

    ``rates`` are the learning rates of its steps, where each has its own.
    """

    session: Session
    rows: Indices
    epoch: int
    x: NDArray[Any] | None
    rates: NDArray[np.float64] | None = None

    def train(self) -> NDArray[np.float64]:
        """Have the session do it."""
        if self.rates is None:
            return self.session.train_epoch(self.rows, self.epoch, self.x)
        return self.session.train_epoch(self.rows, self.epoch, self.x, self.rates)


#: A running trial: stops at its opening, asks for epoch after epoch, is answered with the batch losses, and
#: ends in its record.
Opened = Generator[EpochRequest | None, NDArray[np.float64], TrialRecord]


@dataclass
class _Progress:
    """What the protocol keeps while a trial runs."""

    rows: list[dict[str, float]] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    steps: int = 0
    lr: float = math.nan
    augment_seconds: float = 0.0
    seconds_before: float = 0.0
    initial_loss: float = math.nan
    epochs_above: int = 0
    best_epoch: int = 0
    best_value: float = -math.inf
    patience_value: float = -math.inf
    epochs_without: int = 0
    ended: Status | None = None  # by the trial's rules, before its last epoch

    def saved(self, session: Session, *, columns: Sequence[str], seconds: float) -> Saved:
        """Put this, with rows as ``columns``, and the session's state into a checkpoint's form."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "rows"}
        history = np.array([[row[name] for name in columns] for row in self.rows])
        arrays = {f"session/{name}": array for name, array in session.state().items()}
        return Saved(progress={**plain, "seconds_before": seconds}, arrays={"history": history, **arrays})

    @classmethod
    def resumed(cls, saved: Saved, session: Session, *, columns: Sequence[str]) -> _Progress:
        """Go back to a checkpoint."""
        progress = cls(**saved.progress)
        progress.rows = [dict(zip(columns, row, strict=True)) for row in saved.arrays["history"].tolist()]
        state = {name: array for name, array in saved.arrays.items() if name.startswith("session/")}
        session.restore({name.removeprefix("session/"): array for name, array in state.items()})
        return progress


def run_trial(
    spec: TrialSpec,
    engine: Engine,
    dataset: Dataset,
    *,
    environment: Mapping[str, Any],
    on_epoch: OnEpoch | None = None,
    checkpoints: Checkpoints | None = None,
) -> TrialRecord:
    """Train one trial and record it.

    Parameters
    ----------
    spec : TrialSpec
        What to train.
    engine : Engine
        The framework of ``spec.backend``.
    dataset : Dataset
        The data of ``spec.workload.dataset``.
    environment : mapping
        Facts about the machine; the engine adds its own.
    on_epoch : callable, optional
        Called after every evaluation, epoch 0 included; after a checkpoint from its next epoch on.
    checkpoints : Checkpoints, optional
        Go on from this trial's checkpoint where there is one, and write one now and then. The caller removes
        it when the record is stored.

    Returns
    -------
    TrialRecord
        Status ``completed`` or ``diverged``. Exceptions pass through: the executor records the crash. The
        environment's fact ``checkpoint`` says if the trial was resumed, which leaves no wall-time claim, or
        why it was not.
    """
    trial = opened(spec, engine, dataset, environment=environment, on_epoch=on_epoch, checkpoints=checkpoints)
    next(trial)
    try:
        request = next(trial)
        while True:
            assert request is not None
            request = trial.send(request.train())
    except StopIteration as end:
        record: TrialRecord = end.value
        return record


def opened(
    spec: TrialSpec,
    engine: Engine,
    dataset: Dataset,
    *,
    environment: Mapping[str, Any],
    on_epoch: OnEpoch | None = None,
    checkpoints: Slots | None = None,
    ahead: Executor | None = None,
) -> Opened:
    """Go through a trial, leaving the epochs of training to the caller; see :func:`run_trial`.

    It stops once at its opening, before anything is evaluated, so that it may join others. Threads of
    ``ahead``, if there are any, draw the order of an epoch while the one before is trained.
    """
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    clock = time.perf_counter()
    workload, columns = spec.workload, history_of(spec.workload)
    data = trial_data(dataset, workload, spec.seeds)
    built = network(workload, dataset.info)
    weights = matching.initial_weights(built, spec.seeds.init, spec.precision)
    session = engine.open(spec, built, data, weights)
    first, size = weights, count_parameters(built)
    if workload.model.own is not None:  # which makes its own
        first = session.weights()
        size = sum(w.size for w in first.values() if np.issubdtype(w.dtype, np.floating))
    init = matching.fingerprint(*(part for item in first.items() for part in item))
    setup = time.perf_counter() - clock
    warm_up = _seconds(session.warm_up)
    facts = {**environment, **engine.describe(spec.device), **session.facts()}
    progress = _Progress(lr=math.nan if spec.optimizer.lr is None else spec.optimizer.lr)
    checkpoint: _CheckpointWriter | None = None
    if checkpoints is not None:
        identity = _identity({**facts, "split": data.fingerprint, "init": init})
        checkpoint = _CheckpointWriter(checkpoints.of(whole_id(spec), identity), columns, clock)
        try:
            progress = checkpoint.resume(session) or progress
        except CheckpointError as error:
            checkpoint.note = f"ignored: {error}"
            session = engine.open(spec, built, data, weights)
            session.warm_up()
    yield None
    order = _Order(spec, data, ahead)
    status = progress.ended or (yield from _train(spec, session, data, progress, on_epoch, checkpoint, order))
    if checkpoint is not None:
        checkpoint.trial_done(session, progress)
    metrics, predictions, test_seconds = _finish(workload, session, data, progress, status, size)
    history = {name: np.array([row[name] for row in progress.rows]) for name in columns}
    return TrialRecord(
        trial_id=trial_id(spec),
        block_id=block_id(spec),
        spec=spec,
        status=status,
        fingerprints=_fingerprints(data, init, progress),
        history=history,
        metrics=metrics,
        timings={
            "setup": setup,
            "warm_up": warm_up,
            **_timings(history, progress, test_seconds),
            "total": time.perf_counter() - clock + progress.seconds_before,
        },
        predictions=predictions,
        environment={**facts, **_notes(checkpoint, dataset)},
        started=started,
    )


def _identity(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What must agree before a checkpoint is used."""
    identity = dict(facts)
    # Whether a GPU has the memory to record a step is no matter of the trial, and changes no bit.
    if facts.get("device") == "cuda" and facts.get("step") in SAME_BITS:
        del identity["step"], identity["step_because"]
    return identity


def _timings(
    history: Mapping[str, NDArray[Any]], progress: _Progress, test_seconds: float
) -> dict[str, float]:
    return {
        "augment": progress.augment_seconds,
        "step": float(np.nansum(history["step_seconds"])),
        "eval": float(np.nansum(history["eval_seconds"])) + test_seconds,
    }


def _fingerprints(data: TrialData, init: str, progress: _Progress) -> Fingerprints:
    return Fingerprints(
        split=data.fingerprint,
        init=init,
        order=progress.digests[0],
        order_by_epoch=tuple(matching.short_digest(digest) for digest in progress.digests),
    )


def _notes(checkpoint: _CheckpointWriter | None, dataset: Dataset) -> dict[str, Any]:
    """Facts of a record about its checkpoint and its data, where there are any."""
    return {
        **({"checkpoint": checkpoint.note} if checkpoint is not None and checkpoint.note else {}),
        **({"data_notes": list(dataset.notes)} if dataset.notes else {}),
    }


def whole_id(spec: TrialSpec) -> str:
    """Identify a trial for checkpoints, which one that stops to go on later shares with the whole one."""
    return trial_id(replace(spec, workload=replace(spec.workload, stop=None)))


class _CheckpointWriter:
    """Writes a trial's checkpoint now and then, and goes back to it."""

    def __init__(self, file: Slot, columns: Sequence[str], clock: float) -> None:
        self._file, self._columns, self._clock = file, columns, clock
        self.note = ""

    def resume(self, session: Session) -> _Progress | None:
        """Bring a fresh session to the checkpoint; None where there is none."""
        saved = self._file.load()
        if saved is None:
            return None
        try:
            progress = _Progress.resumed(saved, session, columns=self._columns)
        except Exception as error:  # a framework may say in any way that these are not its arrays
            raise CheckpointError(f"cannot be restored ({type(error).__name__}: {error})") from error
        self.note = "resumed"
        return progress

    def epoch_done(self, session: Session, progress: _Progress) -> None:
        """Write a checkpoint if it is time."""
        if self._file.due():
            self.save(session, progress)

    def trial_done(self, session: Session, progress: _Progress) -> None:
        """Keep the state of a trial that has ended beside others."""
        if self._file.ends and progress.ended:
            self.save(session, progress)

    def save(self, session: Session, progress: _Progress) -> None:
        """Write a checkpoint now, unless none are wanted."""
        if not self._file.seconds:
            return
        try:
            seconds = progress.seconds_before + time.perf_counter() - self._clock
            self._file.save(progress.saved(session, columns=self._columns, seconds=seconds))
        except (UnsavableError, OSError) as error:  # a full disk ends the checkpoints, not the trial
            self._file.seconds = 0.0
            self.note = self.note or f"none: {error}"


class _Order:
    """The rows of a trial's epochs with their digests; drawn one epoch ahead where there are threads."""

    def __init__(self, spec: TrialSpec, data: TrialData, threads: Executor | None) -> None:
        self._spec, self._data, self._threads = spec, data, threads
        self._drawn: tuple[int, Future[tuple[Indices, str]]] | None = None

    def of(self, epoch: int, *, ahead: bool) -> tuple[Indices, str]:
        """Rows of an epoch, and their digest; ``ahead`` says that the next one will be asked for."""
        if self._drawn is not None and self._drawn[0] == epoch:
            found = self._drawn[1].result()
        else:
            found = self._draw(epoch)
        self._drawn = None
        if ahead and self._threads is not None:
            self._drawn = (epoch + 1, self._threads.submit(self._draw, epoch + 1))
        return found

    def _draw(self, epoch: int) -> tuple[Indices, str]:
        spec = self._spec
        rows = self._data.rows_of(spec.workload, spec.seeds.order, epoch)
        return rows, matching.fingerprint(rows)


def _train(
    spec: TrialSpec,
    session: Session,
    data: TrialData,
    progress: _Progress,
    on_epoch: OnEpoch | None,
    checkpoint: _CheckpointWriter | None,
    order: _Order,
) -> Generator[EpochRequest, NDArray[np.float64], Status]:
    workload = spec.workload
    # A custom class may have no learning rate, and then no schedule either.
    initial = math.nan if spec.optimizer.lr is None else spec.optimizer.lr
    rate = LearningRate(workload.schedule, initial, workload.epochs)
    for row in progress.rows[1:]:
        rate.observe(row)
    augmentation = None
    if workload.augment is not None:
        augmentation = Augmentation(workload.augment, data.train, seed=spec.seeds.augment)
    last = min(workload.stop or workload.epochs, workload.epochs)
    batch = data.examples if workload.batch_size == "full" else workload.batch_size
    total = workload.steps or workload.epochs * -(-data.examples // batch)
    for epoch in range(len(progress.rows), last + 1):
        losses, step_seconds = np.array([math.nan]), math.nan
        if epoch:
            by_epoch = workload.schedule is not None and not is_stepwise(workload.schedule)
            if by_epoch and rate.at(epoch) != progress.lr:
                progress.lr = rate.at(epoch)
                session.set_lr(progress.lr)
            rows, digest = order.of(epoch, ahead=epoch < last)
            progress.digests.append(digest)
            clock = time.perf_counter()
            x = augmentation.epoch(rows, epoch) if augmentation is not None else None
            progress.augment_seconds += time.perf_counter() - clock
            clock = time.perf_counter()
            rates = rate.of_steps(progress.steps, -(-len(rows) // batch), total)
            if rates is not None:
                progress.lr = float(rates[-1])
            losses = yield EpochRequest(session=session, rows=rows, epoch=epoch, x=x, rates=rates)
            step_seconds = time.perf_counter() - clock
            progress.steps += len(losses)
        row = _evaluate(session, data, workload)
        row |= {"batch_loss": float(np.mean(losses)), "lr": progress.lr, "step_seconds": step_seconds}
        progress.rows.append(row)
        if on_epoch is not None:
            on_epoch(epoch, row)
        if epoch == 1:
            progress.initial_loss = float(losses[0])
        if epoch and _diverged(workload, row, losses, progress):
            progress.ended = "diverged"
            return progress.ended
        if epoch:
            rate.observe(row)
        if _stop(workload, session, epoch, row, progress):
            progress.ended = "diverged" if progress.epochs_above else "completed"
            return progress.ended
        if checkpoint is not None and 0 < epoch < last:
            checkpoint.epoch_done(session, progress)
        elif checkpoint is not None and epoch == last < workload.epochs:
            checkpoint.save(session, progress)
    return "diverged" if progress.epochs_above else "completed"


def _evaluate(session: Session, data: TrialData, workload: Workload) -> dict[str, float]:
    """Evaluate an epoch; NaN for the validation part where there is none."""
    clock = time.perf_counter()
    row: dict[str, float] = {}
    part: PartName
    task = TASKS[workload.task]
    for prefix, names, averaged in (
        ("train", task.headline, False),
        ("val", task.metrics, False),
        *([("val", task.headline, True)] if workload.ema else []),
    ):
        part = "train_eval" if prefix == "train" else "validation"
        examples = data.train_eval if prefix == "train" else data.validation
        if len(examples):
            found = evaluation.of_part(session, part, data, averaged=averaged)
            measured = evaluation.declared(task, found, examples, data.info, names=names)
        else:
            measured = dict.fromkeys(("loss", *names), math.nan)
        row |= {f"{prefix}_{name}{'_ema' * averaged}": value for name, value in measured.items()}
    row["eval_seconds"] = time.perf_counter() - clock
    return row


def _diverged(
    workload: Workload, row: Mapping[str, float], losses: NDArray[np.float64], progress: _Progress
) -> bool:
    if not (np.isfinite(losses).all() and math.isfinite(row["train_loss"])):
        return True
    limit = workload.divergence.factor * progress.initial_loss
    progress.epochs_above = progress.epochs_above + 1 if losses.mean() > limit else 0
    return progress.epochs_above >= workload.divergence.epochs


def _stop(
    workload: Workload, session: Session, epoch: int, row: Mapping[str, float], progress: _Progress
) -> bool:
    """Note the best epoch so far, and say whether patience has run out."""
    value = sign_of(workload.monitor) * row[workload.monitor]
    if value > progress.best_value:
        progress.best_value, progress.best_epoch = value, epoch
        session.remember()
    rule = workload.early_stopping
    if rule is None:
        return False
    monitored = sign_of(rule.monitor) * row[rule.monitor]
    if monitored > progress.patience_value + rule.min_delta:
        progress.patience_value, progress.epochs_without = monitored, 0
    else:
        progress.epochs_without += 1
    return progress.epochs_without >= rule.patience


def _finish(
    workload: Workload, session: Session, data: TrialData, progress: _Progress, status: Status, size: int
) -> tuple[dict[str, float], dict[str, NDArray[Any]], float]:
    """Final metrics; the test part is looked at here, once the best epoch is settled, and never before."""
    last = len(progress.rows) - 1
    row, final = progress.rows[last], TASKS[workload.task].final
    metrics = {"epochs": float(last), "steps": float(progress.steps)}
    metrics["state_bytes"] = float(session.state_bytes())
    metrics["parameters"] = float(size)
    metrics |= {name: row[name] for name in final}
    if math.isfinite(progress.best_value):
        best_row = progress.rows[progress.best_epoch]
        metrics["best_epoch"] = float(progress.best_epoch)
        metrics |= {f"{name}_best": best_row[name] for name in final if name.startswith("val_")}
    if status == "diverged":
        return metrics, {}, 0.0
    clock = time.perf_counter()
    outputs = evaluation.needs_outputs(workload)
    evaluations = {"last": evaluation.of_part(session, "test", data, outputs=outputs)}
    if workload.ema:
        found = evaluation.of_part(session, "test", data, averaged=True)
        task = TASKS[workload.task]
        measured = evaluation.declared(task, found, data.test, data.info, names=task.metrics)
        metrics |= {f"test_{name}_ema": value for name, value in measured.items()}
        metrics |= {f"val_{name}_ema": row[f"val_{name}_ema"] for name in ("loss", *task.headline)}
    metrics |= _custom_validation(session, data, workload, "")
    if "best_epoch" in metrics:
        if progress.best_epoch != last:
            session.recall()
            evaluations["best"] = evaluation.of_part(session, "test", data, outputs=outputs)
        else:
            evaluations["best"] = evaluations["last"]
        metrics |= _custom_validation(session, data, workload, "_best")
    for name, found in (*evaluations.items(), ("", evaluations[workload.kept])):
        measured = evaluation.of_test(found, data.test, data.info, workload, final=not name)
        metrics |= {f"test_{metric}{f'_{name}' if name else ''}": value for metric, value in measured.items()}
    small = evaluation.MEASURES[workload.task].recorded(e.predictions for e in evaluations.values())
    return metrics, dict(zip(evaluations, small, strict=True)), time.perf_counter() - clock


def _custom_validation(
    session: Session, data: TrialData, workload: Workload, suffix: str
) -> dict[str, float]:
    """Custom metrics on the validation part, by the weights as they are."""
    if workload.metrics is None or not len(data.validation):
        return {}
    evaluated = evaluation.of_part(session, "validation", data, outputs=True)
    found = evaluation.of_custom(evaluated, data.validation, workload)
    return {f"val_{name}{suffix}": value for name, value in found.items()}


def _seconds(work: Callable[[], None]) -> float:
    clock = time.perf_counter()
    work()
    return time.perf_counter() - clock
