"""Which metrics of imported runs a report tests, in which direction, and who lacks them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import numpy as np

from optbench.datasets.numbers import out_of_range
from optbench.errors import UserError
from optbench.records.logs import HISTORY, RunLog
from optbench.records.readers.names import is_loss
from optbench.records.store import StoredTrial
from optbench.task import BUILT_IN, CustomMetric, Direction, Metric, undeclared
from optbench.task import known as metric_of
from optbench.trial import Status

#: A report tests the first of these that all runs have; losses of the training part come last of all.
PRIMARY = tuple(name for name in BUILT_IN if name != "train_loss")
#: Names that a message lists, and characters of each.
_MOST_NAMED, _LONGEST = 12, 60


class ImportedError(UserError, ValueError):
    """Results that cannot be taken over; the message names file and field, and what to do."""


def declared_metrics_of(
    logs: Sequence[RunLog], directions: Mapping[str, Direction], earlier: Mapping[str, CustomMetric]
) -> dict[str, CustomMetric]:
    """Metrics that a report can test beside optbench's own, by name without their part of the data."""
    found = dict(earlier)
    columns = dict.fromkeys(name for log in logs for name in declared(log) if name not in HISTORY)
    said_by_logs = {name: word for log in logs for name, word in log.directions.items()}
    directions = {**{n: cast(Direction, w) for n, w in said_by_logs.items() if n in columns}, **directions}
    for name in directions:
        if name not in columns:
            listed = ", ".join(columns) or "none"
            raise ImportedError(f"--maximise, --minimise: found {name!r}; the runs have the metrics {listed}")
    for name in columns:
        part, _, bare = name.partition("_")
        like = metric_of(name)
        said = directions.get(name)
        if said is not None and like is not None and like.direction not in (None, said):
            raise ImportedError(
                f"metric {name!r}: {like.better} is better, as its name says; give it another name with --map"
            )
        direction = said or (like.direction if like else None)
        if direction is None and like is None and bare in earlier:
            continue
        if direction is None and like is None:
            how = f"--maximise {name} or --minimise {name}; or leave it out with --map COLUMN="
            raise ImportedError(f"import: {undeclared(name, how)}")
        if direction is None or part not in ("test", "val") or _own(name):
            continue
        metric = CustomMetric(name=bare, reference="", code="imported", minimise=direction == "lower")
        if found.setdefault(bare, metric).minimise is not metric.minimise:
            raise ImportedError(
                f"metric {name!r}: was imported before with the other direction; remove the store to import "
                "all again"
            )
    return found


def testable_metrics(custom: Mapping[str, CustomMetric]) -> tuple[str, ...]:
    """Metrics that a report can test, in order of preference; losses of the training part come last."""
    return (*PRIMARY, *(column for metric in custom.values() for column in metric.columns()), "train_loss")


def _own(name: str) -> bool:
    """Whether optbench's own trials have such a metric: a table of its own shows it."""
    return name in BUILT_IN or "[" in name or re.fullmatch(r"test_top\d+_accuracy", name) is not None


def declared(log: RunLog) -> tuple[str, ...]:
    """Metrics that a run has a place for, filled or not: a blank cell makes no other metric of it."""
    return tuple(
        dict.fromkeys((*log.metrics, *log.ends, *sorted(log.unfinished), *sorted(log.diverged), *log.history))
    )


def check_testable(logs: Sequence[RunLog], testable: Sequence[str]) -> None:
    """Refuse a run that has no metric which a report tests, and shares beyond 1.

    Raises
    ------
    ImportedError
        Names the run and how to say which metric is which.
    """
    ends: dict[tuple[str, str], list[float]] = {}
    for log in logs:
        for name, value in {**log.metrics, **log.ends}.items():
            ends.setdefault((log.dataset, name), []).append(value)
    for (dataset, name), values in ends.items():
        if (problem := out_of_range(np.array(values))) is not None:
            raise ImportedError(f"{logs[0].source}: metric {name!r}, dataset {dataset!r}: {problem}")
    for log in logs:
        for name, value in {**log.metrics, **log.ends}.items():
            if is_share(name) and value > cast(Metric, metric_of(name)).high:
                raise ImportedError(
                    f"{log.source}: {name}: found {value:g}; a share in [0, 1] belongs here: give --percent "
                    "if the numbers are percentages"
                )
        names = declared(log)
        if log.status == "completed" and not set(names) & set(testable):
            found = _few([*log.ignored, *names])
            raise ImportedError(
                f"{log.source}: found the metrics {found}; a report tests one of {', '.join(testable)}: say "
                "which is which with --map NAME=METRIC, as in --map accuracy=test_accuracy"
            )


def _few(names: Sequence[str]) -> str:
    """Names for a message: not more than fit in it, long ones shortened."""
    words = [name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..." for name in names[:_MOST_NAMED]]
    more = [f"{len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED else []
    return ", ".join(words + more) or "none"


def choose_primary(
    logs: Sequence[RunLog], testable: Sequence[str], earlier: Iterable[StoredTrial] = ()
) -> tuple[str, list[str]]:
    """Metric that a report tests: the first that most runs of every optimizer have a place for.

    Parameters
    ----------
    logs : sequence of RunLog
    testable : sequence of str
        In order of preference.
    earlier : iterable of StoredTrial
        Trials of earlier imports.

    Returns
    -------
    primary : str
    notes : list of str
        Who lacks it.

    Raises
    ------
    ImportedError
        If no metric is shared.
    """
    runs = [(log.optimizer, frozenset(declared(log))) for log in logs if log.status != "crashed"]
    runs += [
        (t.spec["optimizer"]["optimizer"], frozenset(t.metrics)) for t in earlier if t.status == "completed"
    ]
    runs = runs or [(log.optimizer, frozenset(testable)) for log in logs]
    by_optimizer: dict[str, list[frozenset[str]]] = {}
    for optimizer, names in runs:
        by_optimizer.setdefault(optimizer, []).append(names)
    for metric in testable:
        if all(2 * sum(metric in n for n in found) >= len(found) for found in by_optimizer.values()):
            lacking = sum(metric not in names for _, names in runs)
            note = f"{lacking} of {len(runs)} runs have no {metric} at all and are missing from its pairs."
            return metric, [note] if lacking else []
    found = "; ".join(sorted({", ".join(sorted(names & set(testable))) or "none" for _, names in runs}))
    raise ImportedError(f"import: the runs share no metric that a report tests; found {found}")


def status_of(log: RunLog, primary: str) -> Status:
    """Diverged: a loss, or the metric that is tested, ends with a written NaN or infinity."""
    lost = {name for name in log.diverged if name == primary or is_loss(name)}
    return "diverged" if log.status == "completed" and lost else log.status


def is_share(name: str) -> bool:
    """Whether a metric is a share, in [0, 1] or in percent."""
    metric = metric_of(name)
    return metric is not None and metric.unit == "share"
