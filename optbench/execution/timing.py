"""The timing pass: how long a step takes, on a machine with nothing else to do, the optimizers in turns."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import filelock
import numpy as np

from optbench import backends, environment, matching
from optbench.backends.base import Session
from optbench.datasets import registry
from optbench.datasets.augmentation import Augmentation
from optbench.datasets.base import Dataset, TrialData, network, trial_data
from optbench.environment import Context
from optbench.errors import UserError
from optbench.execution import local, memory
from optbench.execution.choice import isolated
from optbench.execution.jobs import ProcessEndedError
from optbench.matching import Indices
from optbench.records import machines, step_times
from optbench.records.step_times import PassTimes
from optbench.records.store import Store
from optbench.suite.spec import PlannedTrial, Suite, store_path
from optbench.trial import TrialSpec, custom_code, to_plain
from optbench.tuning.journal import read
from optbench.tuning.search import tuned

#: Rounds of a pass: the interval of their median is from the second least to the second most.
ROUNDS = 9
#: A round trains an optimizer for about so long: whole epochs where they are short, a part of one else.
ROUND_SECONDS = 0.5
#: Steps at the least, and steps of the first look at the speed.
FEWEST_STEPS = 8


class TimingError(UserError, RuntimeError):
    """A timing that cannot be made, or would not be one; the message says what to do."""


@dataclass
class _Timed:
    """One configuration in the pass."""

    trial: PlannedTrial
    session: Session
    warm_up: float
    steps: list[float] = field(default_factory=list)
    evals: list[float] = field(default_factory=list)


def time_suite(
    suite: Suite,
    *,
    results: str | Path = "results",
    only: Callable[[PlannedTrial], bool] | None = None,
    rounds: int = ROUNDS,
    round_seconds: float = ROUND_SECONDS,
    progress: Callable[[str], None] = print,
    context: Context | None = None,
) -> list[PassTimes]:
    """Measure the step times of a suite's optimizers, and keep them in its store.

    Parameters
    ----------
    suite : Suite
        A dry run's synthetic data have the real shapes, so its times are those of the suite.
    results : path
        Folder of all stores.
    only : callable, optional
        Time only the trials for which this is true.
    rounds : int
        Each round times every optimizer of a workload once, in turns.
    round_seconds : float
        About so long each time.
    progress : callable
        Called with messages: what is timed, and whether the machine is busy.
    context : Context, optional
        As of the suite's trials; the defaults if not given.

    Returns
    -------
    list of PassTimes
        One a workload, backend and optimizer. Entries of the same configuration and machine are replaced.

    Raises
    ------
    TimingError
        If another pass runs on this machine; at the end, if an optimizer did not move the weights.
    StoreBusyError
        If a run writes to the store.
    """
    context = (context or Context()).with_step(suite.engine.step)
    groups: dict[tuple[str, str], dict[str, PlannedTrial]] = {}
    with Store(store_path(suite, results), write=True) as store:
        suite = tuned(suite, read(store.meta())) or suite
    for trial in local.plan(suite, context):
        if only is None or only(trial):
            groups.setdefault((trial.workload, trial.spec.backend), {}).setdefault(trial.optimizer, trial)
    found: list[PassTimes] = []
    unmoved: list[str] = []
    with (
        _machine_lock(),
        Store(store_path(suite, results), write=True) as store,
        store.writing(),
    ):
        _warn_if_busy(progress)
        for (workload, backend), trials in groups.items():
            progress(f"timing {workload} ({backend}): {', '.join(trials)}")
            folder = suite.path.parent if suite.path else None
            timed = _time_isolated(list(trials.values()), folder, context, rounds, round_seconds, progress)
            store.set_meta(**{entry.key: entry.to_json() for entry in timed.passes})
            found += timed.passes
            unmoved += timed.unmoved
    if unmoved:
        raise TimingError(
            f"{'; '.join(unmoved)}: the weights did not change in any timed step, so this is no time of a "
            "step and was not kept; check the learning rate, and that step() updates the parameters"
        )
    return found


@dataclass(frozen=True, kw_only=True)
class _Group:
    """A workload's times, the optimizers that moved no weight, and messages for the user."""

    passes: list[PassTimes] = field(default_factory=list)
    unmoved: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


