"""Plots of cost: success over time, profiles over workloads, step times, accuracy against time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FormatStrFormatter, NullLocator

from optbench.report.across import Across
from optbench.report.leaderboard import Leaderboard
from optbench.report.plots.common import hover, legend, new_figure, plot, tidy
from optbench.report.style import LineStyle, line_styles, short_labels, shorten
from optbench.report.text import goal
from optbench.stats.profiles import performance_profile
from optbench.stats.survival import kaplan_meier
from optbench.task import Metric

#: Most trials of an optimizer that are drawn one by one.
MOST_DOTS = 200


@plot
def success_over_time(board: Leaderboard, *, styles: Mapping[str, LineStyle] | None = None) -> Figure | None:
    """Share of trials that have reached the target, against epochs (one minus Kaplan-Meier's estimate).

    Parameters
    ----------
    board : Leaderboard
    styles : mapping, optional

    Returns
    -------
    Figure or None
        A step line an optimizer, up to the budget; a trial that diverged or ran out of epochs is censored
        there. None without a target.
    """
    if board.times is None or board.reached is None:
        return None
    styles = styles or line_styles(board.table.columns)
    budget = board.times.budget
    figure = new_figure(7.5, 3.8)
    axes = figure.subplots()
    labels = {}
    by_optimizer = dict(iter(board.reached.groupby("optimizer")["target_epoch"]))
    for s in board.times.summaries:
        times = by_optimizer[s.optimizer].to_numpy(dtype=float)
        event = times <= budget
        km = kaplan_meier(np.minimum(times, budget), event)
        share = 1 - np.array((1.0, *km.survival, km.survival[-1] if km.survival else 1.0))
        style = styles[s.optimizer]
        (line,) = axes.step(
            [0.0, *km.times, 1.04 * budget],
            share,
            where="post",
            color=style.colour,
            linestyle=style.dash,
            linewidth=2,
        )
        hover(line, f"{s.optimizer}: {s.successes} of {s.n} trials at the target, median {s.median:g} epochs")
        labels[s.optimizer] = shorten(s.optimizer) + f" ({s.successes} of {s.n})"
    axes.set(
        xlabel="epochs",
        ylabel="share of trials at the target",
        ylim=(-0.02, 1.02),
        xlim=(0, 1.04 * budget),
        title=f"{shorten(board.title, 50)}: {goal(board.targets)}",
    )
    tidy(axes)
    legend(figure, labels, styles)
    return figure


@plot
def performance_profiles(across: Across, *, styles: Mapping[str, LineStyle] | None = None) -> Figure | None:
    """Share of workloads solved within a factor of the fastest.

    Parameters
    ----------
    across : Across
        With median epochs to target.
    styles : mapping, optional

    Returns
    -------
    Figure or None
        Factors from 1 to 4 on a logarithmic axis. None where fewer than 2 workloads have a target.
    """
    if across.times is None or len(across.times) < 2:
        return None
    names = list(across.family.optimizers)
    styles = styles or line_styles(names)
    taus = np.geomspace(1, 4, 200)
    shares = performance_profile(across.times, taus)
    figure = new_figure(7.5, 3.6)
    axes = figure.subplots()
    for number, name in enumerate(names):
        style = styles[name]
        (line,) = axes.step(
            taus, shares[:, number], where="post", color=style.colour, linestyle=style.dash, linewidth=2
        )
        hover(line, f"{name}: fastest on {shares[0, number]:.0%}, within 4 times on {shares[-1, number]:.0%}")
    axes.set(xlabel="epochs to target over the fewest", ylabel="share of workloads", ylim=(-0.02, 1.02))
    axes.set_title(f"{across.title}: performance profile over {len(across.times)} with a target", fontsize=11)
    axes.set(xlim=(1, 4), xscale="log")
    axes.xaxis.set_major_locator(FixedLocator([1, 1.5, 2, 3, 4]))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_locator(NullLocator())
    tidy(axes)
    legend(figure, short_labels(names), styles)
    return figure


@plot
def step_time_bars(
    trials: pd.DataFrame, *, title: str, unit: str = "trial", styles: Mapping[str, LineStyle] | None = None
) -> Figure | None:
    """Time of a training step (of an epoch where the number of steps is not known), median and spread.

    Parameters
    ----------
    trials : DataFrame
        Rows of one workload on one machine of ``Results.trials``.
    title : str
    unit : str
        What a row is: a trial, or a round of the timing pass.
    styles : mapping, optional

    Returns
    -------
    Figure or None
        A bar an optimizer at the median of its completed trials, whiskers from the least to the most, a dot a
        trial. None without a completed trial.
    """
    if "step_seconds" not in trials:
        return None
    done = trials[(trials["status"] == "completed") & trials["step_seconds"].notna()]
    if done.empty:
        return None
    names = list(dict.fromkeys(done["optimizer"]))
    styles = styles or line_styles(names)
    epoch = done["step_seconds"] / done["epochs"]
    steps = done["steps_per_epoch"] if "steps_per_epoch" in done else epoch * np.nan
    known = bool(steps.notna().all())
    values = 1000 * epoch / steps if known else epoch
    figure = new_figure(7.5, 1.2 + 0.42 * len(names))
    axes = figure.subplots()
    labels = short_labels(names)
    for place, name in enumerate(names):
        mine = values[done["optimizer"] == name].to_numpy(dtype=float)
        middle, low, high = float(np.median(mine)), float(mine.min()), float(mine.max())
        style = styles[name]
        (bar,) = axes.barh([place], [middle], color=style.colour, alpha=0.55, height=0.62)
        hover(bar, f"{name}: median {middle:.4g}, {low:.4g} to {high:.4g}, {len(mine)} {unit}s")
        axes.errorbar([middle], [place], xerr=[[middle - low], [high - middle]], color="#555555", capsize=4)
        if len(mine) <= MOST_DOTS:
            axes.plot(mine, np.full(len(mine), place), "|", color="#333333", markersize=9, alpha=0.6)
    axes.set_yticks(range(len(names)), [labels[name] for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("step, ms" if known else "epoch, s")
    axes.set_title(f"{shorten(title, 50)}: median, least and most of a {unit}", fontsize=11)
    tidy(axes, grid="x")
    return figure


@plot
def accuracy_against_time(
    trials: pd.DataFrame,
    *,
    title: str,
    metric: Metric,
    styles: Mapping[str, LineStyle] | None = None,
) -> Figure | None:
    """Final metric against training time, with the optimizers that no other beats in both.

    Parameters
    ----------
    trials : DataFrame
        Rows of one workload on one machine of ``Results.trials``.
    title : str
    metric : Metric
        Of a column.
    styles : mapping, optional

    Returns
    -------
    Figure or None
        A small mark a completed trial, a large one at the medians; a line joins the Pareto front of the large
        ones. None without a completed trial.
    """
    if metric.name not in trials or "step_seconds" not in trials:
        return None
    done = trials[(trials["status"] == "completed") & trials["step_seconds"].notna()]
    if done.empty:
        return None
    names = list(dict.fromkeys(done["optimizer"]))
    styles = styles or line_styles(names)
    figure = new_figure(7.5, 4.0)
    axes = figure.subplots()
    middles = []
    for name in names:
        mine = done[done["optimizer"] == name]
        x = mine["step_seconds"].to_numpy(dtype=float)
        y = mine[metric.name].to_numpy(dtype=float) * metric.factor
        style = styles[name]
        axes.plot(x[:MOST_DOTS], y[:MOST_DOTS], style.marker, color=style.colour, markersize=4, alpha=0.4)
        middle = float(np.median(x)), float(np.median(y))
        (mark,) = axes.plot(*middle, style.marker, color=style.colour, markersize=10)
        mark.set_markeredgecolor("#333333")
        hover(mark, f"{name}: median {middle[1]:.4g} after {middle[0]:.4g} s of training, {len(x)} trials")
        middles.append(middle)
    front = pareto_front(middles, maximise=metric.maximised)
    (line,) = axes.plot([x for x, _ in front], [y for _, y in front], color="#888888", linestyle="--")
    line.set(linewidth=1.2, zorder=1)
    axes.set(xlabel="training time of a trial, s", ylabel=metric.heading)
    axes.set_title(f"{shorten(title, 50)}: the dashed line joins the Pareto front", fontsize=11)
    tidy(axes)
    legend(figure, short_labels(names), styles)
    return figure


def pareto_front(points: Sequence[tuple[float, float]], *, maximise: bool) -> list[tuple[float, float]]:
    """Points that no other beats: less time with at least as good a score, or a better one in as little time.

    Examples
    --------
    >>> pareto_front([(1.0, 0.9), (2.0, 0.95), (3.0, 0.93)], maximise=True)
    [(1.0, 0.9), (2.0, 0.95)]
    """
    sign = 1 if maximise else -1
    front: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: (p[0], -sign * p[1])):
        if not front or sign * point[1] > sign * front[-1][1]:
            front.append(point)
    return front
