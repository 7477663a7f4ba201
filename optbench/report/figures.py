"""Which plots a report has, with their captions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from optbench.records.step_times import PassTimes
from optbench.report import plots
from optbench.report.across import Across
from optbench.report.analysis import Report
from optbench.report.fair_times import best_pass, comparable, pass_rounds
from optbench.report.leaderboard import Leaderboard, of_board
from optbench.report.plots.curves import curve_column
from optbench.report.style import LineStyle, line_styles
from optbench.report.tuning import scores_by_optimizer
from optbench.stats.families import FamilyResult


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot: ``name`` is part of its file's, ``alt`` for screen readers, ``caption`` says how to read it."""

    name: str
    section: str
    title: str
    alt: str
    caption: str
    draw: Callable[[], Figure | None]


def report_plots(report: Report) -> Iterator[Plot]:
    """List the plots of a report; one whose ``draw`` gives None has nothing to show.

    Yields
    ------
    Plot
    """
    styles = line_styles(
        [*report.spec.optimizers, *(name for board in report.boards for name in board.table.columns)]
    )
    for board in report.boards:
        yield from (
            report.failures.attempt(f"plots: {board.title}", partial(_of_board, report, board, styles)) or ()
        )
    for found in report.overall:
        yield Plot(
            name="profile",
            section=found.title,
            title="Performance profile",
            alt=f"Share of workloads that each optimizer solves within a factor of the best: {found.title}",
            caption="Left end: the share of workloads on which an optimizer is the fastest. "
            "To the right: solved within that factor of the fastest.",
            draw=partial(plots.performance_profiles, found, styles=styles),
        )
        yield from report.failures.attempt(f"plots: {found.title}", partial(_of_overall, found)) or ()


def _of_overall(across: Across) -> list[Plot]:
    return list(_pairs(across.all_pairs, across.title, "workload"))


def _of_board(report: Report, board: Leaderboard, styles: Mapping[str, LineStyle]) -> list[Plot]:
    return list(_BoardPlots.of(report, board, styles).all())


