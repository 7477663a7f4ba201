"""A CSV file as a dataset: one example a row, numbers or encoded words, a column of labels as text."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optbench.datasets.base import DataError
from optbench.datasets.cells import Cells, TableError, at_line, is_unnamed, look_alike, read_cells
from optbench.datasets.formats import read_csv
from optbench.datasets.numbers import Locale, is_gap, is_numeric
from optbench.suite.validation import called, listed, shown
from optbench.trial import OwnData

_TRUE, _FALSE = frozenset(("true",)), frozenset(("false",))
#: Cells of a table in which columns are compared with the labels.
_LOOKED_AT = 2_000_000
_WHOLE = re.compile(r"[+-]?(0|[1-9]\d*)")


@dataclass(frozen=True, kw_only=True)
class OwnTable:
    """A table as examples and labels.

    Attributes
    ----------
    parts : tuple of array
        x, y of the file, and those of the test file if there is one.
    notes : tuple of str
        What was left out, and what a reader should look at.
    identity : tuple of str
        What was decided beyond what the file's bytes say.
    """

    parts: tuple[NDArray[Any], ...]
    notes: tuple[str, ...]
    identity: tuple[str, ...]


def read(own: OwnData) -> OwnTable:
    """Read the files of a declaration.

    Raises
    ------
    DataError
        Names file, line and column, and the ways out.
    """
    paths = [Path(own.location), *([Path(own.test_location)] if own.test_location else [])]
    plain = [_plain(own, path) for path in paths] if not own.encode else [None]
    try:
        tables = [table for table in plain if table is not None]
        if len(tables) < len(plain):
            tables = _texts(own, [read_cells(path) for path in paths])
    except TableError as error:
        raise DataError(str(error)) from None
    return _understood(own, tables)


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Columns of inputs as numbers, encoded ones as several; the labels as text."""

    path: Path
    columns: Mapping[str, NDArray[Any]]
    labels: Sequence[str]
    notes: tuple[str, ...] = ()


def _plain(own: OwnData, path: Path) -> _Table | None:
    """A sound table of numbers, read by pandas; None if anything is odd, which then is looked at as text."""
    import pandas as pd

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader([file.readline()]), [])
        if own.label not in names or len(set(names)) < len(names) or any(n != n.strip() for n in names):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            options = {"encoding": "utf-8-sig", "index_col": False}
            frame = read_csv(path, **options)
            labels = pd.read_csv(path, usecols=[own.label], dtype=str, keep_default_na=False, **options)
    except (OSError, ValueError, csv.Error, Warning):
        return None
    features = frame.drop(columns=own.label)
    missing = [name for name in own.drop or () if name not in names]
    if missing or any(kind.kind not in "iuf" for kind in features.dtypes) or features.isna().any(axis=None):
        return None
    if any(not np.isfinite(features[name].to_numpy()).all() for name in features):
        return None
    cells = [str(label) for label in labels.iloc[:, 0]]
    words = [cell.strip() for cell in cells]
    notes = ("spaces around labels are left out",) if words != cells else ()
    if not len(frame) or not all(words) or len(names) != len(frame.columns):
        return None
    named = dict(zip((n for n in names if n != own.label), features.columns, strict=True))
    columns = {n: features[c].to_numpy() for n, c in named.items()}
    return _Table(path=path, columns=columns, labels=words, notes=notes)


def _texts(own: OwnData, tables: Sequence[Cells]) -> list[_Table]:
    """The columns of files that hold more than numbers."""
    label = str(own.label)
    for cells in tables:
        _check_columns(own, cells, tables[0])
    first = tables[0]
    names = [name for name in first.names if name != label and name not in (own.drop or ())]
    unnamed = [name for name in names if is_unnamed(name)]
    names = [name for name in names if name not in unnamed or all(name in cells.names for cells in tables)]
    columns = [{name: cells.column(cells.names.index(name)) for name in (*names, label)} for cells in tables]
    for cells, found in zip(tables, columns, strict=True):
        _check_filled(cells, found, label)
    categories = {name: sorted({v for found in columns for v in found[name]}) for name in own.encode or ()}
    read = []
    for cells, found in zip(tables, columns, strict=True):
        notes = list(cells.notes)
        inputs = _numbers(cells, names, found, categories, notes)
        read.append(_Table(path=cells.path, columns=inputs, labels=found[label], notes=tuple(notes)))
    return read


