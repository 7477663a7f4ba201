"""Seeds as a batch: trials of one config that differ only in seeds and learning rate, as one program.

Each trial goes through the protocol on its own (:func:`optbench.execution.protocol.opened`); what they
share is the training of an epoch. So a stacked trial leaves the record of a sequential one, up to rounding,
but without times, since a step belongs to all of its trials.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optbench import matching
from optbench.backends.base import Engine, NotStackableError, Session, is_out_of_memory
from optbench.datasets.base import Dataset, network, trial_data
from optbench.execution.checkpoint import Checkpoints, StackCheckpoint
from optbench.execution.protocol import EpochRequest, OnEpoch, Opened, opened, whole_id
from optbench.optimizers import SGD, OptimizerConfig, stack_obstacle
from optbench.optimizers.groups import at_lr
from optbench.optimizers.schedules import is_stepwise
from optbench.suite.spec import PlannedTrial
from optbench.trial import Seeds, TrialRecord, TrialSpec, content_hash, to_plain

#: Most trials in one program, and steps that ``auto`` times for each number of trials, on a CPU and else.
LARGEST = 128
TIMED_STEPS = 12
TIMED_STEPS_GPU = 100
#: Threads that draw the orders of the next epoch while a GPU trains this one.
AHEAD = 4
#: Seconds of a step on a CPU that is not short of work: larger products would not be faster.
LONG_STEP = 0.005
#: A larger stack must cut the time of a trial to this share, or it is not worth its memory.
WORTH = 0.95

Job = tuple[PlannedTrial, ...]


@dataclass(frozen=True)
class StackSize:
    """How many trials to train together, and why not more than one where a stack was refused."""

    trials: int
    refused: str = ""


def jobs(planned: Sequence[PlannedTrial], size: Callable[[PlannedTrial], int]) -> list[Job]:
    """Cut a plan into jobs: trials of one config in the plan's order, ``size`` of the first of them at most.

    Parameters
    ----------
    planned : sequence of PlannedTrial
        The whole plan, so that the jobs do not depend on what a store already has.
    size : callable
        Trials in one program, asked once a config.

    Returns
    -------
    list of tuple of PlannedTrial
        In the order of their first trials.
    """
    configs: dict[str, list[int]] = {}
    for place, trial in enumerate(planned):
        configs.setdefault(_config(trial.spec), []).append(place)
    cut_up = []
    for places in configs.values():
        step = max(1, size(planned[places[0]])) if len(places) > 1 else 1
        cut_up += [places[start : start + step] for start in range(0, len(places), step)]
    return [tuple(planned[place] for place in places) for places in sorted(cut_up)]


def obstacle(spec: TrialSpec) -> str:
    """Why no engine trains such trials together; empty where one may, which checks again at their opening."""
    workload = spec.workload
    if workload.model.own is not None:
        return "a custom network cannot be trained in a stack"
    if is_stepwise(workload.schedule):
        return "a schedule by step cannot be trained in a stack"
    for name in ("ema", "accumulate"):
        if getattr(workload, name) is not None:
            return f"{name} cannot be trained in a stack"
    return stack_obstacle(spec.optimizer, spec.backend, apart=spec.device == "cuda") or ""


def run_stack(
    specs: Sequence[TrialSpec],
    engine: Engine,
    dataset: Dataset,
    *,
    environment: Mapping[str, Any],
    on_epoch: Callable[[int], OnEpoch] | None = None,
    checkpoints: Checkpoints | None = None,
) -> list[TrialRecord]:
    """Train trials that differ in their seeds and learning rates alone as one program.

    Parameters
    ----------
    specs : sequence of TrialSpec
        Equal but for these.
    engine, dataset, environment
        As for :func:`optbench.execution.protocol.run_trial`.
    on_epoch : callable, optional
        ``on_epoch(k)`` is called after each epoch of trial k.
    checkpoints : Checkpoints, optional
        Go on from the stack's checkpoint where there is one, and write one now and then.

    Returns
    -------
    list of TrialRecord
        In the order of ``specs``; without times, with the environment's fact ``stacked``.

    Raises
    ------
    NotStackableError
        If they cannot be trained together; nothing is lost, train them one by one.
    """
    opening = _OpeningEngine(engine)
    facts = {**environment, "stacked": len(specs)}
    keep = StackCheckpoint(checkpoints, [whole_id(s) for s in specs]) if checkpoints is not None else None
    with ExitStack() as held:
        # On a CPU its cores are for the training.
        ahead = None if specs[0].device == "cpu" else held.enter_context(ThreadPoolExecutor(AHEAD))
        trainings = [
            opened(
                spec,
                opening,
                dataset,
                environment=facts,
                on_epoch=on_epoch(k) if on_epoch else None,
                checkpoints=keep.members[k] if keep is not None else None,
                ahead=ahead,
            )
            for k, spec in enumerate(specs)
        ]
        return _train_together(specs, trainings, opening, keep)


def _train_together(
    specs: Sequence[TrialSpec],
    trainings: Sequence[Opened],
    opening: _OpeningEngine,
    keep: StackCheckpoint | None,
) -> list[TrialRecord]:
    asked: dict[int, EpochRequest] = {}
    sessions: list[Session] = []
    views: list[_WithoutWarmUp] = []
    records: dict[int, TrialRecord] = {}

    def go_on(k: int, losses: NDArray[np.float64] | None) -> None:
        try:
            request = trainings[k].send(losses)  # type: ignore[arg-type]  # None begins
            assert request is not None
            asked[k] = request
        except StopIteration as end:
            asked.pop(k, None)
            records[k] = _untimed(end.value)

    for trial in trainings:
        next(trial)
        sessions.append(opening.sessions[-1])
        views.append(opening.views[-1])
    # Those that had ended before a checkpoint need no place in the stack.
    places = [k for k in range(len(specs)) if keep is None or not keep.ended(k)]
    stack = opening.stack([specs[k] for k in places], [sessions[k] for k in places]) if places else None
    for k, member in zip(places, stack.members if stack is not None else (), strict=True):
        views[k].become(member)
    for k in range(len(specs)):
        go_on(k, None)
    if len({request.epoch for request in asked.values()}) > 1:
        raise NotStackableError("the trials go on from different epochs")
    note = ""
    while asked and stack is not None:
        live = sorted(asked)
        if keep is not None:
            keep.begin(live)
        augmented = [x for k in live if (x := asked[k].x) is not None]
        losses = stack.train_epoch(
            [sessions[k] for k in live], [asked[k].rows for k in live], augmented or None
        )
        for k, found in zip(live, losses, strict=True):
            go_on(k, found)
        if keep is not None:
            try:
                keep.end()
            except OSError as error:  # a full disk ends the checkpoints, not the trials
                keep, note = None, f"none: {error}"
    return [_noted(records[k], note) for k in range(len(specs))]


def best_size(specs: Sequence[TrialSpec], engine: Engine, dataset: Dataset) -> StackSize:
    """Measure how many of these trials to train together: the least time a step and trial, 1 for alone.

    A few steps are timed for 1, 2, 4, .. trials, until more of them take longer each or have no room in the
    memory. On a CPU a trial whose steps are long stays alone.
    """
    specs, on_cpu = specs[:LARGEST], specs[0].device == "cpu"
    opening = _OpeningEngine(engine)
    rows = [_open(specs[0], opening, dataset)]
    alone = opening.sessions[0].train_epoch
    if on_cpu:
        few = rows[0][: -(-len(rows[0]) // TIMED_STEPS)]
        if min(_seconds(partial(alone, few, 1)) for _ in range(3)) > LONG_STEP:
            return StackSize(1)
    best, least = 1, _fastest(partial(alone, rows[0], 1))
    # A GPU has room for more: all trials in one program, where more of them went on to pay.
    sizes = [2**k for k in range(1, 8) if 2**k <= len(specs)]
    for size in sizes if on_cpu or len(specs) in (1, *sizes) else [*sizes, len(specs)]:
        try:
            # All anew: a session that has been timed has moments that a fresh one lacks.
            opening = _OpeningEngine(engine)
            rows = [_open(spec, opening, dataset) for spec in specs[:size]]
            stack = opening.stack(specs[:size], opening.sessions)
            taken = _fastest(partial(stack.train_epoch, opening.sessions, rows, None)) / size
        except NotStackableError as error:
            return StackSize(1, refused=str(error))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return StackSize(best, refused=f"{size} trials at once are out of memory" if best == 1 else "")
        if taken > WORTH * least:
            break
        best, least = size, taken
    return StackSize(best)


class Sizes:
    """Sizes of stacks for the workloads of a suite: given, or measured once and kept with the store.

    They are measured with the first optimizer: the update is the least part of a step.

    Parameters
    ----------
    wanted : "off", "auto" or int
        As the suite says.
    planned : sequence of PlannedTrial
        The whole plan.
    known : mapping of str to str
        What a store kept.
    measure : callable
        ``measure(trials) -> StackSize``, see :func:`best_size`; the trials could be one program.

    Attributes
    ----------
    found : dict of str to int
        Measured sizes by workload, for the store.
    refused : dict of str to str
        Why a workload's trials are not trained together, where a measurement was refused; for the store.
    """

    def __init__(
        self,
        wanted: str | int,
        planned: Sequence[PlannedTrial],
        *,
        known: Mapping[str, str],
        measure: Callable[[Sequence[PlannedTrial]], StackSize],
    ) -> None:
        self._wanted, self._measure = wanted, measure
        self.found: dict[str, int] = json.loads(known.get("batch_seeds", "{}"))
        self.refused: dict[str, str] = json.loads(known.get("batch_seeds_refused", "{}"))
        self._trials: dict[str, list[PlannedTrial]] = {}
        for trial in planned if wanted == "auto" else ():
            alike = self._trials.setdefault(_workload(trial.spec), [])
            first = alike[0] if alike else trial
            if not obstacle(trial.spec) and _rule(trial.spec) == _rule(first.spec):
                alike.append(trial)

    def __call__(self, trial: PlannedTrial) -> int:
        """Trials in one program of this trial's workload."""
        if self._wanted == "off" or obstacle(trial.spec):
            return 1
        if isinstance(self._wanted, int):
            return self._wanted
        key = _workload(trial.spec)
        if key not in self.found:
            size = self._measure(self._trials[key])
            self.found[key] = size.trials
            if size.refused:
                self.refused[key] = size.refused
        return self.found[key]

    def reason(self, trial: PlannedTrial) -> str:
        """Why a trial is trained alone though its suite asks for stacks; empty if it need not be."""
        if self._wanted == "off":
            return ""
        return obstacle(trial.spec) or self.refused.get(_workload(trial.spec), "")


