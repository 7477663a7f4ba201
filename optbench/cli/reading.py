"""Options that say how tables and logs are read: one list, for every command that reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from optbench.errors import UserError

if TYPE_CHECKING:
    from optbench.records.readers.naming import Naming

KindOption = Annotated[
    str | None, typer.Option("--as", help="Format of the files; each says by itself if not given.")
]
PatternOption = Annotated[
    str | None,
    typer.Option(help="Where a path, or a run's name, says what it is: '{dataset}/{optimizer}-{seed}.csv'."),
]
DatasetOption = Annotated[str, typer.Option(help="Of what does not say it itself, nor by its path.")]
ModelOption = Annotated[str, typer.Option(help="The same.")]
OptimizerOption = Annotated[str, typer.Option(help="The same.")]
SeedOption = Annotated[str, typer.Option(help="The same.")]
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
FirstEpochOption = Annotated[
    int, typer.Option(min=0, max=1, help="A log's first row: 0 if written before the first step.")
]
PercentOption = Annotated[
    bool, typer.Option("--percent", help="Accuracies, and other shares, are percentages.")
]


def naming_of(
    *,
    kind: str | None = None,
    pattern: str | None = None,
    names: Sequence[str] | None = None,
    failed: Sequence[str] | None = None,
    decimal: str | None = None,
    line: str | None = None,
    given: Mapping[str, str] | None = None,
    first_epoch: int = 1,
) -> Naming:
    """Put together what the options say about formats, names, states and numbers."""
    from optbench.records.readers.formats import FORMATS
    from optbench.records.readers.naming import Naming

    if kind is not None and kind not in FORMATS:
        raise UserError(f"--as: found {kind!r}; allowed are {', '.join(FORMATS)}")
    if decimal not in (None, ".", ","):
        raise UserError(f"--decimal: found {decimal!r}; allowed are . and ,")
    return Naming(
        kind=kind,
        pattern=pattern,
        given={name: value for name, value in (given or {}).items() if value},
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


def _pair(entry: str) -> tuple[str, str]:
    name, sign, metric = entry.rpartition("=")
    if not sign or not name:
        raise UserError(f"--map: found {entry!r}; give NAME=METRIC, as in accuracy=test_accuracy")
    return name, metric.strip()