def _understood(own: OwnData, tables: Sequence[_Table]) -> OwnTable:
    first, identity = tables[0], []
    notes = [note for table in tables for note in table.notes]
    inputs = {
        name: column
        for name, column in first.columns.items()
        if name not in (own.drop or ()) and name not in (own.encode or ())
    }
    index = [name for name, column in inputs.items() if _is_index(name, column)]
    notes += [
        f"{first.path.name}: column {called(name)} has another whole number in every row, as an index has; "
        f"if it is one, leave it out with drop: [{called(name)}]"
        for name, column in inputs.items()
        if name not in index and _is_key(name, column)
    ]
    features = [name for name in first.columns if name not in (*index, *(own.drop or ()))]
    if not features and index:
        named = listed(list(map(called, index)))
        notes.append(f"{first.path.name}: {named} counts the rows, and is the only column of inputs")
        index, features = [], index
    for name in index:
        notes.append(
            f"{first.path.name}: column {called(name) or '(no name)'} is an index of the rows: left out"
        )
        identity.append(f"|index {name}")
    if not features:
        raise DataError(f"{first.path}: no column of inputs is left beside {shown(own.label)}")
    labels, as_text = _labels(own, tables)
    if as_text:
        identity.append("|labels as text")
    xs = []
    for table in tables:
        lacking = [name for name in features if name not in table.columns]
        if lacking:
            raise DataError(f"{table.path}: no column {shown(lacking[0])}, which {first.path} has")
        xs.append(_shaped(own, table.path, np.column_stack([table.columns[name] for name in features])))
    if own.shape is None and len(features) * len(first.labels) <= _LOOKED_AT and not own.targets:
        notes += _suspicious(first, features)
    parts = tuple(part for pair in zip(xs, labels, strict=True) for part in pair)
    return OwnTable(parts=parts, notes=tuple(notes), identity=tuple(identity))


def _check_columns(own: OwnData, cells: Cells, first: Cells) -> None:
    path, names = cells.path, list(cells.names)
    if own.label not in names:
        what = "targets" if own.targets else "labels"
        raise DataError(f"{path}: no column {shown(own.label)} for the {what}; it has {shown(names)}")
    for key, columns in (("encode", own.encode), ("drop", own.drop)):
        for name in columns or ():
            if name not in names or name == own.label:
                raise DataError(f"{path}: {key}: no column {shown(name)} of inputs; it has {shown(names)}")
    if both := [name for name in own.encode or () if name in (own.drop or ())]:
        raise DataError(f"{path}: encode, drop: column {shown(both[0])} is in both; say one")
    if cells.repeated:
        raise DataError(f"{path}:{cells.repeated[0]}: the header stands there again; take the line out")
    lacking = [name for name in first.names if name not in names and name not in (own.drop or ())]
    if lacking and not all(is_unnamed(name) for name in lacking):
        raise DataError(f"{path}: no column {shown(lacking[0])}, which {first.path} has")


def _is_index(name: str, column: NDArray[Any]) -> bool:
    """Whether a column numbers the rows: without a name and every value once, or a count of them."""
    if column.ndim > 1 or len(column) < 3:
        return False
    counts = column[0] in (0, 1) and bool((column == np.arange(len(column)) + column[0]).all())
    return counts or (is_unnamed(name) and len(np.unique(column)) == len(column))


def _is_key(name: str, column: NDArray[Any]) -> bool:
    """Whether a column is called as an index and has another whole number in every row, or counts down."""
    if column.ndim > 1 or len(column) < 3 or (column % 1).any():
        return False
    named = re.fullmatch(r"(.*[\W_])?(id|idx|index|key|row|rownum|number|no|nr)", name.strip().lower())
    down = bool((np.diff(column) == -1).all())
    return down or (named is not None and len(np.unique(column)) == len(column))


def _check_filled(cells: Cells, columns: Mapping[str, Sequence[str]], label: str) -> None:
    for name, column in columns.items():
        # NA among words is a word, among numbers a gap.
        numbers = name != label and is_numeric(column)
        for line, cell in zip(cells.lines, column, strict=True):
            if not cell or (numbers and is_gap(cell)):
                out = "take out the row" if name == label else _ways_out(called(name))
                raise DataError(f"{cells.path}:{line}: column {shown(name)}: a value is missing; {out}")


