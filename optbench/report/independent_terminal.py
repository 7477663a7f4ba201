"""A comparison of independent runs for the terminal."""

from __future__ import annotations

import math

from rich.console import RenderableType
from rich.markup import escape
from rich.text import Text

from optbench.report.comparison_terminal import grid, interval_cell, number, word_cell
from optbench.report.effect import CUT_ENDS, interval_name
from optbench.report.text import CORRECTIONS
from optbench.stats.independent import IndependentComparison
from optbench.stats.unpaired import UnpairedComparison


def render_independent(result: IndependentComparison, *, max_rows: int = 60) -> list[RenderableType]:
    """Lay out a comparison of independent runs as rich renderables.

    Parameters
    ----------
    result : IndependentComparison
    max_rows : int
        Rows shown of each table; the rest is counted below it.

    Returns
    -------
    list of rich renderables
    """
    parts: list[RenderableType] = [_head(result)]
    parts += _comparisons(result, max_rows)
    if result.targets:
        parts += _targets(result, max_rows)
    if result.records:
        parts += _records(result, max_rows)
    cut = any(_cut(c, result.alpha) for found in result.comparisons.values() for c in found)
    notes = [*(d.sentence for d in result.duplicates), *result.notes, *([CUT_ENDS] if cut else [])]
    parts.append(Text("\n".join(f"- {note}" for note in notes)))
    return parts


def _head(result: IndependentComparison) -> Text:
    i = result.input
    against = f"each against {result.baseline}" if result.baseline else "all pairs"
    return Text(
        f"{i.metric}: {i.direction}\n"
        f"{i.rows} independent runs of {len(i.optimizers)} groups: {i.completed} completed, {i.diverged} "
        f"diverged, {i.missing} missing; {against}, alpha {result.alpha:g}, correction "
        f"{CORRECTIONS[result.correction]}\n"
    )


def _rest(count: int, max_rows: int) -> list[RenderableType]:
    return [Text(f"{count - max_rows} more rows; --json has all")] if count > max_rows else []


def _comparisons(result: IndependentComparison, max_rows: int) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for dataset, comparisons in result.comparisons.items():
        columns = ["comparison", "n", "difference of means [CI]", "p", "adj. p", "verdict"]
        table = grid(f"On {escape(dataset)}", columns, left=["comparison", "verdict"])
        intervals = interval_name(len(comparisons), alpha=result.alpha, correction=result.correction)
        table.caption = (
            f"[CI]: {intervals}, Welch, with the skewness seen allowed for against a longer tail; positive "
            "if the first is better; p: permutations of Welch's t, exact or sampled; better and worse are "
            "about the typical run and need both, and that a run of one beats a run of the other more often "
            "than not (Brunner and Munzel)"
        )
        for c in comparisons[:max_rows]:
            mean = "-" if math.isnan(c.welch.estimate) else number(c.welch.estimate)
            ends = (
                ""
                if math.isnan(c.welch.low)
                else f" {interval_cell(c.welch.low, c.welch.high, cut=_cut(c, result.alpha))}"
            )
            table.add_row(
                escape(f"{c.candidate} vs {c.baseline}"),
                f"{c.n_candidate}, {c.n_baseline}",
                mean + ends,
                number(c.permutation.pvalue, 2) + ("" if c.permutation.method == "exact" else "~"),
                number(c.p_adjusted, 2),
                word_cell(c.verdict),
            )
        parts += [table, *_rest(len(comparisons), max_rows)]
        reasons = [
            f"  {c.verdict.word}. {c.verdict.reason}"
            for c in comparisons[:max_rows]
            if c.verdict.word == "mixed"
        ]
        parts += [Text("\n".join(reasons))] if reasons else []
    return parts


def _cut(c: UnpairedComparison, alpha: float) -> bool:
    return c.welch_p_adjusted <= alpha and 0 in (c.welch.low, c.welch.high)


def _targets(result: IndependentComparison, max_rows: int) -> list[RenderableType]:
    first = result.targets[0].result
    side = "above" if result.input.maximise else "below"
    about = "mean" if first.known_sd else "typical run"
    columns = ["group", "n", "mean", f"bound of the {about}", "p", f"{side} it"]
    table = grid(f"Is the {about} {side} {first.target:g}?", columns, left=["group", f"{side} it"])
    tests = f"z test of the mean of each group, known sd {first.sd:g}, yes where"
    if not first.known_sd:
        tests = (
            "exact sign test of the median run of each group; yes needs t of the mean, too, with the "
            "skewness seen allowed for, and of both"
        )
    of = "mean" if first.known_sd else "median run"
    table.caption = (
        f"one-sided {tests} p < {result.alpha:g}; bound: {1 - result.alpha:.4g} one-sided confidence bound "
        f"of the {of}; not corrected over groups"
    )
    several = len(result.input.datasets) > 1
    for t in result.targets[:max_rows]:
        r = t.result
        name = f"{t.optimizer} on {t.dataset}" if several else t.optimizer
        answer = "yes" if r.reached else "no" if r.reason is None else f"not tested: {r.reason}"
        if r.mixed:
            shown, other = ("typical run", "mean") if r.pvalue < r.alpha else ("mean", "typical run")
            answer = f"mixed: the {shown} is, of the {other} it is not shown"
        table.add_row(
            escape(name), str(r.n), number(r.mean, 6), number(r.bound, 6), number(r.pvalue, 2), answer
        )
    return [table, *_rest(len(result.targets), max_rows)]


def _records(result: IndependentComparison, max_rows: int) -> list[RenderableType]:
    columns = [
        "set-up",
        "steps",
        "p, target",
        "record",
        "before it",
        "better by",
        "p, against it",
        "beats it",
    ]
    table = grid(
        "Records, in the order of the table", columns, left=["set-up", "record", "before it", "beats it"]
    )
    table.caption = (
        "record: the mean is below the target, in fewer steps than the record before; better by: loss "
        "against that record, steps exchanged for loss; beats it: one-sided z test of that, p < "
        f"{result.alpha:g}"
    )
    for r in result.records[:max_rows]:
        table.add_row(
            escape(r.group),
            f"{r.steps:g}",
            number(r.target.pvalue, 2),
            "yes" if r.is_record else "no",
            escape(r.previous or "-"),
            number(r.difference),
            number(r.p_previous, 2),
            "-" if r.previous is None else "yes" if r.beats_previous else "no",
        )
    return [table, *_rest(len(result.records), max_rows)]
