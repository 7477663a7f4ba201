"""TensorBoard's event files: one run a folder, files of two runs refused."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from optbench.datasets.cells import read_bytes
from optbench.datasets.numbers import Numbers
from optbench.records.readers import wire
from optbench.records.readers.naming import HISTORY, LogError, Naming
from optbench.records.readers.runs import RunLog, run_log
from optbench.records.readers.tabled import sorted_out

#: Folders of one run, as Keras's callback makes them.
PARTS = {"train": "", "training": "", "validation": "val_", "val": "val_", "test": "test_", "eval": "val_"}
#: DT_FLOAT, DT_DOUBLE, DT_INT32, DT_INT64, DT_HALF of TensorFlow's types.
_TYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 19: "<f2"}


@dataclass
class _File:
    """Scalars of one event file: (step, value) by tag, in the order of writing."""

    path: Path
    began: float = 0.0
    resumed: int | None = None
    points: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    cut: bool = False


def read(paths: Sequence[Path], below: Path, naming: Naming) -> Iterator[RunLog]:
    """Read the runs of event files; those in folders train and validation are one run."""
    runs: dict[Path, dict[str, list[tuple[int, float]]]] = {}
    notes: dict[Path, list[str]] = {}
    for folder in sorted({path.parent for path in paths}):
        nested = folder.name in PARTS and folder != below
        run = folder.parent if nested else folder
        files = sorted(
            (_read(path) for path in paths if path.parent == folder), key=lambda f: (f.began, f.path.name)
        )
        said = notes.setdefault(run, [])
        for tag, points in _joined(folder, files, said).items():
            name = _tag(tag, folder.name if nested else "")
            if name in runs.setdefault(run, {}):
                raise LogError(f"{folder}: {tag!r} and another tag both mean {name}; give each run a folder")
            runs[run][name] = points
    for run, tags in runs.items():
        taken, ignored = sorted_out({tag: naming.metric(tag) for tag in tags}, run)
        if taken:
            yield _run(run, below, naming, tags, taken, ignored, notes[run])


def _joined(folder: Path, files: Sequence[_File], notes: list[str]) -> dict[str, list[tuple[int, float]]]:
    """Tags of the files of one folder: each goes on where the one before ended, or they are two runs."""
    joined: dict[str, list[tuple[int, float]]] = {}
    joins = 0
    for file in files:
        if file.cut:
            notes.append(f"{file.path.name}: cut short; what is whole is read")
        for tag, points in file.points.items():
            steps = [step for step, _ in points]
            falls = [i for i in range(1, len(steps)) if steps[i] <= steps[i - 1]]
            if falls:
                at = falls[0]
                raise LogError(
                    f"{file.path}: step: found {steps[at]} after {steps[at - 1]} of {tag!r}; is it the log "
                    "of two runs? Give each run a folder of its own"
                )
            before = joined.get(tag)
            if before and file.resumed is not None and file.resumed <= before[-1][0]:
                kept = [(step, value) for step, value in before if step < file.resumed]
                notes.append(
                    f"{tag}: resumed at step {file.resumed}: {len(before) - len(kept)} points are replaced"
                )
                before[:] = kept
            if before and steps and steps[0] <= before[-1][0]:
                raise LogError(
                    f"{folder}: {len(files)} event files hold {tag!r}, and {file.path.name} begins at step "
                    f"{steps[0]} where another reached {before[-1][0]}: are they two runs? Give each run a "
                    "folder of its own"
                )
            joins += bool(before)
            joined.setdefault(tag, []).extend(points)
    if joins:
        notes.append(f"{folder.name}: {len(files)} event files, each going on where the one before ended")
    return joined


def _run(
    run: Path,
    below: Path,
    naming: Naming,
    points: dict[str, list[tuple[int, float]]],
    taken: dict[str, str],
    ignored: Sequence[str],
    notes: Sequence[str],
) -> RunLog:
    curves = {metric: dict(points[tag]) for metric, tag in taken.items() if metric in HISTORY}
    finals = {metric: points[tag][-1][1] for metric, tag in taken.items() if metric not in HISTORY}
    steps = sorted({step for curve in curves.values() for step in curve})
    for metric, curve in curves.items():
        if 1 < len(curve) < len(steps) / 2:
            raise LogError(
                f"{run}: {taken[metric]!r} has {len(curve)} points, others up to {len(steps)}: not "
                "all are written once an epoch; leave one out with --map TAG="
            )
    columns = {}
    for metric, curve in curves.items():
        values = np.array([curve.get(step, math.nan) for step in steps])
        written = np.array([step in curve for step in steps], dtype=bool)
        columns[metric] = Numbers(values, written & ~np.isfinite(values))
    count = max(len(steps), 1)
    for metric, value in finals.items():
        column = np.full(count, np.nan)
        column[-1] = value
        lost = np.zeros(count, dtype=bool)
        lost[-1] = not math.isfinite(value)
        columns[metric] = Numbers(column, lost)
    return run_log(
        source=str(run),
        kind="tensorboard",
        facts=naming.facts(run, below),
        epochs=np.arange(count, dtype=np.float64) + naming.first_epoch,
        columns=columns,
        ignored=ignored,
        notes=notes,
    )


def _tag(tag: str, part: str) -> str:
    """A tag's name with the part of the data in front: epoch_loss in validation, Loss/val are val_loss."""
    pieces = tag.removeprefix("epoch_").split("/")
    if part:
        return f"{PARTS[part]}{'/'.join(pieces)}"
    if len(pieces) > 1 and pieces[-1].lower() in ("val", "validation", "test"):
        return PARTS[pieces[-1].lower()] + "/".join(pieces[:-1])
    return "/".join(pieces)


