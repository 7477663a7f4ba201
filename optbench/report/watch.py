"""Follow a run from another terminal: progress, the last trials and the standing, read from its store."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Mapping, Sequence
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

from optbench.records.reading import TrialSummary
from optbench.records.store import Store, StoredTrial
from optbench.report.text import duration, middle, number
from optbench.suite.validation import visible
from optbench.task import Metric

_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How one trial of an evaluation ended; ``score`` is its primary metric, NaN without one."""

    workload: str
    optimizer: str
    block: str
    status: str
    score: float


@dataclass(frozen=True, kw_only=True)
class Standing:
    """State of a run; ``ended`` are its trials, ``optimizers`` those planned, by workload."""

    title: str
    planned: int
    counts: Mapping[str, int]
    blocks_planned: int
    optimizers: Mapping[str, Sequence[str]]
    ended: Sequence[Ended]
    recent: Sequence[tuple[str, StoredTrial]]
    seconds_left: float

    @property
    def blocks_complete(self) -> int:
        """Whole blocks; see :func:`whole_blocks`."""
        return sum(map(len, whole_blocks(self.ended, self.optimizers).values()))


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
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.status] = counts.get(row.status, 0) + 1
    ended = [
        Ended(
            workload=labels[row.trial_id][0],
            optimizer=labels[row.trial_id][1],
            block=row.block_id,
            status=row.status,
            score=row.metrics.get(metric.name, np.nan),
        )
        for row in rows
    ]
    optimizers: dict[str, list[str]] = {}
    for workload, optimizer in dict.fromkeys(labels.values()):
        optimizers.setdefault(workload, []).append(optimizer)
    trials_of = {w: sum(label[0] == w for label in labels.values()) for w in optimizers}
    last = [row.trial_id for row in rows[-recent:]]
    return Standing(
        title=visible(store.meta().get("title", str(store.path))),
        planned=len(plan),
        counts=counts,
        blocks_planned=sum(trials_of[w] // len(names) for w, names in optimizers.items()),
        optimizers=optimizers,
        ended=ended,
        recent=[(" · ".join(labels[t.trial_id]), t) for t in store.trials(last)],
        seconds_left=_seconds_left(rows[-50:], len(plan) - len(rows)),
    )


def render(standing: Standing, *, metric: Metric, width: int = 80) -> Group:
    """Lay out the state of a run for a terminal ``width`` characters wide."""
    done = sum(standing.counts.values())
    bar = ProgressBar(total=max(standing.planned, 1), completed=done, width=min(40, width))
    words = ", ".join(f"{count} {status}" for status, count in standing.counts.items()) or "no trial yet"
    left = standing.seconds_left
    time_left = f", about {duration(left)} left" if np.isfinite(left) and done < standing.planned else ""
    parts: list[RenderableType] = [
        Text(standing.title, style="bold"),
        bar,
        Text(f"{done} of {standing.planned} trials: {words}{time_left}"),
    ]
    for label, trial in standing.recent:
        curve = sparkline(trial.history.get("train_loss", np.empty(0)))
        loss = f"loss {curve} {number(trial.metrics.get('train_loss', np.nan), 4)}"
        parts.append(Text(f"  {middle(label, max(12, width - 56))}: {trial.status}, {loss}"))
    planned = f" of {standing.blocks_planned} planned"
    parts.append(
        standing_table(standing.ended, standing.optimizers, metric=metric, width=width, planned=planned)
    )
    return Group(*parts)


def whole_blocks(ended: Sequence[Ended], optimizers: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
    """Blocks by workload in which every optimizer has an outcome, but for those that always crashed."""
    tried: dict[str, set[str]] = {}
    ran: dict[str, set[str]] = {}
    there: dict[str, dict[str, set[str]]] = {}
    for trial in ended:
        tried.setdefault(trial.workload, set()).add(trial.optimizer)
        if trial.status != "crashed":
            ran.setdefault(trial.workload, set()).add(trial.optimizer)
            there.setdefault(trial.workload, {}).setdefault(trial.block, set()).add(trial.optimizer)
    found = {}
    for workload, names in optimizers.items():
        needed = set(names) - (tried.get(workload, set()) - ran.get(workload, set()))
        blocks = there.get(workload, {})
        found[workload] = {block for block, members in blocks.items() if needed and members >= needed}
    return found


def standing_table(
    ended: Sequence[Ended],
    optimizers: Mapping[str, Sequence[str]],
    *,
    metric: Metric,
    width: int,
    planned: str = "",
) -> Group:
    """Means over whole blocks so far, by optimizer and workload: every row over the same seeds, no test.

    As many workloads as fit; the others are counted.
    """
    title, columns, rows = standing_cells(ended, optimizers, metric=metric)
    names = [row[0] for row in rows]
    label = min(max((len(name) for name in names), default=0), max(9, width // 3))
    table = Table(pad_edge=False)
    table.add_column("optimizer")
    left = width - max(label, 9) - 4
    shown: list[int] = []
    for position, workload in enumerate(columns[1:], start=1):
        heading = middle(workload, 24)
        needed = max(len(heading), *(len(row[position]) for row in rows)) + 3
        if needed <= left or not shown:
            shown.append(position)
            table.add_column(escape(heading), justify="right", no_wrap=True)
            left -= needed
    for row in rows:
        table.add_row(escape(middle(row[0], label)), *(row[k] for k in shown))
    parts: list[RenderableType] = [Text(f"{title}{planned}, no test"), table]
    if len(shown) < len(columns) - 1:
        parts.append(Text(f"{len(columns) - 1 - len(shown)} more workloads; a wider terminal shows them"))
    return Group(*parts)


def standing_cells(
    ended: Sequence[Ended], optimizers: Mapping[str, Sequence[str]], *, metric: Metric
) -> tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Means over whole blocks so far: title, columns, and a row an optimizer."""
    whole = whole_blocks(ended, optimizers)
    names = list(dict.fromkeys(name for listed in optimizers.values() for name in listed))
    groups: dict[tuple[str, str], list[Ended]] = {}
    for trial in ended:
        groups.setdefault((trial.workload, trial.optimizer), []).append(trial)
    columns = {
        workload: {
            name: _cell(groups.get((workload, name), ()), blocks, metric) for name in optimizers[workload]
        }
        for workload, blocks in whole.items()
    }
    rows = tuple((name, *(columns[workload].get(name, "") for workload in columns)) for name in names)
    unit = f", {metric.symbol}" if metric.symbol else ""
    count = sum(map(len, whole.values()))
    title = f"{metric.title} so far{unit}: means over {count} whole block{'' if count == 1 else 's'}"
    return title, ("optimizer", *columns), rows


def _cell(mine: Sequence[Ended], blocks: Container[str], metric: Metric) -> str:
    """Mean of an optimizer over whole blocks, with a note on crashed and diverged trials."""
    if mine and all(trial.status == "crashed" for trial in mine):
        return "crashed"
    inside = [trial for trial in mine if trial.block in blocks]
    if not inside:
        return "-"
    scores = [trial.score for trial in inside if np.isfinite(trial.score) and trial.status == "completed"]
    mean = number(float(np.mean(scores)) * metric.factor, metric.digits) if scores else "-"
    lost = sum(trial.status == "diverged" for trial in inside)
    return f"{mean} ({len(scores)}{f', {lost} diverged' if lost else ''})"


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
        Waits for a number of seconds.

    Returns
    -------
    Standing
        The last one.
    """
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            with Store(path) as store:
                standing = look(store, metric=metric)
            live.update(render(standing, metric=metric, width=console.width), refresh=True)
            if sum(standing.counts.values()) >= standing.planned:
                return standing
            sleep(every)


def _seconds_left(rows: Sequence[TrialSummary], missing: int) -> float:
    """By the starts of these trials; what lies between two and is longer than any trial was no training.

    But a pause of the run, or a clock that was set.
    """
    times = sorted(datetime.fromisoformat(row.started).astimezone(timezone.utc).timestamp() for row in rows)
    longest = max((row.seconds for row in rows), default=0.0)
    gaps = np.diff(times)
    if longest > 0:
        gaps = np.minimum(gaps, longest + 1.0)  # starts are written to the second
    return float(gaps.mean() * missing) if gaps.any() else float("nan")
