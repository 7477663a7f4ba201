"""How long a suite will take, before it is run: from the store's own timings, or a short calibration."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from optbench import backends, matching
from optbench.datasets import registry
from optbench.datasets.base import DatasetInfo, example_shape, network, trial_data, validation_count
from optbench.environment import Context
from optbench.errors import UserError
from optbench.execution import local, preflight
from optbench.models.layers import count_parameters, multiplications
from optbench.records.store import Store, StoreError
from optbench.suite.spec import PlannedTrial, Suite, store_path
from optbench.trial import Seeds, Split, TrialSpec, Workload, content_hash, custom_code, to_plain
from optbench.tuning.journal import Journal, read
from optbench.tuning.search import tuned

#: Steps that a calibration times, after a warm-up.
CALIBRATION_STEPS = 8
#: Multiplications that the examples of a calibration's step may take: some tenths of a second of one core.
CALIBRATION_WORK = 2 * 10**9
#: A step of this many seconds is timed twice and no more.
SLOW = 0.5
#: Seconds of calibrations after which a plan's other trials are estimated from them.
CALIBRATION_SECONDS = 5.0
#: Larger models are not calibrated.
MOST_PARAMETERS = 10**8
#: Seconds that a multiplication of the forward pass, and each step beside them, costs a training: a guess.
MULTIPLICATION, STEP = 1e-10, 2e-4


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds of one trial if it runs its whole budget, and where the number comes from."""

    seconds: float
    source: Literal["store", "calibration", "guess"]


@dataclass(frozen=True, kw_only=True)
class PlannedGroup:
    """Trials that differ only in their seeds: how many, how many the store lacks, and the cost of one."""

    workload: str
    optimizer: str
    backend: str
    device: str
    epochs: int
    trials: int
    missing: int
    estimate: Estimate
    role: Literal["evaluation", "tuning", "untuned"] = "evaluation"
    #: Where the budget is in steps.
    steps: int | None = None


def estimate(
    suite: Suite, *, results: str | Path = "results", context: Context | None = None
) -> list[PlannedGroup]:
    """Estimate the cost of a suite.

    Parameters
    ----------
    suite : Suite
        The suite.
    results : path
        Folder of all stores; timings of trials that ran on this plan are used first.
    context : Context, optional
        As of the trials; the defaults if not given.

    Returns
    -------
    list of PlannedGroup
        One for each workload, backend and optimizer. A calibration times a few steps on synthetic data of the
        right shape, so that nothing is downloaded; early stopping makes a trial cheaper than estimated.

    Raises
    ------
    BackendMissingError, DeviceError
        If this machine lacks what the suite asks for.
    """
    context = (context or Context()).with_step(suite.engine.step)
    stored, statuses, journal = _stored(store_path(suite, results))
    groups: dict[tuple[object, ...], list[PlannedTrial]] = {}
    for trial in local.plan(tuned(suite, journal) or suite, context):  # trials of a suite share their parts
        spec = trial.spec
        parts = (id(spec.workload), id(spec.optimizer), spec.backend, spec.device, spec.precision)
        groups.setdefault(parts, []).append(trial)
    planned = []
    calibrations = _Calibrations(context)
    for members in groups.values():
        first = members[0]
        if known := stored.get(_seedless(to_plain(first.spec))):
            cost = Estimate(seconds=statistics.median(known), source="store")
        else:
            cost = calibrations.estimate(first.spec)
        done = sum(statuses.get(t.id, "crashed") != "crashed" for t in members)
        planned.append(
            PlannedGroup(
                workload=first.workload,
                optimizer=first.optimizer,
                backend=first.spec.backend,
                device=first.spec.device,
                epochs=first.spec.workload.epochs,
                steps=first.spec.workload.steps,
                trials=len(members),
                missing=len(members) - done,
                estimate=cost,
            )
        )
    return [*_tuning(suite, planned, journal), *planned, *_untuned(suite, planned, journal)]


def _tuning(suite: Suite, planned: Sequence[PlannedGroup], journal: Journal | None) -> list[PlannedGroup]:
    """Cost of tuning, from that of the evaluation; a budget in seconds is its own cost."""
    tuning = suite.tuning
    if tuning is None:
        return []
    found = []
    done = list(journal.trials()) if journal is not None and journal.of == suite.hash else []
    for entry in suite.workloads:
        count = tuning.trainings(entry.workload)
        whole = entry.workload.lasting(tuning.whole(entry.workload))
        for group in planned:
            if group.workload != entry.label or group.backend != suite.backends[0]:
                continue
            mine = sum(
                (s.workload, s.optimizer) == (group.workload, group.optimizer)
                for s in (journal.studies[number] for _, number, _, _ in done if journal is not None)
            )
            each = group.estimate.seconds
            if count is None:
                count_here, each = 1, tuning.budget.seconds or 0.0
            else:
                count_here, each = (
                    count,
                    each * tuning.epochs(entry.workload) / (count * entry.workload.epochs),
                )
            finished = journal is not None and journal.done and bool(done)
            found.append(
                replace(
                    group,
                    role="tuning",
                    epochs=whole.epochs,
                    steps=whole.steps,
                    trials=count_here,
                    missing=0 if finished else max(0, count_here - mine),
                    estimate=replace(group.estimate, seconds=each),
                )
            )
    return found


def _untuned(suite: Suite, planned: Sequence[PlannedGroup], journal: Journal | None) -> list[PlannedGroup]:
    if suite.tuning is None or not suite.tuning.untuned:
        return []
    known = journal is not None and journal.done and journal.of == suite.hash
    return [
        replace(group, role="untuned", missing=min(group.missing, group.trials) if known else group.trials)
        for group in planned
    ]


