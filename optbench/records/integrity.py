"""Whether a store holds what was written: digests, ids, ranges, and scores against predictions."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter, le
from typing import Any

import numpy as np
from pydantic_core import from_json

from optbench.records.damage import damaged_field
from optbench.records.digests import (
    CHAIN,
    DIGEST_COLUMNS,
    RECORDS,
    RecordSum,
    chain,
    part_digests,
    read_seals,
    record_digest,
)
from optbench.records.format import unpack, unpack_history
from optbench.records.identity import ids_of
from optbench.suite.validation import one_line, shown, visible
from optbench.task import known
from optbench.trial import content_hash

#: What an invalid value raises where it is looked at.
_ERRORS = (
    *(ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError),
    *(RecursionError, SyntaxError),  # of NumPy's types by their names
)
# Without its table a name that is none would be read as a text.
_COLUMNS = ", ".join(f'trials."{name}"' for name in DIGEST_COLUMNS)
_RECORDS = (
    f"SELECT trials.rowid, {_COLUMNS}, trials.digest, predictions.epoch, predictions.dtype, "
    "predictions.classes FROM trials LEFT JOIN predictions ON predictions.trial_id = trials.trial_id"
)
#: Characters of a table's name in a message; a longer one is shortened.
_LONGEST_NAME = 80
#: Misfits that a message names.
NAMED = 5
#: Scores that are shares of test examples: a whole number of them is right.
_COUNTED = ("test_accuracy_last", "test_accuracy_best")
#: Rounding of a share that was computed in float64, in examples.
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """Something in a store that is not as it was written.

    Attributes
    ----------
    what : str
        Why it does not fit.
    trial_id : str or None
        Of the record; None for what is no record.
    field : str or None
        The value that cannot be read at all.
    """

    what: str
    trial_id: str | None = None
    field: str | None = None

    def __post_init__(self) -> None:
        # Damaged values are quoted in it.
        object.__setattr__(self, "what", visible(self.what))

    def __str__(self) -> str:
        return self.what if self.trial_id is None else f"trial {self.trial_id}: {self.what}"


@dataclass(frozen=True, kw_only=True)
class Integrity:
    """What was found of a store.

    Attributes
    ----------
    records : int
        Records that were looked at.
    bare : int
        Those without a digest: they were written before there was one.
    misfits : tuple of Misfit
        In the order of the store, what is no record last.
    """

    records: int
    bare: int
    misfits: tuple[Misfit, ...] = ()

    @property
    def unfit(self) -> Mapping[str, Misfit]:
        """Records that do not fit, by trial id."""
        return {m.trial_id: m for m in self.misfits if m.trial_id is not None}

    @property
    def parts(self) -> tuple[Misfit, ...]:
        """What does not fit and is no record."""
        return tuple(misfit for misfit in self.misfits if misfit.trial_id is None)

    @property
    def sentences(self) -> list[str]:
        """What a reader must know: the first misfits by name, and how many records carry no digest."""
        found = [f"Not as it was written: {misfit}." for misfit in self.misfits[:NAMED]]
        if more := len(self.misfits) - NAMED:
            found += (
                [f"And {more} more trials or parts; `optbench doctor STORE` names all."] if more > 0 else []
            )
        return found + ([self.without_digest] if self.bare else [])

    @property
    def without_digest(self) -> str:
        """Say how many records carry no digest."""
        which = "The record carries" if self.records == 1 else f"{self.bare} of {self.records} records carry"
        return (
            f"{which} no digest (written by an optbench that made none): an edit of its numbers would show "
            "only where they contradict each other."
        )


def verify(db: sqlite3.Connection, ids: Iterable[str] | None = None, *, beside: bool = False) -> Integrity:
    """Compare a store with its digests, and its values with each other.

    Parameters
    ----------
    db : Connection
        Of a store of the newest format.
    ids : iterable of str, optional
        Only these records; all, and what lies beside them, if not given.
    beside : bool
        Of some records, too: the plan and the facts about the suite.

    Returns
    -------
    Integrity

    Notes
    -----
    Of every record: its digest; its ids and its environment's, which are hashes of what they name; metrics
    within their range. Of a record without a digest also the range of its history, and that its accuracies
    are a whole number of its predictions. Of the store: the index against the table, the digests of plan and
    facts, and that no record was added or taken away.
    """
    before = db.text_factory
    ids = None if ids is None else list(ids)
    try:
        with _reading(db):
            try:
                return _verify(db, ids, beside=beside)
            except sqlite3.OperationalError as error:
                if "decode" not in str(error):
                    raise
            # What is no text any more is a misfit, not an end.
            db.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
            return _verify(db, ids, beside=beside)
    finally:
        db.text_factory = before


@contextlib.contextmanager
def _reading(db: sqlite3.Connection) -> Iterator[None]:
    """See one state of the store, whatever is written meanwhile."""
    if db.in_transaction:
        yield
        return
    db.execute("BEGIN")
    try:
        yield
    finally:
        db.execute("COMMIT")


def _verify(db: sqlite3.Connection, ids: Iterable[str] | None, *, beside: bool) -> Integrity:
    environments = _environments(db)
    total, bare, records = RecordSum(), 0, 0
    misfits: list[Misfit] = []
    for (*row, digest), predictions in _with_predictions(db, ids):
        records += 1
        bare += digest is None
        key = row[0]
        if not _is_id(key):
            misfits.append(Misfit(trial_id=shown(row[0]), what="its id is no id"))
            continue
        total.move(key, digest, 1)
        if (what := _misfit(row, predictions, digest, environments)) is not None:
            damaged = damaged_field(row, environments)
            misfits.append(Misfit(trial_id=key, what=what, field=damaged))
    if ids is None:
        misfits += _records(db, total)
    if ids is None or beside:
        misfits += _parts(db)
    return Integrity(records=records, bare=bare, misfits=tuple(misfits))


def _with_predictions(
    db: sqlite3.Connection, ids: Iterable[str] | None
) -> Iterator[tuple[Sequence[Any], Sequence[Sequence[Any]]]]:
    """Rows of records, each with its predictions, epoch, kind and packed values, ordered by epoch."""
    query, order = _RECORDS, "ORDER BY trials.rowid, predictions.epoch"
    if ids is None:
        rows: Iterator[Any] = db.execute(f"{query} {order}")
    else:
        one = f"{query} WHERE trials.trial_id = ? {order}"
        rows = (row for key in ids for row in db.execute(one, (key,)))
    for _, group in itertools.groupby(rows, itemgetter(0)):
        of_epochs = list(group)
        yield of_epochs[0][1:-3], [row[-3:] for row in of_epochs if row[-3] is not None]


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable()


def _environments(db: sqlite3.Connection) -> dict[Any, bool]:
    """Whether each environment is what its id says."""
    found = {}
    for key, facts in db.execute("SELECT id, facts FROM environments"):
        try:
            found[key] = content_hash(json.loads(facts)) == key
        except _ERRORS:
            found[key] = False
    return found


def _misfit(
    row: Sequence[Any],
    predictions: Sequence[Sequence[Any]],
    digest: str | None,
    environments: Mapping[Any, bool],
) -> str | None:
    """Say what of a record is not as it was written; None if all is."""
    if not environments.get(row[5], False):
        return "its environment is missing" if row[5] not in environments else "its environment has changed"
    fits = digest is None or digest == record_digest(row, predictions)
    try:
        reason = _contradiction(row, predictions, thorough=digest is None or not fits)
    except _ERRORS as error:
        reason = f"a value cannot be read ({type(error).__name__})"
    if fits:
        return reason
    return "its content does not fit its digest" + (f"; {reason}" if reason else "")


def _contradiction(row: Sequence[Any], predictions: Sequence[Sequence[Any]], *, thorough: bool) -> str | None:
    """Say which values of a record contradict each other, or what is possible.

    ``thorough`` looks at predictions and history too, which a digest that fits vouches for.
    """
    key, block, status = row[:3]
    if (found := ids_of(row[6])) != (key, block):
        if found[0] != key:
            return f"its spec is that of trial {found[0]}"
        return f"its spec is of block {found[1]}, not {block}"
    metrics: dict[str, float] = from_json(row[11])
    imported = '"imported"' in row[6]
    lows, highs = _limits(tuple(metrics), imported)
    if not (all(map(le, lows, metrics.values())) and all(map(le, metrics.values(), highs))):
        for (name, value), low, high in zip(metrics.items(), lows, highs, strict=True):
            if not low <= value <= high:
                return f"{name} is {value:g}, which is beyond {_range(low, high)}"
    if not thorough:
        return None
    if status == "completed" or predictions:
        counts = {epoch: _examples(dtype, packed) for epoch, dtype, packed in predictions}
        for name in _COUNTED:
            if name in metrics and (n := counts.get(name.rpartition("_")[2])):
                right = metrics[name] * n
                if abs(right - round(right)) > _ROUNDING * n:
                    return f"{name} is {metrics[name]:g}, which is no whole number of the {n} predictions"
        if counts and "test_accuracy" in metrics:
            allowed = [metrics[name] for name in _COUNTED if name in metrics]
            if allowed and metrics["test_accuracy"] not in allowed:
                return "test_accuracy is neither that of the last nor that of the best epoch"
    return _history_range(row[13], row[14], imported)


def _history_range(columns: str, packed: bytes, imported: bool) -> str | None:
    names = json.loads(columns)
    for name, values in zip(names, unpack_history(packed, len(names)), strict=True):
        low, high = _bounds(name, imported)
        finite = values[np.isfinite(values)]
        if len(finite) and not (low <= finite.min() and finite.max() <= high):
            return f"{name} in its history is beyond {_range(low, high)}"
    return None


@lru_cache(maxsize=256)
def _limits(names: tuple[str, ...], imported: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Least and largest possible value of each."""
    bounds = [_bounds(name, imported) for name in names]
    return tuple(low for low, _ in bounds), tuple(high for _, high in bounds)


