"""``optbench import``: results of other tools as a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from optbench.cli.common import errors
from optbench.errors import UserError

if TYPE_CHECKING:
    from optbench.task import Direction


def import_(
    sources: Annotated[list[Path], typer.Argument(help="CSV tables or logs, or folders of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the store; an import is added to.")],
    kind: Annotated[
        Literal["table", "keras", "tensorboard"] | None,
        typer.Option("--as", help="What the files are; each says by itself if not given."),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(help="Where a log's path says what it is: '{dataset}/{optimizer}-{seed}.csv'."),
    ] = None,
    dataset: Annotated[str, typer.Option(help="Of logs whose path does not say.")] = "",
    model: Annotated[str, typer.Option(help="The same.")] = "",
    optimizer: Annotated[str, typer.Option(help="The same.")] = "",
    seed: Annotated[str, typer.Option(help="The same.")] = "",
    backend: Annotated[str, typer.Option(help="Framework that trained, for the report.")] = "imported",
    names: Annotated[
        list[str] | None,
        typer.Option("--map", help="NAME=METRIC, as accuracy=test_accuracy; NAME= leaves a column out."),
    ] = None,
    first_epoch: Annotated[
        int, typer.Option(min=0, max=1, help="A log's first row: 0 if written before the first step.")
    ] = 1,
    percent: Annotated[
        bool, typer.Option("--percent", help="Accuracies, and other shares, are percentages.")
    ] = False,
    maximise: Annotated[
        list[str] | None, typer.Option(help="A metric that is not known: larger is better.")
    ] = None,
    minimise: Annotated[
        list[str] | None, typer.Option(help="A metric that is not known: smaller is better.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Compare with this optimizer.")] = None,
) -> None:
    """Take results of other tools into a store that `optbench report` reads.

    Tables of trials (columns dataset, optimizer, seed, metrics, optionally epoch), Keras's CSVLogger files,
    TensorBoard's event files. Trials of one dataset, model and seed are paired on your word, and the report
    says so.
    """
    with errors():
        from optbench.records import foreign, logs

        given = {"dataset": dataset, "model": model, "optimizer": optimizer, "seed": seed, "backend": backend}
        naming = logs.Naming(
            pattern=pattern,
            given={name: value for name, value in given.items() if value},
            names=dict(_pair(entry) for entry in names or []),
            first_epoch=first_epoch,
        )
        found = logs.read(sources, naming, kind=kind)
        directions = _directions(maximise or (), minimise or ())
        if percent:
            print(f"Taken as percentages: {', '.join(foreign.shares(found)) or 'nothing'}")
            found = foreign.percent(found)
        written = foreign.write(found, out, baseline=baseline, directions=directions)
        for note in written.notes:
            print(note)
        print(f"{written.new} trials imported, {written.trials} in {written.store}")
        print(f"Plots and tables: optbench report {written.store.parent}")


def _directions(maximise: Sequence[str], minimise: Sequence[str]) -> dict[str, Direction]:
    if both := sorted({*maximise} & {*minimise}):
        raise UserError(f"--maximise, --minimise: {both[0]!r} is in both; say one")
    return {**dict.fromkeys(maximise, "higher"), **dict.fromkeys(minimise, "lower")}


def _pair(entry: str) -> tuple[str, str]:
    name, sign, metric = entry.rpartition("=")
    if not sign or not name:
        raise UserError(f"--map: found {entry!r}; give NAME=METRIC, as in accuracy=test_accuracy")
    return name, metric.strip()
