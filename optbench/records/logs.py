"""Readers of other tools' results: tables of trials, Keras's ``CSVLogger`` files, TensorBoard's scalars."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from optbench.datasets.formats import read_csv
from optbench.errors import UserError
from optbench.suite.validation import one_line, shown
from optbench.task import NAMES
from optbench.trial import Status

MOST_EPOCHS = 1_000_000
Kind = Literal["table", "keras", "tensorboard"]

#: Columns of a history, as records have them.
HISTORY = (
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "val_f1",
    "batch_loss",
    "lr",
    "step_seconds",
    "eval_seconds",
)
#: What a name means by itself. Keras's ``loss`` is the mean over an epoch's batches in training mode; its
#: ``accuracy`` is so too, for which a record has no column, so that it needs a --map.
ALIASES: Mapping[str, str] = {
    "loss": "batch_loss",
    "learning_rate": "lr",
    **{
        f"{part}_{word}": f"{part}_accuracy"
        for part in ("val", "test")
        for word, metric in NAMES.items()
        if metric.name == "accuracy"
    },
}
_PARTS = {"train": "", "training": "", "validation": "val_", "val": "val_", "test": "test_"}


class LogError(UserError, ValueError):
    """A log or table that cannot be read; the message names file and field, and what to do."""


@dataclass(frozen=True, kw_only=True)
class RunLog:
    """One training as another tool recorded it.

    Attributes
    ----------
    source : str
        File or folder, for people.
    history : mapping of str to float64 array
        Columns of :data:`HISTORY`, one value an epoch from epoch 0, NaN where there is none.
    metrics : mapping of str to float
        Final numbers that no history holds, such as ``test_accuracy``.
    ignored : tuple of str
        Names that were found and not taken over.
    """

    source: str
    kind: Kind
    dataset: str
    model: str
    optimizer: str
    seed: int
    lr: float | None = None
    backend: str = "imported"
    device: str = "unknown"
    status: Status = "completed"
    history: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How files and columns get their names.

    Attributes
    ----------
    pattern : str, optional
        Path of a log below the folder given, with ``{dataset}``, ``{model}``, ``{optimizer}`` and ``{seed}``
        where they stand, as in ``{dataset}/{optimizer}-{seed}.csv``; ``*`` stands for anything.
    given : mapping
        The same facts where the path does not say.
    names : mapping
        Metric by the name in the log; an empty metric leaves the name out.
    first_epoch : int
        Epoch of a log's first row: 1, or 0 if it was written before the first step.
    """

    pattern: str | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    first_epoch: int = 1

    def metric(self, name: str) -> str | None:
        """Metric that a name means, or None."""
        if name in self.names:
            return self.names[name] or None
        plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        found = ALIASES.get(plain, plain)
        return found if found in HISTORY or found.startswith("test_") else None

    def facts(self, path: Path, below: Path) -> dict[str, Any]:
        """Dataset, model, optimizer and seed of a log."""
        found = dict(self.given)
        if self.pattern is not None:
            relative = path.relative_to(below).as_posix() if path != below else path.name
            match = self._regex.fullmatch(relative)
            if match is None:
                raise LogError(f"{path}: does not fit --pattern {self.pattern!r} (looked at {relative!r})")
            found |= match.groupdict()
        missing = [name for name in ("dataset", "optimizer", "seed") if not found.get(name)]
        if missing:
            raise LogError(
                f"{path}: {missing[0]}: not known; give --{missing[0]}, or a --pattern that says where it "
                "stands in the path, as in '{dataset}/{optimizer}-{seed}.csv'"
            )
        return {"model": "", **found, "seed": _seed(found["seed"], path)}

    @property
    def _regex(self) -> re.Pattern[str]:
        parts = re.split(r"(\{\w+\}|\*)", self.pattern or "")
        known = {f"{{{name}}}": name for name in ("dataset", "model", "optimizer", "seed")}
        text, seen = "", set()
        for part in parts:
            if part in known:
                text += f"(?P={known[part]})" if part in seen else f"(?P<{known[part]}>[^/]+?)"
                seen.add(part)
            elif re.fullmatch(r"\{\w+\}", part):
                raise LogError(f"--pattern: found {part}; allowed are {', '.join(known)}")
            else:
                text += ".*?" if part == "*" else re.escape(part)
        return re.compile(text)


def read(sources: Sequence[Path], naming: Naming, *, kind: Kind | None = None) -> list[RunLog]:
    """Read tables and logs.

    Parameters
    ----------
    sources : sequence of Path
        Files, or folders that are searched for CSV and event files.
    naming : Naming
    kind : {"table", "keras", "tensorboard"}, optional
        What they are; each file says by itself if not given: event files are TensorBoard's, a CSV that begins
        with ``epoch`` is Keras's, any other a table.

    Raises
    ------
    LogError
        If there is nothing to read, or a file does not fit.
    """
    found: list[RunLog] = []
    for source in sources:
        if not source.exists():
            raise LogError(f"{source}: not found; give a CSV file, or a folder with logs")
        below = source if source.is_dir() else source.parent
        files = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
        events = [path for path in files if "tfevents" in path.name]
        tables = [path for path in files if path.suffix.lower() in (".csv", ".tsv", ".log")]
        before = len(found)
        if kind in (None, "tensorboard"):
            found += _tensorboard(sorted({path.parent for path in events}), below, naming)
        if kind != "tensorboard":
            for path in tables:
                logged = kind == "keras" or (kind is None and _is_log(path))
                found += [_keras(path, below, naming)] if logged else _table(path, naming)
        if len(found) == before:
            what = {None: "CSV or event", "table": "CSV", "keras": "CSV", "tensorboard": "event"}[kind]
            raise LogError(f"{source}: found no {what} file; give a file, or a folder with logs")
    return found


