"""The progress of a run in the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.markup import escape
from rich.text import Text

from optbench.report.text import middle, number
from optbench.suite.spec import PlannedTrial, Suite
from optbench.trial import Status, TrialRecord, custom_code

if TYPE_CHECKING:
    from optbench.report import watch


#: Characters beside description and bar: counter, times and what is between them.
_FIXED_WIDTH = 42


class RunView:
    """Shows a run: bars and the standing so far in a terminal, a plain line a trial elsewhere.

    Use as a context manager around the run, and as its observer.
    """

    def __init__(self, suite: Suite, console: Console) -> None:
        # Here, as a report shows no progress.
        from rich.live import Live
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        from optbench.report import watch

        self._watch = watch
        self._console = console
        self._metric = suite.metrics[suite.analysis.primary]
        self._ended: list[watch.Ended] = []
        self._shown: Group | None = None
        self._losses: list[float] = []
        self._optimizers = {entry.label: tuple(entry.optimizers) for entry in suite.workloads}
        self._began = time.monotonic()
        # Tuning plans round by round, so the plan grows; a known budget tells where to.
        self._monitor = suite.metrics[suite.tuning.monitor] if suite.tuning else self._metric
        self._expected = sum(
            len(entry.optimizers)
            * (len(suite.seeds) * len(suite.backends) + (suite.tuning.trainings(entry.workload) or 0))
            for entry in suite.workloads
            if suite.tuning is not None
        )
        self._begun = False
        self._under_way = 0
        self._meanwhile: Callable[[], None] | None = None
        self._workers: int | str = 1
        self._done = self._total = self._ended_now = 0

        class Described(TextColumn):
            """What is trained, shortened so that bar, counter and time left stay."""

            def render(self, task: Any) -> Text:
                first, dot, rest = task.description.partition(" · ")
                room = max(8, console.width - bar - _FIXED_WIDTH)
                rest = middle(dot + rest, max(8, room - 6))  # the workload gives way before the optimizer
                return Text(middle(first, max(4, room - len(rest))) + rest)

        bar = 30 if console.width >= 110 else 12
        columns = (
            Described("{task.description}", justify="left"),
            BarColumn(bar_width=bar),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
        )
        self._progress = Progress(*columns, console=console)
        self._all = self._progress.add_task("trials", total=None)
        self._trial = self._progress.add_task("", total=None, visible=False)
        self._named: set[str] = set()
        self._refused: set[tuple[str, str]] = set()
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(self, console=console, refresh_per_second=8, transient=True)

    def __enter__(self) -> RunView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._progress
        if self._losses:
            line = self._watch.sparkline(self._losses, width=min(40, max(8, console.width - 30)))
            yield Text(f"training loss {line} {number(self._losses[-1], 4)}", no_wrap=True)
        if self._ended:
            if self._shown is None:  # it changes with each trial, and is drawn many times a second
                self._shown = self._standing()
            yield self._shown

    def planned(self, plan: Sequence[PlannedTrial], statuses: Mapping[str, Status]) -> None:
        """See :class:`optbench.execution.local.Observer`."""
        found = [statuses.get(trial.id) for trial in plan]
        self._done = sum(status in ("completed", "diverged") for status in found)
        self._total = max(len(plan), self._expected)
        self._progress.update(self._all, total=self._total, completed=self._done)
        if not self._begun and (
            code := sorted({line for trial in plan for line in _code(trial)} - self._named)
        ):
            self._named.update(code)
            self._console.print(escape(f"This suite runs code of {', '.join(code)}."), soft_wrap=True)
        if self._done and not self._begun:
            self._console.print(f"{self._done} of {self._total} trials are in the store already.")
        if self._workers != 1:
            self._do_meanwhile()

    def meanwhile(self, work: Callable[[], None], *, workers: int | str) -> None:
        """Have this done while workers start, or once several trials of one process are under way.

        A trial that has the process to itself is not disturbed, as its times are compared.
        """
        self._meanwhile, self._workers = work, workers

    def _do_meanwhile(self) -> None:
        if self._meanwhile is not None:
            work, self._meanwhile = self._meanwhile, None
            work()

    def started(self, trial: PlannedTrial) -> None:
        """See :class:`optbench.execution.local.Observer`."""
        self._under_way += 1
        if self._under_way > 1:
            self._do_meanwhile()
        name = f"{_role(trial)}{trial.workload} · {trial.optimizer} · seed {trial.spec.seeds.init}"
        total = trial.spec.workload.epochs
        self._losses = []
        self._begun = True
        self._progress.reset(self._trial, description=escape(name), total=total, visible=True)

    def epoch(self, trial: PlannedTrial, epoch: int, row: Mapping[str, float]) -> None:
        """See :class:`optbench.execution.local.Observer`."""
        self._losses.append(row.get("train_loss", float("nan")))
        self._progress.update(self._trial, completed=epoch)

    def finished(self, trial: PlannedTrial, record: TrialRecord) -> None:
        """See :class:`optbench.execution.local.Observer`."""
        self._under_way -= 1
        self._done += 1
        self._ended_now += 1
        self._shown = None
        if trial.role == "evaluation":
            self._ended.append(
                self._watch.Ended(
                    workload=trial.workload,
                    optimizer=trial.optimizer,
                    block=record.block_id,
                    status=record.status,
                    score=record.metrics.get(self._metric.name, float("nan")),
                )
            )
        self._progress.update(self._all, completed=self._done)
        if record.status == "crashed":
            last = (record.error or "").strip().splitlines()[-1:]
            where = f"{trial.workload}, {trial.optimizer}, seed {trial.spec.seeds.init}"
            self._console.print(f"[red]crashed[/red] {escape(where)}: {escape(''.join(last))}")
        elif self._live is None:
            self._console.print(escape(self._line(trial, record)), soft_wrap=True)
        note = str(record.environment.get("checkpoint", ""))
        if note.startswith(("ignored", "none")):
            where = f"{trial.workload}, {trial.optimizer}, seed {trial.spec.seeds.init}"
            self._console.print(f"[yellow]checkpoint[/yellow] of {escape(where)}: {escape(note)}")
        refused = (trial.workload, str(record.environment.get("not_stacked", "")))
        if refused[1] and refused not in self._refused:
            self._refused.add(refused)
            self._console.print(
                f"[yellow]trained one by one[/yellow] on {escape(trial.workload)}, not in a stack: "
                f"{escape(refused[1])}",
                soft_wrap=True,
            )

    def _line(self, trial: PlannedTrial, record: TrialRecord) -> str:
        metric = self._metric if trial.role == "evaluation" else self._monitor
        value = record.metrics.get(metric.name, float("nan")) * metric.factor
        shown = f"{metric.title} {number(value, metric.digits)} {metric.symbol}".rstrip()
        size = record.environment.get("stacked", 1)
        ended = -(-self._ended_now // size) * size  # the others of a stack have ended, too
        left = (time.monotonic() - self._began) / max(1, ended)
        left *= max(0, self._total - self._done - ended + self._ended_now)
        return (
            f"[{self._done}/{self._total}] {_role(trial)}{trial.workload} {trial.optimizer} "
            f"seed {trial.spec.seeds.init}: {record.status}, {shown}, "
            f"{_took(record)}, about {left:.0f} s left"
        )

    def _standing(self) -> Group:
        """Means over this run's whole blocks."""
        return self._watch.standing_table(
            self._ended,
            self._optimizers,
            metric=self._metric,
            width=self._console.width,
            planned=" of this run",
        )


def _took(record: TrialRecord) -> str:
    """Say how long a trial took, or with how many others it shared its time."""
    if "total" in record.timings:
        return f"{record.timings['total']:.1f} s"
    return (
        f"one of {record.environment['stacked']} together" if "stacked" in record.environment else "no time"
    )


def _role(trial: PlannedTrial) -> str:
    """Say what a trial is for, where it is no evaluation."""
    if trial.role == "tuning":
        short = trial.spec.workload.stop
        return f"tuning ({short} of {trial.spec.workload.epochs} epochs) " if short else "tuning "
    return "untuned " if trial.role == "untuned" else ""


def _code(trial: PlannedTrial) -> Iterator[str]:
    """Name what a trial runs that is not optbench's own."""
    yield from custom_code(trial.spec)
    workload = trial.spec.workload
    if getattr(workload.dataset, "kind", None) == "class":
        yield Path(workload.dataset.location).name  # type: ignore[union-attr]
