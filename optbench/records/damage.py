"""Find the invalid value in a damaged store."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, get_args

from optbench.records.format import is_numbers, select_trials, unpack_history
from optbench.suite.validation import one_line, shown
from optbench.trial import STREAMS, Status

#: What reading a damaged value raises.
READING_ERRORS = (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError)


def first_damage(db: sqlite3.Connection) -> str | None:
    """Describe the first invalid value in a store; None if all are valid."""
    try:
        environments = set()
        for key, facts in db.execute("SELECT id, facts FROM environments"):
            environments.add(key)
            if not isinstance(json.loads(facts), dict):
                return f"environment {shown(key)} is no mapping"
        for key, value in db.execute("SELECT key, value FROM meta"):
            if not (isinstance(key, str) and isinstance(value, str)):
                return f"meta entry {shown(key)} is no text"
        for row in db.execute("SELECT position, trial_id, workload, optimizer FROM plan"):
            if not (isinstance(row[0], int) and all(isinstance(name, str) for name in row[1:])):
                return f"row {shown(row[0])} of the plan"
        for row in db.execute(f"SELECT {select_trials()} FROM trials"):
            if (field := damaged_field(row, environments)) is not None:
                return f"{field} of trial {shown(row[0])}"
            if (columns := json.loads(row[13])) and "step_seconds" not in columns:
                return f"history_columns of trial {shown(row[0])}"
    except (sqlite3.Error, *READING_ERRORS) as error:
        return f"{type(error).__name__}: {one_line(error)}"
    return None


def damaged_field(row: Sequence[Any], environments: Collection[str]) -> str | None:
    """Name the first field of a trial's row that is invalid; None if all are valid.

    Parameters
    ----------
    row : sequence
        In the order of :data:`optbench.records.format.TRIAL_COLUMNS`.
    environments : collection of str
        Keys of the store's environments.
    """
    (trial, block, status, attempts, started, environment, spec, _, _, _, order, metrics, timings) = row[:13]
    columns, history = row[13:15]
    for name, value in (("trial_id", trial), ("block_id", block), ("status", status), ("started", started)):
        if not isinstance(value, str):
            return name
    if status not in get_args(Status):
        return "status"
    if not isinstance(attempts, int):
        return "attempts"
    if environment not in environments:
        return "environment"
    checks = (
        ("spec", spec, _is_spec),
        ("order_by_epoch", order, lambda value: _is_list_of(int, value)),
        ("metrics", metrics, is_numbers),
        ("timings", timings, is_numbers),
        ("history_columns", columns, lambda value: _is_list_of(str, value)),
    )
    for name, text, is_valid in checks:
        try:
            if not is_valid(json.loads(text)):
                return name
        except READING_ERRORS:
            return name
    try:
        unpack_history(history, len(json.loads(columns)))
    except ValueError:
        return "history"
    return None


def _is_list_of(kind: type, value: object) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


def _is_spec(value: Any) -> bool:
    """Whether a spec has what reports read of one, in their types; a missing key raises."""
    workload, seeds = value["workload"], value["seeds"]
    return (
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
