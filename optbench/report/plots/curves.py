"""Training curves: median and spread over seeds, each seed faintly behind them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from optbench.report.plots.common import hover, legend, log_scale, new_figure, plot, tidy
from optbench.report.style import LineStyle, line_styles, short_labels, shorten
from optbench.task import Metric, Metrics

#: Most seeds of an optimizer that are drawn one by one.
MOST_SEEDS = 30

#: More names than this are written upright.
MOST_LEVEL = 8


@plot
def loss_curves(
    epochs: pd.DataFrame,
    *,
    title: str,
    against: Literal["epoch", "seconds"] = "epoch",
    diverged: Collection[str] = (),
    styles: Mapping[str, LineStyle] | None = None,
) -> Figure:
    """Training and validation loss against epoch or training time.

    Parameters
    ----------
    epochs : DataFrame
        Rows of one workload of ``Results.epochs``.
    title : str
        The workload.
    against : {"epoch", "seconds"}
        What the horizontal axis shows; seconds are those of training steps alone.
    diverged : collection of str
        Ids of diverged trials: from where they ended they count as infinitely bad.
    styles : mapping, optional
        Style of each optimizer.

    Returns
    -------
    Figure
        Two panels on a logarithmic scale: median over seeds as a line, quartiles as a band, every seed faint
        (up to 30 of an optimizer). The median is drawn over the epochs that all completed seeds reached.
    """
    figure = new_figure()
    styles = styles or line_styles(epochs["optimizer"])
    columns = [name for name in ("train_loss", "val_loss") if epochs[name].notna().any()] or ["train_loss"]
    panels = figure.subplots(1, len(columns), squeeze=False)[0]
    for axes, column in zip(panels, columns, strict=True):
        _curves(axes, epochs, Metrics()[column], against, diverged, styles)
        axes.set(title="training loss" if column == "train_loss" else "validation loss")
        log_scale(axes, "y")
        _finish(axes, against)
    panels[0].set_ylabel(
        "cross-entropy" if "val_rmse" not in epochs or epochs["val_rmse"].isna().all() else "loss"
    )
    return _titled(figure, epochs, title, styles)


@plot
def accuracy_curves(
    epochs: pd.DataFrame,
    trials: pd.DataFrame,
    *,
    title: str,
    metric: Metric,
    diverged: Collection[str] = (),
    styles: Mapping[str, LineStyle] | None = None,
) -> Figure:
    """A metric of the validation part against epoch, and the final metric of every trial beside it.

    The curve's metric is accuracy where there is one, else that of the right panel.

    Parameters
    ----------
    epochs, trials : DataFrame
        Rows of one workload of ``Results.epochs`` and ``Results.trials``.
    title : str
    metric : Metric
        Of the column of ``trials`` for the right panel.
    diverged, styles
        As for :func:`loss_curves`.

    Returns
    -------
    Figure
        Left: curves from epoch 1. Right: a dot a completed trial, a bar at the mean; diverged trials are
        counted below.
    """
    figure = new_figure()
    styles = styles or line_styles(epochs["optimizer"])
    names = list(dict.fromkeys(epochs["optimizer"].astype(str)))
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    column = Metrics()[curve_column(epochs, metric)]
    trained = epochs[epochs["epoch"] > 0]  # before the first step it is chance, and would flatten the rest
    _curves(left, trained, column, "epoch", diverged, styles)
    left.set(title=column.heading)
    _finish(left, "epoch")
    labels = short_labels(names, longest=16)
    for place, name in enumerate(names):
        mine = trials[trials["optimizer"] == name]
        done = mine[mine["status"] == "completed"]
        values = (
            done[metric.name].to_numpy(dtype=float) * metric.factor if metric.name in done else np.empty(0)
        )
        style = styles[name]
        if len(values):
            offsets = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else np.zeros(1)
            dots = right.plot(
                place + offsets, values, style.marker, color=style.colour, markersize=4, alpha=0.6
            )
            bar = right.hlines(values.mean(), place - 0.32, place + 0.32, color=style.colour, linewidth=2.2)
            hover(dots[0], f"{name}: {len(values)} trials, {values.min():.4g} to {values.max():.4g}")
            hover(bar, f"{name}: mean {values.mean():.4g} of {len(values)} trials")
        lost = int((mine["status"] == "diverged").sum())
        if lost:
            right.annotate(
                f"{lost} diverged", (place, 0.01), xycoords=("data", "axes fraction"), ha="center", fontsize=8
            )
    many = len(names) > MOST_LEVEL
    turn = 90 if many else 25 if len(names) > 4 else 0
    right.set_xticks(
        range(len(names)), [labels[n] for n in names], rotation=turn, fontsize=7 if many else None
    )
    if many:
        figure.set_size_inches(figure.get_figwidth() + 1.5, figure.get_figheight() + 0.9)
    right.set(title=metric.heading, xlim=(-0.6, len(names) - 0.4))
    tidy(right, grid="y")
    return _titled(figure, epochs, title, styles)


def curve_column(epochs: pd.DataFrame, metric: Metric) -> str:
    """Column of a history that shows the way to a final metric; the loss where no other one does.

    Accuracy comes first, as classifiers always have it; the validation part comes before the training part.
    """
    bare = metric.name.partition("_")[2]
    columns = (f"{part}_{name}" for name in ("accuracy", bare, "loss") for part in ("val", "train"))
    return next((c for c in columns if c in epochs and epochs[c].notna().any()), "train_loss")


def _curves(
    axes: Axes,
    epochs: pd.DataFrame,
    metric: Metric,
    against: str,
    diverged: Collection[str],
    styles: Mapping[str, LineStyle],
) -> None:
    worst = -metric.sign * np.inf
    logarithmic = metric.unit == "loss"  # on which 0 has no place
    for name, part in epochs.groupby("optimizer", sort=False, observed=True):
        style = styles[str(name)]
        table = _table(part, metric.name) * metric.factor
        x = _table(part, "seconds") if against == "seconds" else None
        bad = [trial for trial in table.columns if trial in diverged]
        shown = table.where(np.isfinite(table) & ((table > 0) | (not logarithmic)))
        if len(table.columns) <= MOST_SEEDS:
            # One artist for all seeds: each costs as much as a curve of its own.
            lines = [
                np.column_stack([table.index if x is None else x[trial], shown[trial]]).astype(float)
                for trial in table.columns
            ]
            axes.add_collection(LineCollection(lines, colors=style.colour, linewidths=0.6, alpha=0.3))
        counted = shown.copy()
        counted[bad] = counted[bad].fillna(worst)
        known = counted.notna().all(axis=1).to_numpy()
        low, middle, high = (_quantile(counted, q) for q in (0.25, 0.5, 0.75))
        middle = np.where(known & np.isfinite(middle), middle, np.nan)
        place = table.index.to_numpy(dtype=float) if x is None else x.median(axis=1).to_numpy(dtype=float)
        if counted.shape[1] > 1:
            fine = known & np.isfinite(low) & np.isfinite(high)
            axes.fill_between(place, low, high, where=fine, color=style.colour, alpha=0.15, linewidth=0)
        (drawn,) = axes.plot(
            place, middle, color=style.colour, linestyle=style.dash, linewidth=2, label=str(name)
        )
        last = middle[np.isfinite(middle)]
        if last.size:
            hover(
                drawn,
                f"{name}: median {last[-1]:.4g} at the last epoch that all {counted.shape[1]} seeds share",
            )


def _table(part: pd.DataFrame, column: str) -> pd.DataFrame:
    """Epochs x trials."""
    return part.assign(trial_id=part["trial_id"].astype(str)).pivot(
        index="epoch", columns="trial_id", values=column
    )


def _quantile(table: pd.DataFrame, q: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Quantile over trials, to the nearest value, so that an infinite one is never averaged."""
    values = np.sort(table.to_numpy(dtype=float), axis=1)
    n = values.shape[1]
    if q == 0.5 and n % 2 == 0:
        pair = values[:, n // 2 - 1 : n // 2 + 1]
        with np.errstate(invalid="ignore"):
            return np.asarray(pair.mean(axis=1))
    return np.asarray(values[:, round(q * (n - 1))])


def _finish(axes: Axes, against: str) -> None:
    axes.set_xlabel("epoch" if against == "epoch" else "training time, s")
    if against == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(axes)


def _titled(figure: Figure, epochs: pd.DataFrame, title: str, styles: Mapping[str, LineStyle]) -> Figure:
    names = list(dict.fromkeys(epochs["optimizer"].astype(str)))
    seeds = epochs["seed"].nunique()
    plural = "s" if seeds != 1 else ""
    figure.suptitle(
        f"{shorten(title, 60)}: median and quartiles of {seeds} seed{plural}",
        fontsize=11,
    )
    legend(figure, short_labels(names), styles)
    return figure
