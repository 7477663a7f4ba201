"""The whole decision procedure on a tidy table of trials, and what comes out of it as one tree of facts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from optbench.stats.bayes import PosteriorOf, bayesian_signed_rank, correlated_t
from optbench.stats.cells import pair_cells
from optbench.stats.common import (
    FloatArray,
    IntArray,
    StatsError,
    check_fraction,
    count_resolution,
    differences,
    stored_resolution,
    to_plain,
)
from optbench.stats.crashes import called_crashed, crashed_optimizers, name_crashed
from optbench.stats.crossed import Crossing, find_crossing
from optbench.stats.datasets import (
    FEWEST_DATASETS,
    Conjunction,
    Stability,
    StratifiedComparison,
    collapse,
    compare_new_datasets,
    conjunctions,
    leave_one_out,
    on_these_datasets,
    paired_columns,
)
from optbench.stats.families import BRIEF, FamilyResult, Settings, check_settings, compare_family
from optbench.stats.survival import TimeToTarget, time_to_target
from optbench.stats.tidy import InputSummary, block_tables, check_columns, direction_of, oriented, summarise

if TYPE_CHECKING:
    import pandas as pd

#: Version of the keys of ``Comparison.to_dict``; it changes when a key changes its name or meaning.
SCHEMA = "optbench-comparison/1"


@dataclass(frozen=True)
class Comparison:
    """Everything computed from one table.

    `within` has one family of comparisons per dataset (empty if every cell has one trial), `these_datasets`
    the stratified comparisons, `new_datasets` the family whose blocks are the datasets (None for one
    dataset), `time_to_target` one entry per dataset and pair if the table has the columns reached and time.
    """

    input: InputSummary
    settings: Settings
    within: tuple[FamilyResult, ...]
    these_datasets: tuple[StratifiedComparison, ...]
    new_datasets: FamilyResult | None
    conjunctions: tuple[Conjunction, ...]
    stability: Stability | None
    time_to_target: tuple[TimeToTarget, ...]
    notes: tuple[str, ...]
    posteriors: tuple[PosteriorOf, ...] = ()

    def _repr_html_(self) -> str:
        """Show the answer and the comparisons in a notebook."""
        from optbench.report.notebook import comparison_html  # only a notebook looks from here to the right

        return comparison_html(self)

    def to_dict(self) -> dict[str, Any]:
        """Return a tree that JSON can hold: NaN as None, infinities as "inf" and "-inf", keys as documented.

        Returns
        -------
        dict
            The field names of the dataclasses, with ``schema`` naming their version.
        """
        return {"schema": SCHEMA, **to_plain(self)}


def compare_table(
    frame: pd.DataFrame,
    *,
    metric: str,
    baseline: str | None = None,
    maximise: bool | None = None,
    alpha: float = 0.05,
    correction: str = "holm",
    margin: float | None = None,
    family: Literal["baseline", "all"] | None = None,
    examples: int | Mapping[str, int] | None = None,
    streams: Sequence[str] | None = None,
    rope: float | None = None,
) -> Comparison:
    """Run the decision procedure on a tidy table.

    Parameters
    ----------
    frame : DataFrame
        One row per trial: columns dataset, optimizer, seed (any hashable labels) and the metric; optionally
        status (completed, diverged, crashed), and reached (bool), time (units of your choice), budget.
    metric : str
        Column to compare.
    baseline : str, optional
        An optimizer; the others are compared against it.
    maximise : bool, optional
        Whether larger is better; None takes a known metric's direction, and refuses any other.
    alpha : float
        Family-wise level. Intervals are at 1 - alpha.
    correction : {"holm", "shaffer", "bergmann-hommel", "bonferroni", "bh", "none"}
        Over the comparisons within each set of blocks.
    margin : float, optional
        Difference, in the metric's units, that does not matter: enables the verdict "equivalent".
    family : {"baseline", "all"}, optional
        By default "baseline" if a baseline is given, else "all" pairs.
    examples : int or mapping of dataset to int, optional
        Size of the test part: where all values of a dataset are multiples of its inverse, as accuracies are,
        differences are rounded to it, so that equal counts are ties.
    streams : sequence of str, optional
        Columns with the seeds of two streams or more, such as init and order. On datasets where they are
        crossed the blocks are not independent and are analysed as crossed (see `optbench.stats.crossed`).
    rope : float, optional
        Half-width of a region of practical equivalence: adds posterior probabilities (see
        `optbench.stats.bayes`), which no verdict rests on.

    Returns
    -------
    Comparison

    Raises
    ------
    StatsError
        Columns missing, duplicated (dataset, optimizer, seed), fewer than 2 optimizers, values that are not
        numbers or infinitely good, unknown statuses, settings that do not fit.

    Notes
    -----
    The pairing key is (dataset, seed). A diverged trial (status diverged, or an infinitely bad value) is an
    outcome, ranked worst, two of them tied. A crashed trial or a NaN is missing: its block is left out of the
    pairs that need it, and counted. The correction holds within one family: the comparisons on one dataset,
    the stratified comparisons, and the comparisons over datasets are separate families; `conjunctions`
    controls the error over datasets.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = [("mnist", o, s, v + s / 100) for o, v in (("adam", 0.9), ("wame", 0.92)) for s in range(6)]
    >>> frame = pd.DataFrame(rows, columns=["dataset", "optimizer", "seed", "accuracy"])
    >>> compare_table(frame, metric="accuracy", baseline="adam").within[0].comparisons[0].verdict.word
    'better'
    """
    check_fraction(alpha, "alpha")
    if margin is not None and not (math.isfinite(margin) and margin > 0):
        raise StatsError(f"margin: found {margin!r}, allowed is a positive number in the units of {metric}")
    check_columns(frame, metric)
    larger, direction = direction_of(metric, maximise)
    values = oriented(frame, metric, larger)
    notes: list[str] = []
    tables, names = block_tables(frame, values)
    settings = Settings(
        baseline,
        family or ("baseline" if baseline else "all"),
        alpha,
        correction,
        margin,
        _resolution(tables, examples, notes),
    )
    check_settings(settings, names)
    summary = summarise(frame, values, metric=metric, maximise=larger, direction=direction)
    if summary.missing:
        notes.append(f"{summary.missing} of {summary.rows} trials have no {metric} (crashed or empty)")
    if summary.diverged:
        notes.append(
            f"{summary.diverged} of {summary.rows} trials diverged: ranked worst, ties with each other"
        )
    crossed = _crossings(frame, streams, notes) if streams else {}
    within: tuple[FamilyResult, ...] = ()
    these: tuple[StratifiedComparison, ...] = ()
    counted: tuple[Conjunction, ...] = ()
    if max(len(t) for t in tables.values()) > 1:
        within = tuple(
            compare_family(
                t, names, settings=settings, scope=d, maximise=larger, blocks="seeds", crossing=crossed.get(d)
            )
            for d, t in tables.items()
        )
        if len(tables) > 1:
            these = on_these_datasets(tables, names, settings=settings, crossings=crossed or None)
            large = len(settings.pairs(names)) > BRIEF
            counted = () if crossed or large else conjunctions(tables, names, settings=settings)
            if large:
                notes.append("so many comparisons: counts over datasets and names of datasets are left out")
    else:
        notes.append("one trial per dataset and optimizer: no test within a dataset is possible")
    new, stability = _new_datasets(tables, names, settings, larger, notes)
    lost = _crashed(frame, tables)
    everywhere = frozenset.intersection(*lost.values())
    return Comparison(
        input=summary,
        settings=settings,
        within=tuple(name_crashed(f, lost[f.scope], either=True) for f in within),
        these_datasets=tuple(called_crashed(c, everywhere, either=True) for c in these),
        new_datasets=name_crashed(new, everywhere, either=True) if new else None,
        conjunctions=counted,
        stability=stability,
        time_to_target=_time_to_target(frame, names, settings, crossed, notes),
        notes=tuple(notes),
        posteriors=() if rope is None else tuple(_posteriors(tables, names, settings, rope, crossed)),
    )


def _posteriors(
    tables: Mapping[str, FloatArray],
    names: Sequence[str],
    settings: Settings,
    rope: float,
    crossed: Mapping[str, Crossing],
) -> list[PosteriorOf]:
    """Posteriors of every comparison on every dataset, and over datasets where there are several."""
    found = []
    for c, b in settings.pairs(names):
        pair = str(names[c]), str(names[b])
        for dataset, table in tables.items():
            d = paired_columns(table, c, b, resolution=settings.step(dataset))
            if d.size > 1 and dataset not in crossed:
                found.append(PosteriorOf(dataset, *pair, correlated_t(d, rope=rope)))
        first, second, _ = pair_cells(tables, c, b)
        keep = ~(np.isnan(first) | np.isnan(second))
        if keep.sum() > 1:
            d = differences(first[keep], second[keep])
            found.append(PosteriorOf("new datasets", *pair, bayesian_signed_rank(d, rope=rope)))
    return found


def _crashed(frame: pd.DataFrame, tables: Mapping[str, FloatArray]) -> dict[str, frozenset[str]]:
    """Optimizers whose every trial on a dataset crashed."""
    if "status" not in frame:
        return dict.fromkeys(tables, frozenset())
    labels = frame["dataset"].astype(str)
    named = frame.assign(status=frame["status"].fillna("completed"))
    return {dataset: crashed_optimizers(named[labels == dataset]) for dataset in tables}


def _crossings(frame: pd.DataFrame, streams: Sequence[str], notes: list[str]) -> dict[str, Crossing]:
    """The datasets on which the seeds of several streams are crossed, with the levels of each block."""
    import pandas as pd

    lacking = [c for c in streams if c not in frame.columns]
    if lacking:
        raise StatsError(f"streams: {', '.join(lacking)} not found; found are {', '.join(map(str, frame))}")
    if (frame.groupby(["dataset", "seed"], sort=False)[list(streams)].nunique() > 1).any(axis=None):
        raise StatsError(f"streams: a seed has two values of {' or '.join(streams)} within one dataset")
    seeds: dict[str, dict[str, IntArray]] = {}
    for stream in streams:
        codes = pd.factorize(frame[stream])[0].astype(np.float64)
        for dataset, table in block_tables(frame, codes)[0].items():
            seeds.setdefault(dataset, {})[stream] = np.nanmax(table, axis=1).astype(np.int64)
    found = {dataset: crossing for dataset, s in seeds.items() if (crossing := find_crossing(s)) is not None}
    notes += [
        f"{dataset}: {crossing.sentence} seeds are crossed; trials that share one are not independent, so "
        "means are tested against the variance of each, and counts over datasets are left out"
        for dataset, crossing in found.items()
    ]
    return found


def _resolution(
    tables: Mapping[str, FloatArray], examples: int | Mapping[str, int] | None, notes: list[str]
) -> float | Mapping[str, float] | None:
    """The step of the values: counts over the test part where known, else what 32-bit storage left."""
    stored = stored_resolution(np.concatenate([t.ravel() for t in tables.values()]))
    steps: dict[str, float] = {}
    for dataset, table in tables.items():
        size = examples.get(dataset) if isinstance(examples, Mapping) else examples
        step = None if size is None else count_resolution(table, size)
        if size is not None and step is None:
            notes.append(f"{dataset}: the values are no shares of {size} test examples, not rounded to them")
        if step is not None:
            steps[dataset] = step
    if stored is not None and len(steps) < len(tables):
        notes.append(f"the values were stored as 32-bit floats: differences are rounded to {stored:g}")
        return {name: steps.get(name, stored) for name in (*tables, "new datasets")} if steps else stored
    return steps or None


def _new_datasets(
    tables: Mapping[str, FloatArray], names: Sequence[str], settings: Settings, larger: bool, notes: list[str]
) -> tuple[FamilyResult | None, Stability | None]:
    if len(tables) < 2:
        notes.append("one dataset: the result is about this dataset and cannot be generalised to others")
        return None, None
    if len(tables) < FEWEST_DATASETS:
        notes.append(
            f"{len(tables)} datasets: fewer than {FEWEST_DATASETS} cannot generalise to new datasets "
            "(no signed-rank test over them can reach 0.05)"
        )
    cells, medians = collapse(tables)
    if medians:
        shown = ", ".join(medians[:5]) + (" ..." if len(medians) > 5 else "")
        notes.append(f"cells of datasets with diverged trials are medians over seeds, not means: {shown}")
    complete = cells[~np.isnan(cells).any(axis=1)]
    stability = leave_one_out(complete, names) if len(complete) >= 2 and len(names) > 2 else None
    return compare_new_datasets(tables, names, settings=settings, maximise=larger), stability


def _time_to_target(
    frame: pd.DataFrame,
    names: Sequence[str],
    settings: Settings,
    crossed: Mapping[str, Crossing],
    notes: list[str],
) -> tuple[TimeToTarget, ...]:
    if not {"reached", "time"} <= set(frame.columns):
        return ()
    if not set(frame["reached"].dropna().unique().tolist()) <= {False, True}:
        raise StatsError("reached: found something else than true and false (or 1 and 0); correct the column")
    clock = frame["time"].to_numpy(dtype=float)
    clock = np.where(np.isfinite(clock), clock, np.nan)
    reached = (frame["reached"] == True).to_numpy()  # noqa: E712 - a missing value is not True
    status = frame["status"].astype(str).to_numpy() if "status" in frame else np.full(len(frame), "completed")
    budget = frame["budget"].to_numpy(dtype=float) if "budget" in frame else None
    if budget is not None:
        _check_budgets(frame, budget)
    if budget is None:
        notes.append("no column budget: the longest time of each dataset is its budget")
    time = np.where(reached, clock, np.inf)
    time = np.where(status == "crashed", np.nan, np.where(status == "diverged", np.inf, time))
    spent, _ = block_tables(frame, clock)
    limits = block_tables(frame, budget)[0] if budget is not None else spent
    results = []
    for dataset, times in block_tables(frame, time)[0].items():
        limit = float(np.nanmax(limits[dataset])) if not np.isnan(limits[dataset]).all() else math.nan
        if not limit > 0:
            notes.append(f"{dataset}: no positive budget, time to target left out")
            continue
        results += time_to_target(
            times, names, dataset=dataset, budget=limit, settings=settings, crossing=crossed.get(dataset)
        )
    return tuple(results)


def _check_budgets(frame: pd.DataFrame, budget: FloatArray) -> None:
    """One budget a dataset: min(T, B) under two budgets compares the budgets."""
    known = frame.assign(budget=budget).dropna(subset=["budget"])
    for dataset, part in known.groupby("dataset", sort=False)["budget"]:
        found = sorted(part.unique().tolist())
        if len(found) > 1:
            shown = ", ".join(f"{b:g}" for b in found[:5])
            raise StatsError(
                f"budget: found {shown} on dataset {dataset}; times to target are compared under one budget "
                "a dataset: give all rows the smallest one, and call what was reached later not reached"
            )


#: The keys of ``Comparison.to_dict()`` for readers of the JSON, with their meaning.
DOCUMENTED_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "schema": "version of these keys",
        "input": "rows, datasets, optimizers, metric, direction; completed, diverged and missing trials",
        "settings": "baseline, family, alpha, correction, margin",
        "within": "per dataset: the comparisons over seeds, Friedman, Kendall's W, mean ranks, notes",
        "these_datasets": "stratified comparisons: on these datasets",
        "new_datasets": "comparisons whose unit is the dataset, or null for one dataset",
        "conjunctions": "on at least how many datasets the candidate is better, and worse",
        "stability": "order by mean rank and the pairs that swap when one optimizer is left out",
        "time_to_target": "per dataset and pair, if the table has reached and time",
        "notes": "sentences that a reader must see",
        "posteriors": "with --rope: probabilities of worse, practically equivalent and better",
    }
)
