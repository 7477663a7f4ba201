"""Results in the binary files of TensorBoard, wandb and Optuna, written by hand; see ``writers``."""

from __future__ import annotations

import json
import sqlite3
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: Results: value of val_accuracy by (dataset, optimizer, seed).
Results = Mapping[tuple[str, str, int], float]


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def _field(number: int, value: int | float | str | bytes) -> bytes:
    """A field of a protocol buffer: a varint, a double, or bytes."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    if isinstance(value, float):
        return _varint(number << 3 | 1) + struct.pack("<d", value)
    raw = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _framed(data: bytes) -> bytes:
    """A record of TFRecord: length and data, each with its masked check sum."""

    def masked(part: bytes) -> bytes:
        crc = _crc32c(part)
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def event_file(points: Sequence[tuple[int, str, float]]) -> bytes:
    """An event file of TensorBoard with doubles: (step, tag, value)."""
    raw = _framed(_field(1, 1.0) + _field(3, "brain.Event:2"))
    for step, tag, value in points:
        tensor = _field(1, 2) + _field(4, struct.pack("<d", value))
        summary = _field(1, _field(1, tag) + _field(8, tensor))
        raw += _framed(_field(1, 2.0 + step) + _field(2, step) + _field(5, summary))
    return raw


def tensorboard(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    for (dataset, optimizer, seed), value in results.items():
        run = folder / "events" / dataset / optimizer / f"seed{seed}"
        run.mkdir(parents=True)
        points = [(1, "val_accuracy", 0.5), (2, "val_accuracy", value)]
        (run / "events.out.tfevents.1.machine").write_bytes(event_file(points))
    return folder / "events", {"pattern": "{dataset}/{optimizer}/seed{seed}"}


def offline_run(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], code: int = 0) -> bytes:
    """An offline run of wandb: a record for its config, each row of its history and its end."""

    def items(values: Mapping[str, Any], number: int, name: int) -> bytes:
        return b"".join(
            _field(number, _field(name, key) + _field(16, json.dumps(value))) for key, value in values.items()
        )

    records = [_field(17, _field(4, items(config, 1, 1)))]
    records += [_field(2, items({**row, "_step": k}, 1, 1)) for k, row in enumerate(rows)]
    records.append(_field(18, _field(1, code)))
    raw = b":W&B" + bytes(3)
    for record in records:
        assert len(raw) + len(record) < 2**15  # one block of the log
        raw += struct.pack("<IHB", zlib.crc32(record, zlib.crc32(b"\x01")), len(record), 1) + record
    return raw


def wandb_offline(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    for k, ((dataset, optimizer, seed), value) in enumerate(results.items()):
        run = folder / "wandb" / f"offline-run-{k}"
        run.mkdir(parents=True)
        config = {"dataset": dataset, "optimizer": optimizer, "seed": seed}
        rows = [{"val_accuracy": 0.5}, {"val_accuracy": value}]
        (run / f"run-{k}.wandb").write_bytes(offline_run(config, rows))
    return folder / "wandb", {}


def optuna_study(results: Results, folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / "study.db"
    with sqlite3.connect(path) as db:
        db.executescript(
            """CREATE TABLE studies (study_id INTEGER, study_name TEXT);
            CREATE TABLE study_directions (study_id INTEGER, direction TEXT, objective INTEGER);
            CREATE TABLE study_system_attributes (study_id INTEGER, key TEXT, value_json TEXT);
            CREATE TABLE trials (trial_id INTEGER, study_id INTEGER, number INTEGER, state TEXT);
            CREATE TABLE trial_values (trial_id INTEGER, objective INTEGER, value REAL, value_type TEXT);
            CREATE TABLE trial_params (
                trial_id INTEGER, param_name TEXT, param_value REAL, distribution_json TEXT);
            CREATE TABLE trial_user_attributes (trial_id INTEGER, key TEXT, value_json TEXT);
            INSERT INTO studies VALUES (1, 'study');
            INSERT INTO study_directions VALUES (1, 'MAXIMIZE', 0);
            INSERT INTO study_system_attributes VALUES (1, 'study:metric_names', '["val_accuracy"]');"""
        )
        for k, ((dataset, optimizer, seed), value) in enumerate(results.items()):
            db.execute("INSERT INTO trials VALUES (?, 1, ?, 'COMPLETE')", (k, k))
            db.execute("INSERT INTO trial_values VALUES (?, 0, ?, 'FINITE')", (k, value))
            for name, fact in (("dataset", dataset), ("optimizer", optimizer), ("seed", seed)):
                db.execute("INSERT INTO trial_user_attributes VALUES (?, ?, ?)", (k, name, json.dumps(fact)))
    db.close()
    return path, {}
