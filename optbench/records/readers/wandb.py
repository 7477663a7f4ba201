"""Offline runs of wandb: the records of a ``run-*.wandb`` file, read without wandb."""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optbench.datasets.cells import read_bytes
from optbench.records.readers import wire
from optbench.records.readers.curves import check_steps, facts_of, on_steps, rate_of, run_of
from optbench.records.readers.naming import LogError, Naming
from optbench.records.readers.runs import RunLog

_BLOCK = 32768
#: Fields of wandb_internal.proto: Record's history, config, run, exit; HistoryItem's and ConfigItem's own.
_HISTORY, _CONFIG, _RUN, _EXIT = 2, 5, 17, 18


@dataclass
class _Run:
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    points: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    rows: int = 0
    exit_code: int | None = None


def is_offline(path: Path, head: bytes) -> bool:
    """Whether a file holds the records of a run."""
    return path.suffix == ".wandb" and head[:4] == b":W&B"


def read(paths: Sequence[Path], below: Path, naming: Naming) -> Iterator[RunLog]:
    """Read offline runs: facts from the config, curves from the history, the state from the exit code."""
    for path in paths:
        run = _Run()
        notes: list[str] = []
        raw = read_bytes(path)
        try:
            for record in _records(raw, path, notes):
                _take(record, run)
        except (wire.WireError, ValueError) as error:
            raise LogError(f"{path}: a damaged record ({error}); copy the file again") from None
        check_steps(str(path), run.points)
        status = "completed" if run.exit_code == 0 else "crashed"
        if run.exit_code is None:
            notes.append("the run has no end: it crashed, or still runs")
        elif run.exit_code:
            notes.append(f"the run ended with exit code {run.exit_code}: it failed")
        points = {name: curve for name, curve in run.points.items() if name != "epoch"}
        steps, columns = on_steps(points)
        epochs = None
        if "epoch" in run.points:
            _, axis = on_steps({**points, "epoch": run.points["epoch"]})
            if len(axis["epoch"].values) == len(steps):
                epochs = axis["epoch"].values
        yield run_of(
            str(path.parent if path.parent != below else path),
            "wandb",
            naming,
            naming.facts(path, below, run=run.name, known=facts_of(run.config)),
            columns,
            epochs=epochs,
            steps=steps if len(steps) else None,
            status=status,  # type: ignore[arg-type]
            notes=notes,
            rate=rate_of(run.config),
        )


def _records(raw: bytes, path: Path, notes: list[str]) -> Iterator[bytes]:
    """Walk through the records: blocks of 32 KB, records whole or in first, middle and last pieces.

    Notes
    -----
    Source: the log format of LevelDB (github.com/google/leveldb, doc/log_format.md) behind a header of 7
    bytes, with the CRC-32 of zlib.
    """
    at, pieces = 7, b""
    while at < len(raw):
        if _BLOCK - at % _BLOCK < 7:
            at += _BLOCK - at % _BLOCK
            continue
        if at + 7 > len(raw):
            notes.append("the file was cut short; what is whole is read")
            return
        check, length, kind = struct.unpack_from("<IHB", raw, at)
        data = raw[at + 7 : at + 7 + length]
        if not (check or length or kind):
            at += _BLOCK - at % _BLOCK
            continue
        if len(data) < length:
            notes.append("the file was cut short; what is whole is read")
            return
        if zlib.crc32(data, zlib.crc32(bytes([kind]))) & 0xFFFFFFFF != check:
            raise LogError(f"{path}: byte {at:,}: a damaged record; copy the file again")
        at += 7 + length
        pieces += data
        if kind in (1, 4):
            yield pieces
            pieces = b""


def _take(record: bytes, run: _Run) -> None:
    for number, value in wire.fields(record):
        if number == _HISTORY:
            _history(wire.message(value), run)
        elif number == _CONFIG:
            _config(wire.message(value), run)
        elif number == _RUN:
            for field_, content in wire.fields(wire.message(value)):
                if field_ == 4:
                    _config(wire.message(content), run)
                elif field_ == 8:
                    run.name = wire.text(content)
        elif number == _EXIT:
            fields = dict(wire.fields(wire.message(value)))
            code = fields.get(1, 0)
            run.exit_code = code if isinstance(code, int) else 1


def _items(message: bytes, number: int) -> Iterator[tuple[str, Any]]:
    """Name and value of each item: key or nested keys, and JSON."""
    for field_, item in wire.fields(message):
        if field_ != number:
            continue
        key, nested, text = "", [], "null"
        for part, content in wire.fields(wire.message(item)):
            if part == 1:
                key = wire.text(content)
            elif part == 2:
                nested.append(wire.text(content))
            elif part == 16:
                text = wire.text(content)
        yield key or ".".join(nested), json.loads(text)


def _config(message: bytes, run: _Run) -> None:
    run.config |= {name: value for name, value in _items(message, 1) if not name.startswith("_wandb")}


def _history(message: bytes, run: _Run) -> None:
    items = dict(_items(message, 1))
    step = items.get("_step", run.rows)
    run.rows += 1
    for name, value in items.items():
        if name.startswith("_"):
            continue
        number = _number(value)
        if number is not None:
            run.points.setdefault(name, []).append((float(step), number))


def _number(value: Any) -> float | None:
    """A number; wandb writes NaN and infinities as words too."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str) and value.lower() in ("nan", "infinity", "-infinity", "inf", "-inf"):
        return math.nan if value.lower() == "nan" else float(value)
    return None
