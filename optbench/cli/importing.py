"""``optbench import``: results of other tools as a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optbench.cli.common import errors, tell
from optbench.errors import UserError

if TYPE_CHECKING:
    from optbench.records.readers.naming import Naming
    from optbench.task import Direction


PatternOption = Annotated[
    str | None,
    typer.Option(help="Where a path, or a run's name, says what it is: '{dataset}/{optimizer}-{seed}.csv'."),
]
MapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        help="NAME=METRIC, as accuracy=test_accuracy, or NAME=optimizer (seed, dataset, status, epoch); "
        "NAME= leaves a column out.",
    ),
]
FailedOption = Annotated[
    list[str] | None,
    typer.Option(help="COLUMN=WORD,WORD: runs of these states failed, those of all other words finished."),
]
DecimalOption = Annotated[
    str | None, typer.Option(help="Decimal point of the numbers: . or ,; the file says if not given.")
]
LineOption = Annotated[
    str | None,
    typer.Option(help="A line of a plain-text log: 'step:{step} val_loss:{val_loss}'; name:value otherwise."),
]


def import_(
    sources: Annotated[list[Path], typer.Argument(help="Tables or logs, or folders of them.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the store; an import is added to.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what was understood; write nothing.")
    ] = False,
    kind: Annotated[
        str | None, typer.Option("--as", help="Format of the files; each says by itself if not given.")
    ] = None,
    pattern: PatternOption = None,
    dataset: Annotated[str, typer.Option(help="Of logs whose path does not say.")] = "",
    model: Annotated[str, typer.Option(help="The same.")] = "",
    optimizer: Annotated[str, typer.Option(help="The same.")] = "",
    seed: Annotated[str, typer.Option(help="The same.")] = "",
    backend: Annotated[str, typer.Option(help="Framework that trained, for the report.")] = "imported",
    names: MapOption = None,
    failed: FailedOption = None,
    decimal: DecimalOption = None,
    line: LineOption = None,
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

    Tables of trials (columns dataset, optimizer, seed, metrics, optionally epoch), and the logs of trackers
    and frameworks: docs/howto/import.md lists them. Look with --dry-run first. Trials of one dataset, model
    and seed are paired on your word, and the report says so.
    """
    with errors():
        from optbench.records import foreign, foreign_notes, logs
        from optbench.records.readers.formats import FORMATS

        if kind is not None and kind not in FORMATS:
            raise UserError(f"--as: found {kind!r}; allowed are {', '.join(FORMATS)}")
        given = {"dataset": dataset, "model": model, "optimizer": optimizer, "seed": seed, "backend": backend}
        naming = naming_of(
            pattern=pattern,
            names=names,
            failed=failed,
            decimal=decimal,
            line=line,
            given={name: value for name, value in given.items() if value},
            first_epoch=first_epoch,
        )
        left: list[str] = []
        found = logs.read(sources, naming, kind=kind, notes=left)
        directions = _directions(maximise or (), minimise or ())
        if percent:
            tell(f"Taken as percentages: {', '.join(foreign.shares(found)) or 'nothing'}")
            found = foreign.percent(found)
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


def naming_of(
    *,
    pattern: str | None = None,
    names: Sequence[str] | None = None,
    failed: Sequence[str] | None = None,
    decimal: str | None = None,
    line: str | None = None,
    given: Mapping[str, str] | None = None,
    first_epoch: int = 1,
) -> Naming:
    """Put what the options say about names, states and numbers together."""
    from optbench.records.readers.naming import Naming

    if decimal not in (None, ".", ","):
        raise UserError(f"--decimal: found {decimal!r}; allowed are . and ,")
    return Naming(
        pattern=pattern,
        given=given or {},
        names=dict(_pair(entry) for entry in names or []),
        first_epoch=first_epoch,
        failed=dict(_states(entry) for entry in failed or []),
        point=decimal,
        line=line,
    )


def _states(entry: str) -> tuple[str, frozenset[str]]:
    column, sign, words = entry.partition("=")
    if not sign or not column:
        raise UserError(f"--failed: found {entry!r}; give COLUMN=WORD,WORD, as in state=crashed,killed")
    return column.strip(), frozenset(word.strip().lower() for word in words.split(",") if word.strip())


def _directions(maximise: Sequence[str], minimise: Sequence[str]) -> dict[str, Direction]:
    if both := sorted({*maximise} & {*minimise}):
        raise UserError(f"--maximise, --minimise: {both[0]!r} is in both; say one")
    return {**dict.fromkeys(maximise, "higher"), **dict.fromkeys(minimise, "lower")}


def _pair(entry: str) -> tuple[str, str]:
    name, sign, metric = entry.rpartition("=")
    if not sign or not name:
        raise UserError(f"--map: found {entry!r}; give NAME=METRIC, as in accuracy=test_accuracy")
    return name, metric.strip()