@lru_cache(maxsize=4096)
def _bounds(name: str, imported: bool) -> tuple[float, float]:
    """Possible values of a metric; of other tools' only shares are sure to mean what their name says."""
    metric = known(name)
    if metric is None or (imported and metric.unit != "share"):
        return -math.inf, math.inf
    return metric.low - 1e-9, metric.high + 1e-9


def _range(low: float, high: float) -> str:
    return f"{round(low, 6) + 0.0:g}..{round(high, 6):g}"


def _examples(dtype: str, packed: bytes) -> int:
    return len(unpack(packed)) // np.dtype(dtype).itemsize


def _records(db: sqlite3.Connection, total: RecordSum) -> Iterator[Misfit]:
    """What does not fit of the records as a whole."""
    # A damaged key can lead to another row, or to none, though every row by itself is sound.
    for (words,) in db.execute(f"PRAGMA integrity_check({NAMED})"):
        if words != "ok":
            yield Misfit(what=f"SQLite finds: {one_line(ValueError(words))}")
    seals = read_seals(db)
    if RECORDS in seals and seals[RECORDS] != total.text:
        count, _, _ = seals[RECORDS].partition(":")
        what = f"{total.count} records, and {count} were written"
        if count == str(total.count):
            what = "the digests of the records are not those that were written"
        yield Misfit(what=what)


def _parts(db: sqlite3.Connection) -> Iterator[Misfit]:
    """What does not fit beside the records; nothing for a store that was never sealed."""
    seals = read_seals(db)
    if not seals:
        return
    found = part_digests(db)
    for part in sorted({*found, *seals} - {RECORDS, CHAIN}):
        name = f"meta entry {shown(part[5:])}" if part.startswith("meta ") else f"the {part}"
        if len(name) > _LONGEST_NAME:
            name = f"the table {shown(part)}"
        if part not in found:
            yield Misfit(what=f"{name} is missing")
        elif part not in seals:
            yield Misfit(what=f"{name} was added by something else than optbench")
        elif found[part] != seals[part]:
            yield Misfit(what=f"{name} has changed since it was written")
    if seals.get(CHAIN) != chain(seals):
        yield Misfit(what="the digest over all digests does not fit them")
