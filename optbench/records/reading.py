"""Reading a store: trials whole or in summary, the plan, predictions and facts about the suite."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optbench.records.damage import damaged_field
from optbench.records.digests import read_seals
from optbench.records.format import DamageError, load_numbers, select_trials, unpack, unpack_history
from optbench.records.integrity import Integrity, verify
from optbench.suite.validation import shown, visible
from optbench.task import DEFAULT_TASK, TASKS, Task
from optbench.trial import Status


class History(Mapping[str, NDArray[np.float64]]):
    """A trial's history, one array [epochs] a column, unpacked on first access.

    Attributes
    ----------
    columns : str
        Names of the columns, as JSON text.
    packed : bytes
        The matrix [columns, epochs]; see :func:`optbench.records.format.unpack_history`.
    """

    def __init__(self, columns: str, packed: bytes) -> None:
        self.columns, self.packed = columns, packed

    @cached_property
    def _arrays(self) -> dict[str, NDArray[np.float64]]:
        names = json.loads(self.columns)
        return dict(zip(names, unpack_history(self.packed, len(names)), strict=True))

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTrial:
    """A trial as read back: the record's fields, the spec still JSON-ready.

    ``environment_id`` is the key of ``environment`` in its store.
    """

    trial_id: str
    block_id: str
    status: Status
    attempts: int
    started: str
    environment: Mapping[str, Any]
    environment_id: str = ""
    spec: Mapping[str, Any]
    fingerprints: Mapping[str, str | None]
    order_by_epoch: tuple[int, ...]
    metrics: Mapping[str, float]
    timings: Mapping[str, float]
    history: History
    error: str | None

    @property
    def task(self) -> Task:
        """What the network was trained for; records of before there were others are of classes."""
        return TASKS[self.spec["workload"].get("task", DEFAULT_TASK.name)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSummary:
    """How a trial ended: status, final metrics, and the seconds that it took (0 where not measured)."""

    trial_id: str
    block_id: str
    status: Status
    started: str
    metrics: Mapping[str, float]
    seconds: float


class StoreReader:
    """What can be read of an open store."""

    _db: sqlite3.Connection

    def verify(self, ids: Iterable[str] | None = None, *, beside: bool = False) -> Integrity:
        """Compare the store, or some of its records, with its digests and with itself; see there."""
        return verify(self._db, ids, beside=beside)

    def seals(self) -> dict[str, str]:
        """Digests of the store's parts as they were written; none where an older optbench wrote it."""
        return read_seals(self._db)

    def meta(self) -> dict[str, str]:
        """Facts about the suite."""
        return dict(self._db.execute("SELECT key, value FROM meta"))

    def plan(self, part: Sequence[str] | None = None) -> list[tuple[str, str, str]]:
        """Trial id, workload label and optimizer label of every planned trial, in order.

        ``part``: only of these workloads. A control character in a label, which no suite can have, is written
        as its escape.
        """
        where, labels = _of_part(part)
        query = f"SELECT trial_id, workload, optimizer FROM plan {where} ORDER BY position"
        rows = self._db.execute(query, labels)
        return [(key, visible(workload), visible(optimizer)) for key, workload, optimizer in rows]

    def statuses(self) -> dict[str, Status]:
        """Status of every stored trial by id."""
        return dict(self._db.execute("SELECT trial_id, status FROM trials"))

    def counts(self, besides: Collection[str]) -> tuple[int, int]:
        """Trials with an outcome, and planned ones, besides some; read one by one: they may be millions."""
        queries = ("SELECT trial_id FROM trials WHERE status != 'crashed'", "SELECT trial_id FROM plan")
        seen, planned = (sum(key not in besides for (key,) in self._db.execute(query)) for query in queries)
        return seen, planned

    def block(self, block_id: str) -> list[str]:
        """Ids of a block's trials."""
        rows = self._db.execute("SELECT trial_id FROM trials WHERE block_id = ? ORDER BY rowid", (block_id,))
        return [key for (key,) in rows]

    def trials(self, ids: Sequence[str] | None = None) -> Iterator[StoredTrial]:
        """Read trials: all in the order in which they were stored, or those whose ids are given.

        Raises
        ------
        DamageError
            If a value is none that a run writes.
        """
        environments = self._environments()
        for row in self._rows("trials", ids, select_trials()):
            if (field := damaged_field(row, environments.keys())) is not None:
                raise DamageError(f"{field} of trial {shown(row[0])}")
            yield _trial(row, environments)

    def planned(self, part: Sequence[str] | None = None) -> Iterator[tuple[str, str, StoredTrial]]:
        """Read the planned trials that have a record, in the plan's order, each after its two labels.

        Parameters
        ----------
        part : sequence of str, optional
            Only of these workloads.

        Yields
        ------
        workload, optimizer : str
        trial : StoredTrial
            Unchecked, for speed: where a later step fails on one,
            :func:`optbench.records.store.naming_damage` finds the value.
        """
        environments = self._environments()
        where, labels = _of_part(part)
        query = f"""SELECT p.workload, p.optimizer, {select_trials(alias="t")}
            FROM plan p JOIN trials t USING (trial_id) {where} ORDER BY p.position"""
        for workload, optimizer, *row in self._db.execute(query, labels):
            yield visible(workload), visible(optimizer), _trial(row, environments)

    def summaries(self, ids: Iterable[str] | None = None) -> Iterator[TrialSummary]:
        """Read how trials ended: all in the order in which they were stored, or those whose ids are given."""
        columns = "trial_id, block_id, status, started, metrics, timings"
        for key, block, status, started, metrics, timings in self._rows("trials", ids, columns):
            yield TrialSummary(
                trial_id=key,
                block_id=block,
                status=status,
                started=started,
                metrics=load_numbers(metrics),
                seconds=load_numbers(timings).get("total", 0.0),
            )

    def predictions(self, trial_id: str) -> dict[str, NDArray[np.integer[Any]]]:
        """Predicted classes of the test examples of a trial, by ``last`` and ``best`` epoch."""
        rows = self._db.execute(
            "SELECT epoch, dtype, classes FROM predictions WHERE trial_id = ?", (trial_id,)
        )
        return {epoch: _predicted(dtype, blob, trial_id) for epoch, dtype, blob in rows}

    def test_examples(self, part: Sequence[str] | None = None) -> dict[str, int]:
        """Number of test examples of each workload whose predictions are stored, by the id of one trial.

        Predictions that are damaged count for nothing: :meth:`verify` names their trial.
        """
        found = {}
        where, labels = _of_part(part)
        for (workload,) in list(self._db.execute(f"SELECT DISTINCT workload FROM plan {where}", labels)):
            row = self._db.execute(
                "SELECT trial_id, dtype, classes FROM plan JOIN predictions USING (trial_id) "
                "WHERE workload = ? LIMIT 1",
                (workload,),
            ).fetchone()
            if row is not None:
                key, dtype, blob = row
                with contextlib.suppress(DamageError):
                    found[key] = len(_predicted(dtype, blob, key))
        return found

    def _rows(self, table: str, ids: Iterable[str] | None, columns: str) -> Iterator[Sequence[Any]]:
        """Rows of a table by trial: all (a trial without a record has none), or those of some ids."""
        query = f"SELECT {columns} FROM {table}"
        if ids is None:
            yield from self._db.execute(f"{query} ORDER BY rowid")
            return
        for key in ids:
            yield from self._db.execute(f"{query} WHERE trial_id = ?", (key,))

    def _environments(self) -> dict[str, dict[str, Any]]:
        found = {}
        for key, facts in self._db.execute("SELECT id, facts FROM environments"):
            found[key] = json.loads(facts)
            if not isinstance(found[key], dict):
                raise DamageError(f"environment {shown(key)} is no mapping")
        return found


