# ruff: noqa: E501
"""Damage: seeded changes of bytes, of plain data, of YAML text and of SQLite stores."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import yaml

#: What a careless or hostile hand puts where something else belongs.
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 7, 255, 10**6, 10**9, 2**31, 2**63, 2**64, 10**30, 10**400, -(10**18),
    0.0, -0.0, 0.5, 1.0, 1e-320, 1e-8, 1e308, -1e308, float("inf"), float("-inf"), float("nan"),
    "", " ", "\n", "x", "null", "true", "no", "1e-3", "0x10", "1_000", "..", ".", "/", "../../outside", "-", "--help",
    "ünï🚀", "\u202e\u0000x", "\ud7ff", "ｗａｍｅ", "[bold]x[/bold]", "[/]", "{0}", "%s%n", "<script>", "$x_1$ \\frac",
    "x" * 300, "a\tb", "wame", "adam", "digits", "iris", "mlp", "val_accuracy", "full", "auto", "random", "cosine",
    [], {}, [[]], [{}], {"": ""}, [None], [1, 1], [0, 1, 2], [1e9, -1], {"x": {"x": {"x": 1}}}, list(range(300)),
    {"log": [1e-3, 1e-1]}, {"log": [0, 1]}, {"log": [1, -1]}, {"kind": "dense"}, {"name": "mlp"}, {"name": []},
)  # fmt: skip

KEYS = (
    "", "x", "name", "grid", "class", "optimizer", "optimizers", "variant", "lr", "betas", "momentum", "split",
    "schedule", "augment", "early_stopping", "targets", "smoke", "stop", "trials", "space", "network", "widen",
    "budget", "init", "order", "test", "shape", "label", "scaling", "layers", "kind", "0", "ünï", "../x", "a.b",
    "model.hidden", "<<",
)  # fmt: skip

BYTES = (b"\0", b"\xff\xfe", b"\n", b"\r\n", b"\xef\xbb\xbf", b": ", b"- ", b"&a ", b"*a", b"!!python/name:os.system ",
         b"<<: *a", b"{", b"]", b"'", b'"', b"\t", b"%YAML 9.9\n", b"---\n", b"nan", b"1e999", b"\xc3", b",", b";")  # fmt: skip


def damaged_bytes(raw: bytes, rng: random.Random, *, at_most: int = 6) -> bytes:
    """Flip, cut, repeat, move and insert bytes."""
    data = bytearray(raw)
    for _ in range(rng.randint(1, at_most)):
        size = len(data)
        at = rng.randrange(size + 1)
        span = slice(at, at + rng.choice((1, 4, 40, 400)))
        match rng.randrange(7):
            case 0 if size:
                data[at - 1] ^= 1 << rng.randrange(8)
            case 1 if size:
                data[at - 1] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                del data[span]
            case 3:
                data[at:at] = data[span]
            case 4:
                data[at:at] = rng.choice(BYTES)
            case 5 if rng.random() < 0.3:
                del data[at:]
            case _:
                data[span] = bytes(rng.randrange(256) for _ in data[span])
    return bytes(data)


def damaged_value(value: Any, rng: random.Random) -> Any:
    """Another value in the place of one: odd, of another type, much larger, or wrapped."""
    match rng.randrange(8):
        case 0 if isinstance(value, int | float) and not isinstance(value, bool):
            with contextlib.suppress(OverflowError):
                return value * rng.choice((-1, 0, 0.5, 10, 1000, 10**9, 1e-30))
        case 1:
            return str(value)
        case 2:
            return [value] * rng.choice((1, 2, 50))
        case 3:
            return {rng.choice(KEYS): value}
        case 4 if isinstance(value, list) and value:
            return rng.sample(value, rng.randint(0, len(value))) + value[: rng.randint(0, 2)]
        case 5 if isinstance(value, str) and value:
            return damaged_text(value, rng)
        case 6 if rng.random() < 0.1:
            for _ in range(rng.choice((5, 40, 200))):
                value = [value] if rng.random() < 0.5 else {"x": value}
            return value
    return copy.deepcopy(rng.choice(ODD))


def damaged_text(text: str, rng: random.Random) -> str:
    """Change a few characters."""
    at = rng.randrange(len(text))
    return text[:at] + rng.choice(("", "x", "é", "\0", " ", text, "/", "\n")) + text[at + rng.randrange(2) :]


def damaged_data(data: Any, rng: random.Random, *, at_most: int = 3) -> Any:
    """Change nodes of a tree of mappings and lists: values, keys, order, number."""
    data = copy.deepcopy(data)
    for _ in range(rng.randint(1, at_most)):
        places = list(_places(data))
        if not places:
            return damaged_value(data, rng)
        owner, key = rng.choice(places)
        match rng.randrange(9):
            case 0:
                del owner[key]
            case 1 if isinstance(owner, dict):
                owner[rng.choice(KEYS)] = owner.pop(key)
            case 2 if isinstance(owner, dict):
                owner[rng.choice(KEYS)] = copy.deepcopy(rng.choice(ODD))
            case 3 if isinstance(owner, list):
                owner.insert(key, copy.deepcopy(rng.choice((owner[key], *ODD))))
            case 4:
                other, place = rng.choice(places)
                with contextlib.suppress(KeyError, IndexError):
                    owner[key] = copy.deepcopy(other[place])
            case _:
                owner[key] = damaged_value(owner[key], rng)
    return data


def slightly_changed(data: Any, rng: random.Random) -> Any:
    """Change one leaf to another value of its type: most of what is refused for its meaning starts so."""
    data = copy.deepcopy(data)
    leaves = [(owner, key) for owner, key in _places(data) if not isinstance(owner[key], dict | list)]
    for owner, key in rng.sample(leaves, min(len(leaves), rng.randint(1, 2))):
        value = owner[key]
        same = [odd for odd in ODD if type(odd) is type(value)] or [value]
        scaled = isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.6
        owner[key] = type(value)(value * rng.choice((0.1, 2, 10, 1000))) if scaled else rng.choice(same)
    return data


def _places(data: Any) -> Any:
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in entries:
        yield data, key
        yield from _places(value)


def damaged_yaml(text: str, rng: random.Random) -> bytes:
    """Damage a YAML file as data, as text, or through anchors and tags."""
    kind = rng.random()
    if kind < 0.75:
        data = yaml.safe_load(text)
        data = slightly_changed(data, rng) if rng.random() < 0.5 else damaged_data(data, rng)
        try:
            dumped = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
        except yaml.YAMLError:
            dumped = repr(data)
        raw = dumped.encode("utf-8", "surrogatepass")
        return damaged_bytes(raw, rng, at_most=1) if rng.random() < 0.1 else raw
    if kind < 0.83:
        lines = text.splitlines()
        at = rng.randrange(len(lines))
        lines[at] = rng.choice(
            (
                lines[at].replace(": ", ": &a ", 1),
                lines[at].partition(": ")[0] + ": *a",
                lines[at].partition(": ")[0] + ": !!python/object/apply:os.getcwd []",
                lines[at].partition(": ")[0] + ": !!binary aGk=",
                lines[at].partition(": ")[0] + ": 2020-01-01",
                lines[at] + "\n" + lines[at],
                "  " + lines[at],
                "? [a, b]\n: c",
            )
        )
        return "\n".join(lines).encode()
    return damaged_bytes(text.encode(), rng)


def damage_store(path: Path, rng: random.Random) -> None:
    """Damage a store's file: its bytes, its cells, the JSON and packed numbers in them, its schema."""
    if rng.random() < 0.3:
        path.write_bytes(damaged_bytes(path.read_bytes(), rng))
        return
    db = sqlite3.connect(path, isolation_level=None)
    for _ in range(rng.randint(1, 3)):
        with contextlib.suppress(sqlite3.Error, OverflowError):
            _damage_table(db, rng)
    db.close()


