"""``optbench import``: results of other tools as a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optbench.cli.common import errors, tell
from optbench.cli.reading import (
    DatasetOption,
    DecimalOption,
    FailedOption,
    FirstEpochOption,
    KindOption,
    LineOption,
    MapOption,
    ModelOption,
    OptimizerOption,
    PatternOption,
    PercentOption,
    SeedOption,
    naming_of,
)
from optbench.errors import UserError

if TYPE_CHECKING:
    from optbench.task import Direction


def import_(
    sources: Annotated[list[Path], typer.Argument(help="Tables or logs, or folders of them.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the store; an import is added to.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what was understood; write nothing.")
    ] = False,
    kind: KindOption = None,
    pattern: PatternOption = None,
    dataset: DatasetOption = "",
    model: ModelOption = "",
    optimizer: OptimizerOption = "",
    seed: SeedOption = "",
    backend: Annotated[str, typer.Option(help="Framework that trained, for the report.")] = "imported",
    names: MapOption = None,
    failed: FailedOption = None,
    decimal: DecimalOption = None,
    line: LineOption = None,
    first_epoch: FirstEpochOption = 1,
    percent: PercentOption = False,
    maximise: Annotated[
        list[str] | None, typer.Option(help="A metric that is not known: larger is better.")
    ] = None,
    minimise: Annotated[
        list[str] | None, typer.Option(help="A metric that is not known: smaller is better.")
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Compare with this optimizer.")] = None,
) -> None:
    """Take results of other tools into a store that `optbench report` reads.

    Tables of trials (columns dataset, optimizer, seed, metrics, optionally epoch), and the logs of trackers
    and frameworks: docs/howto/import.md lists them. Look with --dry-run first. Trials of one dataset, model
    and seed are paired on your word, and the report says so.
    """
    with errors():
        from optbench.records import foreign, foreign_notes, logs

        given = {"dataset": dataset, "model": model, "optimizer": optimizer, "seed": seed, "backend": backend}
        naming = naming_of(
            kind=kind,
            pattern=pattern,
            names=names,
            failed=failed,
            decimal=decimal,
            line=line,
            given=given,
            first_epoch=first_epoch,
        )
        left: list[str] = []
        found = logs.read(sources, naming, notes=left)
        directions = _directions(maximise or (), minimise or ())
        if percent:
            found, divided = foreign.percent(found)
            tell(f"Taken as percentages: {', '.join(divided) or 'nothing: no share is above 1'}")
        if dry_run:
            for sentence in (*foreign_notes.described(found, directions=directions), *left):
                print(sentence)
            return
        if out is None:
            raise UserError("import: --out (-o) is missing: the folder of the store; or look with --dry-run")
        written = foreign.write(found, out, baseline=baseline, directions=directions, notes=left)
        for note in written.notes:
            tell(note)
        tell(f"{written.new} trials imported, {written.trials} in {written.store}")
        tell(f"Plots and tables: optbench report {written.store.parent}")


def _directions(maximise: Sequence[str], minimise: Sequence[str]) -> dict[str, Direction]:
    if both := sorted({*maximise} & {*minimise}):
        raise UserError(f"--maximise, --minimise: {both[0]!r} is in both; say one")
    return {**dict.fromkeys(maximise, "higher"), **dict.fromkeys(minimise, "lower")}