def _read(path: Path) -> _File:
    """Read the scalars of one event file; a record that was cut off ends it.

    Notes
    -----
    Records are framed as in TFRecord: length, its masked CRC-32C, data, its masked CRC-32C. Sources:
    tensorflow.org/tutorials/load_data/tfrecord; event.proto and summary.proto of tensorboard.
    """
    raw = read_bytes(path)
    found = _File(path)
    at = 0
    while at < len(raw):
        if at + 12 > len(raw):
            found.cut = True
            break
        length, check = struct.unpack_from("<QI", raw, at)
        if _masked(raw[at : at + 8]) != check:
            raise LogError(f"{path}: byte {at:,}: a damaged event file; copy it again, or leave it out")
        if at + 16 + length > len(raw):
            found.cut = True
            break
        data = raw[at + 12 : at + 12 + length]
        if length < 4096 and _masked(data) != struct.unpack_from("<I", raw, at + 12 + length)[0]:
            raise LogError(f"{path}: byte {at:,}: a damaged event file; copy it again, or leave it out")
        try:
            _event(data, found)
        except wire.WireError as error:
            raise LogError(
                f"{path}: byte {at:,}: no event ({error}); copy it again, or leave it out"
            ) from None
        at += 16 + length
    return found


def _event(data: bytes, file: _File) -> None:
    step, values = 0, []
    for number, value in wire.fields(data):
        if number == 1:
            (when,) = wire.floats(value, 8)
            file.began = file.began or when
        elif number == 2:
            step = wire.signed(value)
        elif number == 5:
            values += [wire.message(v) for n, v in wire.fields(wire.message(value)) if n == 1]
        elif number == 7:
            session = dict(wire.fields(wire.message(value)))
            if session.get(1) == 1:  # START
                file.resumed = step
    for value in values:
        scalar = _scalar(value)
        if scalar is not None:
            file.points.setdefault(scalar[0], []).append((step, scalar[1]))


def _scalar(value: bytes) -> tuple[str, float] | None:
    """Tag and value of a summary; None if it is no scalar."""
    tag, number, plugin, tensor = "", None, "", None
    for field_, content in wire.fields(value):
        if field_ == 1:
            tag = wire.text(content)
        elif field_ == 2:
            (number,) = wire.floats(content, 4)
        elif field_ == 8:
            tensor = wire.message(content)
        elif field_ == 9:
            data = next((v for n, v in wire.fields(wire.message(content)) if n == 1), b"")
            plugin = next((wire.text(v) for n, v in wire.fields(wire.message(data)) if n == 1), "")
    if number is not None:
        return tag, number
    if tensor is None or plugin not in ("scalars", ""):
        return None
    read = _tensor(tensor)
    return None if read is None else (tag, read)


def _tensor(tensor: bytes) -> float | None:
    """A tensor of one number; None if it is another."""
    kind, content, sizes = 0, b"", []
    numbers: list[float] = []
    for field_, value in wire.fields(tensor):
        if field_ == 1 and isinstance(value, int):
            kind = value
        elif field_ == 2:
            shape = [wire.message(v) for n, v in wire.fields(wire.message(value)) if n == 2]
            sizes = [wire.signed(v) for dim in shape for n, v in wire.fields(dim) if n == 1]
        elif field_ == 4:
            content = wire.message(value)
        elif field_ == 5:
            numbers += wire.floats(value, 4)
        elif field_ == 6:
            numbers += wire.floats(value, 8)
    if kind not in _TYPES or any(size != 1 for size in sizes):
        return None
    if not numbers and content:
        dtype = np.dtype(_TYPES[kind])
        numbers = [
            float(v) for v in np.frombuffer(content[: len(content) // dtype.itemsize * dtype.itemsize], dtype)
        ]
    return numbers[0] if len(numbers) == 1 else None


@cache
def _table() -> tuple[int, ...]:
    """CRC-32C (Castagnoli), reflected: polynomial 0x82F63B78."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


def _masked(data: bytes) -> int:
    """Masked check sum of a record."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