class _OpeningEngine:
    """An engine that keeps the sessions which it opens, and lets none of them warm up on its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.sessions: list[Any] = []
        self.views: list[_WithoutWarmUp] = []
        self._built: Any = None
        self._examples: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def open(self, spec: Any, built: Any, data: Any, weights: Any) -> Session:
        session = self._engine.open(spec, built, data, weights)
        self.sessions.append(session)
        self._built = built
        self._examples.add(data.examples)
        tell = getattr(self._engine, "stack_facts", None)
        facts = {} if tell is None else tell(spec, built, session)
        self.views.append(_WithoutWarmUp(session, facts))
        return self.views[-1]

    def stack(self, specs: Sequence[TrialSpec], sessions: Sequence[Session]) -> Any:
        make = getattr(self._engine, "stack", None)
        if make is None:
            raise NotStackableError(f"the {self._engine.name} engine trains one trial at a time")
        if len(self._examples) > 1:
            raise NotStackableError("the trials have training parts of different sizes")
        return make(specs, self._built, sessions)


class _WithoutWarmUp:
    """A session whose own epoch is never compiled, since the stack has another, and which joins the stack."""

    def __init__(self, session: Session, facts: Mapping[str, Any]) -> None:
        self._session, self._facts = session, facts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def become(self, member: Session) -> None:
        """Go on as a member of the stack."""
        self._session = member

    def facts(self) -> Mapping[str, Any]:
        """Say that the steps are the stack's."""
        stacked = {"step": "stacked", "step_because": "seeds trained as one program"}
        return {**self._session.facts(), **stacked, **self._facts}

    def warm_up(self) -> None:
        """Leave everything as it is."""


