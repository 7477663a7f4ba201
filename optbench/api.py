"""The Python API behind the command line; ``import optbench`` offers these names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optbench.frames import Results, load_results
from optbench.report.build import DEFAULT_FORMATS, ReportFiles, file_name, write_report
from optbench.report.combine import gather, with_analysis
from optbench.store import Store, StoreError
from optbench.suite import PlannedTrial, Suite, load_suite, store_path, suite_from_view

if TYPE_CHECKING:
    from optbench.execution.jobs import Executor
    from optbench.execution.local import Observer, RunOutcome


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
        A dry run on made data into a store of its own.
    fresh : bool
        Forget what the store has.
    observer : Observer, optional
        Is told what happens.
    checkpoint_minutes : float
        A trial under way is saved this often, and goes on from there after an interruption; 0 saves none.
    workers : int or "auto"
        Trials side by side, each in a process of its own; 1 trains in this one.
    time_limit : float, optional
        Seconds that a trial may take; needs a process of its own, so one worker is started at least.
    ray : mapping, optional
        Run on a Ray cluster: arguments of :class:`optbench.execution.ray.RayExecutor`.

    Returns
    -------
    RunOutcome
        Where the store is and how the trials ended. See :func:`optbench.execution.local.run_suite` for the
        exceptions.
    """
    # Reports need nothing of what trains.
    from optbench.execution import local

    loaded = suite if isinstance(suite, Suite) else load_suite(suite)
    if smoke:
        loaded = local.smoke(loaded)
    return local.run_suite(
        loaded,
        results=results,
        only=only,
        fresh=fresh,
        observer=observer,
        checkpoint_minutes=checkpoint_minutes,
        executor=_executor(workers, time_limit, ray),
    )


def _executor(
    workers: int | Literal["auto"], time_limit: float | None, ray: Mapping[str, Any] | None
) -> Callable[[], Executor]:
    from optbench.execution.jobs import InProcess

    def cluster() -> Executor:
        from optbench.execution.ray import RayExecutor

        return RayExecutor(**(ray or {}))

    if ray is not None:
        return cluster
    if workers == 1 and time_limit is None:
        return InProcess

    def pool() -> Executor:
        from optbench.execution.pool import AutoPool, Pool

        if workers == "auto":
            return AutoPool(time_limit=time_limit)
        return Pool(workers, time_limit=time_limit)

    return pool


def report(
    *suites: Suite | str | Path,
    results: str | Path = "results",
    out: str | Path | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
    baseline: str | None = None,
    primary: str | None = None,
    alpha: float | None = None,
    correction: str | None = None,
) -> ReportFiles:
    """Write the report of one suite, or of several together: page, tables, exports and plots.

    Parameters
    ----------
    *suites : Suite or path
        Suites, their files, or stores; a store's report follows the suite that it was last run with.
    results : path
        Folder of all stores.
    out : path, optional
        Where to write; ``report`` beside the store if not given, for several stores in a folder of all their
        names beside theirs.
    formats : sequence of str
        See :func:`optbench.report.build.write_report`.
    baseline, primary, alpha, correction : optional
        Test this instead of what the (first) suite declares.

    Returns
    -------
    ReportFiles
        What was written.
    """
    suite, found, folder = gather_results(*suites, results=results)
    suite = with_analysis(suite, baseline=baseline, primary=primary, alpha=alpha, correction=correction)
    return write_report(found, suite, Path(out) if out else folder / "report", formats=formats)


def gather_results(
    *suites: Suite | str | Path, results: str | Path = "results"
) -> tuple[Suite, Results, Path]:
    """Find and read stores for one analysis; see :func:`optbench.report.combine.gather`.

    Returns
    -------
    suite : Suite
    results : Results
    folder : Path
        The store's folder, or for several a folder of all their names beside the first.
    """
    if not suites:
        raise StoreError("name at least one suite or store")
    stores = [find_store(suite, results=results) for suite in suites]
    suite, found = gather(stores)
    folder = stores[0][1].parent
    return suite, found, folder if len(stores) == 1 else folder.with_name(file_name(suite.name))


def find_store(suite: Suite | str | Path, *, results: str | Path = "results") -> tuple[Suite, Path]:
    """Find a suite and its store, given the suite, its file, the store, or the store's folder.

    Raises
    ------
    SuiteError
        If the suite file is not one.
    StoreError
        If there is no store.
    """
    if not isinstance(suite, Suite):
        path = Path(suite)
        if path.is_dir() or path.suffix == ".sqlite":
            with Store(path) as store:
                return _suite_of(store), store.path
        suite = load_suite(path)
    folder = store_path(suite, results)
    with Store(folder / "store.sqlite") as store:
        return suite, store.path


def _suite_of(store: Store) -> Suite:
    meta = store.meta()
    if "view" not in meta:
        raise StoreError(f"{store.path}: names no suite; give the suite file instead")
    try:
        return suite_from_view(json.loads(meta["view"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{store.path}: its suite is damaged ({error}); give the suite file instead"
        ) from None


__all__ = ["find_store", "gather_results", "load_results", "load_suite", "report", "run"]
