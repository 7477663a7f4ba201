"""Run a suite on this machine, one trial after the other, the optimizers of a block side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from optbench import backends, environment
from optbench.datasets import registry
from optbench.environment import Context
from optbench.execution import preflight, shared, stacks
from optbench.execution.checkpoint import MINUTES, Checkpoints
from optbench.execution.jobs import NOT_STACKED, Executor, InProcess, Setting, with_fact
from optbench.execution.tryout import Tryouts
from optbench.execution.worker import ignore
from optbench.records import declarations
from optbench.records.store import Store
from optbench.suite.declaration import Published
from optbench.suite.declaration import check as check_declared
from optbench.suite.entries import SuiteWorkload
from optbench.suite.expand import trials
from optbench.suite.spec import PlannedTrial, Suite, store_path
from optbench.suite.tuning_section import Budget, Tuning
from optbench.trial import Seeds, Status, TrialRecord, block_id
from optbench.tuning.journal import KEY as TUNING

#: A dry run: most epochs and seeds, on synthetic data.
SMOKE_EPOCHS = 2
SMOKE_SEEDS = 2
#: Steps between two evaluations of a dry run, where a budget is in steps.
SMOKE_STEPS = 3


class Observer(Protocol):
    """What a run reports while it works."""

    def planned(self, plan: Sequence[PlannedTrial], statuses: Mapping[str, Status]) -> None:
        """All trials of the suite, and the status of those that the store has."""

    def started(self, trial: PlannedTrial) -> None:
        """A trial begins."""

    def epoch(self, trial: PlannedTrial, epoch: int, row: Mapping[str, float]) -> None:
        """An epoch has been evaluated."""

    def finished(self, trial: PlannedTrial, record: TrialRecord) -> None:
        """A trial is in the store."""


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Seeds a part at a time: ``looks`` are numbers of them, ``stop`` says of a store if they suffice."""

    seeds: tuple[Seeds, ...]
    looks: tuple[int, ...]
    stop: Callable[[Path], bool]


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """How a run ended: trials in the plan, run now, and by status in the store.

    ``notes`` name what of the store was not as it was written, and is made again.
    """

    store: Path
    planned: int
    run: int
    completed: int
    diverged: int
    crashed: int
    notes: tuple[str, ...] = ()


def smoke(suite: Suite) -> Suite:
    """Cut a suite down to a dry run: synthetic data, few epochs and seeds, a name of its own."""

    def shorten(entry: SuiteWorkload) -> SuiteWorkload:
        workload, split = entry.workload, entry.workload.split
        if split.validation >= 1:
            facts = registry.info(workload.dataset)
            share = split.validation / (facts.train if split.source == "train" else facts.test)
            split = replace(split, validation=min(share, 0.5))
        epochs = min(workload.epochs, SMOKE_EPOCHS)
        workload = replace(workload, epochs=epochs, split=split, train_eval=30, smoke=True)
        if workload.steps is not None and workload.evaluate_every is not None:
            every = min(workload.evaluate_every, SMOKE_STEPS)
            workload = replace(workload, evaluate_every=every, steps=min(workload.steps, epochs * every))
        vary = entry.vary  # a searched network is trained on synthetic data too
        return replace(entry, workload=workload, vary=vary and (lambda values: shorten(vary(values))))

    design = suite.analysis.sequential
    return replace(
        suite,
        name=f"{suite.name}-smoke",
        title=f"{suite.title} (dry run on synthetic data: no result)",
        workloads=tuple(shorten(entry) for entry in suite.workloads),
        seeds=suite.seeds[:SMOKE_SEEDS],
        declared_seeds=suite.seeds[:SMOKE_SEEDS],
        analysis=replace(suite.analysis, sequential=design and replace(design, looks=None)),
        tuning=suite.tuning and _short(suite.tuning),
    )


def _short(tuning: Tuning) -> Tuning:
    """Cut tuning down to two settings and one seed."""
    short = replace(
        tuning,
        budget=Budget(trials=SMOKE_SEEDS),
        seeds=tuning.seeds[:1],
        widen=0,
        length=None,
        folds=tuning.folds and 2,
        winners=min(tuning.winners, SMOKE_SEEDS),
    )
    return replace(short, sampler="random") if tuning.sampler == "grid" else short


