"""The report in other formats: CSV, JSON, Parquet."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from optbench.environment import pip_hint
from optbench.errors import UserError
from optbench.records.frames import Results, load_results
from optbench.records.step_times import median
from optbench.records.whole import whole
from optbench.report.across import Across, SettingComparison
from optbench.report.answer import Answer
from optbench.report.failures import Failure
from optbench.report.leaderboard import Leaderboard
from optbench.report.leaderboard_columns import csv_columns, other_values
from optbench.report.new_examples import NewExamples
from optbench.report.text import TextTable
from optbench.stats.common import to_plain
from optbench.suite.report_spec import ReportSpec

#: Version of the JSON export's keys.
SCHEMA = "optbench-report-1"


class ExportError(UserError):
    """A format that cannot be written here; the message says what brings it."""


def csv_text(boards: Sequence[Leaderboard]) -> str:
    """Write the leaderboards as numbers, in the metric's own unit, one row an optimizer."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = csv_columns()
    writer.writerow(columns)
    for board in boards:
        writer.writerows([cell(get(board, row)) for get in columns.values()] for row in board.rows)
    return stream.getvalue()


def json_text(
    spec: ReportSpec,
    results: Results,
    boards: Sequence[Leaderboard],
    *,
    answer: Answer | None = None,
    overall: Iterable[Across] = (),
    settings: Iterable[SettingComparison] = (),
    over_examples: Iterable[NewExamples] = (),
    methods: str = "",
    declared: dict[str, Any] | None = None,
    missing: Iterable[Failure] = (),
) -> str:
    """Write everything computed as JSON: NaN becomes null, infinities the strings "inf" and "-inf".

    ``missing`` names what could not be made, and is only there where something could not.
    """
    counts = results.trials["status"].value_counts().to_dict() if len(results.trials) else {}
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "suite": spec.name,
        "title": spec.title,
        "made_data": any(meta.get("smoke") for meta in results.meta),
        "answer": list(answer.sentences) if answer else [],
        "planned": results.planned,
        "trials": counts,
        "analysis": spec.analysis,
        "question": {"confirmatory": spec.question, "declared": spec.analysis.question is not None},
        "declared": declared,
        "leaderboards": [_board(board) for board in boards],
        "across": [_fields(item, {"times", "cells", "measure"}) for item in overall],
        "settings": list(settings),
        "new_examples": [
            {
                "title": item.board.title,
                **{name: getattr(item, name) for name in ("examples", "rows", "reason", "left_out")},
            }
            for item in over_examples
        ],
        "refusals": results.refusals,
        "methods": methods,
        "timing": [{"entry": entry, "step": median(entry.step_seconds)} for entry in results.passes],
        "environments": results.environments,
    }
    if failed := [{"part": found.part, "reason": found.reason} for found in missing]:
        content["missing"] = failed
    return json.dumps(to_plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _board(board: Leaderboard) -> dict[str, Any]:
    rows = [
        {f.name: getattr(row, f.name) for f in fields(row) if f.name != "measured"} | other_values(board, row)
        for row in board.rows
    ]
    return _fields(board, {"table", "reached", "measure", "crossing"}) | {"rows": rows}


def _fields(item: Any, leave_out: set[str]) -> dict[str, Any]:
    names = (*item.__dataclass_fields__, "all_pairs")
    return {name: getattr(item, name) for name in names if name not in leave_out}


def table_csv(table: TextTable) -> str:
    """Write any of the report's tables as CSV: exact values where the table has them, else its text."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(map(cell, table.columns))
    for position, row in enumerate(table.rows):
        values = table.values[position] if table.values else [None] * len(row)
        cells = zip(row, values, strict=True)
        writer.writerow([cell(text if value is None else value) for text, value in cells])
    return stream.getvalue()


#: Characters at the start of a cell that make a spreadsheet compute it.
_FORMULA = re.compile(r"[=+\-@\t\r]")
#: What begins so and is a number, with its interval, or stands for none.
_NUMBER = re.compile(r"-|[+-]?[\d.,]+(e[+-]?\d+)?( \[[\d.,;e+\- ]+\])?")


def cell(value: Any) -> Any:
    """Make a text that a spreadsheet would compute one that it shows, by an apostrophe in front.

    Examples
    --------
    >>> cell("=1+1"), cell("adam"), cell("-0.5"), cell(-0.5)
    ("'=1+1", 'adam', '-0.5', -0.5)
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def frame_csv(frame: pd.DataFrame, path: Path | None = None) -> str | None:
    """Write a table as CSV, its texts as :func:`cell` makes them; as text where there is no path."""
    texts = {
        name: frame[name].map(cell)
        for name in frame.columns
        if not (is_numeric_dtype(frame[name]) or is_bool_dtype(frame[name]))
    }
    safe = frame.assign(**texts).rename(columns=cell)
    found: str | None = safe.to_csv(path, index=False, lineterminator="\n")
    return found


def write_parquet(results: Results, folder: Path) -> list[Path]:
    """Write ``trials.parquet``, ``epochs.parquet``, and where there was tuning those tables too.

    Raises
    ------
    ExportError
        If pyarrow is not installed.
    """
    if find_spec("pyarrow") is None:
        raise ExportError(
            f"parquet: pyarrow is not installed; bring it with `{pip_hint('parquet')}`, or ask for csv"
        )
    written = []
    for name in ("trials", "epochs", "tuning", "untuned"):
        frame = getattr(results, name)
        if len(frame):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.parquet"
            with whole(path) as place:
                frame.to_parquet(place, engine="pyarrow", index=False)
            written.append(path)
    return written


@dataclass(frozen=True, kw_only=True)
class WrittenFrames:
    """Files, what a reader must know of the records, and how many are left out as not what was written."""

    files: list[Path]
    sentences: list[str]
    left_out: int


def write_frames(store: Path, folder: Path, kind: str) -> WrittenFrames:
    """Write a store's tables as files: trials and epochs, and where it was tuned tuning and untuned.

    JSON is a list of records. Raises :class:`ExportError` where pyarrow is missing.
    """
    results = load_results(store)
    files = _write_frames(results, folder, kind)
    (found,) = results.integrity
    return WrittenFrames(files=files, sentences=found.sentences, left_out=len(found.unfit))


def _write_frames(results: Results, folder: Path, kind: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    frames = {name: getattr(results, name) for name in ("trials", "epochs", "tuning", "untuned")}
    if kind == "parquet":
        return write_parquet(results, folder)
    written = []
    for name, frame in frames.items():
        if len(frame):
            path = folder / f"{name}.{kind}"
            with whole(path) as place:
                if kind == "csv":
                    frame_csv(frame, place)
                else:
                    frame.to_json(place, orient="records", indent=1)
            written.append(path)
    return written
