"""Which plots a report has, with their captions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

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
    """A plot: ``name`` is part of its file's, ``alt`` is read aloud, ``caption`` tells how to read it."""

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
            draw=lambda found=found: plots.performance_profiles(found, styles=styles),  # type: ignore[misc]
        )
        yield from report.failures.attempt(f"plots: {found.title}", partial(_of_overall, found)) or ()


def _of_overall(found: Across) -> list[Plot]:
    return list(_pairs(found.all_pairs, found.title, "workload"))


def _of_board(report: Report, board: Leaderboard, styles: Mapping[str, LineStyle]) -> list[Plot]:
    return list(_planned(report, board, styles))


def _planned(report: Report, board: Leaderboard, styles: Mapping[str, LineStyle]) -> Iterator[Plot]:
    trials = of_board(report.results.trials, board)
    timed = comparable(report.results, trials)
    rounds = best_pass(report.results, trials) if "pass" in set(trials.get("time_source", ())) else {}
    epochs = report.results.epochs
    epochs = epochs[epochs["trial_id"].isin(trials["trial_id"])] if len(epochs) else epochs
    diverged = set(trials.loc[trials["status"] == "diverged", "trial_id"])
    title, metric = board.title, board.measure
    words = metric.heading

    def plot(name: str, heading: str, alt: str, caption: str, draw: Callable[[], Figure | None]) -> Plot:
        return Plot(
            name=name, section=title, title=heading, alt=f"{alt}: {title}", caption=caption, draw=draw
        )

    yield plot(
        "differences",
        f"Difference to {board.baseline}",
        f"Difference to {board.baseline} in every block with mean and interval",
        "A small mark a block, in which only the optimizer differs; the diamond: the mean with its interval."
        + (
            ""
            if board.margin is None
            else " Grey band: the declared margin, within which no difference matters."
        ),
        lambda: plots.paired_differences(board, styles=styles),
    )
    if len(epochs):
        yield plot(
            "loss",
            "Loss against epoch",
            "Training and validation loss of each optimizer against epoch",
            "Thick line: median over seeds; band: quartiles (description, not a test); thin lines: seeds.",
            lambda: plots.loss_curves(epochs, title=title, diverged=diverged, styles=styles),
        )
        if timed:
            yield plot(
                "loss_time",
                "Loss against training time",
                "Training and validation loss of each optimizer against seconds of training",
                "As above, against the seconds of the training steps, without evaluation.",
                lambda: plots.loss_curves(
                    epochs[epochs["seconds"].notna()],
                    title=title,
                    against="seconds",
                    diverged=diverged,
                    styles=styles,
                ),
            )
        curve = report.results.metrics[curve_column(epochs, metric)]
        yield plot(
            "accuracy",
            curve.title.partition(" ")[2].capitalize() or curve.title,
            f"Validation {curve.title.partition(' ')[2]} against epoch, and final {words} of every trial",
            "Right: a mark a completed trial; the bar is their mean.",
            lambda: plots.accuracy_curves(
                epochs, trials, title=title, metric=metric, diverged=diverged, styles=styles
            ),
        )
    yield plot(
        "success",
        "Success over time",
        "Share of trials that have reached the target, against epochs",
        "A trial that diverges or runs out of epochs never reaches the target.",
        lambda: plots.success_over_time(board, styles=styles),
    )
    if timed:
        yield plot(
            "steps",
            "Step time",
            "Time of a training step of each optimizer, median, least and most",
            f"Measured in {'rounds of the timing pass' if rounds else 'trials that ran alone'}.",
            lambda: plots.step_time_bars(
                pass_rounds(rounds) if rounds else trials,
                title=title,
                unit="round" if rounds else "trial",
                styles=styles,
            ),
        )
        yield plot(
            "pareto",
            f"{metric.title[:1].upper()}{metric.title[1:]} against time",
            f"Final {words} of every trial against its training time",
            "Large marks: medians. On the dashed line no other optimizer is as fast and as good.",
            lambda: plots.accuracy_against_time(trials, title=title, metric=metric, styles=styles),
        )
    yield plot(
        "lr",
        "Learning-rate sensitivity",
        f"Final {words} against learning rate",
        "A cross at the lower edge: trials diverged at this rate.",
        lambda: plots.lr_sensitivity(trials, title=title, metric=metric),
    )
    searched = report.results.tuning
    if len(searched):
        monitor = report.results.metrics[report.results.journals[0].monitor]
        mine = searched[(searched["workload"] == board.workload) & (searched["stage"] == "optimizer")]
        mine = mine.assign(family=mine["optimizer"])
        yield plot(
            "tuning",
            "What tuning buys",
            "Expected best validation score after so many tuning settings",
            "Only for settings drawn independently (random, quasi-random).",
            lambda: plots.tuning_curves(
                scores_by_optimizer(report.results, board.workload),
                title=title,
                metric=monitor,
                styles=styles,
            ),
        )
        yield plot(
            "tuning_lr",
            "Learning-rate sensitivity in tuning",
            f"{monitor.heading} of every tuning trial against learning rate",
            "Validation scores on the tuning seeds. A cross at the lower edge: trials diverged at this rate.",
            lambda: plots.lr_sensitivity(mine, title=title, metric=monitor, styles=styles),
        )
    yield plot(
        "variance",
        "Where the variance comes from",
        "Share of the variance that each random stream causes",
        "Main effects of the streams with seeds of their own; the rest is interaction and unseeded noise.",
        lambda: plots.variance_bars(trials, title=title, metric=metric),
    )
    pairs = report.failures.attempt(f"every pair: {title}", lambda: board.all_pairs)
    if pairs is not None:
        yield from _pairs(pairs, title, "block")


def _pairs(family: FamilyResult, title: str, unit: str) -> Iterator[Plot]:
    yield Plot(
        name="pairs",
        section=title,
        title="Every pair",
        alt=f"Verdict of every optimizer against every other: {title}",
        caption="Row against column. All pairs have a correction of their own, so a cell may be less sure "
        "than the leaderboard, which tests the declared comparisons only.",
        draw=lambda: plots.verdict_heatmap(family, title=title),
    )
    yield Plot(
        name="ranks",
        section=title,
        title="Critical difference",
        alt=f"Mean ranks with Nemenyi's critical difference: {title}",
        caption=f"Mean rank over {unit}s, 1 is best; a bar joins those closer than the critical difference. "
        "The familiar view: mean ranks depend on who takes part, so no verdict rests on it.",
        draw=lambda: plots.critical_difference(family, title=title),
    )
