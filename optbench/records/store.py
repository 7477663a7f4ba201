"""The store: the records of one suite in one SQLite file, results/<suite>/store.sqlite.

:mod:`optbench.records.format` describes the file, :mod:`optbench.records.reading` reads it; here it is opened
and written.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import filelock
import numpy as np

from optbench.records.damage import READING_ERRORS, first_damage
from optbench.records.format import (
    FILE_NAME,
    TRIAL_COLUMNS,
    DamageError,
    StoreBusyError,
    StoreError,
    dump_numbers,
    format_of,
    migrate,
    newest_format,
    pack_array,
)
from optbench.records.reading import History, StoredTrial, StoreReader, TrialSummary
from optbench.suite.validation import one_line
from optbench.trial import TrialRecord, content_hash, to_plain

#: SQLite errors that are no damage of the file, and what helps.
_REMEDIES = {
    "database or disk is full": "make room on its disk",
    "database is locked": "end the program that has it open",
    "attempt to write a readonly database": "make the file and its folder writable",
}


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _marks(count: int) -> str:
    return ", ".join("?" * count)


_INSERT_TRIAL = (
    f"INSERT OR REPLACE INTO trials ({_names(TRIAL_COLUMNS)}) VALUES ({_marks(len(TRIAL_COLUMNS))})"
)


class Store(StoreReader):
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
            self._bring_to_newest_format(write=write)
        except (
            sqlite3.Error,
            UnicodeDecodeError,
        ) as error:  # UnicodeDecodeError: the message quotes bytes of the file
            raise self._remediable(error) or StoreError(
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
            # An error on a sound store is a fault of optbench and keeps its traceback.
            if isinstance(error, DamageError):
                raise self.damaged(str(error)) from None
            if isinstance(error, sqlite3.Error):
                raise self._remediable(error) or self.damaged(f"SQLite says: {one_line(error)}") from None
            if isinstance(error, READING_ERRORS) and (damage := first_damage(self._db)) is not None:
                raise self.damaged(damage) from None
        finally:
            self.close()

    def _remediable(self, error: Exception) -> StoreError | None:
        """Make the error of a full disk or a locked file, with its remedy; None for any other."""
        if (remedy := _REMEDIES.get(str(error))) is None:
            return None
        return StoreError(
            f"{self.path}: {error}; {remedy}, then run the same command again: records are kept"
        )

    def damaged(self, what: str) -> StoreError:
        """Make the error that names a damaged value."""
        return StoreError(
            f"{self.path}: damaged: {what}; restore the file from a copy, or move it away and run again"
        )

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

    def set_plan(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Replace the plan by rows of trial id, workload label, optimizer label."""
        with self._transaction():
            self._db.execute("DELETE FROM plan")
            self._db.executemany(
                "INSERT INTO plan VALUES (?, ?, ?, ?)", ((k, *row) for k, row in enumerate(rows))
            )

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
        prints = record.fingerprints
        self._db.execute("INSERT OR IGNORE INTO environments VALUES (?, ?)", (environment_id, environment))
        attempts = self._db.execute(
            "SELECT attempts FROM trials WHERE trial_id = ?", (record.trial_id,)
        ).fetchone()
        self._db.execute(
            _INSERT_TRIAL,
            (
                record.trial_id,
                record.block_id,
                record.status,
                (attempts[0] if attempts else 0) + 1,
                record.started,
                environment_id,
                json.dumps(to_plain(record.spec), sort_keys=True),
                *((prints.split, prints.init, prints.order) if prints else (None, None, None)),
                json.dumps(prints.order_by_epoch if prints else ()),
                dump_numbers(record.metrics),
                dump_numbers(record.timings),
                json.dumps(names),
                pack_array(matrix),
                record.error,
            ),
        )
        self._db.execute("DELETE FROM predictions WHERE trial_id = ?", (record.trial_id,))
        self._db.executemany(
            "INSERT INTO predictions VALUES (?, ?, ?, ?)",
            (
                (record.trial_id, epoch, classes.dtype.str, pack_array(classes))
                for epoch, classes in record.predictions.items()
            ),
        )

    def copy_trials(self, other: Store, trial_ids: Iterable[str]) -> None:
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
        names = _names(column[0] for column in found.description)
        self._db.executemany(
            f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({_marks(len(found.description))})", found
        )

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

    def _bring_to_newest_format(self, *, write: bool) -> None:
        found, newest = format_of(self._db), newest_format()
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
        migrate(self._db)


@contextmanager
def naming_damage(paths: Iterable[str | Path]) -> Iterator[None]:
    """Where work on what was read from these stores fails, look whether one is damaged and name it.

    Raises
    ------
    StoreError
        If one is damaged; else the error passes.
    """
    try:
        yield
    except READING_ERRORS as error:
        for path in paths:
            with Store(path) as store:
                if (damage := first_damage(store._db)) is not None:
                    raise store.damaged(damage) from error
        raise


__all__ = [
    "FILE_NAME",
    "DamageError",
    "History",
    "Store",
    "StoreBusyError",
    "StoreError",
    "StoredTrial",
    "TrialSummary",
    "naming_damage",
]
