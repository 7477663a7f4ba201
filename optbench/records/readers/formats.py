"""All formats that are read: what each is, how a file of it is recognised, its reader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from optbench.records.readers import (
    algoperf,
    epochs,
    events,
    exports,
    json_logs,
    mlflow,
    optuna,
    textlog,
    wandb,
)
from optbench.records.readers.naming import LogError, Naming
from optbench.records.readers.runs import RunLog
from optbench.records.readers.table import read_table
from optbench.records.readers.tabled import table_runs

#: Bytes of a file that tell its format.
HEAD = 4096


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format.

    Attributes
    ----------
    title : str
        What it is, for messages and the documentation.
    recognises : callable
        ``recognises(path, head)``: whether a file is of it, by its name and first bytes.
    read : callable
        ``read(paths, below, naming)``: the runs of all its files under a folder.
    """

    title: str
    recognises: Callable[[Path, bytes], bool]
    read: Callable[[Sequence[Path], Path, Naming], Iterable[RunLog]]


def _tables(paths: Sequence[Path], below: Path, naming: Naming) -> Iterator[RunLog]:
    for path in paths:
        yield from table_runs(read_table(path, naming, below), path, naming)


#: In the order in which a file is tried; a table of cells comes last.
FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "tensorboard": Format(
            title="TensorBoard event file",
            recognises=lambda path, head: "tfevents" in path.name,
            read=events.read,
        ),
        "tensorboard-csv": Format(
            title="TensorBoard CSV download", recognises=exports.is_scalars, read=exports.read_scalars
        ),
        "wandb": Format(title="offline run of wandb", recognises=wandb.is_offline, read=wandb.read),
        "wandb-history": Format(
            title="history export of wandb", recognises=exports.is_history, read=exports.read_history
        ),
        "mlflow": Format(title="file store of MLflow", recognises=mlflow.is_run, read=mlflow.read),
        "optuna": Format(title="SQLite study of Optuna", recognises=optuna.is_storage, read=optuna.read),
        "algoperf": Format(
            title="measurements.csv of AlgoPerf", recognises=algoperf.is_measurements, read=algoperf.read
        ),
        "huggingface": Format(
            title="trainer_state.json of Hugging Face",
            recognises=json_logs.is_huggingface,
            read=json_logs.read_huggingface,
        ),
        "deepobs": Format(
            title="results of DeepOBS", recognises=json_logs.is_deepobs, read=json_logs.read_deepobs
        ),
        "keras-history": Format(
            title="History JSON of Keras", recognises=json_logs.is_history, read=json_logs.read_history
        ),
        "text": Format(title="plain-text training log", recognises=textlog.is_log, read=textlog.read),
        "keras": Format(title="log with a row an epoch", recognises=epochs.is_log, read=epochs.read),
        "table": Format(title="CSV table", recognises=epochs.is_cells, read=_tables),
    }
)
#: Formats of cells, which are read as a table of results where statistics alone are asked for.
TABLES = frozenset(("table", "keras", "tensorboard-csv", "wandb-history"))


def recognised(
    files: Sequence[Path], *, kind: str | None = None, alone: bool = False
) -> tuple[dict[str, list[Path]], list[Path]]:
    """Sort files by format.

    Parameters
    ----------
    files : sequence of Path
    kind : str, optional
        The format of all that could be of it.
    alone : bool
        The user named this file, whatever it is called.

    Returns
    -------
    by_format : dict of str to list of Path
    left : list of Path
        Files of none.

    Raises
    ------
    LogError
        If a file cannot be opened.
    """
    found: dict[str, list[Path]] = {}
    left = []
    for path in files:
        if path.is_dir():
            continue
        try:
            with path.open("rb") as file:
                head = file.read(HEAD)
        except OSError as error:
            raise LogError(f"{path}: cannot be read ({error.strerror or error})") from None
        name = _format_of(path, head, kind, alone)
        if name is None:
            left.append(path)
        else:
            found.setdefault(name, []).append(path)
    return {name: found[name] for name in FORMATS if name in found}, left


def _format_of(path: Path, head: bytes, kind: str | None, alone: bool) -> str | None:
    if kind is not None:
        fits = (kind in TABLES and epochs.is_cells(path, head)) or (
            kind == "text" and path.suffix.lower() in textlog.SUFFIXES
        )
        return kind if alone or fits or FORMATS[kind].recognises(path, head) else None
    for name, one in FORMATS.items():
        if one.recognises(path, head):
            return name
    if not alone:
        return None
    return "text" if path.suffix.lower() in textlog.SUFFIXES else "table"
