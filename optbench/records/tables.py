"""The statistics on results from anywhere: a table, a datasets x methods matrix, logs of other tools."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from optbench.datasets.cells import Cells, TableError, at_line, is_count, is_unnamed, read_cells
from optbench.datasets.numbers import out_of_range
from optbench.records.readers.names import bare, is_loss, is_setting, plain
from optbench.records.readers.naming import Naming
from optbench.records.readers.table import ResultsTable, read_table
from optbench.records.readers.tabled import one_row_a_run, table_of_runs
from optbench.stats.classifiers import McNemarResult, mcnemar_predictions
from optbench.stats.common import StatsError, to_plain
from optbench.stats.compare import Comparison, compare_table
from optbench.stats.corrections import adjust
from optbench.stats.independent import IndependentComparison, are_independent, compare_independent
from optbench.stats.profiles import profile_score, with_held_out
from optbench.stats.survival import budgeted
from optbench.suite.validation import shown

if TYPE_CHECKING:
    import pandas as pd

Analysed = TypeVar("Analysed", Comparison, IndependentComparison)


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


def read_results(path: str | PathLike[str], *, naming: Naming | None = None) -> ResultsTable:
    r"""Read a CSV (or TSV, or semicolon-separated) table of results.

    Parameters
    ----------
    path : path
        A long table, if it has a column "optimizer", or else a wide matrix. In a cell of a metric,
        "diverged", NaN and an infinity mark a diverged trial, an empty cell, "NA" or "crashed" a missing one.
    naming : Naming, optional
        What columns and states mean, where their names do not say.

    Returns
    -------
    ResultsTable
        `frame` has the columns dataset, optimizer, seed, the metrics, and those of status, reached, time and
        budget that the file has. Labels are text as written.

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
    return read_table(Path(path), naming)


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
    examples: int | None = None,
    streams: Sequence[str] | None = None,
    rope: float | None = None,
    naming: Naming | None = None,
) -> Comparison:
    r"""Read a table of results and run the whole decision procedure on it.

    Parameters
    ----------
    path : path
        See `read_results`.
    metric : str, optional
        Needed if the table has several. A table with reached and time but no metric is compared on min(time,
        budget).
    maximise, baseline, alpha, correction, margin, family, examples, streams, rope
        See `optbench.stats.compare.compare_table`.
    naming : Naming, optional
        What columns and states mean, where their names do not say.

    Returns
    -------
    Comparison
        Its first notes say how the file was understood, and what was left out.

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
    return read_runs(path, metric=metric, maximise=maximise, naming=naming).compare(
        baseline=baseline,
        alpha=alpha,
        correction=correction,
        margin=margin,
        family=family,
        examples=examples,
        streams=streams,
        rope=rope,
    )


#: A table says nothing of its analysis.
NOT_DECLARED = "when the analysis was declared is not recorded: a table of results does not say it"


@dataclass(frozen=True, kw_only=True)
class RunsTable:
    """A table of runs, ready for an analysis: tidy rows, the metric and its direction, how it was read."""

    path: Path
    frame: pd.DataFrame
    metric: str
    maximise: bool | None
    notes: tuple[str, ...]

    def compare(self, **settings: Any) -> Comparison:
        """Pair the runs by seed; settings are those of `optbench.stats.compare.compare_table`."""
        result: Comparison = self._analysed(compare_table, settings)
        return replace(result, notes=(*self.notes, *result.notes, NOT_DECLARED))

    def compare_independent(self, **settings: Any) -> IndependentComparison:
        """Take the runs as independent; settings are those of `optbench.stats.independent`."""
        result: IndependentComparison = self._analysed(compare_independent, settings)
        return replace(result, notes=(*self.notes, *result.notes, NOT_DECLARED))

    @property
    def independent(self) -> bool:
        """Does no seed have two optimizers, though there are several runs?"""
        return are_independent(self.frame)

    def _analysed(self, analysis: Callable[..., Analysed], settings: Mapping[str, Any]) -> Analysed:
        try:
            return analysis(self.frame, metric=self.metric, maximise=self.maximise, **settings)
        except StatsError as error:
            raise TableError(f"{self.path}: {error}") from None


def read_runs(
    path: str | PathLike[str],
    *,
    metric: str | None = None,
    maximise: bool | None = None,
    percent: bool = False,
    naming: Naming | None = None,
) -> RunsTable:
    """Read a table, or logs, and choose the metric; see `compare_file`.

    With `percent` the metric is divided by 100; what is no share is refused.
    """
    path = Path(path)
    table = _runs_table(path, naming or Naming())
    frame = table.frame
    metric, given = _metric(path, table, metric)
    if given is not None:
        frame, maximise = given, False
    if percent:
        frame = _divided(path, frame, metric)
    _check_range(path, frame, metric)
    frame, said = _outcomes(table, frame, metric)
    frame, labelled = _with_models(frame)
    if maximise is None and metric in table.directions:
        maximise = table.directions[metric] == "higher"
    return RunsTable(
        path=path,
        frame=frame,
        metric=metric,
        maximise=maximise,
        notes=(
            table.explanation,
            *table.notes,
            *((f"{metric}: taken as percentages, as asked",) if percent else ()),
            *labelled,
            *said,
        ),
    )


def _divided(path: Path, frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Percentages as shares."""
    from optbench.records.foreign_metrics import is_share

    largest = frame[metric].max()
    if not is_share(bare(metric)[0]) or not largest > 1:
        why = (
            f"its largest value is {largest:g}" if is_share(bare(metric)[0]) else "it is not known as a share"
        )
        raise TableError(f"{path}: --percent: {metric!r}: {why}; take the option away")
    return frame.assign(**{metric: frame[metric] / 100})