def _damage_table(db: sqlite3.Connection, rng: random.Random) -> None:
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    table = rng.choice(tables + ["trials"] * 3 * ("trials" in tables))
    columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    column = rng.choice(columns)
    match rng.randrange(14):
        case 0:
            db.execute(f"PRAGMA user_version = {rng.choice((0, 2, 99, -1, 2**31 - 1))}")
        case 1:
            db.execute(f"DROP TABLE {table}")
        case 2:
            db.execute(f'ALTER TABLE {table} RENAME COLUMN "{column}" TO other')
        case 3:
            db.execute(f"DELETE FROM {table} WHERE random() % 2 = 0")
        case 4:
            db.execute(f"ALTER TABLE {table} ADD COLUMN extra")
        case _:
            rows = db.execute(f'SELECT "{columns[0]}", "{column}" FROM {table}').fetchall()
            if not rows:
                return
            key, value = rng.choice(rows)
            changed = _damaged_cell(value, rng)
            db.execute(f'UPDATE {table} SET "{column}" = ? WHERE "{columns[0]}" = ?', (changed, key))


def _damaged_cell(value: Any, rng: random.Random) -> Any:
    if rng.random() < 0.25:
        odd = rng.choice(ODD)
        return odd if isinstance(odd, str | int | float | None) else json.dumps(odd)
    if isinstance(value, bytes):
        with contextlib.suppress(zlib.error):
            plain = zlib.decompress(value)
            if rng.random() < 0.7:
                return zlib.compress(damaged_bytes(plain, rng))
            if rng.random() < 0.1:
                return zlib.compress(bytes(10**7))
        return damaged_bytes(value, rng)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            data = json.loads(value)
            if isinstance(data, dict | list):
                return json.dumps(damaged_data(data, rng))
        return damaged_text(value, rng) if value else "x"
    return damaged_value(value, rng)
