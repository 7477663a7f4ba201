"""``optbench rerun``, ``merge``, ``export`` and ``sign``: trust a store, and carry it elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from optbench.cli.common import (
    NOT_AS_WRITTEN,
    DataDirOption,
    ResultsOption,
    StoreOption,
    TrialArgument,
    TrustOption,
    asked_to_trust,
    errors,
    fail,
    tell,
)


def rerun(
    trial: TrialArgument,
    store: StoreOption = None,
    results: ResultsOption = Path("results"),
    folder: Annotated[Path, typer.Option(help="Where the file of an optimizer of your own is.")] = Path(),
    data_dir: DataDirOption = None,
    trust: TrustOption = False,
) -> None:
    """Train one recorded trial again and compare; the store stays as it is.

    Says identical (every bit), equal (within rounding) or different, and what may be the cause. Exit code 1
    if different. A trial with code of its own is trained only with --trust, if the code is what it was.
    Use the number of threads of the record (OPTBENCH_THREADS).
    """
    with errors():
        from optbench.cli import listing
        from optbench.environment import Context
        from optbench.records.store import Store
        from optbench.verification import rerun as reruns

        context = Context.from_environment(data_dir=data_dir)
        path, found = listing.find(trial, stores=[store] if store else listing.stores(results))
        with Store(path) as opened:
            verified = opened.verify([found.trial_id])
        outcome = reruns.rerun(
            found,
            folder=folder,
            context=context,
            trust=asked_to_trust(found, folder, trust=trust),
        )
        for sentence in verified.sentences:
            tell(f"{path}: {sentence}", file=sys.stderr)
        tell(f"{found.trial_id}: {outcome.verdict}")
        for line in outcome.lines:
            tell(f"  {line}")
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
            tell(line)
        tell(f"{merged.trials} trials, {merged.shared} of them in several stores: {merged.store}")
        if merged.left_out:
            words = f"{merged.left_out} records are not as they were written, and left out"
            fail(f"{merged.store}: {words}", NOT_AS_WRITTEN)


def export(
    store: Annotated[Path, typer.Argument(help="Store, or its folder.")],
    to: Annotated[Literal["csv", "json", "parquet"], typer.Option(help="Format.")] = "csv",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the tables.")] = Path(),
) -> None:
    """Write a store as tables: trials, epochs, and where it was tuned tuning and untuned."""
    with errors():
        from optbench.report.exports import write_frames

        written = write_frames(store, out, to)
        for path in written.files:
            tell(path)
        for sentence in written.sentences:
            tell(f"{store}: {sentence}", file=sys.stderr)
        if written.left_out:
            words = f"{written.left_out} records are not as they were written, and left out"
            fail(f"{store}: {words}", NOT_AS_WRITTEN)


def sign(
    store: Annotated[Path, typer.Argument(help="Store, or its folder.")],
    key: Annotated[
        Path, typer.Option(help="Private key of OpenSSH's: `ssh-keygen -t ed25519 -f FILE` makes one.")
    ],
) -> None:
    """Sign a store as it is, by ssh-keygen, into a file beside it (store.sqlite.sig).

    Any later change of records, plan or facts shows: `doctor STORE` and `report` say whether the signature
    fits, and by which key it is.
    """
    with errors():
        from optbench.records import signatures

        signed = signatures.sign(store, key)
        tell(f"{signed.path}: {signed.sentence}")
