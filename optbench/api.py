"""The Python API behind the command line; ``import optbench`` offers these names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from optbench.execution import local
from optbench.execution.local import Observer, RunOutcome
from optbench.frames import load_results
from optbench.report.build import ReportFiles, write_report
from optbench.store import Store, StoreError
from optbench.suite import PlannedTrial, Suite, load_suite, suite_from_view


def run(
    suite: Suite | str | Path,
    *,
    results: str | Path = "results",
    only: Callable[[PlannedTrial], bool] | None = None,
    smoke: bool = False,
    fresh: bool = False,
    observer: Observer | None = None,
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

    Returns
    -------
    RunOutcome
        Where the store is and how the trials ended. See :func:`optbench.execution.local.run_suite` for the
        exceptions.
    """
    loaded = suite if isinstance(suite, Suite) else load_suite(suite)
    if smoke:
        loaded = local.smoke(loaded)
    return local.run_suite(loaded, results=results, only=only, fresh=fresh, observer=observer)


def report(
    suite: Suite | str | Path, *, results: str | Path = "results", out: str | Path | None = None
) -> ReportFiles:
    """Write the report of a suite: page, tables and plots.

    Parameters
    ----------
    suite : Suite or path
        A suite, its file, or a store; a store's report follows the suite that it was last run with.
    results : path
        Folder of all stores.
    out : path, optional
        Where to write; ``report`` beside the store if not given.

    Returns
    -------
    ReportFiles
        What was written.
    """
    loaded, store = find_store(suite, results=results)
    return write_report(load_results(store), loaded, Path(out) if out else store.parent / "report")


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
    folder = local.store_path(suite, results)
    with Store(folder / "store.sqlite") as store:
        return suite, store.path


def _suite_of(store: Store) -> Suite:
    meta = store.meta()
    if "view" not in meta:
        raise StoreError(f"{store.path}: names no suite; give the suite file instead")
    return suite_from_view(json.loads(meta["view"]))


__all__ = ["find_store", "load_results", "load_suite", "report", "run"]