def _runs_table(path: Path, naming: Naming) -> ResultsTable:
    """A row a run, of a table of results or of the logs that a file or folder holds."""
    from optbench.records import logs

    if not path.exists() or logs.is_table(path, naming):
        table = one_row_a_run(read_results(path, naming=naming), path)
        naming.check_met(str(path))
        return table
    notes: list[str] = []
    given = {"dataset": path.name if path.is_dir() else path.stem, **naming.given}
    found = logs.read([path], replace(naming, given=given), notes=notes)
    return table_of_runs(found, path, notes)


def _metric(path: Path, table: ResultsTable, metric: str | None) -> tuple[str, pd.DataFrame | None]:
    """The column to compare, and a frame with the time to target where that is compared."""
    frame = table.frame
    if metric is not None:
        alike = [name for name in table.metrics if metric in (name, bare(name)[0], plain(name))]
        if metric in frame.columns and metric in (*table.metrics, *table.settings):
            return metric, None
        if len(alike) == 1:
            return alike[0], None
        raise TableError(
            f"{path}: metric: found {metric!r}, allowed are {', '.join(table.metrics) or 'none'}"
        )
    if len(table.metrics) == 1 or (table.metrics and table.chosen):
        return table.chosen or table.metrics[0], None
    if not table.metrics and {"reached", "time"} <= set(frame.columns):
        limit = frame["budget"] if "budget" in frame else frame.groupby("dataset")["time"].transform("max")
        spent = budgeted(
            np.where(frame["reached"], frame["time"], np.inf), budget=np.asarray(limit, dtype=float)
        )
        return "time_to_target", frame.assign(time_to_target=spent)
    words = next((note for note in table.notes if note.startswith("columns of words")), "")
    found = ", ".join(table.metrics) or f"none{f' ({words})' if words else ''}"
    turned = (
        "; if these are datasets, turn the table round: a row a dataset, a column a method"
        if len(table.metrics) > 1 and "no column seed" in table.explanation
        else ""
    )
    raise TableError(f"{path}: metrics: found {found}; choose one with --metric (metric=...){turned}")


def _check_range(path: Path, frame: pd.DataFrame, metric: str) -> None:
    for dataset, values in frame.groupby("dataset", sort=False)[metric]:
        problem = out_of_range(values.to_numpy(dtype=float))
        if problem is not None:
            raise TableError(f"{path}: column {metric!r}, dataset {dataset!r}: {problem}")


def _outcomes(table: ResultsTable, frame: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, list[str]]:
    """Status of each row: a written NaN or infinity of the metric, or of a loss, is a diverged run."""
    lost = np.zeros(len(frame), dtype=bool)
    for name, written in table.diverged.items():
        if name == metric or (is_loss(name) and not is_setting(name)):
            lost |= written
    if not lost.any():
        return frame, []
    # An infinity is no value either, whichever way it points.
    if metric in frame:
        values = frame[metric].to_numpy(dtype=float)
        frame = frame.assign(**{metric: np.where(lost & ~np.isfinite(values), np.nan, values)})
    status = frame["status"] if "status" in frame else np.full(len(frame), "completed")
    status = np.where(lost & (np.asarray(status) == "completed"), "diverged", status)
    notes = [f"{int(lost.sum())} runs wrote NaN, an infinity or diverged: they diverged"]
    return frame.assign(status=status), notes