def _numbers(
    cells: Cells,
    names: Sequence[str],
    columns: Mapping[str, Sequence[str]],
    categories: Mapping[str, Sequence[str]],
    notes: list[str],
) -> dict[str, NDArray[Any]]:
    """Columns of inputs as numbers; how their cells were read goes to the notes."""
    for name, words in categories.items():
        look_alike(name, words, notes)
    numeric = {n: columns[n] for n in names if n not in categories and is_numeric(columns[n])}
    locale = Locale(cells.path, numeric, cells.lines)
    arrays: dict[str, NDArray[Any]] = {}
    for name in names:
        column = columns[name]
        if name in categories:
            codes = np.searchsorted(np.array(categories[name]), np.array(column))
            arrays[name] = np.eye(len(categories[name]), dtype=np.int64)[codes]
        elif _is_truth(column):
            arrays[name] = np.array([cell.lower() in _TRUE for cell in column], dtype=np.int64)
        elif name not in numeric:
            words = listed([called(cell) for cell in list(dict.fromkeys(column))[:3]])
            raise DataError(
                f"{cells.path}: column {shown(name)} holds no numbers ({words}, ...); one-hot encode it with "
                f"encode: [{called(name)}], or leave it out with drop: [{called(name)}]"
            )
        else:
            read = locale.column(name, column)
            if read.diverged.any():
                line = cells.lines[int(np.flatnonzero(read.diverged)[0])]
                raise DataError(
                    f"{at_line(cells.path, line, name)}: an input is no finite number; {_ways_out(name)}"
                )
            whole = all(_WHOLE.fullmatch(cell) for cell in column) and np.abs(read.values).max() < 2**53
            arrays[name] = read.values.astype(np.int64) if whole else read.values
    notes.extend(locale.notes)
    return arrays


def _ways_out(name: str) -> str:
    """What to do about a cell without a usable number."""
    return (
        f"take out the row, or the column with drop: [{name}], or impute it (by its mean over the training "
        "rows)"
    )


def _shaped(own: OwnData, path: Path, x: NDArray[Any]) -> NDArray[Any]:
    if own.shape is None:
        return x
    if x.shape[1] != int(np.prod(own.shape)):
        raise DataError(f"{path}: {x.shape[1]} columns do not make examples of shape {own.shape}")
    if x.dtype.kind in "iu" and x.min() >= 0 and x.max() <= 255:
        x = x.astype(np.uint8)
    return x.reshape(-1, *own.shape)


def _is_truth(column: Sequence[str]) -> bool:
    return {cell.lower() for cell in column} <= _TRUE | _FALSE


def _labels(own: OwnData, tables: Sequence[_Table]) -> tuple[list[NDArray[Any]], bool]:
    """Targets as numbers, or labels as whole numbers where all are written as such, else as text."""
    if own.targets == "value":
        read = []
        for table in tables:
            lines = range(2, len(table.labels) + 2)
            locale = Locale(table.path, {str(own.label): table.labels}, lines)
            read.append(locale.column(str(own.label), table.labels).values)
        return read, False
    cells = [cell for table in tables for cell in table.labels]
    if all(re.fullmatch(rf"{_WHOLE.pattern}(\.0+)?", cell) for cell in cells):
        return [np.array([int(cell.partition(".")[0]) for cell in t.labels]) for t in tables], False
    numbers = is_numeric(cells, share=1.0)
    if numbers and len(set(cells)) > max(20, len(cells) / 2):
        raise DataError(
            f"{tables[0].path}: column {shown(own.label)} holds {len(set(cells))} different numbers in "
            f"{len(cells)} rows, which are no classes; name it with target: in place of label:"
        )
    return [np.array(table.labels, dtype=str) for table in tables], numbers


def array_notes(own: OwnData, x: NDArray[Any], y: NDArray[Any]) -> list[str]:
    """Point out columns of an array that count the rows, or say the label.

    Parameters
    ----------
    own : OwnData
    x : array [n, features]
        Other shapes, and more than a few million numbers, are not looked at.
    y : array [n]
    """
    if x.ndim != 2 or x.size > _LOOKED_AT or len(x) < 3:
        return []
    path = Path(own.location)
    names = [f"x[:, {k}]" for k in range(x.shape[1])]
    columns = {name: x[:, k] for k, name in enumerate(names)}
    notes = [
        f"{path.name}: {called(name)} counts the rows, as an index does; if it is one, leave the column out"
        for name, column in columns.items()
        if _is_index(name, column)
    ]
    if own.targets:
        return notes
    return notes + _suspicious(_Table(path=path, columns=columns, labels=[str(v) for v in y]), names)


def _suspicious(table: _Table, names: Sequence[str]) -> list[str]:
    """Warn of a column that says the label: equal to it, or ordering it perfectly."""
    _, codes = np.unique(np.array(table.labels), return_inverse=True)
    classes = int(codes.max()) + 1
    notes = []
    for name in names:
        column = table.columns[name]
        if column.ndim > 1:
            continue
        of_column = f"{table.path.name}: column {called(name)}"
        values, places = np.unique(column, return_inverse=True)
        pairs = len({*zip(places.tolist(), codes.tolist(), strict=True)})
        if len(values) == classes == pairs:
            notes.append(f"{of_column} says the label, one value a class: is it an answer?")
        elif pairs == len(values) and len(codes) > 2 * classes:
            order = codes[np.argsort(column, kind="stable")]
            if int((np.diff(order) != 0).sum()) == classes - 1:
                notes.append(f"{of_column} orders the labels perfectly: is it known before?")
    return notes
