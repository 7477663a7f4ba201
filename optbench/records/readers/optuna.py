"""Optuna's SQLite storage: the trials of its studies as a table of results."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from optbench.datasets.cells import Cells
from optbench.records.readers.naming import LogError, Naming
from optbench.records.readers.runs import RunLog
from optbench.records.readers.table import ResultsTable, table_of
from optbench.records.readers.tabled import table_runs
from optbench.suite.validation import one_line

_INFINITE = {"INF_POS": "inf", "INF_NEG": "-inf"}
_DIRECTIONS = {"MAXIMIZE": "higher", "MINIMIZE": "lower"}


def is_storage(path: Path, head: bytes) -> bool:
    """Whether a file is an SQLite database with Optuna's tables."""
    if not head.startswith(b"SQLite format 3"):
        return False
    try:
        with _opened(path) as db:
            found = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except (sqlite3.Error, ValueError):  # damaged; a message of SQLite that quotes it may be no text
        return False
    return {"studies", "trials", "trial_values", "trial_params"} <= found


def read(paths: Sequence[Path], below: Path, naming: Naming) -> Iterator[RunLog]:
    """Read every study of some storages."""
    for path in paths:
        try:
            with _opened(path) as db:
                studies = db.execute("SELECT study_id, study_name FROM studies ORDER BY study_id").fetchall()
                tables = [_study(db, path, number, name, naming) for number, name in studies]
        except (sqlite3.Error, ValueError) as error:
            raise LogError(f"{path}: its studies cannot be read ({one_line(error)}); copy it again") from None
        if not any(tables):
            raise LogError(f"{path}: found no trial in {len(studies)} studies")
        for table in tables:
            if table is not None:
                yield from table_runs(table, path, naming, kind="optuna")


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1", uri=True)


def _study(db: sqlite3.Connection, path: Path, study: int, name: str, naming: Naming) -> ResultsTable | None:
    """The trials of one study, with its own directions and names of its objectives."""
    trials = db.execute(
        "SELECT trial_id, number, state FROM trials WHERE study_id = ? ORDER BY number", (study,)
    ).fetchall()
    if not trials:
        return None
    directions = db.execute(
        "SELECT objective, direction FROM study_directions WHERE study_id = ? ORDER BY objective", (study,)
    ).fetchall()
    named = db.execute(
        "SELECT value_json FROM study_system_attributes WHERE study_id = ? AND key = 'study:metric_names'",
        (study,),
    ).fetchone()
    metrics = json.loads(named[0]) if named else []
    titles = {
        k: metrics[k] if k < len(metrics) else "value" if len(directions) == 1 else f"value_{k}"
        for k, _ in directions
    }
    rows = [_row(db, trial, number, state, titles) for trial, number, state in trials]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = Cells(
        path=path,
        names=tuple(columns),
        rows=[[row.get(column, "") for column in columns] for row in rows],
        lines=[number for _, number, _ in trials],
    )
    given = naming.given if "dataset" in naming.given else {**naming.given, "dataset": name}
    table = table_of(cells, replace(naming, given=given))
    words = {titles[k]: _DIRECTIONS[word] for k, word in directions if word in _DIRECTIONS}
    return replace(table, directions={m: d for m, d in words.items() if m in table.metrics})


def _row(
    db: sqlite3.Connection, trial: int, number: int, state: str, titles: dict[int, str]
) -> dict[str, str]:
    row = {"number": str(number), "state": str(state)}
    for objective, value, kind in db.execute(
        "SELECT objective, value, value_type FROM trial_values WHERE trial_id = ?", (trial,)
    ):
        row[titles.get(objective, f"value_{objective}")] = _INFINITE.get(kind, repr(value))
    for name, value, distribution in db.execute(
        "SELECT param_name, param_value, distribution_json FROM trial_params WHERE trial_id = ?", (trial,)
    ):
        row[f"params_{name}"] = _text(_chosen(value, json.loads(distribution)))
    for name, value in db.execute(
        "SELECT key, value_json FROM trial_user_attributes WHERE trial_id = ?", (trial,)
    ):
        row[f"user_attrs_{name}"] = _text(json.loads(value))
    return row


def _chosen(value: float, distribution: dict[str, Any]) -> Any:
    """The parameter that an internal number stands for."""
    attributes = distribution.get("attributes", {})
    if distribution.get("name") == "CategoricalDistribution":
        return attributes["choices"][int(value)]
    return int(value) if "Int" in str(distribution.get("name")) else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)
