"""Plots of one trained model: its errors, its weights, what its first layer sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from optbench.report.diagnostics import Diagnosis
from optbench.report.plots.common import hover, new_figure, plot, tidy
from optbench.report.residuals import Residuals
from optbench.report.style import short_labels
from optbench.task import METRICS

_BEFORE, _AFTER = "#E69F00", "#0072B2"
#: Weights of a layer drawn in a violin; more are thinned out evenly.
_MOST_WEIGHTS = 5000


@plot
def confusion_matrix(found: Diagnosis, *, title: str = "") -> Figure:
    """Counts of true against predicted class, shaded by the share of the true class."""
    k = len(found.classes)
    figure = new_figure(min(10.0, 3.0 + 0.36 * k), min(9.0, 2.4 + 0.33 * k))
    axes = figure.subplots()
    total = found.confusion.sum(axis=1, keepdims=True)
    shares = found.confusion / np.maximum(total, 1)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.8)
    if k <= 30:
        for (row, column), count in np.ndenumerate(found.confusion):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "#222222"
                size = 8 if k <= 12 else 6
                axes.annotate(
                    str(count), (column, row), ha="center", va="center", fontsize=size, color=colour
                )
    names = list(short_labels(found.classes, longest=12).values())
    axes.set_xticks(range(k), names, rotation=90 if max(map(len, names)) > 2 else 0)
    axes.set_yticks(range(k), names)
    axes.set(xlabel="predicted", ylabel="true", title=title or "Confusion matrix")
    return figure


@plot
def class_scores(found: Diagnosis, *, title: str = "") -> Figure:
    """Precision, recall and F1 of every class, lowest recall first."""
    order = np.argsort(np.nan_to_num(found.recall, nan=2.0), kind="stable")
    order = order[~np.isnan(found.recall[order])]
    figure = new_figure(7.0, 1.4 + 0.26 * len(order))
    axes = figure.subplots()
    places = np.arange(len(order))
    kinds = (
        ("recall", found.recall, "o", "#0072B2"),
        ("precision", found.precision, "s", "#D55E00"),
        ("F1", found.f1, "D", "#009E73"),
    )
    factor = METRICS["recall"].factor
    for name, values, marker, colour in kinds:
        (line,) = axes.plot(values[order] * factor, places, marker, color=colour, markersize=5, label=name)
        hover(line, f"{name}: mean over classes {np.nanmean(values):.2%}")
    labels = short_labels(found.classes, longest=20)
    axes.set_yticks(places, [labels[found.classes[i]] for i in order])
    axes.invert_yaxis()
    axes.set(xlabel="%", title=title or "By class, lowest recall first")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    tidy(axes)
    return figure


@plot
def misclassified(found: Diagnosis, *, title: str = "", most: int = 24) -> Figure | None:
    """The first misclassified test images, each with its true and predicted class; None without images."""
    wrong = np.flatnonzero(found.truth != found.predicted)
    if found.images.ndim != 4 or not len(wrong):
        return None
    shown = wrong[:most]
    columns = min(8, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(1.15 * columns, 1.45 * rows + 0.5)
    labels = short_labels(found.classes, longest=10)
    for axes, index in zip(figure.subplots(rows, columns, squeeze=False).flat, shown, strict=False):
        _image(axes, found.images[index])
        true, predicted = (labels[found.classes[y[index]]] for y in (found.truth, found.predicted))
        axes.set_title(f"{true} → {predicted}", fontsize=8)
    for axes in figure.axes:
        axes.set_axis_off()
    figure.suptitle(
        f"{title + ': ' if title else ''}{len(shown)} of {len(wrong)} errors, true → predicted", fontsize=10
    )
    return figure


@plot
def residuals(found: Residuals, *, title: str = "") -> Figure:
    """Predicted against true values, and the errors against the predictions and by how often they occur."""
    figure = new_figure(9.0, 3.6)
    left, middle, right = figure.subplots(1, 3, width_ratios=[3, 3, 2])
    errors = found.errors
    ends = [float(min(found.truth.min(), found.predicted.min()))]
    ends.append(float(max(found.truth.max(), found.predicted.max())))
    left.plot(ends, ends, color="#888888", linewidth=1)
    (dots,) = left.plot(found.truth, found.predicted, ".", color=_AFTER, markersize=4, alpha=0.5)
    hover(dots, f"{len(errors)} test examples")
    unit = f", {found.unit}" if found.unit else ""
    left.set(xlabel=f"true{unit}", ylabel=f"predicted{unit}", title="Predictions")
    middle.axhline(0, color="#888888", linewidth=1)
    (dots,) = middle.plot(found.predicted, errors, ".", color=_AFTER, markersize=4, alpha=0.5)
    hover(dots, f"errors: mean {errors.mean():.3g}, sd {errors.std():.3g}")
    middle.set(xlabel=f"predicted{unit}", ylabel=f"predicted - true{unit}", title="Residuals")
    right.hist(errors, bins=min(40, max(5, len(errors) // 8)), orientation="horizontal", color=_AFTER)
    right.axhline(0, color="#888888", linewidth=1)
    right.set(xlabel="test examples", title="How often")
    for axes in (left, middle, right):
        tidy(axes)
    figure.suptitle(title or "Errors on the test part", fontsize=10)
    return figure


@plot
def weight_violins(
    before: Mapping[str, NDArray[Any]], after: Mapping[str, NDArray[Any]], *, title: str = ""
) -> Figure:
    """Distribution of the weights of each layer before and after training, and how far they moved."""
    names = [name for name in before if before[name].ndim > 1 and name in after]
    figure = new_figure(max(5.0, 1.7 * len(names)), 3.8)
    axes = figure.subplots()
    for place, name in enumerate(names):
        for weights, side, colour in ((before[name], "low", _BEFORE), (after[name], "high", _AFTER)):
            values = np.asarray(weights, dtype=np.float64).ravel()
            values = values[np.isfinite(values)][:: max(1, values.size // _MOST_WEIGHTS)]
            if values.size < 2 or np.ptp(values) == 0:
                continue
            parts = axes.violinplot(values, [place], widths=0.8, side=side, showextrema=False)  # type: ignore[arg-type]
            parts["bodies"][0].set(facecolor=colour, alpha=0.75)  # type: ignore[index]
            hover(parts["bodies"][0], f"{name}: sd {values.std():.3g}")  # type: ignore[index]
        size = np.linalg.norm(before[name]) or 1.0
        moved = float(np.linalg.norm(np.asarray(after[name], dtype=float) - before[name]) / size)
        axes.annotate(
            f"moved {moved:.2g}", (place, 1.0), xycoords=("data", "axes fraction"), ha="center", fontsize=8
        )
    axes.set_xticks(range(len(names)), list(short_labels(names, longest=18).values()))
    axes.set_ylabel("weight")
    axes.set_title(title or "Weights before and after training", pad=14)
    handles = [Patch(facecolor=_BEFORE, alpha=0.75), Patch(facecolor=_AFTER, alpha=0.75)]
    figure.legend(handles, ["before", "after"], loc="outside lower center", ncols=2, frameon=False)
    tidy(axes, grid="y")
    return figure


@plot
def first_filters(weights: Mapping[str, NDArray[Any]], *, title: str = "", most: int = 64) -> Figure | None:
    """The kernels of the first convolution [height, width, in, out]; None for a model without one."""
    name = next((name for name, value in weights.items() if value.ndim == 4), None)
    if name is None:
        return None
    kernels = weights[name].mean(axis=2)
    return _tiles(np.moveaxis(kernels, -1, 0)[:most], title or f"{name}: first-layer filters", diverging=True)


@plot
def feature_maps(
    weights: Mapping[str, NDArray[Any]], example: NDArray[Any], *, title: str = "", most: int = 64
) -> Figure | None:
    """The first convolution's answer to an example, before its bias, with zeros around the image."""
    name = next((name for name, value in weights.items() if value.ndim == 4), None)
    if name is None or example.ndim != 3:
        return None
    kernel = np.asarray(weights[name], dtype=np.float64)
    height, width = kernel.shape[:2]
    padded = np.pad(example, [((height - 1) // 2, height // 2), ((width - 1) // 2, width // 2), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(0, 1))
    maps = np.einsum("xychw,hwco->oxy", windows, kernel)
    tiles = np.concatenate([example.mean(axis=2, keepdims=True).transpose(2, 0, 1), maps[: most - 1]])
    return _tiles(tiles, title or f"{name}: an example (first tile) and its feature maps", diverging=False)


def _tiles(tiles: NDArray[Any], title: str, *, diverging: bool) -> Figure:
    columns = min(8, len(tiles))
    rows = -(-len(tiles) // columns)
    figure = new_figure(0.95 * columns, 0.95 * rows + 0.5)
    limit = float(np.abs(tiles).max()) or 1.0
    for axes, tile in zip(figure.subplots(rows, columns, squeeze=False).flat, tiles, strict=False):
        if diverging:
            axes.imshow(tile, cmap="PuOr", vmin=-limit, vmax=limit)
        else:
            axes.imshow(tile, cmap="gray")
    for axes in figure.axes:
        axes.set_axis_off()
    figure.suptitle(title, fontsize=10)
    return figure


def _image(axes: Axes, image: NDArray[Any]) -> None:
    if image.shape[-1] == 1:
        axes.imshow(image[..., 0], cmap="gray")
    else:
        axes.imshow(image[..., :3] / (255 if image.dtype == np.uint8 else max(float(image.max()), 1e-12)))