def _time_isolated(
    trials: Sequence[PlannedTrial],
    folder: Path | None,
    context: Context,
    rounds: int,
    seconds: float,
    progress: Callable[[str], None],
) -> _Group:
    """Time a workload; with custom code in a process of its own, and without that code where it ends it."""
    with isolated(trials, context) as executor:
        try:
            found = executor.call(_time_group, trials, folder, context, rounds, seconds)
        except ProcessEndedError as error:
            plain = [trial for trial in trials if not custom_code(trial.spec)]
            names = ", ".join(trial.optimizer for trial in trials if custom_code(trial.spec))
            progress(f"{names}: not timed, as its code ended the process: {error}")
            return _time_isolated(plain, folder, context, rounds, seconds, progress) if plain else _Group()
    for message in found.messages:
        progress(message)
    return found


def _time_group(
    trials: Sequence[PlannedTrial], folder: Path | None, context: Context, rounds: int, seconds: float
) -> _Group:
    """Time the optimizers of a workload in turns."""
    group = _Group()
    spec = trials[0].spec
    dataset = registry.of_workload(spec.workload, data_dir=context.data_dir)
    data = trial_data(dataset, spec.workload, spec.seeds)
    load = _Load()
    training = _SharedTraining.of(spec, data)
    timed, step = _opened(trials, training, dataset, context, group.messages.append)
    if not timed:
        return group
    part, epochs = _share(step, training.steps_per_epoch, seconds)
    for trial in timed:
        training.train(trial, training.round(0, part, epochs))
        _evaluate(trial.session, data)
    before = [_trained(trial) for trial in timed]
    for number in range(rounds):
        rows = training.round(number + 1, part, epochs)
        for place in range(len(timed)):
            trial = timed[(place + number) % len(timed)]
            took, steps = training.train(trial, rows)
            trial.steps.append(took / steps)
            trial.evals.append(_evaluate(trial.session, data))
    moved = []
    for trial, old in zip(timed, before, strict=True):
        if all(np.array_equal(value, old[name]) for name, value in _trained(trial).items()):
            group.unmoved.append(f"{trial.trial.workload}, {trial.trial.optimizer}")
        else:
            moved.append(trial)
    busy = load.busy()
    facts = {
        **environment.describe(folder),
        **backends.engine(spec.backend, context).describe(spec.device),
    }
    rows_a_round = part * training.batch
    held = [_memory(trial.trial, rows_a_round, context, group.messages.append) for trial in moved]
    group.passes.extend(
        PassTimes(
            config=step_times.config_id(to_plain(trial.trial.spec)),
            machine=machines.machine_id(facts),
            facts=facts,
            measured=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            steps=part * epochs,
            steps_per_epoch=training.steps_per_epoch,
            step_seconds=tuple(trial.steps),
            eval_seconds=tuple(trial.evals),
            warm_up_seconds=trial.warm_up,
            state_bytes=trial.session.state_bytes(),
            busy=busy,
            **bytes_held,
        )
        for trial, bytes_held in zip(moved, held, strict=True)
    )
    return group


@dataclass(frozen=True, kw_only=True)
class _SharedTraining:
    """The training that all optimizers of a workload are timed on: the same rows in the same order."""

    spec: TrialSpec
    data: TrialData
    batch: int
    steps_per_epoch: int
    augmentation: Augmentation | None

    @classmethod
    def of(cls, spec: TrialSpec, data: TrialData) -> _SharedTraining:
        """Of a workload."""
        batch = data.examples if spec.workload.batch_size == "full" else spec.workload.batch_size
        augmentation = None
        if spec.workload.augment is not None:
            augmentation = Augmentation(spec.workload.augment, data.train, seed=spec.seeds.augment)
        whole = math.ceil(data.rows_each / batch)
        return cls(spec=spec, data=data, batch=batch, steps_per_epoch=whole, augmentation=augmentation)

    def round(self, number: int, steps: int, epochs: int) -> list[tuple[Indices, int]]:
        """Rows of the first ``steps`` of each epoch of a round, with the epoch."""
        places = range(number * epochs + 1, (number + 1) * epochs + 1)
        return [(_order(self.spec, self.data, epoch)[: steps * self.batch], epoch) for epoch in places]

    def train(self, timed: _Timed, parts: Sequence[tuple[Indices, int]]) -> tuple[float, int]:
        """Train over some rows of some epochs: seconds, and steps taken."""
        total, steps = 0.0, 0
        for rows, epoch in parts:
            x = self.augmentation.epoch(rows, epoch) if self.augmentation is not None else None
            clock = time.perf_counter()
            losses = timed.session.train_epoch(rows, epoch, x)
            total += time.perf_counter() - clock
            steps += len(losses)
        return total, steps