def _open(spec: TrialSpec, engine: _OpeningEngine, dataset: Dataset) -> matching.Indices:
    """Open a trial for timing; returns the rows of a few steps."""
    workload = spec.workload
    data = trial_data(dataset, workload, spec.seeds)
    built = network(workload, dataset.info)
    engine.open(spec, built, data, matching.initial_weights(built, spec.seeds.init, spec.precision))
    batch = data.examples if workload.batch_size == "full" else workload.batch_size
    steps = TIMED_STEPS if spec.device == "cpu" else TIMED_STEPS_GPU
    return data.train.rows[: min(batch * steps, data.examples)]


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of three, after a first one that compiles."""
    return min([_seconds(work) for _ in range(4)][1:])


def _seconds(work: Callable[[], object]) -> float:
    clock = time.perf_counter()
    work()
    return time.perf_counter() - clock


def _noted(record: TrialRecord, note: str) -> TrialRecord:
    return replace(record, environment={**record.environment, "checkpoint": note}) if note else record


def _untimed(record: TrialRecord) -> TrialRecord:
    nothing = np.full(len(record.history["step_seconds"]), np.nan)
    return replace(
        record,
        history={**record.history, "step_seconds": nothing, "eval_seconds": nothing},
        timings={},
    )


def _config(spec: TrialSpec) -> str:
    """Identify the trials that one program can train: those of a rule differ in their learning rates too."""
    return content_hash(to_plain(replace(spec, seeds=Seeds(), optimizer=_rule(spec))))


def _rule(spec: TrialSpec) -> OptimizerConfig:
    """Take the learning rate out of an optimizer's config; a custom class keeps its arguments."""
    config: Any = spec.optimizer
    rule: OptimizerConfig = at_lr(config, 1.0)
    return rule


def _workload(spec: TrialSpec) -> str:
    return content_hash(to_plain(replace(spec, seeds=Seeds(), optimizer=SGD())))
