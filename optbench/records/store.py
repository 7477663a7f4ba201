"""The store: the records of one suite in one SQLite file, results/<suite>/store.sqlite.

:mod:`optbench.records.format` describes the file, :mod:`optbench.records.reading` reads it; here it is opened
and written.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np

from optbench.errors import explain
from optbench.records import checked, trouble
from optbench.records.damage import READING_ERRORS, first_damage
from optbench.records.digests import (
    DIGEST_COLUMNS,
    RECORD_TABLES,
    SEALS,
    part_digests,
    read_seals,
    record_digest,
    reseal,
)
from optbench.records.format import (
    FILE_NAME,
    DamageError,
    StoreBusyError,
    StoreError,
    dump_numbers,
    format_of,
    migrate,
    newest_format,
    pack_array,
)
from optbench.records.integrity import Integrity
from optbench.records.reading import History, StoredTrial, StoreReader, TrialSummary
from optbench.suite.validation import one_line
from optbench.trial import TrialRecord, content_hash, to_plain


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _marks(count: int) -> str:
    return ", ".join("?" * count)


#: File beside a store that its writer holds.
LOCK = "run.lock"
_WRITTEN = (*DIGEST_COLUMNS, "digest")
_INSERT_TRIAL = f"INSERT OR REPLACE INTO trials ({_names(_WRITTEN)}) VALUES ({_marks(len(_WRITTEN))})"
#: Records that came (1) or went (-1): trial id, digest, which.
_DIGESTS = "SELECT trial_id, digest FROM trials"
_Moves = list[tuple[str, str | None, int]]


def _open_to_read(path: Path) -> sqlite3.Connection:
    """Open a store for reading; in a folder that cannot be written, too, where nothing writes."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    db = sqlite3.connect(uri, uri=True)
    try:
        format_of(db)
    except sqlite3.OperationalError as error:
        unfinished = path.with_name(f"{path.name}-wal")
        refused = "unable to open database file" in str(error) or "readonly database" in str(error)
        if not refused or (unfinished.exists() and unfinished.stat().st_size):
            raise
        db.close()
        db = sqlite3.connect(f"{uri}&immutable=1", uri=True)
    return db


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
        self._untouched = False  # since a run found that every digest fits
        self._as_written = False  # every digest fits: said by `repair`, kept by `close`
        self._together: _Moves | None = None  # of a transaction around others
        try:
            self.path = path / FILE_NAME if path.is_dir() or (write and not path.suffix) else path
            if not write and not self.path.is_file():
                raise StoreError(f"{self.path}: no store here; `optbench run SUITE` makes one")
            if write:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._untouched = checked.unmark(self.path)
                self._db = sqlite3.connect(self.path, isolation_level=None)
                self._choose_journal()
            else:
                self._db = _open_to_read(self.path)
            self._bring_to_newest_format(write=write)
        except OSError as error:
            raise StoreError(f"no store can be opened: {explain(error)}") from None
        except (
            sqlite3.Error,
            UnicodeDecodeError,
        ) as error:  # UnicodeDecodeError: the message quotes bytes of the file
            raise self._remediable(error) or StoreError(
                f"{self.path}: not a readable store ({one_line(error)}); restore it, or move "
                "it away and run again"
            ) from None

    def _choose_journal(self) -> None:
        """Write ahead to a log, unless the disk is another machine's, on which SQLite cannot share one."""
        if (kind := trouble.network_disk(self.path.parent)) is None:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            return
        self._db.execute("PRAGMA journal_mode = DELETE")
        self._db.execute("PRAGMA synchronous = FULL")
        warnings.warn(
            f"{self.path} lies on a network disk ({kind}): it is written without a write-ahead log, more "
            "slowly, and one machine at a time may write; a local folder with --results is faster",
            stacklevel=3,
        )

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        if self._as_written:
            checked.mark(self.path)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, (DamageError, sqlite3.Error, *READING_ERRORS)):
            self._as_written = False
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
        """Make the error of a full disk, a limit or a locked file, with its remedy; None for damage."""
        words = trouble.remedy(error, self.path)
        return None if words is None else StoreError(f"{self.path}: {words}")

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
        StoreError
            If there is no lock to be had.
        """
        with _writing(self.path):
            yield

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write all that is written inside in one transaction: a kill leaves all of it, or nothing."""
        with self._transaction("meta", "plan") as self._together:
            try:
                yield
            finally:
                self._together = None

    def set_meta(self, **values: str) -> None:
        """Write facts about the suite."""
        with self._transaction("meta"):
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def set_plan(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Replace the plan by rows of trial id, workload label, optimizer label."""
        with self._transaction("plan"):
            self._db.execute("DELETE FROM plan")
            self._db.executemany(
                "INSERT INTO plan VALUES (?, ?, ?, ?)", ((k, *row) for k, row in enumerate(rows))
            )

    def clear(self) -> None:
        """Remove every trial."""
        with self._transaction() as moves:
            moves += [(key, digest, -1) for key, digest in self._db.execute(_DIGESTS)]
            for table in RECORD_TABLES:
                self._db.execute(f"DELETE FROM {table}")

    def repair(self) -> Integrity:
        """Remove what is not as it was written, so that a run can make it again; says what that was.

        A file that is untouched since the last run checked it is not read again.
        """
        found = Integrity(records=0, bare=0) if self._untouched else self.verify()
        self._as_written = True
        if not found.misfits:
            return found
        with self._transaction() as moves:
            for key in found.unfit:
                self._remove(key, moves)
            # A new record of the same machine would else find its environment as it was changed.
            self._db.execute("DELETE FROM environments WHERE id NOT IN (SELECT environment FROM trials)")
            if any(misfit.what.startswith("the plan") for misfit in found.parts):
                self._db.execute("DELETE FROM plan")
            self._db.execute(f"DELETE FROM {SEALS}")
        return found

    def add(self, *records: TrialRecord) -> None:
        """Write records in one transaction; an earlier crash of the same trial is replaced."""
        with self._transaction() as moves:
            for record in records:
                self._add(record, moves)

    def _add(self, record: TrialRecord, moves: _Moves) -> None:
        environment = json.dumps(record.environment, sort_keys=True)
        environment_id = content_hash(record.environment)
        names = list(record.history)
        matrix = np.array([record.history[name] for name in names], dtype="<f8")
        prints = record.fingerprints
        self._db.execute("INSERT OR IGNORE INTO environments VALUES (?, ?)", (environment_id, environment))
        attempts = self._db.execute(
            "SELECT attempts FROM trials WHERE trial_id = ?", (record.trial_id,)
        ).fetchone()
        row = (
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
        )
        predictions = [
            (epoch, classes.dtype.str, pack_array(classes))
            for epoch, classes in sorted(record.predictions.items())
        ]
        digest = record_digest(row, predictions)
        self._remove(record.trial_id, moves)
        self._db.execute(_INSERT_TRIAL, (*row, digest))
        self._db.executemany(
            "INSERT INTO predictions VALUES (?, ?, ?, ?)", ((record.trial_id, *one) for one in predictions)
        )
        moves.append((record.trial_id, digest, 1))

    def _remove(self, key: str, moves: _Moves) -> None:
        found = self._db.execute(f"{_DIGESTS} WHERE trial_id = ?", (key,))
        moves += [(name, digest, -1) for name, digest in found]
        for table in ("trials", "predictions"):
            self._db.execute(f"DELETE FROM {table} WHERE trial_id = ?", (key,))

    def copy_trials(self, other: Store, trial_ids: Iterable[str]) -> None:
        """Copy trials with all that belongs to them from another store, in place of those of the same id."""
        with self._transaction() as moves:
            for key in trial_ids:
                self._remove(key, moves)
                for table in ("trials", "predictions"):
                    self._copy(other, table, "trial_id = ?", key)
                moves += [(*row, 1) for row in self._db.execute(f"{_DIGESTS} WHERE trial_id = ?", (key,))]
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
    def _transaction(self, *tables: str) -> Iterator[_Moves]:
        """Write in one transaction, the digests too.

        Parameters
        ----------
        *tables : str
            Tables beside the records that are written.

        Yields
        ------
        list
            For the records that come and go.
        """
        if self._together is not None:
            yield self._together
            return
        moves: _Moves = []
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield moves
            reseal(self._db, tables=tables, moves=moves)
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
def _writing(path: Path) -> Iterator[None]:
    """Hold the lock of a store's file; see :meth:`Store.writing`."""
    import filelock  # here, as reading needs no lock

    try:
        with filelock.FileLock(path.with_name(LOCK), timeout=0):
            yield
    except filelock.Timeout:
        raise StoreBusyError(
            f"{path}: another run is writing to this store; wait for it to end, or give this one a folder of "
            "its own with --results and join both with `optbench merge`"
        ) from None


@contextmanager
def new_store(target: Path) -> Iterator[Store]:
    """Make a store that gets its name when all of it is written: a kill leaves the whole of it, or none.

    Parameters
    ----------
    target : Path
        Its file.

    Yields
    ------
    Store
        Under another name; what an earlier process left of one is taken away first.

    Raises
    ------
    StoreBusyError, StoreError
        If another process makes it, or it cannot be written.
    """
    unfinished = target.with_name(f"unfinished-{target.name}")

    def remove() -> None:
        for path in target.parent.glob(f"{unfinished.name}*"):
            path.unlink()

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"no store can be made: {explain(error)}") from None
    with _writing(target):
        try:
            remove()
            with Store(unfinished, write=True) as store:
                yield store
            os.replace(unfinished, target)
        finally:
            remove()
            if not target.exists():  # nothing is left of a store that was not made
                with contextlib.suppress(OSError):
                    target.with_name(LOCK).unlink()


def annotate(path: Path, key: str, change: Callable[[str | None], str]) -> None:
    """Change one fact of a store in one transaction, beside a run that writes to it; the format stays.

    Parameters
    ----------
    path : Path
        The store's file.
    key : str
    change : callable
        Makes the new value of the old one, None where there was none.

    Raises
    ------
    StoreError
        If the store cannot be written to, or its facts were changed by something else, which new digests
        would hide.
    """
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)
        ) as db:
            db.execute("BEGIN IMMEDIATE")
            seals, found = read_seals(db), part_digests(db, ["meta"])
            if seals and found != {part: seal for part, seal in seals.items() if part in found}:
                raise StoreError("its facts are not those that were written")
            row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, change(row[0] if row else None)))
            if seals:
                reseal(db, tables=("meta",))
            db.execute("COMMIT")
    except sqlite3.Error as error:
        raise StoreError(one_line(error)) from None


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
    "annotate",
    "naming_damage",
]