def plan(suite: Suite, context: Context | None = None) -> list[PlannedTrial]:
    """List the trials of a suite on this machine, in the order in which they run.

    To ask for a device may start a framework, with the context's settings.
    """
    return trials(suite, partial(backends.resolve_device, context=context))


def run_suite(
    suite: Suite,
    *,
    results: str | Path = "results",
    only: Callable[[PlannedTrial], bool] | None = None,
    fresh: bool = False,
    observer: Observer | None = None,
    checkpoint_minutes: float = MINUTES,
    executor: Callable[[], Executor] = InProcess,
    context: Context | None = None,
    declaration: Published | None = None,
    stages: Stages | None = None,
) -> RunOutcome:
    """Run what the store of a suite lacks.

    Parameters
    ----------
    suite : Suite
        The suite; :func:`smoke` makes a dry run of it.
    results : path
        Folder of all stores; this one's is ``results/<suite name>``.
    only : callable, optional
        Run only the trials for which this is true.
    fresh : bool
        Remove the store's trials and start over.
    observer : Observer, optional
        Gets the progress of the run.
    checkpoint_minutes : float
        A running trial is saved this often; 0 saves none.
    executor : callable, optional
        Makes what runs the trials, if there are any to run; one after the other in this process if not given.
    context : Context, optional
        Threads, steps and data folder; the defaults if not given. The suite's way of steps goes first.
    declaration : Published, optional
        What was published before; the suite must say the same.
    stages : Stages, optional
        Run the seeds a part at a time, and stop when those that have run suffice; the others leave the plan.

    Returns
    -------
    RunOutcome
        Counts over the whole plan.

    Raises
    ------
    StoreBusyError, StoreError
        If another run writes to the store, or it cannot be opened.
    DeclarationError
        If the suite is not what was declared.
    DataError
        If a dataset is missing, before anything is trained.
    BackendMissingError, DeviceError
        If this machine lacks what the suite asks for.

    Notes
    -----
    Completed and diverged trials are never run twice; crashed ones are tried again. Each trial is one
    transaction, so that an interruption loses what the running trials did since their last checkpoint,
    and nothing else.
    """
    context = (context or Context()).with_step(suite.engine.step)
    if declaration is not None:
        check_declared(suite, declaration)
    planned = plan(suite, context)
    shared.sweep()
    with (
        Store(store_path(suite, results), write=True) as store,
        store.writing(),
        declarations.unless_nothing_runs(store),
    ):
        checkpoints = Checkpoints.of_store(store.path, minutes=checkpoint_minutes)
        declarations.freeze(store, suite, fresh=fresh, published=declaration)
        if fresh:
            store.clear()
            checkpoints.remove()
        notes = tuple(f"{store.path}: {misfit}; it is made again" for misfit in store.repair().misfits)
        with Run(
            suite,
            store,
            only=only,
            observer=observer,
            checkpoints=checkpoints,
            executor=executor,
            context=context,
            stages=stages,
        ) as under_way:
            if suite.tuning is None:
                store.set_meta(**{TUNING: ""})
                ran = under_way.trials(planned, last=True)
            else:
                ran, planned = _tune_then_run(suite, under_way, store, context)
            planned = [trial for trial in planned if trial.id not in under_way.left_out]
        final = store.statuses()
        path = store.path
    found = [final.get(trial.id) for trial in planned]
    return RunOutcome(
        store=path,
        planned=len(planned),
        run=ran,
        completed=found.count("completed"),
        diverged=found.count("diverged"),
        crashed=found.count("crashed"),
        notes=notes,
    )


