"""A run from the suite to its outcome: who trains, and when it has enough.

It imports no statistics, so that training begins sooner.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optbench.environment import Context
from optbench.execution import local
from optbench.suite.declaration import read as read_declaration
from optbench.suite.load import load_suite
from optbench.suite.spec import PlannedTrial, Suite, SuiteError, store_path

if TYPE_CHECKING:
    from optbench.execution.jobs import Executor
    from optbench.execution.local import Observer, RunOutcome, Stages


def run(
    suite: Suite | str | Path,
    *,
    results: str | Path = "results",
    only: Callable[[PlannedTrial], bool] | None = None,
    smoke: bool = False,
    fresh: bool = False,
    observer: Observer | None = None,
    checkpoint_minutes: float = 5.0,
    workers: int | Literal["auto"] = 1,
    time_limit: float | None = None,
    ray: Mapping[str, Any] | None = None,
    log: Sequence[str] = (),
    threads: int | None = None,
    data_dir: str | Path | None = None,
    declaration: str | Path | None = None,
    until_decided: bool = False,
) -> RunOutcome:
    """Train the trials of a suite that its store lacks.

    Parameters
    ----------
    suite : Suite or path
        A suite, or its file.
    results : path
        Folder of all stores.
    only : callable, optional
        Run only the trials for which this is true.
    smoke : bool
        A dry run on synthetic data into a store of its own.
    fresh : bool
        Forget what the store has.
    observer : Observer, optional
        Is told what happens.
    checkpoint_minutes : float
        A running trial is saved this often, and goes on from there after an interruption; 0 saves none.
    workers : int or "auto"
        Trials side by side, each in a process of its own. With 1 they are trained one after the other in this
        process, or in another one where the suite has custom code, which could end this one.
    time_limit : float, optional
        Seconds that a trial may take; needs a process of its own, so one worker is started at least.
    ray : mapping, optional
        Run on a Ray cluster: arguments of :class:`optbench.execution.ray.RayExecutor`.
    log : sequence of str
        Trackers that get every new trial too: ``tensorboard``, ``mlflow``, ``wandb``.
    threads : int, optional
        CPU threads of a trial, part of its bits; the environment variable ``OPTBENCH_THREADS`` if not given,
        else 1. JAX and TensorFlow cannot change them once they have started in a process.
    data_dir : path, optional
        Folder in which data are looked for first and to which they are downloaded; ``OPTBENCH_DATA`` if not
        given.
    declaration : path, optional
        A declaration of ``optbench plan --freeze``, published before the run; the suite must say the same.
    until_decided : bool
        Run the seeds up to one look of the suite's sequential design after the other, and stop when every
        comparison of its confirmatory question is decided.

    Returns
    -------
    RunOutcome
        Where the store is and how the trials ended. See :func:`optbench.execution.local.run_suite` for the
        exceptions.

    Raises
    ------
    WorkersError
        If workers are asked for in a script that starts the run outside ``if __name__ == "__main__":``.
    UserError
        If the threads are no whole number from 1, or the framework runs with others already.

    Notes
    -----
    A trial whose code ends its process, by ``os._exit`` or a crash in native code, is recorded as crashed and
    the run goes on. That takes a process of its own; see ``workers``.
    """
    context = Context.from_environment(threads=threads, data_dir=data_dir)
    executor = _executor(context, workers, time_limit, ray)
    loaded = suite if isinstance(suite, Suite) else load_suite(suite)
    if smoke:
        loaded = local.smoke(loaded)
    if log:
        from optbench.execution.trackers import Tracked

        observer = Tracked(observer, log, suite=loaded.name, folder=store_path(loaded, results))
    return local.run_suite(
        loaded,
        results=results,
        only=only,
        fresh=fresh,
        observer=observer,
        checkpoint_minutes=checkpoint_minutes,
        executor=executor,
        context=context,
        declaration=None if declaration is None else read_declaration(Path(declaration)),
        stages=_stages(loaded, only) if until_decided else None,
    )


def _stages(suite: Suite, only: Callable[[PlannedTrial], bool] | None) -> Stages:
    """The looks of a suite's design, each with the question whether all is decided."""
    from optbench.execution.local import Stages
    from optbench.records.frames import load_results
    from optbench.report.across import across
    from optbench.report.leaderboard import leaderboards
    from optbench.report.sequential import standing

    spec, design = suite.report_spec, suite.analysis.sequential
    if design is None:
        raise SuiteError(
            f"{suite.path or suite.name}: analysis.sequential: is missing; looks before all seeds are run "
            "are declared there, as in `analysis: {sequential: obrien-fleming}`"
        )
    if only is not None:
        raise SuiteError(
            "until decided: a part of the optimizers or workloads decides no comparison; run all"
        )

    def stop(store: Path) -> bool:
        boards = leaderboards(load_results(store), spec)
        found = standing(boards, across(boards, spec), spec)
        return found is not None and found.stop

    return Stages(seeds=spec.seeds, looks=design.planned(len(spec.seeds)), stop=stop)


def _executor(
    context: Context,
    workers: int | Literal["auto"],
    time_limit: float | None,
    ray: Mapping[str, Any] | None,
) -> Callable[[], Executor]:
    """What makes the executor once there are trials to run; refuses now what cannot work."""
    if ray is not None:
        from optbench.execution.ray import RayExecutor

        return partial(RayExecutor, context, **ray)
    from optbench.execution.choice import AutoPool, OneByOne
    from optbench.execution.pool import Pool
    from optbench.execution.worker import check_main_guard

    if workers != 1 or time_limit is not None:
        check_main_guard(f"workers={workers}" if workers != 1 else "a time limit")
    if workers == "auto":
        return partial(AutoPool, context, time_limit=time_limit)
    if workers == 1 and time_limit is None:
        return partial(OneByOne, context)
    return partial(Pool, workers, context, time_limit=time_limit)