def _of_part(part: Sequence[str] | None) -> tuple[str, Sequence[str]]:
    """A condition that a row of the plan is of these workloads, and its values; empty for all."""
    return ("", ()) if part is None else (f"WHERE workload IN ({', '.join('?' * len(part))})", part)


def _predicted(dtype: Any, blob: Any, trial_id: Any) -> NDArray[np.integer[Any]]:
    """Unpack the predictions of a trial; raises :class:`DamageError` where they are none."""
    try:
        return np.frombuffer(unpack(blob), dtype)
    except (TypeError, ValueError, SyntaxError):  # of another type, of no type, or not packed
        raise DamageError(f"predictions of trial {shown(trial_id)}") from None


def _trial(row: Sequence[Any], environments: Mapping[str, Mapping[str, Any]]) -> StoredTrial:
    """Make a trial of its row, in the order of :data:`optbench.records.format.TRIAL_COLUMNS`."""
    return StoredTrial(
        trial_id=row[0],
        block_id=row[1],
        status=row[2],
        attempts=row[3],
        started=row[4],
        environment=environments[row[5]],
        environment_id=row[5],
        spec=json.loads(row[6]),
        fingerprints={"split": row[7], "init": row[8], "order": row[9]},
        order_by_epoch=_whole_numbers(row[10]),
        metrics=load_numbers(row[11]),
        timings=load_numbers(row[12]),
        history=History(row[13], row[14]),
        error=row[15],
    )


@lru_cache(maxsize=256)
def _whole_numbers(text: str) -> tuple[int, ...]:
    """Read a list of whole numbers; the trials of a block have the same text."""
    return tuple(json.loads(text))