class _Calibrations:
    """Calibrations of a plan: one for all learning rates of a rule, and no more once they took long.

    The rest is estimated by its work, at the rate of what was timed. So is a model of very many parameters,
    which would take minutes and most of the memory, or at a guessed rate where nothing was timed.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._began = time.perf_counter()
        self._found: dict[str, float] = {}
        self._rates: list[float] = []

    def estimate(self, spec: TrialSpec) -> Estimate:
        facts = registry.info(spec.workload.dataset)
        if count_parameters(network(spec.workload, facts)) > MOST_PARAMETERS:
            preflight.check_memory(spec, facts)
            return Estimate(seconds=work(spec) * statistics.median(self._rates or [1.0]), source="guess")
        return Estimate(seconds=self._seconds(spec), source="calibration")

    def _seconds(self, spec: TrialSpec) -> float:
        plain = to_plain(spec)
        words = {name: value for name, value in plain["optimizer"].items() if not isinstance(value, float)}
        key = _seedless({**plain, "optimizer": words})
        if key not in self._found:
            if self._rates and time.perf_counter() - self._began > CALIBRATION_SECONDS:
                self._found[key] = statistics.median(self._rates) * work(spec)
            else:
                self._found[key] = self._calibrated(spec)
                self._rates.append(self._found[key] / work(spec))
        return self._found[key]

    def _calibrated(self, spec: TrialSpec) -> float:
        """Calibrate, custom code in a process of its own; a guess where it fails, as a run will say."""
        if not custom_code(spec):
            return calibrate(spec, self._context)
        from optbench.execution.choice import isolated  # here, as it needs this module

        trial = PlannedTrial(spec=spec, workload="", optimizer="")
        with isolated([trial], self._context) as executor:
            try:
                return executor.call(calibrate, spec, self._context)
            except UserError:
                raise
            except (Exception, SystemExit):
                return work(spec) * statistics.median(self._rates or [1.0])


def work(spec: TrialSpec) -> float:
    """Guess the seconds of a trial by its multiplications and steps, on a core of a usual machine.

    It may be wrong by a factor of several, and is for comparison with others.
    """
    return _work(spec.workload)


@lru_cache(maxsize=1024)  # a plan asks for each of its trials, several times
def _work(workload: Workload) -> float:
    facts = registry.info(workload.dataset)
    multiplied = multiplications(network(workload, facts))
    n_train, _, _ = _sizes(workload, facts)
    batch = n_train if workload.batch_size == "full" else workload.batch_size
    examples = n_train if workload.evaluate_every is None else workload.evaluate_every * batch
    return workload.epochs * (examples * multiplied * MULTIPLICATION + math.ceil(examples / batch) * STEP)


def calibrate(spec: TrialSpec, context: Context) -> float:
    """Seconds that a trial would take, from a few timed steps and one evaluation on synthetic data."""
    workload = spec.workload
    facts = registry.info(workload.dataset)
    n_train, n_validation, n_test = _sizes(workload, facts)
    batch = n_train if workload.batch_size == "full" else min(workload.batch_size, n_train)
    steps = math.ceil(n_train / batch)
    preflight.check_memory(spec, facts)
    preflight.check_batches(spec, facts)
    built = network(workload, facts)
    # A large batch is timed by a part of it, and few examples of a large model are evaluated.
    most = max(2, CALIBRATION_WORK // (multiplications(built) + math.prod(example_shape(workload, facts))))
    part = min(batch, most)
    timed = max(1, min(CALIBRATION_STEPS, steps, most // part))
    made = registry.synthetic(workload.dataset, train=2 * part * timed, test=min(1000, most))
    small = replace(
        spec,
        workload=replace(workload, batch_size=part, split=Split(validation=0.5, how="random")),
    )
    data = trial_data(made, small.workload, spec.seeds, train_eval=1)
    weights = matching.initial_weights(built, spec.seeds.init, spec.precision)
    session = backends.engine(spec.backend, context).open(small, built, data, weights)
    session.warm_up()
    rows = data.train.rows[: part * timed]
    step = _seconds(lambda: session.train_epoch(rows[:part], 1))
    if step >= SLOW:  # a first step may import or compile what the others find done
        step = min(step, _seconds(lambda: session.train_epoch(rows[:part], 1)))
    if step < SLOW:
        step = min(_seconds(lambda: session.train_epoch(rows, 1)) for _ in range(2)) / timed
    step *= batch / part
    session.evaluate("test")
    per_example = min(_seconds(lambda: session.evaluate("test")) for _ in range(2)) / len(data.test)
    evaluated = n_validation + (n_train if workload.train_eval == "all" else workload.train_eval)
    steps = workload.evaluate_every or steps
    return workload.epochs * (steps * step + evaluated * per_example) + n_test * per_example


def _sizes(workload: Workload, facts: DatasetInfo) -> tuple[int, int, int]:
    """Training, validation and test examples."""
    split = workload.split
    validation = validation_count(split, facts.train if split.source == "train" else facts.test)
    train = facts.train - (validation if split.source == "train" else 0)
    window = workload.context or 1
    return train // window, validation // window, facts.test // window


def _stored(path: Path) -> tuple[dict[str, list[float]], Mapping[str, str], Journal | None]:
    timings: dict[str, list[float]] = {}
    try:
        with Store(path / "store.sqlite") as store:
            for trial in store.trials():
                if "total" in trial.timings and trial.status == "completed":
                    timings.setdefault(_seedless(trial.spec), []).append(trial.timings["total"])
            return timings, store.statuses(), read(store.meta())
    except StoreError:
        return {}, {}, None


def _seedless(spec: Mapping[str, Any]) -> str:
    return content_hash({**spec, "seeds": to_plain(Seeds())})


def _seconds(work: Any) -> float:
    clock = time.perf_counter()
    work()
    return time.perf_counter() - clock
