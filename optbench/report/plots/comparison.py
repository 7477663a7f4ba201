"""Plots of comparisons: paired differences, critical differences, pairwise verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from optbench.report.effect import interval_name, shown_difference
from optbench.report.leaderboard import Leaderboard
from optbench.report.plots.common import hover, new_figure, plot, tidy
from optbench.report.style import VERDICTS, LineStyle, line_styles, short_labels, shorten
from optbench.report.text import p_value
from optbench.stats.families import FamilyResult

#: Most pairs of a comparison that are drawn one by one.
MOST_PAIRS = 200
#: Most pairs that have a hover text each.
MOST_HOVERED = 50


@plot
def paired_differences(board: Leaderboard, *, styles: Mapping[str, LineStyle] | None = None) -> Figure | None:
    """Difference to the baseline in every block, with mean and interval.

    Parameters
    ----------
    board : Leaderboard
    styles : mapping, optional
        Style of each optimizer.

    Returns
    -------
    Figure or None
        A row a candidate: a dot a block (up to 200), the mean as a mark with its interval, the verdict at the
        right; the margin, where one is declared, as a band. Blocks in which a trial diverged have no finite
        difference and are counted at the right. None without a comparison.
    """
    comparisons = [row.comparison for row in board.rows if row.comparison is not None]
    if not comparisons:
        return None
    styles = styles or line_styles(board.table.columns)
    factor = board.measure.factor
    figure = new_figure(9.0, 1.5 + 0.5 * len(comparisons))
    axes = figure.subplots()
    labels = short_labels([c.candidate for c in comparisons])
    base = board.table[board.baseline].to_numpy(dtype=float)
    for place, c in enumerate(comparisons):
        style = styles[c.candidate]
        with np.errstate(invalid="ignore"):
            d = (board.table[c.candidate].to_numpy(dtype=float) - base) * factor
        finite = np.isfinite(d)
        blocks = board.table.index[finite]
        dots = d[finite]
        height = place + 0.22 + 0.16 * (np.arange(len(dots)) % 3 - 1) / 2
        if MOST_HOVERED < len(dots) <= MOST_PAIRS:
            axes.plot(dots, height, style.marker, color=style.colour, markersize=3, alpha=0.4)
        elif len(dots) <= MOST_HOVERED:
            for x, y, block in zip(dots, height, blocks, strict=True):
                (dot,) = axes.plot([x], [y], style.marker, color=style.colour, markersize=4, alpha=0.6)
                hover(dot, f"{c.candidate} minus {c.baseline}: {x:+.4g} in block {block}")
        mean = shown_difference(c)  # the one that the table shows, with its interval
        if math.isfinite(mean.estimate):
            spread = [[0.0], [0.0]]
            if math.isfinite(mean.low) and math.isfinite(mean.high):
                spread = [[(mean.estimate - mean.low) * factor], [(mean.high - mean.estimate) * factor]]
            mark = axes.errorbar(
                [mean.estimate * factor], [place - 0.12], xerr=spread, fmt="D", capsize=4, color=style.colour
            )
            hover(mark[0], f"{c.candidate} minus {c.baseline}: mean {mean.estimate * factor:+.4g}, n {c.n}")
        lost = c.n_diverged_candidate + c.n_diverged_baseline
        words = f"{c.verdict.word}, p {p_value(c.p_adjusted)}, n {c.n}" + (
            f", {lost} diverged" if lost else ""
        )
        axes.annotate(
            words,
            (1.01, place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=8.5,
            annotation_clip=False,
        )
    if board.margin is not None:
        axes.axvspan(-board.margin * factor, board.margin * factor, color="#BBBBBB", alpha=0.3, linewidth=0)
    axes.axvline(0, color="#888888", linewidth=1)
    axes.set_yticks(range(len(comparisons)), [labels[c.candidate] for c in comparisons])
    axes.set_ylim(len(comparisons) - 0.45, -0.55)
    unit = board.measure.heading
    shown = short_labels([board.baseline, board.title], longest=40)
    axes.set_xlabel(f"{unit}: difference to {shown[board.baseline]}, positive is better")
    axes.set_title(
        f"{shown[board.title]}: a dot a block, mean and "
        f"{interval_name(len(comparisons), alpha=board.alpha, correction=board.correction)}",
        fontsize=11,
    )
    tidy(axes, grid="x")
    return figure


@plot
def critical_difference(family: FamilyResult, *, title: str) -> Figure | None:
    """Mean ranks with the critical difference: the familiar view; verdicts come from the pairwise tests.

    Parameters
    ----------
    family : FamilyResult
        Of all pairs, hence with Nemenyi's critical difference.
    title : str

    Returns
    -------
    Figure or None
        Rank 1, the best, at the left; bars join optimizers whose mean ranks differ by less than the critical
        difference. None below 3 optimizers or 2 complete blocks.
    """
    if family.friedman is None or not math.isfinite(family.critical_difference):
        return None
    ranks, k = np.array(family.friedman.mean_ranks), family.friedman.k
    order = np.argsort(ranks, kind="stable")
    labels = short_labels(family.optimizers, longest=24)
    half = (k + 1) // 2
    bars = _bars(ranks[order], family.critical_difference)
    top, lines = 1.0 + 0.25 * len(bars), half
    figure = new_figure(9.0, 1.3 + 0.28 * (lines + len(bars)))
    axes = figure.subplots()
    axes.hlines(0, 1, k, color="#888888", linewidth=1)
    for rank in range(1, k + 1):
        axes.vlines(rank, -0.12, 0, color="#888888", linewidth=1)
        axes.annotate(str(rank), (rank, -0.25), ha="center", va="bottom", fontsize=9)
    for position, which in enumerate(order):
        left = position < half
        y = top + 0.8 * (position if left else k - 1 - position)
        edge = 1 - 0.08 * (k - 1) if left else k + 0.08 * (k - 1)
        (line,) = axes.plot([ranks[which], ranks[which], edge], [0, y, y], color="#555555", linewidth=1)
        name = family.optimizers[which]
        hover(line, f"{name}: mean rank {ranks[which]:.3f}")
        text = f"{labels[name]}  {ranks[which]:.2f} " if left else f" {ranks[which]:.2f}  {labels[name]}"
        axes.annotate(text, (edge, y), ha="right" if left else "left", va="center", fontsize=9)
    for level, (first, last) in enumerate(bars):
        low, high = ranks[order[first]] - 0.04, ranks[order[last]] + 0.04
        axes.plot(
            [low, high], [0.35 + 0.25 * level] * 2, color="#333333", linewidth=4, solid_capstyle="round"
        )
    axes.plot([1, 1 + family.critical_difference], [-1.3, -1.3], color="#888888", linewidth=1.5, marker="|")
    axes.annotate(
        f"critical difference {family.critical_difference:.2f}", (1, -1.45), fontsize=8.5, va="bottom"
    )
    axes.set(xlim=(1 - 0.6 * (k - 1), k + 0.6 * (k - 1)), ylim=(top + 0.8 * lines, -2.3))
    axes.set_title(
        f"{shorten(title, 60)}: mean ranks over {family.friedman.n} blocks (Nemenyi)",
        fontsize=11,
    )
    axes.set_axis_off()
    return figure


def _bars(ranks: np.ndarray[tuple[int, ...], np.dtype[np.float64]], distance: float) -> list[tuple[int, int]]:
    """Maximal runs, of two or more, of sorted ranks within the critical difference."""
    runs: list[tuple[int, int]] = []
    for first in range(len(ranks)):
        last = int(np.flatnonzero(ranks - ranks[first] <= distance + 1e-12).max())
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs


@plot
def verdict_heatmap(family: FamilyResult, *, title: str) -> Figure | None:
    """Verdict of every pair: the row's optimizer against the column's.

    Parameters
    ----------
    family : FamilyResult
        Of all pairs.
    title : str

    Returns
    -------
    Figure or None
        A sign and a colour a cell, with the adjusted p below the sign for up to 8 optimizers. None below 2.
    """
    k = len(family.optimizers)
    if k < 2:
        return None
    side = min(9.0, 2.6 + 0.62 * k)
    figure = new_figure(side + 1.6, side * 0.72 + 0.4)
    axes = figure.subplots()
    labels = short_labels(family.optimizers, longest=16)
    place = {name: number for number, name in enumerate(family.optimizers)}
    turned = {"better": "worse", "worse": "better"}
    for c in family.comparisons:
        i, j, word = place[c.candidate], place[c.baseline], c.verdict.word
        for row, column, verdict in ((i, j, word), (j, i, turned.get(word, word))):
            colour, sign = VERDICTS[verdict]
            cell = Rectangle(
                (column - 0.47, row - 0.47),
                0.94,
                0.94,
                facecolor=colour,
                alpha=0.25 if verdict == "inconclusive" else 0.75,
            )
            ours, theirs = family.optimizers[row], family.optimizers[column]
            hover(cell, f"{ours} against {theirs}: {verdict}, adjusted p {p_value(c.p_adjusted)}, n {c.n}")
            axes.add_patch(cell)
            axes.annotate(sign, (column, row - 0.12), ha="center", va="center", fontsize=13)
            if k <= 8:
                axes.annotate(
                    f"p {p_value(c.p_adjusted)}", (column, row + 0.28), ha="center", va="center", fontsize=7
                )
    names = [labels[name] for name in family.optimizers]
    axes.set_xticks(range(k), names, rotation=30 if k > 3 else 0, ha="right" if k > 3 else "center")
    axes.set_yticks(range(k), names)
    axes.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    crashed = any(c.verdict.word == "crashed" for c in family.comparisons)
    listed = [word for word in VERDICTS if word != "crashed" or crashed]
    handles = [Patch(facecolor=VERDICTS[w][0], alpha=0.25 if w == "inconclusive" else 0.75) for w in listed]
    texts = [f"{VERDICTS[word][1]} {word}" for word in listed]
    figure.legend(handles, texts, loc="outside right center", frameon=False, fontsize=8.5)
    correction = "no correction" if family.correction == "none" else family.correction.title()
    pairs = len(family.comparisons)
    heading = shorten(title, 34)
    axes.set_title(
        f"{heading}: row against column,\n{correction} over {pairs} pair{'s' if pairs != 1 else ''}",
        fontsize=10,
    )
    return figure
