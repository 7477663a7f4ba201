"""Digests of what a store holds: one a record, one a part beside the records, and one over all of them.

They catch damage and careless edits. They are no signature: whoever forges a record can compute its digest
anew, and only training it again (``optbench rerun``) proves it.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

#: Columns of a trial that its digest covers, for ever: a later column needs a digest of another kind.
DIGEST_COLUMNS = (
    *("trial_id", "block_id", "status", "attempts", "started", "environment", "spec", "split", "init"),
    *("order", "order_by_epoch", "metrics", "timings", "history_columns", "history", "error"),
)
#: Tables that records lie in; the digest of a record covers its rows of them.
RECORD_TABLES = ("trials", "predictions", "environments")
#: The table of digests, its part for the records, and the one over all others.
SEALS, RECORDS, CHAIN = "seals", "records", "chain"
#: Digests of records are added up modulo this, so that each may come, go or be replaced on its own.
_MODULUS = 2**256


def record_digest(row: Sequence[Any], predictions: Iterable[Sequence[Any]]) -> str:
    """Digest of one record.

    Parameters
    ----------
    row : sequence
        Values of :data:`DIGEST_COLUMNS` as the store has them.
    predictions : iterable of (epoch, dtype, classes)
        As the store has them, in the order of the epochs' names.

    Returns
    -------
    str
        64 hex digits: SHA-256 over every value and its kind. The environment counts by its
        id, which is a hash of its content.
    """
    digest = hashlib.sha256(_packed(row))
    for values in predictions:
        epoch, dtype, classes = values
        if type(classes) is bytes and type(epoch) is str and type(dtype) is str:
            digest.update(b"%b[%d]" % (_names_packed(epoch, dtype), len(classes)))
            digest.update(classes)
        else:
            digest.update(_packed(values))
    return digest.hexdigest()


def rows_digest(rows: Iterable[Sequence[Any]]) -> str:
    """Digest of the rows of a small table, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(_packed(row))
    return digest.hexdigest()


def chain(parts: Mapping[str, str]) -> str:
    """Digest over the digests of all parts: records, plan, and every entry beside them."""
    return rows_digest(sorted((name, digest) for name, digest in parts.items() if name != CHAIN))


class RecordSum:
    """Digests of records added up: how many they are, and their sum, whatever their order.

    Parameters
    ----------
    text : str
        As :meth:`text` writes it; empty for no records.
    """

    def __init__(self, text: str = "") -> None:
        count, _, total = text.partition(":")
        self.count, self._total = int(count or 0), int(total or "0", 16)

    @property
    def text(self) -> str:
        """Count and sum, for the table of digests."""
        return f"{self.count}:{self._total % _MODULUS:064x}"

    def move(self, key: str, digest: str | None, sign: int) -> None:
        """Count a record in (1) or out (-1)."""
        text = f"{key}:{digest or ''}".encode("utf-8", "surrogateescape")
        number = int.from_bytes(hashlib.sha256(text).digest(), "big")
        self.count += sign
        self._total += sign * number


def read_seals(db: sqlite3.Connection) -> dict[str, str]:
    """Digests of the parts as they were written; empty for a store from before there were any."""
    return dict(db.execute(f"SELECT part, digest FROM {SEALS}"))


def part_digests(db: sqlite3.Connection, tables: Iterable[str] | None = None) -> dict[str, str]:
    """Compute the digests of what lies beside the records.

    Parameters
    ----------
    db : Connection
    tables : iterable of str, optional
        Which tables; all but those of records and digests if not given, those of a later format too.

    Returns
    -------
    dict of str to str
        By part: a table's name, and for the facts about the suite ``meta <key>`` each.
    """
    found: dict[str, str] = {}
    for table in other_tables(db) if tables is None else tables:
        order = "rowid"
        columns = [row[1] for row in db.execute(f'PRAGMA table_info("{table}")')]
        if table == "meta":
            rows = db.execute("SELECT key, value FROM meta")
            found |= {f"meta {key}": rows_digest([(key, value)]) for key, value in rows}
            continue
        if table == "plan":
            order = "position"
        try:
            found[table] = rows_digest(db.execute(f'SELECT * FROM "{table}" ORDER BY {order}'))
        except sqlite3.OperationalError:  # a table without row ids has its key as its order
            found[table] = rows_digest(db.execute(f'SELECT * FROM "{table}" ORDER BY {_names(columns)}'))
    return found


def other_tables(db: sqlite3.Connection) -> list[str]:
    """Tables that hold neither records nor digests."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    names = [name for (name,) in db.execute(query)]
    return [name for name in names if name not in (*RECORD_TABLES, SEALS)]


def reseal(
    db: sqlite3.Connection,
    *,
    tables: Iterable[str] = (),
    moves: Sequence[tuple[str, str | None, int]] = (),
) -> None:
    """Renew the digests of what has been written, in the transaction that wrote it.

    Parameters
    ----------
    db : Connection
    tables : iterable of str
        Tables beside the records that were written.
    moves : sequence of (trial id, digest, 1 or -1)
        Records that came, or went.
    """
    seals = read_seals(db)
    if not seals:  # the first time, what an optbench without digests wrote is taken as it is
        tables = other_tables(db)
    changed: dict[str, str] = {}
    for table in tables:
        if table == "meta":
            changed |= {part: "" for part in seals if part.startswith("meta ")}
        changed |= part_digests(db, [table])
    if RECORDS not in seals:
        changed[RECORDS] = sum_of_records(db).text
    elif moves:
        total = RecordSum(seals[RECORDS])
        for key, digest, sign in moves:
            total.move(key, digest, sign)
        changed[RECORDS] = total.text
    changed = {part: digest for part, digest in changed.items() if seals.get(part, "") != digest}
    if not changed:
        return
    for part, digest in changed.items():
        if digest:
            seals[part] = digest
            db.execute(f"INSERT OR REPLACE INTO {SEALS} VALUES (?, ?)", (part, digest))
        else:
            del seals[part]
            db.execute(f"DELETE FROM {SEALS} WHERE part = ?", (part,))
    db.execute(f"INSERT OR REPLACE INTO {SEALS} VALUES (?, ?)", (CHAIN, chain(seals)))


def sum_of_records(db: sqlite3.Connection) -> RecordSum:
    """Add up the digests that the records carry."""
    total = RecordSum()
    for key, digest in db.execute("SELECT trial_id, digest FROM trials"):
        total.move(key, digest, 1)
    return total


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _packed(values: Sequence[Any]) -> bytes:
    """Values as bytes that no other values have; texts, numbers and None first, then how long bytes are."""
    plain, raw = list(values), []
    for place, value in enumerate(values):
        if type(value) is bytes:
            plain[place] = b""
            raw.append(value)
    return f"{plain!a}{[len(value) for value in raw]}".encode() + b"".join(raw)


@lru_cache(maxsize=64)
def _names_packed(epoch: str, dtype: str) -> bytes:
    """Begin what :func:`_packed` makes of predictions: the same for all trials."""
    return f"{[epoch, dtype, b'']!a}".encode()
