"""What is a matrix of datasets x methods, and what only looks like one."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from optbench.datasets.cells import Cells, TableError, at_line, is_count, is_unnamed
from optbench.datasets.numbers import is_gap, is_numeric, number
from optbench.records.readers import names
from optbench.suite.validation import shown
from optbench.task import known

_IMPORT = "is it the log of a run? optbench import takes logs"
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?")


def checked_matrix(cells: Cells, keep: Sequence[int], notes: list[str], forms: str) -> tuple[int, list[int]]:
    """Column of the datasets and columns of the methods.

    Raises
    ------
    TableError
        If it is a log, has rows or columns of statistics, metrics for methods, or a dataset twice.
    """
    path = cells.path
    columns = {k: cells.column(k) for k in keep}
    first, *methods = keep
    named = cells.names[first]
    plain_count = is_count(columns[first]) and not names.names_rows(named)
    has_words = len(methods) > 1 and not is_numeric(columns[methods[0]])
    if has_words and (names.is_index_name(named) or plain_count):
        notes.append(f"column {named or '(no name)'} is an index of the rows and is left out")
        first, *methods = methods
        named = cells.names[first]
    if (role := names.role_of(named)) is not None and role[0] == "seed":
        raise TableError(
            f"{path}: line 1: the first column is {named!r}: rows are runs and no datasets; write a row a "
            "run, with the columns dataset, optimizer, seed and the metric"
        )
    _not_a_log(cells, first, columns[first])
    if len(methods) < 2:
        listed = ", ".join(cells.names[k] for k in methods)
        raise TableError(f"{path}: line 1: found the columns {named}, {listed}; {forms}")
    reserved = {names.role_of(cells.names[k]) for k in (first, *methods)}
    if {"seed", "status"} & {role[0] for role in reserved if role is not None and role[1] < 2}:
        raise TableError(
            f"{path}: line 1: found the column seed or status but no column optimizer; {forms}; --map "
            "COLUMN=optimizer says which column names the optimizer"
        )
    _no_header(cells, first, methods)
    _columns_are_methods(cells, methods)
    labels = columns[first]
    empty = [i for i, label in enumerate(labels) if not label]
    if empty:
        raise TableError(
            f"{at_line(path, cells.lines[empty[0]], named)}: empty; every row needs the name of its dataset"
        )
    _rows_are_datasets(cells, labels, methods)
    seen: set[str] = set()
    for i, label in enumerate(labels):
        if label in seen:
            raise TableError(
                f"{path}: line {cells.lines[i]}: dataset {shown(label)} appears again; a wide matrix has one "
                "row per dataset: for several seeds use the long form (dataset, optimizer, seed, metric)"
            )
        seen.add(label)
    return first, methods


def _not_a_log(cells: Cells, first: int, labels: Sequence[str]) -> None:
    """Refuse a first column that counts or rises: rows are epochs, steps or times there, no datasets."""
    path, name = cells.path, cells.names[first]
    axis = next((k for k, n in enumerate(cells.names) if names.is_axis(n) and names.plain(n) != "x"), None)
    values = [number(label) for label in labels]
    rising = (
        len(labels) > 2
        and all(v is not None for v in values)
        and bool((np.diff(np.array([v for v in values if v is not None])) > 0).all())
    ) or (len(labels) > 2 and all(map(_DATE.fullmatch, labels)) and list(labels) == sorted(set(labels)))
    if names.is_axis(name) and (rising or names.plain(name) != "x"):
        raise TableError(
            f"{path}: line 1: the first column is {name!r}: rows are points of a run and no datasets; "
            f"{_IMPORT}"
        )
    if rising and axis is not None:
        raise TableError(
            f"{path}: line 1: found the column {cells.names[axis]!r}: rows are points of a run and no "
            f"datasets; {_IMPORT}"
        )
    if rising and not names.names_rows(name):
        raise TableError(
            f"{path}: line 1: the first column {name or '(no name)'!r} rises from row to row, from "
            f"{labels[0]} to {labels[-1]}: rows seem to be no datasets; {_IMPORT}. If they are datasets, "
            "call the column dataset"
        )


def _no_header(cells: Cells, first: int, methods: Sequence[int]) -> None:
    """Refuse a file whose first line is a row of results."""
    if all(number(cells.names[k]) is not None for k in methods) and not (
        names.names_rows(cells.names[first]) or is_unnamed(cells.names[first])
    ):
        raise TableError(
            f"{cells.path}: line 1: found {', '.join(cells.names[:4])}: a row of results where the names of "
            "the columns belong; write a line with dataset and the names of the methods above it"
        )


def _columns_are_methods(cells: Cells, methods: Sequence[int]) -> None:
    listed = [cells.names[k] for k in methods]
    for name in listed:
        if names.statistic_column(name, listed):
            raise TableError(
                f"{cells.path}: line 1: column {shown(name)} holds a statistic and is no method; leave it "
                f"out with --map '{name}=', and optbench import for the history of runs"
            )
        if names.is_fact(name):
            raise TableError(
                f"{cells.path}: line 1: column {shown(name)} is a fact about the datasets and no method; "
                f"leave it out with --map '{name}='"
            )
    measured = [
        name for name in listed if (metric := known(name)) is not None and metric.direction is not None
    ]
    if len(measured) == len(listed) or any(len(names.plain(name)) > 3 for name in measured):
        raise TableError(
            f"{cells.path}: line 1: {', '.join(measured)} are metrics and no methods, and no column names "
            "the optimizer; add a column optimizer, or say --map COLUMN=optimizer"
        )


def _rows_are_datasets(cells: Cells, labels: Sequence[str], methods: Sequence[int]) -> None:
    """Refuse rows of statistics: by their names, and a last row that is the mean of those above it."""
    end = len(labels)
    while end and names.is_statistic(labels[end - 1], last=True):
        end -= 1
    for i, label in enumerate(labels):
        if i >= end or names.is_statistic(label, last=False):
            raise TableError(
                f"{cells.path}: line {cells.lines[i]}: {shown(label)} is a statistic over other rows and no "
                "dataset; take the row out"
            )
    rows = [[number(row[k]) for k in methods] for row in cells.rows]
    if len(rows) < 4 or any(value is None for row in rows for value in row):
        return
    table = np.array(rows, dtype=float)
    places = max(len(c.partition(".")[2]) for c in (cells.rows[-1][k] for k in methods) if not is_gap(c))
    close = np.abs(table[:-1].mean(axis=0) - table[-1]) <= 0.500001 * 10.0**-places
    spread = (np.ptp(table, axis=0) > 10 * 10.0**-places).all()
    if places and close.all() and spread:
        raise TableError(
            f"{cells.path}: line {cells.lines[-1]}: {shown(labels[-1])} is the mean of the rows above it and "
            "no dataset; take the row out"
        )
