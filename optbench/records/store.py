"""The store: the records of one suite in one SQLite file, results/<suite>/store.sqlite.

File format
-----------
``PRAGMA user_version`` is the format. A store of an older one is migrated when it is opened for writing, and
read through a migrated copy in memory otherwise.

1
    ``meta`` (key, value): suite name, title, the suite file's text and hash, ``view`` (labels, targets and
    analysis as JSON, so that a report reads no other file), ``smoke`` where the data were made. ``plan``: the
    labels that the suite last run gave to its trials. ``trials``: one row a trial; spec, metrics and timings
    as JSON, the history as a zlib-compressed little-endian float64 matrix [columns, epochs].
    ``predictions``: predicted class of each test example, zlib-compressed uint8 or uint16.
    ``environments``: machine facts by content hash.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast, get_args

import filelock
import numpy as np
from numpy.typing import NDArray

from optbench.errors import UserError
from optbench.suite.validation import one_line, shown
from optbench.trial import STREAMS, Status, TrialRecord, content_hash, to_plain

FILE_NAME = "store.sqlite"
#: What reading a damaged value ends in.
_STUMBLES = (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError)
#: What SQLite says where the file is sound and the world around it is not, and what helps.
_OUTSIDE = {
    "database or disk is full": "make room on its disk",
    "database is locked": "end the program that has it open",
    "attempt to write a readonly database": "make the file and its folder writable",
}

_MIGRATIONS: tuple[str, ...] = (
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
)


class StoreError(UserError, RuntimeError):
    """A store that cannot be opened or read; the message says why and what to do."""


class DamageError(ValueError):
    """What of a store no run wrote; the open store makes a :class:`StoreError` of it."""


class StoreBusyError(StoreError):
    """Another run writes to this store."""


@dataclass(frozen=True, kw_only=True)
class StoredTrial:
    """A trial as read back: the record's fields, the spec still JSON-ready."""

    trial_id: str
    block_id: str
    status: Status
    attempts: int
    started: str
    environment: Mapping[str, Any]
    spec: Mapping[str, Any]
    fingerprints: Mapping[str, str | None]
    order_by_epoch: tuple[int, ...]
    metrics: Mapping[str, float]
    timings: Mapping[str, float]
    history: Mapping[str, NDArray[np.float64]]
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSummary:
    """A stored trial without its spec and history."""

    trial_id: str
    block_id: str
    status: Status
    started: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a trial ended, its final metrics, and the seconds that it took (0 where nobody measured)."""

    status: Status
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRow:
    """A planned trial's record as the tables need it: ``order_by_epoch`` as JSON text, the history packed."""

    trial_id: str
    block_id: str
    workload: str
    optimizer: str
    status: Status
    attempts: int
    started: str
    environment_id: str
    environment: Mapping[str, Any]
    spec: Mapping[str, Any]
    fingerprints: Mapping[str, str | None]
    order_by_epoch: str
    metrics: Mapping[str, float]
    timings: Mapping[str, float]
    history_columns: str
    history: bytes


