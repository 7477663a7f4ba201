"""Follow a run from another terminal: progress, the last trials and the standing, read from its store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from optbench.records.store import Store, StoredTrial
from optbench.report.text import duration, number
from optbench.task import Metric

_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """State of a run. ``scores`` are the primary metrics of completed trials by workload and optimizer."""

    title: str
    planned: int
    counts: Mapping[str, int]
    blocks_planned: int
    blocks_complete: int
    scores: Mapping[tuple[str, str], Sequence[float]]
    recent: Sequence[tuple[str, StoredTrial]]
    seconds_left: float


def sparkline(values: ArrayLike, *, width: int = 24) -> str:
    """Draw numbers as a line of bars, the last ones if there are many; a gap where one is not finite.

    Examples
    --------
    >>> sparkline([3.0, 2.0, 1.0, 0.0])
    '█▆▃▁'
    """
    shown = np.asarray(values, dtype=np.float64)[-width:]
    finite = shown[np.isfinite(shown)]
    if not finite.size:
        return ""
    low, span = finite.min(), np.ptp(finite)
    heights = np.zeros(len(shown)) if span == 0 else (shown - low) / span
    return "".join(_BARS[round(h * (len(_BARS) - 1))] if np.isfinite(h) else " " for h in heights)


def look(store: Store, *, metric: Metric, recent: int = 4) -> Standing:
    """Read how far a run is.

    Parameters
    ----------
    store : Store
    metric : Metric
        The primary one.
    recent : int
        Trials to show in full.

    Returns
    -------
    Standing
        Time left from the rate of the last trials, by the wall clock; NaN before two have ended.
    """
    plan = store.plan()
    summaries = store.summaries()
    labels = {key: (workload, optimizer) for key, workload, optimizer in plan}
    rows = [row for row in summaries if row.trial_id in labels]
    scores: dict[tuple[str, str], list[float]] = {label: [] for label in labels.values()}
    blocks: dict[tuple[str, str], set[str]] = {}
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.status] = counts.get(row.status, 0) + 1
        workload, optimizer = labels[row.trial_id]
        if metric.name in row.metrics:
            scores[workload, optimizer].append(row.metrics[metric.name])
        if row.status != "crashed":
            blocks.setdefault((workload, row.block_id), set()).add(optimizer)
    wanted: dict[str, set[str]] = {}
    for workload, optimizer in labels.values():
        wanted.setdefault(workload, set()).add(optimizer)
    trials_of = {w: sum(label[0] == w for label in labels.values()) for w in wanted}
    complete = sum(found >= wanted[workload] for (workload, _), found in blocks.items())
    last = [row.trial_id for row in rows[-recent:]]
    return Standing(
        title=store.meta().get("title", str(store.path)),
        planned=len(plan),
        counts=counts,
        blocks_planned=sum(trials_of[w] // len(wanted[w]) for w in wanted),
        blocks_complete=complete,
        scores=scores,
        recent=[(" · ".join(labels[t.trial_id]), t) for t in store.trials(last)],
        seconds_left=_seconds_left([row.started for row in rows[-50:]], len(plan) - len(rows)),
    )


def render(standing: Standing, *, metric: Metric) -> Group:
    """Lay out the state of a run."""
    done = sum(standing.counts.values())
    bar = ProgressBar(total=max(standing.planned, 1), completed=done, width=40)
    words = ", ".join(f"{count} {status}" for status, count in standing.counts.items()) or "no trial yet"
    left = standing.seconds_left
    time_left = f", about {duration(left)} left" if np.isfinite(left) and done < standing.planned else ""
    parts: list[RenderableType] = [
        Text(standing.title, style="bold"),
        bar,
        Text(f"{done} of {standing.planned} trials: {words}{time_left}"),
    ]
    parts += [
        Text(
            f"  {label}: {trial.status}, loss {sparkline(trial.history.get('train_loss', np.empty(0)))} "
            f"{number(trial.metrics.get('train_loss', np.nan), 4)}"
        )
        for label, trial in standing.recent
    ]
    parts.append(
        standing_table(
            standing.scores,
            metric=metric,
            blocks=f"{standing.blocks_complete} of {standing.blocks_planned} blocks",
        )
    )
    return Group(*parts)


def standing_table(
    scores: Mapping[tuple[str, str], Sequence[float]], *, metric: Metric, blocks: str
) -> Group:
    """Means so far, by optimizer and workload; no test is made before the run has ended."""
    table = Table(pad_edge=False)
    workloads = list(dict.fromkeys(workload for workload, _ in scores))
    table.add_column("optimizer")
    for workload in workloads:
        table.add_column(escape(workload), justify="right")
    for optimizer in dict.fromkeys(optimizer for _, optimizer in scores):
        cells = []
        for workload in workloads:
            found = scores.get((workload, optimizer))
            mean = float(np.mean(found)) * metric.factor if found else float("nan")
            cells.append("" if found is None else f"{number(mean, metric.digits)} ({len(found)})")
        table.add_row(escape(optimizer), *cells)
    unit = f", {metric.symbol}" if metric.symbol else ""
    return Group(Text(f"{metric.title} so far{unit}: means over {blocks}, no test"), table)


def watch(
    path: Path,
    *,
    metric: Metric,
    console: Console,
    every: float = 2.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Standing:
    """Show a store until every planned trial has a record; Ctrl-C ends the watching, not the run.

    Parameters
    ----------
    path : Path
        The store.
    metric : Metric
        The primary one.
    console : Console
    every : float
        Seconds between looks.
    sleep : callable
        Waits so many seconds.

    Returns
    -------
    Standing
        The last one.
    """
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            with Store(path) as store:
                standing = look(store, metric=metric)
            live.update(render(standing, metric=metric), refresh=True)
            if sum(standing.counts.values()) >= standing.planned:
                return standing
            sleep(every)


def _seconds_left(started: Sequence[str], missing: int) -> float:
    times = sorted(datetime.fromisoformat(text).astimezone(timezone.utc).timestamp() for text in started)
    if len(times) < 2 or times[-1] <= times[0]:
        return float("nan")
    return (times[-1] - times[0]) / (len(times) - 1) * missing
