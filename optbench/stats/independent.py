"""Tables of independent runs: no block holds two optimizers, or they are asked to be taken so.

Groups of runs are compared as groups, each group with a fixed target where one is given, and set-ups that
claim a record, in ever fewer steps, each with the record before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from optbench.stats.common import FloatArray, StatsError, check_fraction, to_plain
from optbench.stats.targets import Record, TargetResult, against_target, records
from optbench.stats.tidy import InputSummary, check_columns, direction_of, oriented, summarise
from optbench.stats.unpaired import Duplicates, UnpairedComparison, compare_unpaired, duplicates

if TYPE_CHECKING:
    import pandas as pd

#: Version of the keys of ``IndependentComparison.to_dict``.
SCHEMA = "optbench-independent/1"
#: Comparisons of more pairs of groups than this are left out; a baseline makes them fewer.
MOST_PAIRS = 2_000


@dataclass(frozen=True)
class GroupTarget:
    """One group of a dataset against the target."""

    dataset: str
    optimizer: str
    result: TargetResult


@dataclass(frozen=True)
class IndependentComparison:
    """Everything computed from a table of independent runs.

    `comparisons` has the pairs of groups of each dataset; `targets`, `records` and `duplicates` what was
    asked and found beside them. Differences are oriented so that positive is better; targets are in the
    metric's own direction.
    """

    input: InputSummary
    alpha: float
    correction: str
    baseline: str | None
    comparisons: dict[str, tuple[UnpairedComparison, ...]]
    targets: tuple[GroupTarget, ...]
    records: tuple[Record, ...]
    duplicates: tuple[Duplicates, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return a tree that JSON can hold: NaN as None, infinities as "inf" and "-inf"."""
        return {"schema": SCHEMA, **to_plain(self)}


def are_independent(frame: pd.DataFrame) -> bool:
    """Are there several runs a group, and does no seed of a dataset have two optimizers?

    Parameters
    ----------
    frame : DataFrame
        Columns dataset, optimizer, seed.

    Returns
    -------
    bool

    Examples
    --------
    >>> import pandas as pd
    >>> runs = pd.DataFrame({"dataset": "d", "optimizer": list("aabb"), "seed": [0, 1, 2, 3]})
    >>> are_independent(runs), are_independent(runs.assign(seed=[0, 1, 0, 1]))
    (True, False)
    """
    blocks = frame.groupby(["dataset", "seed"], sort=False)["optimizer"].nunique()
    groups = frame.groupby(["dataset", "optimizer"], sort=False).size()
    return bool(frame["optimizer"].nunique() > 1 and blocks.max() < 2 and groups.max() > 1)