def _is_log(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return re.match(r"\s*\"?epoch\"?\s*[,;\t]", file.readline(), re.IGNORECASE) is not None


def _table(path: Path, naming: Naming) -> Iterator[RunLog]:
    """A table of trials, or of trials and epochs."""
    from optbench.records.tables import read_results

    table = read_results(path)
    frame = table.frame
    frame.columns = [name if str(name).lower() != "epoch" else "epoch" for name in frame.columns]
    columns = {name: naming.metric(name) for name in table.metrics if name.lower() != "epoch"}
    taken, ignored = _sorted_out(columns, path)
    for name, default in (("model", ""), ("backend", "imported"), ("device", "unknown")):
        if name not in frame:
            frame[name] = naming.given.get(name, default)
    keys = ["dataset", "model", "backend", "device", "optimizer", "seed"]
    for key, part in frame.groupby(keys, sort=False, dropna=False):
        facts = dict(zip(keys, key if isinstance(key, tuple) else (key,), strict=True))
        where = (
            f"{path}: optimizer {facts['optimizer']!r}, dataset {facts['dataset']!r}, seed {facts['seed']}"
        )
        if "epoch" not in part and len(part) > 1:
            raise LogError(f"{where}: has {len(part)} rows; add a column epoch, or a seed for each")
        values = {metric: part[name].to_numpy(dtype=np.float64) for metric, name in taken.items()}
        epochs = part["epoch"].to_numpy(dtype=np.float64) if "epoch" in part else None
        history = {name: values[name] for name in values if name in HISTORY} if epochs is not None else {}
        finals = {name: v[np.isfinite(v)] for name, v in values.items() if name not in history}
        lrs = [v for v in values.get("lr", ()) if math.isfinite(v)]
        status = str(part["status"].iloc[-1]) if "status" in part else "completed"
        if status not in ("completed", "diverged", "crashed"):
            raise LogError(f"{where}: status: found {status!r}; allowed are completed, diverged, crashed")
        yield RunLog(
            source=f"{path}",
            kind="table",
            **{name: str(facts[name]) for name in keys[:-1]},
            seed=_seed(facts["seed"], path),
            lr=lrs[0] if lrs else None,
            status=status,  # type: ignore[arg-type]
            history=_by_epoch(epochs, history, where) if epochs is not None else {},
            metrics={name: float(v[-1]) for name, v in finals.items() if len(v) and name != "lr"},
            ignored=ignored,
        )


def _keras(path: Path, below: Path, naming: Naming) -> RunLog:
    """A file of Keras's ``CSVLogger``: column epoch from 0, one row an epoch."""
    import pandas as pd

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            separator = max(",;\t", key=file.readline().count)
        frame = read_csv(path, sep=separator, encoding="utf-8-sig")
    except (ValueError, OSError) as error:  # pandas' errors of parsing are ValueErrors
        raise LogError(f"{path}: not a CSV table ({one_line(error)})") from None
    frame.columns = [str(name).strip() for name in frame.columns]
    epoch = next((name for name in frame.columns if name.lower() == "epoch"), None)
    if epoch is None or frame.empty:
        raise LogError(
            f"{path}: found {', '.join(frame.columns)}; a log has a column epoch and a row an epoch"
        )
    taken, ignored = _sorted_out({n: naming.metric(n) for n in frame.columns if n != epoch}, path)
    values = {}
    for metric, name in [*taken.items(), ("epoch", epoch)]:
        numbers = pd.to_numeric(frame[name], errors="coerce")
        odd = frame[name][numbers.isna() & frame[name].notna()]
        if len(odd):
            raise LogError(f"{path}: column {name!r}: found {shown(odd.iloc[0])}; a number belongs here")
        values[metric] = numbers.to_numpy(dtype=np.float64)
    epochs = values.pop("epoch")
    return _run(path, "keras", below, naming, epochs - epochs[0] + naming.first_epoch, values, ignored)


def _tensorboard(folders: Sequence[Path], below: Path, naming: Naming) -> Iterator[RunLog]:
    """Runs of event files; Keras's callback writes those of a run into folders train and validation."""
    if not folders:
        return
    try:
        from tensorboard.backend.event_processing import event_accumulator
        from tensorboard.util import tensor_util
    except ImportError:
        raise LogError(
            f"{folders[0]}: event files need tensorboard; bring it with pip install 'optbench[tensorboard]'"
        ) from None
    runs: dict[Path, dict[str, list[tuple[int, float]]]] = {}
    for folder in folders:
        nested = folder.name in _PARTS and folder != below
        accumulator = event_accumulator.EventAccumulator(
            str(folder), size_guidance={"scalars": 0, "tensors": 0, "images": 1, "histograms": 1}
        ).Reload()
        points = runs.setdefault(folder.parent if nested else folder, {})
        tags = accumulator.Tags()
        for tag in tags["scalars"]:
            points[_tag(tag, folder.name if nested else "")] = [
                (event.step, event.value) for event in accumulator.Scalars(tag)
            ]
        for tag in tags["tensors"]:
            if accumulator.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
                points[_tag(tag, folder.name if nested else "")] = [
                    (event.step, float(tensor_util.make_ndarray(event.tensor_proto)))
                    for event in accumulator.Tensors(tag)
                ]
    for folder, points in runs.items():
        taken, ignored = _sorted_out({tag: naming.metric(tag) for tag in points}, folder)
        if not taken:
            continue
        curves = {metric: dict(points[tag]) for metric, tag in taken.items() if metric in HISTORY}
        steps = sorted({step for curve in curves.values() for step in curve})
        for metric, curve in curves.items():
            if 1 < len(curve) < len(steps) / 2:
                raise LogError(
                    f"{folder}: {taken[metric]!r} has {len(curve)} points, others up to {len(steps)}: not "
                    "all are written once an epoch; leave one out with --map TAG="
                )
        values = {
            metric: np.array([curve.get(step, math.nan) for step in steps])
            for metric, curve in curves.items()
        }
        values |= {m: np.array([v for _, v in points[t]]) for m, t in taken.items() if m not in HISTORY}
        epochs = np.arange(len(steps), dtype=np.float64) + naming.first_epoch
        yield _run(folder, "tensorboard", below, naming, epochs, values, ignored)


def _tag(tag: str, part: str) -> str:
    """A tag's name with the part of the data in front: epoch_loss in validation, Loss/val are val_loss."""
    pieces = tag.removeprefix("epoch_").split("/")
    if part:
        return f"{_PARTS[part]}{'/'.join(pieces)}"
    if len(pieces) > 1 and pieces[-1].lower() in ("val", "validation", "test"):
        return _PARTS[pieces[-1].lower()] + "/".join(pieces[:-1])
    return "/".join(pieces)


def _run(
    path: Path,
    kind: Kind,
    below: Path,
    naming: Naming,
    epochs: NDArray[np.float64],
    values: Mapping[str, NDArray[np.float64]],
    ignored: tuple[str, ...],
) -> RunLog:
    history = {name: v for name, v in values.items() if name in HISTORY}
    finals = {name: v[np.isfinite(v)] for name, v in values.items() if name not in HISTORY}
    rates = values.get("lr", np.empty(0))
    return RunLog(
        source=str(path),
        kind=kind,
        **naming.facts(path, below),
        lr=float(rates[np.isfinite(rates)][0]) if np.isfinite(rates).any() else None,
        history=_by_epoch(epochs, history, str(path)),
        metrics={name: float(v[-1]) for name, v in finals.items() if len(v)},
        ignored=ignored,
    )


def _by_epoch(
    epochs: NDArray[np.float64], columns: Mapping[str, NDArray[np.float64]], where: str
) -> dict[str, NDArray[np.float64]]:
    """Place values at their epochs; epoch 0 and gaps are NaN."""
    if not columns or not len(epochs):
        return {}
    if not np.isfinite(epochs).all() or (epochs % 1).any() or epochs[0] < 0:
        raise LogError(f"{where}: epoch: whole numbers from 0 belong here")
    if (falls := np.flatnonzero(np.diff(epochs) <= 0)).size:
        at = int(falls[0])
        raise LogError(
            f"{where}: epoch: found {epochs[at + 1]:g} after {epochs[at]:g}; epochs of one run rise: is it "
            "the log of two runs?"
        )
    if epochs[-1] > MOST_EPOCHS:
        raise LogError(f"{where}: epoch: found {epochs[-1]:g}; at most {MOST_EPOCHS:,} are read")
    placed = {}
    for name, values in columns.items():
        placed[name] = np.full(int(epochs[-1]) + 1, np.nan)
        placed[name][epochs.astype(int)] = values
    return placed


def _sorted_out(columns: Mapping[str, str | None], path: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Names by metric, and names that mean none."""
    taken: dict[str, str] = {}
    for name, metric in columns.items():
        if metric is None:
            continue
        if metric in taken:
            raise LogError(
                f"{path}: {taken[metric]!r} and {name!r} both mean {metric}; leave one out with "
                f"--map '{name}='"
            )
        taken[metric] = name
    return taken, tuple(name for name, metric in columns.items() if metric is None)


def _seed(found: Any, path: Path) -> int:
    try:
        number = float(found)
        if number.is_integer() and 0 <= number < 2**53:
            return int(number)
    except (TypeError, ValueError):
        pass
    raise LogError(f"{path}: seed: found {shown(found)}; a whole number from 0 belongs here")
