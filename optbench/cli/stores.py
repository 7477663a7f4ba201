"""``optbench rerun``, ``merge`` and ``export``: trust a store, and carry it elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from optbench.cli.common import (
    DataDirOption,
    ResultsOption,
    StoreOption,
    TrialArgument,
    errors,
)


def rerun(
    trial: TrialArgument,
    store: StoreOption = None,
    results: ResultsOption = Path("results"),
    folder: Annotated[Path, typer.Option(help="Where the file of an optimizer of your own is.")] = Path(),
    data_dir: DataDirOption = None,
) -> None:
    """Train one recorded trial again and compare; the store stays as it is.

    Says identical (every bit), equal (within rounding) or different, and what may be the cause. Exit code 1
    if different. Use the number of threads of the record (OPTBENCH_THREADS).
    """
    with errors():
        from optbench.cli import listing
        from optbench.environment import Context
        from optbench.verification import rerun as reruns

        context = Context.from_environment(data_dir=data_dir)
        _, found = listing.find(trial, stores=[store] if store else listing.stores(results))
        outcome = reruns.rerun(found, folder=folder, context=context)
        print(f"{found.trial_id}: {outcome.verdict}")
        for line in outcome.lines:
            print(f"  {line}")
        if outcome.verdict == "different":
            raise typer.Exit(1)


def merge(
    stores: Annotated[list[Path], typer.Argument(help="Stores of one suite, or their folders.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new store.")],
) -> None:
    """Write the trials of several stores of one suite into a new store."""
    with errors():
        from optbench.records import merge as merging

        merged = merging.merge(stores, out)
        for line in merged.conflicts:
            print(line)
        print(f"{merged.trials} trials, {merged.shared} of them in several stores: {merged.store}")


def export(
    store: Annotated[Path, typer.Argument(help="Store, or its folder.")],
    to: Annotated[Literal["csv", "json", "parquet"], typer.Option(help="Format.")] = "csv",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the tables.")] = Path(),
) -> None:
    """Write a store as tables: trials, epochs, and where it was tuned tuning and untuned."""
    with errors():
        from optbench.report.exports import write_frames

        for path in write_frames(store, out, to):
            print(path)
