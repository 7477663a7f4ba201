"""Plots, each a function from tidy tables to a matplotlib figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator

from optbench.report.style import line_styles


def loss_curves(epochs: pd.DataFrame, *, title: str) -> Figure:
    """Training and validation loss against epoch: the mean over seeds, every seed faintly behind it.

    Parameters
    ----------
    epochs : DataFrame
        Rows of one workload of ``Results.epochs``.
    title : str
        The workload.

    Returns
    -------
    Figure
        Two panels on a logarithmic scale. A diverged seed is drawn up to where it ended; the mean is drawn
        over the epochs that all of an optimizer's seeds reached.
    """
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    panels = figure.subplots(1, 2)
    styles = line_styles(epochs["optimizer"])
    for axes, column, heading in zip(
        panels, ("train_loss", "val_loss"), ("training loss", "validation loss"), strict=True
    ):
        _curves(axes, epochs, column, styles)
        axes.set(xlabel="epoch", title=heading, yscale="log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.grid(visible=True, which="major", color="0.9", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("cross-entropy")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False)
    seeds = epochs["seed"].nunique()
    figure.suptitle(f"{title}: mean of {seeds} seed{'s' if seeds != 1 else ''}, each seed faint", fontsize=11)
    return figure


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG and SVG beside each other."""
    paths = [stem.with_name(f"{stem.name}.{ending}") for ending in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def _curves(axes: Axes, epochs: pd.DataFrame, column: str, styles: dict) -> None:  # type: ignore[type-arg]
    for optimizer, part in epochs.groupby("optimizer", sort=False):
        style = styles[optimizer]
        table = part.pivot(index="epoch", columns="trial_id", values=column)
        values = table.where(np.isfinite(table) & (table > 0))
        axes.plot(values.index, values, color=style.colour, linewidth=0.7, alpha=0.25)
        mean = values.mean(axis=1).where(values.notna().all(axis=1))
        axes.plot(mean.index, mean, color=style.colour, linestyle=style.dash, linewidth=2, label=optimizer)
