"""Plots of what the result depends on: tuning budget, learning rate, random streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from optbench.report.plots.common import hover, legend, log_scale, new_figure, plot, tidy
from optbench.report.style import LineStyle, line_styles, short_labels, shorten
from optbench.stats.common import StatsError
from optbench.stats.tuning_curves import tuning_curve
from optbench.stats.variance import VarianceShares, variance_shares
from optbench.task import Metric

#: Bands and second lines of more optimizers than this would hide the curves.
MOST_BANDS = 4
_STREAM_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9")


@plot
def tuning_curves(
    results: Mapping[str, Sequence[float]],
    *,
    title: str,
    metric: Metric,
    styles: Mapping[str, LineStyle] | None = None,
) -> Figure | None:
    """Expected best result of a number of tuning trials.

    Parameters
    ----------
    results : mapping of optimizer to sequence of float
        Metric of every tuning trial, oriented so that larger is better; ``-inf`` where it diverged.
    title : str
    metric : Metric
    styles : mapping, optional

    Returns
    -------
    Figure or None
        Unbiased estimate as a thick line, biased as a thin one, the band of the median faint. None without
        results.
    """
    if not results:
        return None
    styles = styles or line_styles(results)
    figure = new_figure(7.5, 4.2)
    axes = figure.subplots()
    crowded = len(results) > MOST_BANDS
    factor = metric.sign * metric.factor
    ends: dict[str, float] = {}
    starts: dict[str, float] = {}
    for name, values in results.items():
        curve, style = tuning_curve(values), styles[name]
        best, biased, low, high = (
            np.where(np.isfinite(y), np.array(y) * factor, np.nan)
            for y in (curve.unbiased, curve.biased, curve.median_low, curve.median_high)
        )
        if not crowded:
            axes.fill_between(curve.k, low, high, color=style.colour, alpha=0.1, linewidth=0)
            axes.plot(curve.k, biased, color=style.colour, linewidth=0.8)
        (line,) = axes.plot(curve.k, best, color=style.colour, linestyle=style.dash, linewidth=2)
        hover(line, f"{name}: {best[-1]:.4g} expected of the best of {curve.n} tuning trials")
        ends[name], starts[name] = (
            float(best[-1]),
            float(best[np.isfinite(best)][0]) if np.isfinite(best).any() else np.nan,
        )
    axes.set(xlabel="tuning trials", ylabel=f"expected best {metric.heading}")
    far = _off_the_scale(axes, starts, ends, metric)
    how = "" if crowded else " (thin: biased estimator; band: median)"
    beyond = f"\noff the scale: {', '.join(f'{n} {ends[n]:.4g}' for n in far)}" if far else ""
    axes.set_title(f"{shorten(title, 50)}: expected best{how}{beyond}", fontsize=11)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes)
    order = sorted(
        results, key=lambda name: -metric.sign * (ends[name] if np.isfinite(ends[name]) else -np.inf)
    )
    legend(figure, {name: short_labels(results)[name] for name in order}, styles)
    return figure


def _off_the_scale(
    axes: Axes, starts: Mapping[str, float], ends: Mapping[str, float], metric: Metric
) -> list[str]:
    """Fit the scale to the curves that end near each other; name those that end far below."""
    known = {name: metric.sign * value for name, value in ends.items() if np.isfinite(value)}
    if len(known) < 3:
        return []
    best = max(known.values())
    gaps = {name: best - value for name, value in known.items()}
    usual = float(np.median(list(gaps.values())))
    far = [name for name, gap in gaps.items() if gap > 4 * usual and gap > 0]
    near = [metric.sign * starts[name] for name in known if name not in far and np.isfinite(starts[name])]
    if not far or not near:
        return []
    low, high = min(near), best
    pad = 0.06 * (high - low or 1.0)
    axes.set_ylim(*sorted((metric.sign * (low - pad), metric.sign * (high + pad))))
    return [name for name in far if known[name] < low - pad]


@plot
def lr_sensitivity(
    trials: pd.DataFrame,
    *,
    title: str,
    metric: Metric,
    styles: Mapping[str, LineStyle] | None = None,
) -> Figure | None:
    """Final metric against the learning rate of each optimizer family.

    Parameters
    ----------
    trials : DataFrame
        Rows of one workload of ``Results.trials``.
    title : str
    metric : Metric
        Of a column.
    styles : mapping, optional
        By family.

    Returns
    -------
    Figure or None
        A dot a completed trial and a line at the median; rates at which trials diverged carry a cross at the
        lower edge. None where no family has two learning rates.
    """
    if not {"family", "lr", metric.name} <= set(trials.columns):
        return None
    rates = trials.groupby("family")["lr"].nunique()
    families = [name for name in dict.fromkeys(trials["family"]) if rates[name] > 1]
    if not families:
        return None
    styles = {**line_styles(families), **(styles or {})}
    figure = new_figure(7.5, 3.8)
    axes = figure.subplots()
    for family in families:
        mine, style = trials[trials["family"] == family], styles[family]
        done = mine[mine["status"] == "completed"]
        axes.plot(
            done["lr"],
            done[metric.name] * metric.factor,
            style.marker,
            color=style.colour,
            markersize=4,
            alpha=0.4,
        )
        middle = done.groupby("lr")[metric.name].median() * metric.factor
        (line,) = axes.plot(middle.index, middle, color=style.colour, linestyle=style.dash, linewidth=2)
        if len(middle):
            best = middle.idxmax() if metric.maximised else middle.idxmin()
            hover(line, f"{family}: best median {middle[best]:.4g} at learning rate {best:g}")
        lost = mine.loc[mine["status"] == "diverged", "lr"].unique()
        axes.plot(
            lost,
            np.full(len(lost), 0.02),
            "x",
            color=style.colour,
            markersize=8,
            transform=axes.get_xaxis_transform(),
        )
    axes.set(xlabel="learning rate", ylabel=metric.heading)
    axes.set_title(f"{shorten(title, 50)}: dots trials, lines medians, x diverged", fontsize=11)
    log_scale(axes, "x")
    tidy(axes)
    legend(figure, short_labels(families), styles)
    return figure


@plot
def variance_bars(trials: pd.DataFrame, *, title: str, metric: Metric) -> Figure | None:
    """Share of the metric's variance that each random stream causes, for every optimizer.

    Parameters
    ----------
    trials : DataFrame
        Rows of one workload of ``Results.trials``, with the seeds of the streams.
    title : str
    metric : Metric

    Returns
    -------
    Figure or None
        A stacked bar an optimizer. None where fewer than two streams have seeds of their own, or no optimizer
        has a complete crossed design.
    """
    shares = stream_shares(trials, metric=metric.name)
    if not shares:
        return None
    figure = new_figure(7.5, 1.6 + 0.42 * len(shares))
    axes = figure.subplots()
    labels = short_labels(shares)
    streams = next(iter(shares.values())).streams
    for place, (name, found) in enumerate(shares.items()):
        left = 0.0
        for number, share in enumerate((*found.shares, found.residual_share)):
            stream = (*streams, "rest")[number]
            colour = _STREAM_COLOURS[number] if stream != "rest" else "#BBBBBB"
            (bar,) = axes.barh([place], [share * 100], left=left * 100, color=colour, height=0.62)
            bar.set_hatch(("", "//", "..", "xx", "\\\\")[number % 5])
            bar.set_label(stream if place == 0 else "_")
            hover(bar, f"{name}: {share:.1%} of the variance from {stream}")
            left += share
    axes.set_yticks(range(len(shares)), list(labels.values()))
    axes.invert_yaxis()
    axes.set(xlabel=f"share of the variance of {metric.title}, %", xlim=(0, 100))
    axes.set_title(shorten(title, 60), fontsize=11)
    figure.legend(loc="outside lower center", ncols=6, frameon=False)
    tidy(axes, grid="x")
    return figure


def stream_shares(trials: pd.DataFrame, *, metric: str) -> dict[str, VarianceShares]:
    """Variance shares by optimizer, of those whose streams are fully crossed."""
    streams = [name for name in trials.columns if name.startswith("seed_") and trials[name].nunique() > 1]
    if len(streams) < 2 or metric not in trials:
        return {}
    found = {}
    for optimizer, part in trials.groupby("optimizer", sort=False):
        renamed = part[[*streams, metric]].rename(columns=lambda name: name.removeprefix("seed_"))
        try:
            result = variance_shares(
                renamed, value=metric, streams=[name.removeprefix("seed_") for name in streams]
            )
        except StatsError:
            continue  # not crossed, or with a diverged trial: no shares for this one
        if not np.isnan(result.residual_share):
            found[str(optimizer)] = result
    return found