@dataclass(frozen=True, kw_only=True)
class _BoardPlots:
    """The plots of one leaderboard, from its trials and their epochs; ``timed``: times may be compared."""

    report: Report
    board: Leaderboard
    styles: Mapping[str, LineStyle]
    trials: pd.DataFrame
    epochs: pd.DataFrame
    timed: bool

    @classmethod
    def of(cls, report: Report, board: Leaderboard, styles: Mapping[str, LineStyle]) -> _BoardPlots:
        """Select the rows of a leaderboard."""
        trials = of_board(report.results.trials, board)
        epochs = report.results.epochs
        epochs = epochs[epochs["trial_id"].isin(trials["trial_id"])] if len(epochs) else epochs
        timed = comparable(report.results, trials)
        return cls(report=report, board=board, styles=styles, trials=trials, epochs=epochs, timed=timed)

    def all(self) -> Iterator[Plot]:
        """List them in the order of the page."""
        yield self._differences()
        if len(self.epochs):
            yield from self._curves()
        yield self._success()
        if self.timed:
            yield from self._times()
        yield self._learning_rates()
        if len(self.report.results.tuning):
            yield from self._tuning()
        yield self._variance()
        title = self.board.title
        pairs = self.report.failures.attempt(f"every pair: {title}", lambda: self.board.all_pairs)
        if pairs is not None:
            yield from _pairs(pairs, title, "block")

    def _plot(
        self, name: str, heading: str, alt: str, caption: str, draw: Callable[[], Figure | None]
    ) -> Plot:
        title = self.board.title
        return Plot(
            name=name, section=title, title=heading, alt=f"{alt}: {title}", caption=caption, draw=draw
        )

    def _differences(self) -> Plot:
        board = self.board
        band = " Grey band: the declared margin, within which no difference matters."
        return self._plot(
            "differences",
            f"Difference to {board.baseline}",
            f"Difference to {board.baseline} in every block with mean and interval",
            "A small mark a block, in which only the optimizer differs; the diamond: the mean with its "
            f"interval.{band if board.margin is not None else ''}",
            partial(plots.paired_differences, board, styles=self.styles),
        )

    def _curves(self) -> Iterator[Plot]:
        epochs, trials, title, metric = self.epochs, self.trials, self.board.title, self.board.measure
        diverged = tuple(sorted(trials.loc[trials["status"] == "diverged", "trial_id"]))
        draw = partial(plots.loss_curves, title=title, diverged=diverged, styles=self.styles)
        yield self._plot(
            "loss",
            "Loss against epoch",
            "Training and validation loss of each optimizer against epoch",
            "Thick line: median over seeds; band: quartiles (description, not a test); thin lines: seeds.",
            partial(draw, epochs),
        )
        if self.timed:
            yield self._plot(
                "loss_time",
                "Loss against training time",
                "Training and validation loss of each optimizer against seconds of training",
                "As above, against the seconds of the training steps, without evaluation.",
                partial(draw, epochs[epochs["seconds"].notna()], against="seconds"),
            )
        curve = self.report.results.metrics[curve_column(epochs, metric)]
        name = curve.title.partition(" ")[2]
        yield self._plot(
            "accuracy",
            name.capitalize() or curve.title,
            f"Validation {name} against epoch, and final {metric.heading} of every trial",
            "Right: a mark a completed trial; the bar is their mean.",
            partial(
                plots.accuracy_curves,
                epochs,
                trials,
                title=title,
                metric=metric,
                diverged=diverged,
                styles=self.styles,
            ),
        )

    def _success(self) -> Plot:
        return self._plot(
            "success",
            "Success over time",
            "Share of trials that have reached the target, against epochs",
            "A trial that diverges or runs out of epochs never reaches the target.",
            partial(plots.success_over_time, self.board, styles=self.styles),
        )

    def _times(self) -> Iterator[Plot]:
        trials, title, metric = self.trials, self.board.title, self.board.measure
        from_pass = "pass" in set(trials.get("time_source", ()))
        rounds = best_pass(self.report.results, trials) if from_pass else {}
        yield self._plot(
            "steps",
            "Step time",
            "Time of a training step of each optimizer, median, least and most",
            f"Measured in {'rounds of the timing pass' if rounds else 'trials that ran alone'}.",
            partial(_step_times, rounds, trials, title=title, styles=self.styles),
        )
        yield self._plot(
            "pareto",
            f"{metric.title[:1].upper()}{metric.title[1:]} against time",
            f"Final {metric.heading} of every trial against its training time",
            "Large marks: medians. On the dashed line no other optimizer is as fast and as good.",
            partial(plots.accuracy_against_time, trials, title=title, metric=metric, styles=self.styles),
        )

    def _learning_rates(self) -> Plot:
        metric = self.board.measure
        return self._plot(
            "lr",
            "Learning-rate sensitivity",
            f"Final {metric.heading} against learning rate",
            "A cross at the lower edge: trials diverged at this rate.",
            partial(plots.lr_sensitivity, self.trials, title=self.board.title, metric=metric),
        )

    def _tuning(self) -> Iterator[Plot]:
        results, workload, title = self.report.results, self.board.workload, self.board.title
        searched = results.tuning
        monitor = results.metrics[results.journals[0].monitor]
        mine = searched[(searched["workload"] == workload) & (searched["stage"] == "optimizer")]
        mine = mine.assign(family=mine["optimizer"])
        yield self._plot(
            "tuning",
            "What tuning buys",
            "Expected best validation score after so many tuning settings",
            "Only for settings drawn independently (random, quasi-random).",
            partial(
                plots.tuning_curves,
                scores_by_optimizer(results, workload),
                title=title,
                metric=monitor,
                styles=self.styles,
            ),
        )
        yield self._plot(
            "tuning_lr",
            "Learning-rate sensitivity in tuning",
            f"{monitor.heading} of every tuning trial against learning rate",
            "Validation scores on the tuning seeds. A cross at the lower edge: trials diverged at this rate.",
            partial(plots.lr_sensitivity, mine, title=title, metric=monitor, styles=self.styles),
        )

    def _variance(self) -> Plot:
        return self._plot(
            "variance",
            "Where the variance comes from",
            "Share of the variance that each random stream causes",
            "Main effects of the streams with seeds of their own; the rest is interaction and unseeded "
            "noise.",
            partial(plots.variance_bars, self.trials, title=self.board.title, metric=self.board.measure),
        )


def _step_times(
    rounds: Mapping[str, PassTimes],
    trials: pd.DataFrame,
    *,
    title: str,
    styles: Mapping[str, LineStyle],
) -> Figure | None:
    unit = "round" if rounds else "trial"
    return plots.step_time_bars(
        pass_rounds(rounds) if rounds else trials, title=title, unit=unit, styles=styles
    )


def _pairs(family: FamilyResult, title: str, unit: str) -> Iterator[Plot]:
    asked = " It asks about new workloads, of which each of these is one." if unit == "workload" else ""
    yield Plot(
        name="pairs",
        section=title,
        title="Every pair",
        alt=f"Verdict of every optimizer against every other: {title}",
        caption="Row against column. All pairs have a correction of their own, so a cell may be less sure "
        f"than the leaderboard, which tests the declared comparisons only.{asked}",
        draw=partial(plots.verdict_heatmap, family, title=title),
    )
    yield Plot(
        name="ranks",
        section=title,
        title="Critical difference",
        alt=f"Mean ranks with Nemenyi's critical difference: {title}",
        caption=f"Mean rank over {unit}s, 1 is best; a bar joins those closer than the critical difference. "
        "The familiar view: mean ranks depend on who takes part, so no verdict rests on it.",
        draw=partial(plots.critical_difference, family, title=title),
    )
