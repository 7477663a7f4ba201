"""Results from anywhere: a CSV of trials, or a datasets x methods matrix, read into one tidy table."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from optbench.datasets.formats import read_csv
from optbench.stats.classifiers import McNemarResult, mcnemar_predictions
from optbench.stats.common import StatsError, to_plain
from optbench.stats.compare import RESERVED, Comparison, compare_table
from optbench.stats.corrections import adjust
from optbench.stats.survival import budgeted
from optbench.suite.validation import one_line, shown

if TYPE_CHECKING:
    import pandas as pd

_MISSING = {"", "na", "n/a", "nan", "none", "null", "-", "crashed", "missing"}
_TRUE = {"true", "1", "1.0", "yes"}
_FALSE = {"false", "0", "0.0", "no", "", "nan"}
FORMS = (
    "a long table has the columns dataset, optimizer, seed and one or more metrics (optional: status, "
    "reached, time, budget); a wide matrix has the dataset in its first column and one column of numbers per "
    "method"
)


class TableError(StatsError):
    """A file that cannot be read as results: the place, what was found, what is allowed."""


@dataclass(frozen=True)
class ResultsTable:
    """A table as read: the tidy frame, its metrics, and a sentence on how the file was understood."""

    frame: pd.DataFrame
    form: Literal["long", "wide"]
    metrics: tuple[str, ...]
    explanation: str


@dataclass(frozen=True)
class ModelComparison:
    """Two models on one test set: McNemar's mid-p, adjusted over the family by Holm."""

    candidate: str
    baseline: str
    n: int
    accuracy_candidate: float
    accuracy_baseline: float
    test: McNemarResult
    p_adjusted: float


def read_results(path: str | PathLike[str]) -> ResultsTable:
    r"""Read a CSV (or TSV, or semicolon-separated) table of results.

    Parameters
    ----------
    path : path
        A long table, if it has a column "optimizer", or else a wide matrix. In a cell of a metric, "diverged"
        marks a diverged trial, an empty cell, "NA" or "crashed" a missing one.

    Returns
    -------
    ResultsTable
        `frame` has the columns dataset, optimizer, seed, the metrics, and those of status, reached, time and
        budget that the file has.

    Raises
    ------
    TableError
        Names the file, the line and column, what was found, what is allowed and what to do.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "wide.csv"
    >>> _ = path.write_text("dataset,adam,wame\nmnist,0.98,0.99\n")
    >>> read_results(path).form
    'wide'
    """
    path = Path(path)
    frame, separator = _read(path)
    names = {str(c).strip().lower(): c for c in frame.columns}
    frame = frame.rename(columns={names[r]: r for r in (*RESERVED, "method") if r in names})
    if "optimizer" not in frame.columns and {"method", "dataset"} <= set(frame.columns):
        frame = frame.rename(columns={"method": "optimizer"})
    return _long(path, frame, separator) if "optimizer" in frame.columns else _wide(path, frame, separator)


def _read(path: Path) -> tuple[pd.DataFrame, str]:
    import pandas as pd

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
    except FileNotFoundError:
        raise TableError(f"{path}: file not found; pass the path of a CSV table ({FORMS})") from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
        raise TableError(
            f"{path}: cannot be read as UTF-8 text ({one_line(error)}); save it as a UTF-8 CSV"
        ) from None
    separator = max(",;\t", key=header.count)
    columns = next(csv.reader([header], delimiter=separator), [])
    repeated = sorted({c for c in columns if columns.count(c) > 1})
    if repeated:
        raise TableError(f"{path}: line 1: column {', '.join(repeated)} appears twice; name each column once")
    if len(columns) < 2:
        raise TableError(f"{path}: line 1: found {len(columns)} column(s); {FORMS}")
    try:
        with warnings.catch_warnings():
            # A warning of pandas says that it left cells out.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = read_csv(
                path, sep=separator, encoding="utf-8-sig", skipinitialspace=True, index_col=False
            )
    except (
        pd.errors.ParserError,
        pd.errors.EmptyDataError,
        pd.errors.ParserWarning,
        UnicodeDecodeError,
    ) as error:
        raise TableError(f"{path}: {one_line(error)}; every line needs {len(columns)} columns") from None
    if frame.empty:
        raise TableError(f"{path}: found a header and no rows; {FORMS}")
    return frame, separator


def _texts(path: Path, separator: str, column: int) -> list[str]:
    """The cells of one column as written, for messages and words such as "diverged"."""
    import pandas as pd

    cells = pd.read_csv(
        path,
        sep=separator,
        usecols=[column],
        dtype=str,
        keep_default_na=False,
        encoding="utf-8-sig",
        index_col=False,
    )
    return [str(cell).strip() for cell in cells.iloc[:, 0]]