class Store:
    """The records of one suite. One process writes (see :meth:`writing`); any number read."""

    def __init__(self, path: str | Path, *, write: bool = False) -> None:
        """Open a store.

        Parameters
        ----------
        path : str or Path
            The store's file, or the folder that holds it.
        write : bool
            Make the file where it is missing, bring it to the newest format, and allow writing.

        Raises
        ------
        StoreError
            If there is no store, it is damaged, or was written by a newer optbench.
        """
        path = Path(path)
        self.path = path / FILE_NAME if path.is_dir() or (write and not path.suffix) else path
        if not write and not self.path.is_file():
            raise StoreError(f"{self.path}: no store here; `optbench run SUITE` makes one")
        try:
            if write:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._db = sqlite3.connect(self.path, isolation_level=None)
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
            else:
                self._db = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)
            self._migrate(write=write)
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the second: a message with bytes of the file
            raise self._outside(error) or StoreError(
                f"{self.path}: not a readable store ({one_line(error)}); restore it, or move "
                "it away and run again"
            ) from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # What fails on a sound store is a fault of ours and keeps its traceback.
            if isinstance(error, DamageError):
                raise self.damaged(str(error)) from None
            if isinstance(error, sqlite3.Error):
                raise self._outside(error) or self.damaged(f"SQLite says: {one_line(error)}") from None
            if isinstance(error, _STUMBLES) and (damage := self._damage()) is not None:
                raise self.damaged(damage) from None
        finally:
            self.close()

    def _outside(self, error: Exception) -> StoreError | None:
        """Make the error of what is wrong around a sound file; None for any other."""
        if (help_ := _OUTSIDE.get(str(error))) is None:
            return None
        return StoreError(f"{self.path}: {error}; {help_}, then run the same command again: records are kept")

    def damaged(self, what: str) -> StoreError:
        """Make the error that says what of the file no run wrote."""
        return StoreError(
            f"{self.path}: damaged: {what}; restore the file from a copy, or move it away and run again"
        )

    def _damage(self) -> str | None:
        """Look for the first value of the file that no run wrote."""
        try:
            environments = set()
            for key, facts in self._db.execute("SELECT id, facts FROM environments"):
                environments.add(key)
                if not isinstance(json.loads(facts), dict):
                    return f"environment {shown(key)} is no mapping"
            for key, value in self._db.execute("SELECT key, value FROM meta"):
                if not (isinstance(key, str) and isinstance(value, str)):
                    return f"meta entry {shown(key)} is no text"
            for row in self._db.execute("SELECT position, trial_id, workload, optimizer FROM plan"):
                if not (isinstance(row[0], int) and all(isinstance(name, str) for name in row[1:])):
                    return f"row {shown(row[0])} of the plan"
            for row in self._db.execute(
                """SELECT trial_id, block_id, status, started, attempts, environment, spec, order_by_epoch,
                metrics, timings, history_columns, history FROM trials"""
            ):
                if (field := _damaged_field(row, environments)) is not None:
                    return f"{field} of trial {shown(row[0])}"
                if (columns := json.loads(row[10])) and "step_seconds" not in columns:
                    return f"history_columns of trial {shown(row[0])}"
        except (sqlite3.Error, *_STUMBLES) as error:
            return f"{type(error).__name__}: {one_line(error)}"
        return None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the store's lock; the operating system frees it when the process ends, however it ends.

        Raises
        ------
        StoreBusyError
            If another process holds it.
        """
        lock = filelock.FileLock(self.path.with_name("run.lock"), timeout=0)
        try:
            with lock:
                yield
        except filelock.Timeout:
            raise StoreBusyError(
                f"{self.path}: another run is writing to this store; wait for it to end, "
                "or give this one a folder of its own with --results"
            ) from None

    def set_meta(self, **values: str) -> None:
        """Write facts about the suite."""
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def meta(self) -> dict[str, str]:
        """Facts about the suite."""
        return dict(self._db.execute("SELECT key, value FROM meta"))

    def set_plan(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Replace the plan by rows of trial id, workload label, optimizer label."""
        with self._transaction():
            self._db.execute("DELETE FROM plan")
            self._db.executemany(
                "INSERT INTO plan VALUES (?, ?, ?, ?)", ((k, *row) for k, row in enumerate(rows))
            )

    def plan(self) -> list[tuple[str, str, str]]:
        """Trial id, workload label and optimizer label of every planned trial, in order."""
        return list(self._db.execute("SELECT trial_id, workload, optimizer FROM plan ORDER BY position"))

    def statuses(self) -> dict[str, Status]:
        """Status of every stored trial by id."""
        return dict(self._db.execute("SELECT trial_id, status FROM trials"))

    def clear(self) -> None:
        """Forget every trial."""
        with self._transaction():
            for table in ("trials", "predictions", "environments"):
                self._db.execute(f"DELETE FROM {table}")

    def add(self, *records: TrialRecord) -> None:
        """Write records in one transaction; an earlier crash of the same trial is replaced."""
        with self._transaction():
            for record in records:
                self._add(record)

    def _add(self, record: TrialRecord) -> None:
        environment = json.dumps(record.environment, sort_keys=True)
        environment_id = content_hash(record.environment)
        names = list(record.history)
        matrix = np.array([record.history[name] for name in names], dtype="<f8")
        marks = record.fingerprints
        self._db.execute("INSERT OR IGNORE INTO environments VALUES (?, ?)", (environment_id, environment))
        attempts = self._db.execute(
            "SELECT attempts FROM trials WHERE trial_id = ?", (record.trial_id,)
        ).fetchone()
        self._db.execute(
            "INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.trial_id,
                record.block_id,
                record.status,
                (attempts[0] if attempts else 0) + 1,
                record.started,
                environment_id,
                json.dumps(to_plain(record.spec), sort_keys=True),
                *((marks.split, marks.init, marks.order) if marks else (None, None, None)),
                json.dumps(marks.order_by_epoch if marks else ()),
                _dump_numbers(record.metrics),
                _dump_numbers(record.timings),
                json.dumps(names),
                zlib.compress(matrix.tobytes(), 1),
                record.error,
            ),
        )
        self._db.execute("DELETE FROM predictions WHERE trial_id = ?", (record.trial_id,))
        self._db.executemany(
            "INSERT INTO predictions VALUES (?, ?, ?, ?)",
            (
                (record.trial_id, epoch, classes.dtype.str, zlib.compress(classes.tobytes(), 1))
                for epoch, classes in record.predictions.items()
            ),
        )

    def absorb(self, other: Store, trial_ids: Iterable[str]) -> None:
        """Copy trials with all that belongs to them from another store, in place of those of the same id."""
        with self._transaction():
            for key in trial_ids:
                for table in ("trials", "predictions"):
                    self._db.execute(f"DELETE FROM {table} WHERE trial_id = ?", (key,))
                    self._copy(other, table, "trial_id = ?", key)
                self._copy(
                    other, "environments", "id = (SELECT environment FROM trials WHERE trial_id = ?)", key
                )

    def _copy(self, other: Store, table: str, where: str, key: str) -> None:
        found = other._db.execute(f"SELECT * FROM {table} WHERE {where}", (key,))
        names = ", ".join(f'"{column[0]}"' for column in found.description)
        marks = ", ".join("?" * len(found.description))
        self._db.executemany(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", found)

    def trials(self, ids: Sequence[str] | None = None) -> Iterator[StoredTrial]:
        """Read trials: all, or those whose ids are given."""
        environments = self._environments()
        query = "SELECT * FROM trials"
        rows = (
            self._db.execute(f"{query} ORDER BY rowid")
            if ids is None
            else (row for key in ids for row in self._db.execute(f"{query} WHERE trial_id = ?", (key,)))
        )
        for row in rows:
            fields = (*row[:3], row[4], row[3], row[5], row[6], *row[10:15])
            if (field := _damaged_field(fields, environments.keys())) is not None:
                raise DamageError(f"{field} of trial {shown(row[0])}")
            names = json.loads(row[13])
            matrix = unpack_history(row[14], len(names))
            yield StoredTrial(
                trial_id=row[0],
                block_id=row[1],
                status=row[2],
                attempts=row[3],
                started=row[4],
                environment=environments[row[5]],
                spec=json.loads(row[6]),
                fingerprints={"split": row[7], "init": row[8], "order": row[9]},
                order_by_epoch=tuple(json.loads(row[10])),
                metrics=_numbers(row[11]),
                timings=_numbers(row[12]),
                history=dict(zip(names, matrix, strict=True)),
                error=row[15],
            )

    def _environments(self) -> dict[str, dict[str, Any]]:
        found = {}
        for key, facts in self._db.execute("SELECT id, facts FROM environments"):
            found[key] = json.loads(facts)
            if not isinstance(found[key], dict):
                raise DamageError(f"environment {shown(key)} is no mapping")
        return found

    def summary(self) -> list[TrialSummary]:
        """Every trial without its spec and history, in the order in which they were stored."""
        rows = self._db.execute(
            "SELECT trial_id, block_id, status, started, metrics FROM trials ORDER BY rowid"
        )
        return [
            TrialSummary(trial_id=key, block_id=block, status=status, started=at, metrics=_numbers(metrics))
            for key, block, status, at, metrics in rows
        ]

    def outcomes(self, trial_ids: Iterable[str]) -> dict[str, Outcome]:
        """How some trials ended, by id; those without a record are left out."""
        query = "SELECT status, metrics, timings FROM trials WHERE trial_id = ?"
        found = {}
        for key in trial_ids:
            for status, metrics, timings in self._db.execute(query, (key,)):
                seconds = _numbers(timings).get("total", 0.0)
                found[key] = Outcome(status=status, metrics=_numbers(metrics), seconds=seconds)
        return found

    def block(self, block_id: str) -> list[str]:
        """Ids of a block's trials."""
        rows = self._db.execute("SELECT trial_id FROM trials WHERE block_id = ? ORDER BY rowid", (block_id,))
        return [key for (key,) in rows]

    def planned_rows(self) -> Iterator[PlannedRow]:
        """Read the planned trials that have a record, in the plan's order.

        Histories stay packed (see :func:`unpack_history`), so that they can be joined column-wise.
        """
        environments = self._environments()
        query = """SELECT t.trial_id, t.block_id, p.workload, p.optimizer, t.status, t.attempts, t.started,
            t.environment, t.spec, t.split, t.init, t."order", t.order_by_epoch, t.metrics, t.timings,
            t.history_columns, t.history FROM plan p JOIN trials t USING (trial_id) ORDER BY p.position"""
        for row in self._db.execute(query):
            trial, block, workload, optimizer, status, attempts, started, environment, spec = row[:9]
            yield PlannedRow(
                trial_id=trial,
                block_id=block,
                workload=workload,
                optimizer=optimizer,
                status=status,
                attempts=attempts,
                started=started,
                environment_id=environment,
                environment=environments[environment],
                spec=json.loads(spec),
                fingerprints={"split": row[9], "init": row[10], "order": row[11]},
                order_by_epoch=row[12],
                metrics=_numbers(row[13]),
                timings=_numbers(row[14]),
                history_columns=row[15],
                history=row[16],
            )

    def predictions(self, trial_id: str) -> dict[str, NDArray[np.integer[Any]]]:
        """Predicted classes of the test examples of a trial, by ``last`` and ``best`` epoch."""
        rows = self._db.execute(
            "SELECT epoch, dtype, classes FROM predictions WHERE trial_id = ?", (trial_id,)
        )
        return {epoch: np.frombuffer(zlib.decompress(blob), dtype) for epoch, dtype, blob in rows}

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:  # SQLite has rolled back on its own where a disk is full
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _migrate(self, *, write: bool) -> None:
        (found,) = self._db.execute("PRAGMA user_version").fetchone()
        newest = len(_MIGRATIONS)
        if found > newest:
            raise StoreError(
                f"{self.path}: written by a newer optbench (format {found}, this one reads up to {newest}); "
                "upgrade optbench"
            )
        if found == newest:
            return
        if not write:
            if not found:
                raise StoreError(f"{self.path}: holds no records yet (format 0); run its suite first")
            # The file stays as it is: its copy in memory is brought to the newest format.
            file, self._db = self._db, sqlite3.connect(":memory:", isolation_level=None)
            with contextlib.closing(file):
                file.backup(self._db)
        for number, script in enumerate(_MIGRATIONS[found:], start=found + 1):
            # One transaction a step, the version inside it: a kill in between leaves the step undone.
            self._db.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")


@contextmanager
def blaming(paths: Iterable[str | Path]) -> Iterator[None]:
    """Look into these stores where what was read from them makes a later step stumble.

    Raises
    ------
    StoreError
        If one is damaged; else the error passes.
    """
    try:
        yield
    except _STUMBLES as error:
        for path in paths:
            with Store(path) as store:
                if (damage := store._damage()) is not None:
                    raise store.damaged(damage) from error
        raise


def _damaged_field(row: Sequence[Any], environments: Collection[str]) -> str | None:
    """Name the first field of a trial's row that does not hold what it must."""
    texts = dict(zip(("trial_id", "block_id", "status", "started"), row, strict=False))
    for name, value in texts.items():
        if not isinstance(value, str):
            return name
    if texts["status"] not in get_args(Status):
        return "status"
    if not isinstance(row[4], int):
        return "attempts"
    if row[5] not in environments:
        return "environment"
    for name, text in zip(
        ("spec", "order_by_epoch", "metrics", "timings", "history_columns"), row[6:11], strict=True
    ):
        try:
            value = json.loads(text)
            if name == "spec":
                workload, seeds = value["workload"], value["seeds"]
                sound = (
                    isinstance(value["optimizer"]["optimizer"], str)
                    and isinstance(value["optimizer"].get("lr", 0.0), int | float)
                    and isinstance(workload["dataset"], str | dict)
                    and isinstance(workload["model"]["name"], str)
                    and isinstance(workload.get("epochs", 1), int)  # an imported trial has none
                    and isinstance(workload["batch_size"], int | str)
                    and isinstance(workload["split"], dict)
                    and all(isinstance(seeds[stream], int) for stream in STREAMS)
                    and all(isinstance(value[name], str) for name in ("backend", "device", "precision"))
                )
            elif name in ("metrics", "timings"):
                sound = _numeric(value)
            else:
                kind = int if name == "order_by_epoch" else str
                sound = isinstance(value, list) and all(type(item) is kind for item in value)
        except _STUMBLES:
            return name
        if not sound:
            return name
    try:
        unpack_history(row[11], len(json.loads(row[10])))
    except ValueError:
        return "history"
    return None


def _numeric(value: object) -> bool:
    return isinstance(value, dict) and all(type(number) in (int, float) for number in value.values())


def _numbers(text: str) -> dict[str, float]:
    """Read stored numbers."""
    value = json.loads(text)
    if not _numeric(value):
        raise TypeError("no mapping of numbers")
    return cast(dict[str, float], value)


def unpack_history(packed: bytes, columns: int) -> NDArray[np.float64]:
    """Unpack a stored history into [columns, epochs]; raises ``ValueError`` where it is none."""
    try:
        numbers = np.frombuffer(zlib.decompress(packed), "<f8")
    except (zlib.error, TypeError) as error:
        raise ValueError(f"no packed history ({error})") from None
    return numbers.reshape(columns, -1) if columns else numbers


def _dump_numbers(numbers: Mapping[str, float]) -> str:
    """Write numbers as JSON, leaving out what is not finite: absent reads back as missing."""
    return json.dumps({key: value for key, value in numbers.items() if math.isfinite(value)}, sort_keys=True)