def _opened(
    trials: Sequence[PlannedTrial],
    training: _SharedTraining,
    dataset: Dataset,
    context: Context,
    progress: Callable[[str], None],
) -> tuple[list[_Timed], float]:
    """Open the trials that can be timed; the second is the seconds of the slowest's step."""
    first = training.round(0, FEWEST_STEPS, 1)
    timed, step = [], 0.0
    for trial in trials:
        try:
            opened = _open(trial, dataset, training.data, context)
            training.train(opened, first)
            took, steps = training.train(opened, first)
        except Exception as error:  # as a trial of it would: the others are timed without it
            progress(f"{trial.optimizer} is not timed, it fails: {type(error).__name__}: {error}")
            continue
        timed.append(opened)
        step = max(step, took / steps)
    return timed, step


def _open(trial: PlannedTrial, dataset: Dataset, data: TrialData, context: Context) -> _Timed:
    spec = trial.spec
    built = network(spec.workload, dataset.info)
    weights = matching.initial_weights(built, spec.seeds.init, spec.precision)
    session = backends.engine(spec.backend, context).open(spec, built, data, weights)
    clock = time.perf_counter()
    session.warm_up()
    return _Timed(trial, session, time.perf_counter() - clock)


def _memory(trial: PlannedTrial, rows: int, context: Context, progress: Callable[[str], None]) -> memory.Held:
    try:
        return memory.measure(trial.spec, rows=rows, context=context)
    except UserError as error:  # the times stand without it
        progress(str(error))
        return memory.Held(host_bytes=None, host_start_bytes=None, device_bytes=None)


def _share(step: float, whole: int, seconds: float) -> tuple[int, int]:
    """Steps of an epoch to take, and of how many epochs, so that a round lasts about so long."""
    if step * whole > 2 * seconds:
        return min(whole, max(FEWEST_STEPS, round(seconds / step))), 1
    return whole, max(1, round(seconds / (step * whole)))


def _order(spec: TrialSpec, data: TrialData, epoch: int) -> Indices:
    return data.rows_of(spec.workload, spec.seeds.order, epoch)


def _evaluate(session: Session, data: TrialData) -> float:
    clock = time.perf_counter()
    session.evaluate("train_eval")
    if len(data.validation):
        session.evaluate("validation")
    return time.perf_counter() - clock


def _trained(timed: _Timed) -> Mapping[str, np.ndarray]:
    """Weights that an optimizer trains: running averages move whatever it does."""
    weights = timed.session.weights()
    return {name: w for name, w in weights.items() if not name.rpartition("/")[2].startswith("moving_")}


@contextlib.contextmanager
def _machine_lock() -> Iterator[None]:
    """Hold the machine's one lock for timings."""
    path = Path(tempfile.gettempdir()) / "optbench-timing.lock"
    try:
        with filelock.FileLock(path, timeout=0, mode=0o666):
            yield
    except filelock.Timeout:
        raise TimingError(
            f"another timing pass runs on this machine ({path}); two at once would slow each other down, "
            "so run this one when that has ended"
        ) from None
    except PermissionError:
        raise TimingError(
            f"{path}: the lock of timing passes belongs to another user; once their pass has ended, take the "
            "file away, or set TMPDIR to a folder of your own"
        ) from None


def _warn_if_busy(progress: Callable[[str], None], *, look: float = 0.3) -> None:
    load = _Load()
    time.sleep(look)
    busy = load.busy()
    if busy is not None and busy > step_times.QUIET:
        progress(
            f"warning: other processes keep {busy:.0%} of this machine busy; these times will say so. Time "
            "again with --time when it is quiet"
        )


class _Load:
    """Share of the machine's processors that other processes keep busy from now on."""

    def __init__(self) -> None:
        self._start = self._now()

    def busy(self) -> float | None:
        """Share in [0, 1]; None where the system does not tell (no /proc/stat)."""
        if self._start is None or (now := self._now()) is None:
            return None
        busy, total, own = (b - a for a, b in zip(self._start, now, strict=True))
        return min(1.0, max(0.0, (busy - own) / total)) if total else 0.0

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        try:
            fields = Path("/proc/stat").read_text("ascii").partition("\n")[0].split()[1:9]
            tick = os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, AttributeError):
            return None
        total = sum(map(int, fields)) / tick
        idle = (int(fields[3]) + int(fields[4])) / tick
        spent = os.times()
        own = spent.user + spent.system + spent.children_user + spent.children_system
        return total - idle, total, own