def _tune_then_run(suite: Suite, run: Run, store: Store, context: Context) -> tuple[int, list[PlannedTrial]]:
    """Spend the tuning budget, then train with what was found, and with the declared numbers if asked to."""
    from optbench.tuning import journal
    from optbench.tuning.search import tune, tuned, with_networks

    device = backends.resolve_device(suite.backends[0], suite.device, context)
    searched, ran = tune(suite, run, store, device)
    found = journal.read(store.meta())
    best = tuned(suite, found)
    if best is None or found is None:
        return ran, searched
    evaluation = plan(best, context)
    known = {trial.id for trial in evaluation}
    declared: list[PlannedTrial] = []
    if suite.tuning is not None and suite.tuning.untuned:
        networks = tuple(with_networks(suite, found))
        declared = [
            replace(trial, role="untuned")
            for trial in plan(replace(suite, workloads=networks), context)
            if trial.id not in known
        ]
    untuned = tuple(trial.id for trial in declared)
    store.set_meta(**{TUNING: replace(found, untuned=untuned).to_json()}, view=best.report_spec.to_json())
    together = [*searched, *evaluation, *declared]
    return ran + run.trials(together, last=True), together


class Run:
    """A run: it trains what it is given and the store lacks, and writes the records."""

    def __init__(
        self,
        suite: Suite,
        store: Store,
        *,
        only: Callable[[PlannedTrial], bool] | None = None,
        observer: Observer | None = None,
        checkpoints: Checkpoints | None = None,
        executor: Callable[[], Executor] = InProcess,
        context: Context | None = None,
        stages: Stages | None = None,
    ) -> None:
        self._stages = stages
        #: Ids of planned trials that were not needed.
        self.left_out: frozenset[str] = frozenset()
        self._context = context or Context()
        self._sizes: stacks.Sizes | None = None
        self._checkpoints = checkpoints
        self._make_executor = executor
        self._executor: Executor | None = None
        self._tryouts = Tryouts(self._context)
        self._suite, self._store, self._only, self._observer = suite, store, only, observer
        self._synthetic = any(entry.workload.smoke for entry in suite.workloads)
        self._facts: Mapping[str, Any] | None = None
        self.ids: list[str] = []
        same = suite.tuning is None and store.meta().get("hash") == suite.hash
        self._earlier = store.plan() if same else []
        store.set_meta(
            suite=suite.name,
            title=suite.title,
            source=suite.text,
            hash=suite.hash,
            view=suite.report_spec.to_json(),
            smoke="synthetic data, no result" if self._synthetic else "",
        )

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._executor is not None:
            self._executor.close()

    def trials(self, planned: Sequence[PlannedTrial], *, last: bool = False) -> int:
        """Make these the plan, run those without an outcome, and count what was run.

        The ``last`` trials of a run, its evaluation, are run in stages where there are some.
        """
        store, observer = self._store, self._observer
        self.ids = [trial.id for trial in planned]
        rows = [(key, t.workload, t.optimizer) for key, t in zip(self.ids, planned, strict=True)]
        store.set_plan([*rows, *self._recorded(planned)])
        statuses = store.statuses()
        if observer is not None:
            observer.planned(planned, statuses)
        todo = [
            trial
            for key, trial in zip(self.ids, planned, strict=True)
            if statuses.get(key, "crashed") == "crashed" and (self._only is None or self._only(trial))
        ]
        if self._checkpoints is not None:
            self._checkpoints.remove([key for key, status in statuses.items() if status != "crashed"])
        if self._stages is not None and last:
            return self._in_stages(self._stages, planned, todo)
        return self._train(planned, todo)

    def _in_stages(
        self, stages: Stages, planned: Sequence[PlannedTrial], todo: Sequence[PlannedTrial]
    ) -> int:
        """Run the seeds up to one look after the other, until the store has enough.

        Whether it has is asked of the records alone, so that a run that was interrupted goes on from there.
        """
        count, known = 0, set(stages.seeds)
        done: set[Seeds] = set()
        for look in stages.looks:
            before, done = done, set(stages.seeds[:look])
            part = [t for t in todo if t.spec.seeds in done - before or t.spec.seeds not in known]
            todo = [t for t in todo if t not in part]
            if part and self._store.statuses() and stages.stop(self._store.path):
                done = before
                break
            count += self._train(planned, part)
            if stages.stop(self._store.path):
                break
        recorded = self._store.statuses()
        rows = self._store.plan()
        by_id = {trial.id: trial.spec.seeds for trial in planned}
        kept = [row for row in rows if row[0] in recorded or by_id.get(row[0]) in done]
        self.left_out = frozenset(by_id) - {row[0] for row in kept}
        self._store.set_plan(kept)
        return count

    def _train(self, planned: Sequence[PlannedTrial], todo: Sequence[PlannedTrial]) -> int:
        """Run trials of the plan, and count them."""
        store, observer = self._store, self._observer
        if not todo:
            return 0
        if self._executor is None:
            self._executor = self._make_executor()
            folder = self._suite.path.parent if self._suite.path else None
            self._facts = environment.describe(folder)
        # Of a text made up for a dry run, enough for the longest windows.
        by_context = sorted(todo, key=lambda trial: trial.spec.workload.context or 0)
        workloads = {trial.spec.workload.dataset: trial.spec.workload for trial in by_context}
        data = {
            name: registry.of_workload(workload, data_dir=self._context.data_dir)
            for name, workload in workloads.items()
        }
        setting = Setting(
            context=self._context,
            datasets=data,
            facts=self._facts or {},
            checkpoints=self._checkpoints,
            started=observer.started if observer is not None else ignore,
            epoch=observer.epoch if observer is not None else ignore,
        )
        try:
            self._executor.prepare(todo)
            self._tryouts.check(todo, self._executor.call)
            preflight.check(todo, data, local=self._executor.is_local, call=self._executor.call)
            for job, records in self._executor.run(self._jobs(planned, todo, setting), setting):
                self._keep(job, records)
        except KeyboardInterrupt:
            for job, records in self._executor.drain():
                known = store.statuses()
                if any(known.get(record.trial_id, "crashed") == "crashed" for record in records):
                    self._keep(job, records)
            raise
        return len(todo)

    def _keep(self, job: stacks.Job, records: Sequence[TrialRecord]) -> None:
        """Store the records of a job that has ended."""
        if self._sizes is not None:
            reasons = [self._sizes.reason(trial) for trial in job]
            records = [with_fact(r, NOT_STACKED, reason) for r, reason in zip(records, reasons, strict=True)]
        self._store.add(*records)
        if self._checkpoints is not None:
            self._checkpoints.remove([r.trial_id for r in records if r.status != "crashed"])
        for trial, record in zip(job, records, strict=True):
            if self._observer is not None:
                self._observer.finished(trial, record)

    def _recorded(self, planned: Sequence[PlannedTrial]) -> list[tuple[str, str, str]]:
        """Rows of the earlier plan to keep: recorded trials of this suite file, of other seeds, say.

        Without them a run with ``--seeds 1`` would hide the records of the others. Where a suite is tuned,
        the labels of a trial depend on the search, so that nothing is kept.
        """
        now = set(self.ids)
        others = [row for row in self._earlier if row[0] not in now]
        if not others:  # as on every resumed run: nothing need be read
            return []
        blocks = {row.trial_id: row.block_id for row in self._store.summaries()}
        taken = {(t.workload, t.optimizer, block_id(t.spec)) for t in planned}
        return [
            (key, workload, optimizer)
            for key, workload, optimizer in others
            if key in blocks and (workload, optimizer, blocks[key]) not in taken
        ]

    def drop_checkpoints(self, trial_ids: Sequence[str]) -> None:
        """Remove what trials that will not go on have saved."""
        if self._checkpoints is not None and trial_ids:
            self._checkpoints.remove(trial_ids)

    def _jobs(
        self,
        planned: Sequence[PlannedTrial],
        todo: Sequence[PlannedTrial],
        setting: Setting,
    ) -> Iterator[stacks.Job]:
        """Cut the plan into trials to train together, and leave out what is done."""
        wanted = self._suite.engine.batch_seeds

        def measure(trials: Sequence[PlannedTrial]) -> stacks.StackSize:
            assert self._executor is not None
            return self._executor.best_size(trials, setting)

        missing = {id(trial) for trial in todo}
        sizes = self._sizes = stacks.Sizes(wanted, planned, known=self._store.meta(), measure=measure)
        left = [t for t in planned if id(t) in missing] if wanted == "off" else planned
        for job in stacks.jobs(left, sizes) if missing else ():
            if wanted == "auto":
                self._store.set_meta(
                    batch_seeds=json.dumps(sizes.found), batch_seeds_refused=json.dumps(sizes.refused)
                )
            if kept := tuple(trial for trial in job if id(trial) in missing):
                yield kept
