"""The format of a store: tables, migrations, and how values are packed.

``PRAGMA user_version`` is the format. A store of an older one is migrated when it is opened for writing, and
read through a migrated copy in memory otherwise.

1
    ``meta`` (key, value): suite name, title, the suite file's text and hash, ``view`` (labels, targets and
    analysis as JSON, so that a report reads no other file), ``smoke`` where the data were made,
    ``declaration`` and ``looks`` (:mod:`optbench.records.declarations`; not in the first stores). ``plan``:
    the labels that the suite last run gave to its trials. ``trials``: one row a trial; spec, metrics and
    timings as JSON, the history as a zlib-compressed little-endian float64 matrix [columns, epochs].
    ``predictions``: predicted class of each test example, zlib-compressed uint8 or uint16.
    ``environments``: machine facts by content hash.
2
    ``trials.digest``: of the record, see :mod:`optbench.records.digests`; NULL in one written before.
    ``seals``: digests of the parts beside the records (``records`` counts and adds up those of the records),
    and one over all. A table of a later format is covered too.
"""

from __future__ import annotations

import json
import math
import sqlite3
import zlib
from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from optbench.errors import UserError

FILE_NAME = "store.sqlite"
#: Bytes that one packed value may unpack to, and the most to which a packed byte can (zlib's format).
MOST_UNPACKED, _MOST_EACH = 2**28, 1032

#: Columns of the table of trials, as they are written and read.
TRIAL_COLUMNS = (
    *("trial_id", "block_id", "status", "attempts", "started", "environment", "spec", "split", "init"),
    *("order", "order_by_epoch", "metrics", "timings", "history_columns", "history", "error"),
)

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE plan (
        position INTEGER PRIMARY KEY, trial_id TEXT NOT NULL, workload TEXT NOT NULL, optimizer TEXT NOT NULL
    );
    CREATE TABLE environments (id TEXT PRIMARY KEY, facts TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE trials (
        trial_id TEXT PRIMARY KEY, block_id TEXT NOT NULL, status TEXT NOT NULL, attempts INTEGER NOT NULL,
        started TEXT NOT NULL, environment TEXT NOT NULL REFERENCES environments (id), spec TEXT NOT NULL,
        split TEXT, init TEXT, "order" TEXT, order_by_epoch TEXT,
        metrics TEXT NOT NULL, timings TEXT NOT NULL,
        history_columns TEXT NOT NULL, history BLOB NOT NULL, error TEXT
    );
    CREATE TABLE predictions (
        trial_id TEXT NOT NULL, epoch TEXT NOT NULL, dtype TEXT NOT NULL, classes BLOB NOT NULL,
        PRIMARY KEY (trial_id, epoch)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE trials ADD COLUMN digest TEXT;
    CREATE TABLE seals (part TEXT PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID;
    """,
)


class StoreError(UserError, RuntimeError):
    """A store that cannot be opened or read; the message says why and what to do."""


class StoreBusyError(StoreError):
    """Another run writes to this store."""


class DamageError(ValueError):
    """An invalid value in a store; the open store makes a :class:`StoreError` of it."""


def format_of(db: sqlite3.Connection) -> int:
    """Number of a file's format; 0 for a new file."""
    (found,) = db.execute("PRAGMA user_version").fetchone()
    return int(found)


def newest_format() -> int:
    """Number of the format that is written."""
    return len(MIGRATIONS)


def migrate(db: sqlite3.Connection) -> None:
    """Bring a file to the newest format."""
    found = format_of(db)
    for number, script in enumerate(MIGRATIONS[found:], start=found + 1):
        # One transaction a step, the version inside it: a kill in between leaves the step undone.
        db.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")


def select_trials(*, alias: str = "trials") -> str:
    """Columns of a trial for a SELECT."""
    return ", ".join(f'{alias}."{name}"' for name in TRIAL_COLUMNS)


def pack_array(array: NDArray[np.generic]) -> bytes:
    """Compress an array's bytes."""
    return zlib.compress(array.tobytes(), 1)


def unpack(packed: bytes) -> bytes:
    """Unpack a stored value, in bounded memory: few bytes may unpack to a thousand times as many.

    Raises
    ------
    ValueError
        If it is no packed value, or is larger than any that a run writes.
    """
    try:
        if len(packed) * _MOST_EACH <= MOST_UNPACKED:
            return zlib.decompress(packed)
        unpacking = zlib.decompressobj()
        found = unpacking.decompress(packed, MOST_UNPACKED)
    except (zlib.error, TypeError) as error:
        raise ValueError(f"no packed value ({error})") from None
    if not unpacking.eof:
        raise ValueError(f"a packed value of more than {MOST_UNPACKED:,} bytes, or a cut one")
    return found


def unpack_history(packed: bytes, columns: int) -> NDArray[np.float64]:
    """Unpack a stored history into [columns, epochs]; raises ``ValueError`` where it is none."""
    numbers = np.frombuffer(unpack(packed), "<f8")
    return numbers.reshape(columns, -1) if columns else numbers


def dump_numbers(numbers: Mapping[str, float]) -> str:
    """Write numbers as JSON, leaving out what is not finite: absent reads back as missing."""
    return json.dumps({key: value for key, value in numbers.items() if math.isfinite(value)}, sort_keys=True)


def is_numbers(value: object) -> bool:
    """Tell whether a value read from JSON is a mapping of numbers."""
    return isinstance(value, dict) and all(type(number) in (int, float) for number in value.values())


def load_numbers(text: str) -> dict[str, float]:
    """Read stored numbers; raises ``TypeError`` or ``ValueError`` where they are none."""
    value = json.loads(text)
    if not is_numbers(value):
        raise TypeError("no mapping of numbers")
    return cast(dict[str, float], value)