def _with_models(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Datasets of several models are several workloads, as in an imported store."""
    if "model" not in frame or frame["model"].nunique() < 2:
        return frame, []
    named = frame.assign(dataset=[f"{d}/{m}" for d, m in zip(frame["dataset"], frame["model"], strict=True)])
    return named, ["several models: each dataset and model is a dataset of its own"]


def compare_predictions(
    path: str | PathLike[str], *, baseline: str | None = None, correction: str = "holm"
) -> tuple[ModelComparison, ...]:
    r"""Compare trained models on one test set by McNemar's test.

    Parameters
    ----------
    path : path
        CSV with a column "truth" (or "label") and one column of predicted labels per model; a column
        "example" is ignored. One row per test example. Labels are text; where all true labels are whole
        numbers, 4.0 is 4.
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
    cells = read_cells(path, forms="allowed are truth and one column of predictions per model")
    truth, models = _prediction_columns(cells)
    if baseline is not None and baseline not in models:
        raise TableError(f"{path}: baseline: found {baseline!r}, allowed are {', '.join(models)}")
    labels = {name: _labels(cells, name) for name in (truth, *models)}
    whole = all(re.fullmatch(r"[+-]?\d+(\.0*)?", label) for label in labels[truth])
    if whole and len({_whole(label) for label in labels[truth]}) == len(set(labels[truth])):
        labels = {name: [_whole(label) for label in column] for name, column in labels.items()}
    known = set(labels[truth])
    for name in models:
        if not known & set(labels[name]):
            raise TableError(
                f"{path}: column {name!r}: found {shown(labels[name][0])}; none of its labels is a true one "
                f"({', '.join(sorted(known)[:5])}); write both in one way"
            )
    pairs = (
        list(combinations(models, 2))
        if baseline is None
        else [(m, baseline) for m in models if m != baseline]
    )
    arrays = {name: np.array(column, dtype=object) for name, column in labels.items()}
    y = arrays[truth]
    tests = [mcnemar_predictions(y, arrays[a], arrays[b]) for a, b in pairs]
    adjusted = adjust([t.p_midp for t in tests], method=correction, all_pairs=baseline is None)
    right = {m: float((arrays[m] == y).mean()) for m in models}
    return tuple(
        ModelComparison(a, b, len(y), right[a], right[b], test, float(p))
        for (a, b), test, p in zip(pairs, tests, adjusted, strict=True)
    )


def _prediction_columns(cells: Cells) -> tuple[str, list[str]]:
    """Column of the true labels, and those of the models."""
    by_name = {plain(name): name for name in cells.names}
    truth = next((by_name[name] for name in _TRUTH if name in by_name), None)
    models = [
        name
        for k, name in enumerate(cells.names)
        if name != truth
        and plain(name) not in _EXAMPLE
        and not (is_unnamed(name) and is_count(cells.column(k)))
    ]
    if truth is None or len(models) < 2:
        found = ", ".join(cells.names)
        raise TableError(
            f"{cells.path}: line 1: found {found}; allowed are truth and one column of predictions per model"
        )
    return truth, models


_TRUTH = ("truth", "label", "y_true", "true", "target", "true_label", "ground_truth", "actual")
_EXAMPLE = ("example", "example_id", "index", "id", "idx")


def _labels(cells: Cells, name: str) -> list[str]:
    column = cells.column(cells.names.index(name))
    for line, label in zip(cells.lines, column, strict=True):
        if not label:
            raise TableError(
                f"{at_line(cells.path, line, name)}: empty; every example needs every prediction"
            )
    return column


def _whole(label: str) -> str:
    """A whole number without the decimal point that a column of floats has; other labels as they are."""
    return re.sub(r"\.0*$", "", label) if re.fullmatch(r"[+-]?\d+\.0*", label) else label


def profile_file(
    path: str | PathLike[str], *, held_out: str | PathLike[str] | None = None
) -> dict[str, tuple[float, float]]:
    """Score methods by the area under their performance profiles, from a matrix of times to target.

    Parameters
    ----------
    path : path
        A row a workload, a column a method; an empty cell, inf or diverged where the target was not reached.
    held_out : path, optional
        The same for variants of workloads, by their names: where a method fails on one, its time on the
        workload is withdrawn (AlgoPerf's rule).

    Returns
    -------
    dict of method to (float, float)
        The exact area within 4 times the best, and AlgoPerf's trapezoid over 100 points.
    """
    times = _matrix(path)
    if held_out is not None:
        variants = _matrix(held_out)
        unknown = sorted(set(variants.index) - set(times.index)) + sorted(set(times) ^ set(variants))
        if unknown:
            raise TableError(
                f"{held_out}: {unknown[0]!r} is not in both tables; workloads and methods must agree"
            )
        variant = variants.reindex(index=times.index, columns=times.columns).to_numpy(dtype=float)
        times[:] = with_held_out(times.to_numpy(dtype=float), variant)
    values = times.to_numpy(dtype=float)
    exact, trapezoid = profile_score(values), profile_score(values, grid=100)
    return {
        str(name): (float(a), float(b)) for name, a, b in zip(times.columns, exact, trapezoid, strict=True)
    }


def _matrix(path: str | PathLike[str]) -> pd.DataFrame:
    """Workloads x methods; infinite where a cell has no time."""
    table = read_results(path)
    if table.form != "wide":
        raise TableError(f"{path}: found a long table; a profile needs a matrix of workloads x methods")
    (metric,) = table.metrics
    wide = table.frame.pivot(index="dataset", columns="optimizer", values=metric)
    order = list(dict.fromkeys(table.frame["optimizer"]))
    return wide.reindex(index=list(dict.fromkeys(table.frame["dataset"])), columns=order).fillna(np.inf)


def predictions_to_dict(comparisons: Sequence[ModelComparison]) -> dict[str, Any]:
    """JSON-ready tree of the comparisons of trained models, under the names of their fields.

    Examples
    --------
    >>> predictions_to_dict([])
    {'schema': 'optbench-predictions/1', 'comparisons': []}
    """
    return {"schema": "optbench-predictions/1", "comparisons": to_plain(list(comparisons))}
