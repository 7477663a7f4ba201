"""Many machines: jobs as Ray tasks, records streamed back to the one writer."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from optbench.datasets.base import Dataset
from optbench.environment import LIBRARY_THREADS, Context, now, pip_hint, set_framework_variables
from optbench.errors import UserError
from optbench.execution.checkpoint import Checkpoints
from optbench.execution.jobs import LAST, DatasetKey, Result, Setting, crashed, measure_stack, run_job
from optbench.execution.pool import ATTEMPTS, blocks_first
from optbench.execution.stacks import Job, StackSize
from optbench.suite.spec import PlannedTrial
from optbench.suite.validation import one_line
from optbench.trial import TrialRecord, TrialSpec

#: Tasks handed to Ray beyond those that run: enough for its scheduler, few enough to keep the plan's order.
AHEAD = 4
#: Times that a cluster of this machine's own is started.
STARTS = 2
#: Seconds between two looks at what has ended.
EVERY = 0.5


class RayError(UserError, RuntimeError):
    """A cluster that cannot be used; the message says why and what to do."""


class RayExecutor:
    """Trials as tasks of a Ray cluster; see :class:`optbench.execution.jobs.Executor`.

    Parameters
    ----------
    context : Context, optional
        Settings of the trials; the defaults if not given.
    address : str, optional
        Of a running cluster, as in ``ray start``; a cluster of this machine's own if not given.
    cpus, gpus : float
        What a trial holds of its node while it runs; parts of a GPU are allowed.

    Raises
    ------
    RayError
        If Ray is not installed or the cluster cannot be reached.

    Notes
    -----
    A dataset goes to each node once, through Ray's object store, and is mapped into the workers' memory. A
    job whose node is lost is run again on another one, from its checkpoint where the nodes see the store's
    folder.
    """

    is_local = False

    def __init__(
        self,
        context: Context | None = None,
        *,
        address: str | None = None,
        cpus: float = 1,
        gpus: float = 0,
    ) -> None:
        context = context or Context()
        set_framework_variables({"RAY_USAGE_STATS_ENABLED": "0"})
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError:
            raise RayError(
                f"--executor ray: Ray is not installed; bring it with `{pip_hint('ray')}`"
            ) from None
        self._join(address, dict.fromkeys(LIBRARY_THREADS, str(context.threads)))
        ray = self._ray
        self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=ATTEMPTS)(_work)
        self._shared: dict[DatasetKey, Any] = {}
        self._cpus, self._gpus = cpus, gpus
        self._pending: dict[Any, Job] = {}

    def _join(self, address: str | None, variables: Mapping[str, str]) -> None:
        """Join a cluster, or start one; a busy machine may need a second time for that."""
        for number in range(STARTS):
            try:
                self._ray.init(
                    address=address,
                    namespace="optbench",
                    log_to_driver=False,
                    logging_level="error",
                    runtime_env={"env_vars": dict(variables)},
                    **({} if address else {"include_dashboard": False}),
                )
            except Exception as error:  # Ray raises plain ones where its processes do not start in time
                why = one_line(error)
                if address:
                    raise RayError(
                        f"--ray-address {address}: no Ray cluster answers ({why}); start one with "
                        "`ray start --head` and give its address, or leave the option out"
                    ) from None
                self.close()
                if number + 1 == STARTS:
                    raise RayError(
                        f"--executor ray: Ray does not start on this machine ({why}); where it is busy run "
                        "the same command again, or take --workers in place of --executor ray"
                    ) from None
            else:
                return

    def prepare(self, trials: Sequence[PlannedTrial]) -> None:
        """See :class:`optbench.execution.jobs.Executor`; the cluster is there already."""

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """See :class:`optbench.execution.jobs.Executor`; called here."""
        return function(*arguments)

    def best_size(self, trials: Sequence[PlannedTrial], setting: Setting) -> StackSize:
        """See :class:`optbench.execution.jobs.Executor`; measured on a node, with what a trial holds of it.

        The machine that starts the run may have no GPU.
        """
        specs = tuple(trial.spec for trial in trials)
        data = self._share(specs[0].workload.dataset, setting)
        measure = self._ray.remote(num_cpus=self._cpus, num_gpus=self._gpus)(measure_stack)
        try:
            size: StackSize = self._ray.get(measure.remote(specs, data, setting.context))
        except self._ray.exceptions.RayError as error:
            return StackSize(1, refused=f"not measured: {one_line(error)}")
        return size

    def run(self, jobs: Iterable[Job], setting: Setting) -> Iterator[tuple[Job, list[TrialRecord]]]:
        """See :class:`optbench.execution.jobs.Executor`. Records are marked as made side by side."""
        waiting = iter(blocks_first(jobs))
        pending = self._pending
        pending.clear()
        started = now()
        while True:
            slots = self._slots()
            facts = {**setting.facts, "concurrent": slots}
            while len(pending) < slots + AHEAD and (job := next(waiting, None)) is not None:
                for trial in job:
                    setting.started(trial)
                data = self._share(job[0].spec.workload.dataset, setting)
                specs = tuple(trial.spec for trial in job)
                pending[self._submit(specs, data, facts, setting)] = job
            if not pending:
                return
            done, _ = self._ray.wait(list(pending), num_returns=1, timeout=EVERY)
            for reference in done:
                job = pending[reference]
                try:
                    records = self._ray.get(reference)
                except self._ray.exceptions.RayError as error:
                    self._check_node(error)
                    reason = f"Ray lost it {ATTEMPTS + 1} times: {error}"
                    records = [crashed(t.spec, reason, environment=facts, started=started) for t in job]
                yield job, records
                del pending[reference]  # once it is stored: until then drain() has it

    def _check_node(self, error: Exception) -> None:
        """Raise where Ray's process of this machine is gone: no trial is to blame, and none can be run."""
        ray = self._ray
        here = ray.get_runtime_context().get_node_id()
        try:
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        except (ray.exceptions.RayError, RuntimeError):
            alive = set()
        if here not in alive:
            raise RayError(
                f"Ray has ended on the machine of this run ({one_line(error)}); what is finished is in the "
                "store, and the same command goes on from there"
            ) from None

    def drain(self) -> Iterator[tuple[Job, list[TrialRecord]]]:
        """See :class:`optbench.execution.jobs.Executor`."""
        waiting = list(self._pending)
        done, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=LAST) if waiting else ([], [])
        for reference in done:
            with contextlib.suppress(self._ray.exceptions.RayError):
                yield self._pending[reference], self._ray.get(reference)

    def close(self) -> None:
        """See :class:`optbench.execution.jobs.Executor`. A cluster that was there before stays."""
        with contextlib.suppress(self._ray.exceptions.RayError, RuntimeError, OSError):  # it may be gone
            self._ray.shutdown()

    def _submit(
        self, specs: tuple[TrialSpec, ...], data: Any, facts: Mapping[str, Any], setting: Setting
    ) -> Any:
        return self._task.remote(specs, data, setting.context, facts, _absolute(setting.checkpoints))

    def _share(self, key: DatasetKey, setting: Setting) -> Any:
        if key not in self._shared:
            dataset = setting.datasets[key]
            _ = dataset.digest  # computed once, here
            self._shared[key] = self._ray.put(dataset)
        return self._shared[key]

    def _slots(self) -> int:
        """Count the trials that the cluster runs at once; nodes may come and go."""
        total = self._ray.cluster_resources()
        fits = [
            total.get(name, 0) / each for name, each in (("CPU", self._cpus), ("GPU", self._gpus)) if each
        ]
        slots = int(min(fits, default=1))
        if slots < 1:
            raise RayError(
                f"the Ray cluster has {total.get('CPU', 0):g} CPUs and {total.get('GPU', 0):g} GPUs, a "
                f"trial wants {self._cpus:g} and {self._gpus:g}; ask for less with --cpus-per-trial and "
                "--gpus-per-trial"
            )
        return slots


def _absolute(checkpoints: Checkpoints | None) -> Checkpoints | None:
    return checkpoints and replace(checkpoints, folder=checkpoints.folder.absolute())


def _work(
    specs: tuple[TrialSpec, ...],
    dataset: Dataset,
    context: Context,
    facts: Mapping[str, Any],
    checkpoints: Checkpoints | None,
) -> list[TrialRecord]:
    """Run a job on a node; its facts are the node's own, but for the suite's git state."""
    from optbench import environment

    here = environment.describe(None)
    git = {name: facts[name] for name in ("git", "concurrent") if name in facts}
    if checkpoints is not None and not checkpoints.store_is_here():
        checkpoints = None
    return run_job(specs, dataset, context=context, facts={**here, **git}, checkpoints=checkpoints)