def _numbers(
    path: Path, separator: str, frame: pd.DataFrame, column: str
) -> tuple[np.ndarray[Any, Any], Any]:
    """A column as floats, and which cells say "diverged" (None if there is none)."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(frame[column]) and not pd.api.types.is_bool_dtype(frame[column]):
        return frame[column].to_numpy(dtype=np.float64), None
    values = np.empty(len(frame))
    diverged = np.zeros(len(frame), dtype=bool)
    for i, cell in enumerate(_texts(path, separator, list(frame.columns).index(column))):
        word = cell.lower()
        diverged[i] = word == "diverged"
        try:
            values[i] = np.nan if word in _MISSING or diverged[i] else float(cell)
        except ValueError:
            raise TableError(
                f"{path}: line {i + 2}, column {column!r}: found {shown(cell)}; allowed are a number with a "
                "decimal point, an empty cell or NA (missing), and the word diverged"
            ) from None
    return values, diverged


def _long(path: Path, frame: pd.DataFrame, separator: str) -> ResultsTable:
    original = list(frame.columns)
    metrics, states = [], np.zeros(len(frame), dtype=bool)
    said = ["long table"]
    for column in original:
        numeric = column in ("time", "budget") or (column not in RESERVED and column != "method")
        if not numeric:
            continue
        if column not in RESERVED and not _is_metric(frame[column]):
            continue
        values, diverged = _numbers(path, separator, frame, column)
        frame[column] = values
        if diverged is not None:
            states |= diverged
        if column not in RESERVED:
            metrics.append(str(column))
    if "reached" in frame:
        frame["reached"] = _booleans(path, frame)
    if "dataset" not in frame:
        frame["dataset"] = path.stem
        said.append(f"no column dataset: all rows are the dataset {path.stem!r}")
    if "seed" not in frame:
        if frame.duplicated(["dataset", "optimizer"]).any():
            raise TableError(f"{path}: line 1: no column seed, but several rows per optimizer; add one")
        frame["seed"] = 0
        said.append("no column seed: one trial per dataset and optimizer")
    if "status" in frame:
        frame["status"] = frame["status"].fillna("completed").astype(str).str.strip().str.lower()
    if states.any():
        frame["status"] = np.where(states, "diverged", frame.get("status", "completed"))
    said[0] += f" with {len(frame)} trials, metrics {', '.join(metrics) or 'none'}"
    return ResultsTable(frame, "long", tuple(metrics), "; ".join(said))


def _is_metric(column: pd.Series) -> bool:
    """Numbers, or cells of which at least half are: a typo in a metric is an error, a label is not."""
    import pandas as pd

    if pd.api.types.is_bool_dtype(column):
        return False
    if pd.api.types.is_numeric_dtype(column):
        return True
    return bool(pd.to_numeric(column, errors="coerce").notna().mean() >= 0.5)


def _booleans(path: Path, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
    words = frame["reached"].astype(str).str.strip().str.lower()
    unknown = ~words.isin(_TRUE | _FALSE)
    if unknown.any():
        i = int(np.flatnonzero(unknown.to_numpy())[0])
        raise TableError(
            f"{path}: line {i + 2}, column 'reached': found {shown(words.iloc[i])}; allowed are true, false"
        )
    return np.asarray(words.isin(_TRUE).to_numpy(), dtype=bool)


def _wide(path: Path, frame: pd.DataFrame, separator: str) -> ResultsTable:
    import pandas as pd

    first, *methods = [str(c) for c in frame.columns]
    if len(methods) < 2:
        raise TableError(f"{path}: line 1: found the columns {first}, {', '.join(methods)}; {FORMS}")
    labels = frame.iloc[:, 0].astype(str)
    if frame.iloc[:, 0].isna().any():
        line = int(np.flatnonzero(frame.iloc[:, 0].isna().to_numpy())[0]) + 2
        raise TableError(
            f"{path}: line {line}, column {first!r}: empty; every row needs the name of its dataset"
        )
    if labels.duplicated().any():
        i = int(np.flatnonzero(labels.duplicated().to_numpy())[0])
        raise TableError(
            f"{path}: line {i + 2}: dataset {shown(labels.iloc[i])} appears again; a wide matrix has one row "
            "per dataset: for several seeds use the long form (dataset, optimizer, seed, metric)"
        )
    if set(methods) & {"seed", "status"}:
        raise TableError(f"{path}: line 1: found the column seed or status but no column optimizer; {FORMS}")
    parts = []
    for method in methods:
        values, diverged = _numbers(path, separator, frame, method)
        status = np.where(diverged, "diverged", "completed") if diverged is not None else "completed"
        parts.append(
            pd.DataFrame(
                {"dataset": labels, "optimizer": method, "seed": 0, "value": values, "status": status}
            )
        )
    said = f"wide matrix of {len(frame)} datasets x {len(methods)} methods ({', '.join(methods)})"
    return ResultsTable(pd.concat(parts, ignore_index=True), "wide", ("value",), said)


def compare_file(
    path: str | PathLike[str],
    *,
    metric: str | None = None,
    maximise: bool | None = None,
    baseline: str | None = None,
    alpha: float = 0.05,
    correction: str = "holm",
    margin: float | None = None,
    family: Literal["baseline", "all"] | None = None,
) -> Comparison:
    r"""Read a table of results and run the whole decision procedure on it.

    Parameters
    ----------
    path : path
        See `read_results`.
    metric : str, optional
        Needed if the table has several. A table with reached and time but no metric is compared on min(time,
        budget).
    maximise, baseline, alpha, correction, margin, family
        See `optbench.stats.compare.compare_table`.

    Returns
    -------
    Comparison
        Its first note says how the file was understood.

    Raises
    ------
    StatsError
        With the name of the file in front.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "wide.csv"
    >>> _ = path.write_text("dataset,adam,wame\nmnist,0.98,0.99\nkmnist,0.95,0.96\n")
    >>> compare_file(path, maximise=True, baseline="adam").notes[0]
    'wide matrix of 2 datasets x 2 methods (adam, wame)'
    """
    table = read_results(path)
    frame = table.frame
    if metric is None:
        if len(table.metrics) == 1:
            metric = table.metrics[0]
        elif not table.metrics and {"reached", "time"} <= set(frame.columns):
            metric, maximise = "time_to_target", False
            limit = (
                frame["budget"] if "budget" in frame else frame.groupby("dataset")["time"].transform("max")
            )
            frame = frame.assign(
                time_to_target=budgeted(
                    np.where(frame["reached"], frame["time"], np.inf), budget=np.asarray(limit, dtype=float)
                )
            )
        else:
            found = ", ".join(table.metrics) or "none"
            raise TableError(f"{path}: metrics: found {found}; choose one with --metric (metric=...)")
    elif metric not in table.metrics:
        raise TableError(f"{path}: metric: found {metric!r}, allowed are {', '.join(table.metrics)}")
    try:
        result = compare_table(
            frame,
            metric=metric,
            baseline=baseline,
            maximise=maximise,
            alpha=alpha,
            correction=correction,
            margin=margin,
            family=family,
        )
    except StatsError as error:
        raise TableError(f"{path}: {error}") from None
    return replace(result, notes=(table.explanation, *result.notes))


def compare_predictions(
    path: str | PathLike[str], *, baseline: str | None = None, correction: str = "holm"
) -> tuple[ModelComparison, ...]:
    r"""Compare trained models on one test set by McNemar's test.

    Parameters
    ----------
    path : path
        CSV with a column "truth" (or "label") and one column of predicted labels per model; a column
        "example" is ignored. One row per test example.
    baseline : str, optional
        A model; by default all pairs are compared.
    correction : str
        Over the pairs.

    Returns
    -------
    tuple of ModelComparison
        About these trained models on examples like these, not about their optimizers: training is not
        repeated here.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "p.csv"
    >>> _ = path.write_text("truth,a,b\n1,1,0\n0,0,0\n")
    >>> compare_predictions(path)[0].test.b
    1
    """
    path = Path(path)
    frame, _ = _read(path)
    columns: Mapping[str, Any] = {str(c).strip().lower(): c for c in frame.columns}
    truth = columns.get("truth", columns.get("label"))
    models = [str(c) for c in frame.columns if str(c).strip().lower() not in ("truth", "label", "example")]
    if truth is None or len(models) < 2:
        found = ", ".join(map(str, frame.columns))
        raise TableError(
            f"{path}: line 1: found {found}; allowed are truth and one column of predictions per model"
        )
    if frame[[truth, *models]].isna().any(axis=None):
        row, column = np.argwhere(frame[[truth, *models]].isna().to_numpy())[0]
        name = [truth, *models][column]
        raise TableError(
            f"{path}: line {row + 2}, column {name!r}: empty; every example needs every prediction"
        )
    if baseline is not None and baseline not in models:
        raise TableError(f"{path}: baseline: found {baseline!r}, allowed are {', '.join(models)}")
    pairs = (
        list(combinations(models, 2))
        if baseline is None
        else [(m, baseline) for m in models if m != baseline]
    )
    y = frame[truth].to_numpy()
    tests = [mcnemar_predictions(y, frame[a].to_numpy(), frame[b].to_numpy()) for a, b in pairs]
    adjusted = adjust([t.p_midp for t in tests], method=correction, all_pairs=baseline is None)
    right = {m: float((frame[m].to_numpy() == y).mean()) for m in models}
    return tuple(
        ModelComparison(a, b, len(frame), right[a], right[b], test, float(p))
        for (a, b), test, p in zip(pairs, tests, adjusted, strict=True)
    )


def predictions_to_dict(comparisons: Sequence[ModelComparison]) -> dict[str, Any]:
    """JSON-ready tree of the comparisons of trained models, under the names of their fields.

    Examples
    --------
    >>> predictions_to_dict([])
    {'schema': 'optbench-predictions/1', 'comparisons': []}
    """
    return {"schema": "optbench-predictions/1", "comparisons": to_plain(list(comparisons))}
