"""Plots of one trained model: its errors, its weights, what its convolutions see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
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
def confusion_matrix(diagnosis: Diagnosis, *, title: str = "") -> Figure:
    """Counts of true against predicted class, shaded by the share of the true class."""
    k = len(diagnosis.classes)
    figure = new_figure(min(10.0, 3.0 + 0.36 * k), min(9.0, 2.4 + 0.33 * k))
    axes = figure.subplots()
    total = diagnosis.confusion.sum(axis=1, keepdims=True)
    shares = diagnosis.confusion / np.maximum(total, 1)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, label="share of the true class", shrink=0.8)
    if k <= 30:
        for (row, column), count in np.ndenumerate(diagnosis.confusion):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "#222222"
                size = 8 if k <= 12 else 6
                axes.annotate(
                    str(count), (column, row), ha="center", va="center", fontsize=size, color=colour
                )
    names = list(short_labels(diagnosis.classes, longest=12).values())
    axes.set_xticks(range(k), names, rotation=90 if max(map(len, names)) > 2 else 0)
    axes.set_yticks(range(k), names)
    axes.set(xlabel="predicted", ylabel="true", title=title or "Confusion matrix")
    return figure


@plot
def class_scores(diagnosis: Diagnosis, *, title: str = "") -> Figure:
    """Precision, recall and F1 of every class, lowest recall first."""
    order = np.argsort(np.nan_to_num(diagnosis.recall, nan=2.0), kind="stable")
    order = order[~np.isnan(diagnosis.recall[order])]
    figure = new_figure(7.0, 1.4 + 0.26 * len(order))
    axes = figure.subplots()
    places = np.arange(len(order))
    kinds = (
        ("recall", diagnosis.recall, "o", "#0072B2"),
        ("precision", diagnosis.precision, "s", "#D55E00"),
        ("F1", diagnosis.f1, "D", "#009E73"),
    )
    factor = METRICS["recall"].factor
    for name, values, marker, colour in kinds:
        (line,) = axes.plot(values[order] * factor, places, marker, color=colour, markersize=5, label=name)
        hover(line, f"{name}: mean over classes {np.nanmean(values):.2%}")
    labels = short_labels(diagnosis.classes, longest=20)
    axes.set_yticks(places, [labels[diagnosis.classes[i]] for i in order])
    axes.invert_yaxis()
    axes.set(xlabel="%", title=title or "By class, lowest recall first")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    tidy(axes)
    return figure


@plot
def misclassified(diagnosis: Diagnosis, *, title: str = "", most: int = 24) -> Figure | None:
    """The first misclassified test images, each with its true and predicted class; None without images."""
    wrong = np.flatnonzero(diagnosis.truth != diagnosis.predicted)
    if diagnosis.images.ndim != 4 or not len(wrong):
        return None
    shown = wrong[:most]
    columns = min(8, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(1.15 * columns, 1.45 * rows + 0.5)
    labels = short_labels(diagnosis.classes, longest=10)
    for axes, index in zip(figure.subplots(rows, columns, squeeze=False).flat, shown, strict=False):
        _image(axes, diagnosis.images[index])
        true, predicted = (
            labels[diagnosis.classes[y[index]]] for y in (diagnosis.truth, diagnosis.predicted)
        )
        axes.set_title(f"{true} → {predicted}", fontsize=8)
    for axes in figure.axes:
        axes.set_axis_off()
    figure.suptitle(
        f"{title + ': ' if title else ''}{len(shown)} of {len(wrong)} errors, true → predicted", fontsize=10
    )
    return figure


@plot
def residuals(errors_of_trial: Residuals, *, title: str = "") -> Figure:
    """Predicted against true values, and the errors against the predictions and by how often they occur."""
    figure = new_figure(9.0, 3.6)
    left, middle, right = figure.subplots(1, 3, width_ratios=[3, 3, 2])
    errors = errors_of_trial.errors
    ends = [float(min(errors_of_trial.truth.min(), errors_of_trial.predicted.min()))]
    ends.append(float(max(errors_of_trial.truth.max(), errors_of_trial.predicted.max())))
    left.plot(ends, ends, color="#888888", linewidth=1)
    (dots,) = left.plot(
        errors_of_trial.truth, errors_of_trial.predicted, ".", color=_AFTER, markersize=4, alpha=0.5
    )
    hover(dots, f"{len(errors)} test examples")
    unit = f", {errors_of_trial.unit}" if errors_of_trial.unit else ""
    left.set(xlabel=f"true{unit}", ylabel=f"predicted{unit}", title="Predictions")
    middle.axhline(0, color="#888888", linewidth=1)
    (dots,) = middle.plot(errors_of_trial.predicted, errors, ".", color=_AFTER, markersize=4, alpha=0.5)
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
def misclassified_pairs(
    diagnosis: Diagnosis, *, title: str = "", pairs: int = 4, most: int = 8
) -> Figure | None:
    """Test images of the commonest errors, a row a pair of true and predicted class; None without images."""
    wrong = diagnosis.confusion - np.diag(diagnosis.confusion.diagonal())
    if diagnosis.images.ndim != 4 or not wrong.any():
        return None
    order = np.argsort(-wrong, axis=None, kind="stable")[: min(pairs, int((wrong > 0).sum()))]
    places = [np.unravel_index(place, wrong.shape) for place in order]
    most = max(4, min(most, int(wrong.max())))
    figure = new_figure(1.15 * most + 1.0, 1.25 * len(places) + 0.5)
    labels = short_labels(diagnosis.classes, longest=10)
    for row, (true, predicted) in zip(figure.subplots(len(places), most, squeeze=False), places, strict=True):
        mine = np.flatnonzero((diagnosis.truth == true) & (diagnosis.predicted == predicted))
        for axes, index in zip(row, mine, strict=False):
            _image(axes, diagnosis.images[index])
        names = f"{labels[diagnosis.classes[true]]} → {labels[diagnosis.classes[predicted]]}"
        row[0].set_title(f"{names}: {wrong[true, predicted]}", fontsize=8, loc="left")
    for axes in figure.axes:
        axes.set_axis_off()
    figure.suptitle(
        f"{title + ': ' if title else ''}commonest errors, true → predicted: how many",
        fontsize=9,
        wrap=True,
    )
    return figure


@plot
def top_n(shares: Mapping[int, float], *, title: str = "") -> Figure | None:
    """Share of test examples whose true class is among the N likeliest; None where N was 1 alone."""
    if len(shares) < 2:
        return None
    figure = new_figure(4.5, 3.2)
    axes = figure.subplots()
    factor = METRICS["accuracy"].factor
    axes.plot(list(shares), [factor * share for share in shares.values()], "o-", color=_AFTER)
    for n, share in shares.items():
        axes.annotate(
            f"{factor * share:.2f}",
            (n, factor * share),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.set_xticks(list(shares))
    axes.margins(y=0.2)
    axes.set(xlabel="N", ylabel="top-N accuracy, %")
    axes.set_title(title or "Top-N accuracy", fontsize=9, wrap=True)
    tidy(axes)
    return figure


@plot
def history(
    columns: Mapping[str, NDArray[np.float64]], *, best_epoch: float | None = None, title: str = ""
) -> Figure:
    """Loss and every other metric of a trial against epoch, a panel each, the best epoch marked."""
    parts = (("train", _BEFORE), ("val", _AFTER))
    names = dict.fromkeys(
        name.removeprefix(f"{part}_") for name in columns for part, _ in parts if name.startswith(f"{part}_")
    )
    figure = new_figure(max(4.0, 3.2 * len(names)), 3.2)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        metric = METRICS[name]
        for part, colour in parts:
            values = columns.get(f"{part}_{name}")
            if values is not None and np.isfinite(values).any():
                axes.plot(
                    metric.factor * values,
                    color=colour,
                    label={"train": "training", "val": "validation"}[part],
                )
        if best_epoch is not None:
            axes.axvline(best_epoch, color="#888888", linestyle=":", label="best epoch")
        axes.set(xlabel="epoch", title=metric.heading)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        tidy(axes)
    handles = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title or "Learning curves", fontsize=9, wrap=True)
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
def filters(name: str, kernel: NDArray[Any], *, title: str = "", most: int = 64) -> Figure:
    """The kernels of a convolution [height, width, in, out], each the mean over its input channels."""
    over = f", mean over {kernel.shape[2]} channels" if kernel.shape[2] > 1 else ""
    shown = f"{min(most, kernel.shape[3])} of {kernel.shape[3]} filters{over}"
    tiles = np.moveaxis(kernel.mean(axis=2), -1, 0)[:most]
    return _tiles(tiles, f"{title + ': ' if title else ''}{name}, {shown}", diverging=True)


@plot
def feature_maps(
    name: str, maps: NDArray[Any], example: NDArray[Any], *, title: str = "", most: int = 63
) -> Figure:
    """What leaves a convolution [height, width, filters] for an example, behind its activation."""
    return _tiles(
        np.moveaxis(maps, -1, 0)[:most],
        f"{title + ': ' if title else ''}an example, and {min(most, maps.shape[2])} of {maps.shape[2]} maps "
        f"that {name} makes of it",
        diverging=False,
        first=example.mean(axis=2),
    )


def _tiles(tiles: NDArray[Any], title: str, *, diverging: bool, first: NDArray[Any] | None = None) -> Figure:
    shown = [*(() if first is None else (first,)), *tiles]
    columns = min(8, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(0.95 * columns, 0.95 * rows + 0.5)
    limit = float(np.abs(tiles).max()) or 1.0
    for axes, tile in zip(figure.subplots(rows, columns, squeeze=False).flat, shown, strict=False):
        if diverging:
            axes.imshow(tile, cmap="PuOr", vmin=-limit, vmax=limit)
        else:
            axes.imshow(tile, cmap="gray")
    for axes in figure.axes:
        axes.set_axis_off()
    figure.suptitle(title, fontsize=9, wrap=True)
    return figure


def _image(axes: Axes, image: NDArray[Any]) -> None:
    if image.shape[-1] == 1:
        axes.imshow(image[..., 0], cmap="gray")
    else:
        axes.imshow(image[..., :3] / (255 if image.dtype == np.uint8 else max(float(image.max()), 1e-12)))