def compare_independent(
    frame: pd.DataFrame,
    *,
    metric: str,
    baseline: str | None = None,
    maximise: bool | None = None,
    alpha: float = 0.05,
    correction: str = "holm",
    target: float | None = None,
    sd: float | None = None,
    loss_per_step: float | None = None,
) -> IndependentComparison:
    """Compare groups of independent runs.

    Parameters
    ----------
    frame : DataFrame
        One row a run: dataset, optimizer (the group) and the metric; seeds are names only. Optional: status.
    metric : str
    baseline : str, optional
        A group; the others are compared with it, all pairs if not given.
    maximise : bool, optional
    alpha : float
        Of the family of comparisons of each dataset, and one-sided of each test at the target.
    correction : str
    target : float, optional
        Is the typical run of each group, or with a known sd its mean, beyond this number on the good side?
        One-sided. Groups are then compared with each other only if there is a baseline.
    sd : float, optional
        Known standard deviation of a run, for the target; estimated if not given.
    loss_per_step : float, optional
        Set-ups in the order of the table, with a column steps, each claim a record: below the target at
        `alpha` in fewer steps than the record before. What one step is worth; needs target and sd.

    Returns
    -------
    IndependentComparison

    Raises
    ------
    StatsError
        Columns missing, a baseline that is no group, records without target, sd or steps.

    Examples
    --------
    >>> import pandas as pd
    >>> values = [0.90, 0.91, 0.92, 0.905, 0.95, 0.96, 0.94, 0.955]
    >>> runs = pd.DataFrame({"dataset": "d", "optimizer": list("aaaabbbb"), "accuracy": values})
    >>> runs = runs.assign(seed=range(8))
    >>> compare_independent(runs, metric="accuracy", baseline="a").comparisons["d"][0].verdict.word
    'better'
    """
    check_fraction(alpha, "alpha")
    check_columns(frame, metric)
    larger, direction = direction_of(metric, maximise)
    values = oriented(frame, metric, larger)
    summary = summarise(frame, values, metric=metric, maximise=larger, direction=direction)
    notes = ["no seed has two optimizers, or --unpaired: groups of independent runs are compared as groups"]
    if summary.missing:
        notes.append(
            f"{summary.missing} of {summary.rows} runs have no {metric} (crashed or empty): left out"
        )
    if summary.diverged:
        notes.append(f"{summary.diverged} of {summary.rows} runs diverged: the worst of all, by rank sums")
    if baseline is not None and baseline not in summary.optimizers:
        raise StatsError(f"baseline: found {baseline!r}, allowed are {', '.join(summary.optimizers)}")
    groups = _groups(frame, values)
    compared: dict[str, tuple[UnpairedComparison, ...]] = {}
    for dataset, runs in groups.items() if target is None or baseline is not None else ():
        k = len(runs)
        pairs = k - 1 if baseline is not None else k * (k - 1) // 2
        if baseline is not None and baseline not in runs:
            notes.append(f"{dataset}: no run of {baseline}: not compared")
        elif k > 1 and pairs <= MOST_PAIRS:
            compared[dataset] = compare_unpaired(runs, baseline=baseline, alpha=alpha, correction=correction)
        elif pairs > MOST_PAIRS:
            notes.append(f"{dataset}: {pairs} pairs of groups are not compared; name a baseline")
    side: Literal["below", "above"] = "above" if larger else "below"
    sign = 1.0 if larger else -1.0
    at_target = [
        GroupTarget(dataset, name, against_target(sign * x, target=target, side=side, sd=sd, alpha=alpha))
        for dataset, runs in groups.items()
        for name, x in runs.items()
        if target is not None
    ]
    return IndependentComparison(
        input=summary,
        alpha=alpha,
        correction=correction,
        baseline=baseline,
        comparisons=compared,
        targets=tuple(at_target),
        records=_records(frame, metric, target, sd, loss_per_step, alpha, larger),
        duplicates=tuple(_duplicates(frame, metric)),
        notes=tuple(notes),
    )


def _groups(frame: pd.DataFrame, values: FloatArray) -> dict[str, dict[str, FloatArray]]:
    """Values of each dataset and group, larger is better, -inf diverged, without the missing."""
    found: dict[str, dict[str, FloatArray]] = {}
    known = frame.assign(value=values)[~np.isnan(values)]
    for (dataset, optimizer), part in known.groupby(["dataset", "optimizer"], sort=False):
        found.setdefault(str(dataset), {})[str(optimizer)] = part["value"].to_numpy(dtype=np.float64)
    return found


def _duplicates(frame: pd.DataFrame, metric: str) -> list[Duplicates]:
    several = frame["dataset"].nunique() > 1
    found = []
    for (dataset, optimizer), part in frame.groupby(["dataset", "optimizer"], sort=False):
        name = f"{optimizer} on {dataset}" if several else str(optimizer)
        same = duplicates(part[metric].to_numpy(dtype=float), group=name, runs=part["seed"].tolist())
        found += [] if same is None else [same]
    return found


def _records(
    frame: pd.DataFrame,
    metric: str,
    target: float | None,
    sd: float | None,
    loss_per_step: float | None,
    alpha: float,
    larger: bool,
) -> tuple[Record, ...]:
    if loss_per_step is None:
        return ()
    if target is None or sd is None:
        raise StatsError("records: give the target and the known sd of a run as well (--target, --sd)")
    column = next((name for name in ("steps", "step") if name in frame), None)
    if column is None:
        raise StatsError(f"records: no column steps; found are {', '.join(map(str, frame))}")
    if larger:
        raise StatsError(
            f"records: {metric} is better larger; records are of a loss, which is better smaller"
        )
    if not math.isfinite(loss_per_step):
        raise StatsError(f"loss_per_step: found {loss_per_step!r}, allowed is a number")
    known = frame[frame[metric].notna()]
    several = known["dataset"].nunique() > 1
    setups = {}
    for (dataset, optimizer), part in known.groupby(["dataset", "optimizer"], sort=False):
        steps = part[column].unique()
        name = f"{optimizer} on {dataset}" if several else str(optimizer)
        if len(steps) > 1:
            shown = ", ".join(f"{x:g}" for x in steps[:3])
            raise StatsError(
                f"steps: found {shown} in {name}; the runs of a set-up train for one number of steps"
            )
        setups[name] = float(steps[0]), part[metric].to_numpy(dtype=float)
    return records(setups, target=target, sd=sd, loss_per_step=loss_per_step, alpha=alpha)
