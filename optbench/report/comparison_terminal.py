"""A comparison for the terminal: what was compared, each result with its n and method, verdicts, notes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from optbench.records.tables import ModelComparison
from optbench.report.answer_of import table_answer
from optbench.report.effect import CUT_ENDS, interval_name, shown_difference
from optbench.report.reasons import left_open, unseen
from optbench.report.terminal import answer_lines
from optbench.report.text import CORRECTIONS, UNBOUNDED
from optbench.stats.compare import Comparison
from optbench.stats.datasets import StratifiedComparison
from optbench.stats.families import FamilyResult, PairedComparison
from optbench.stats.pairs import CUT
from optbench.stats.survival import TimeToTarget
from optbench.stats.verdict import Verdict

_STYLE = {
    "better": "bold green",
    "worse": "bold red",
    "equivalent": "cyan",
    "mixed": "magenta",
    "inconclusive": "yellow",
    "crashed": "red",
}


def number(value: float, digits: int = 3) -> str:
    """Format a number for a cell: significant digits, "-" for NaN.

    Parameters
    ----------
    value : float
    digits : int
        Significant digits.

    Returns
    -------
    str

    Examples
    --------
    >>> number(0.012345), number(float("nan")), number(float("inf"))
    ('0.0123', '-', 'inf')
    """
    return "-" if math.isnan(value) else f"{value:.{digits}g}"


def render_comparison(result: Comparison, *, max_rows: int = 40) -> list[RenderableType]:
    """Lay out a comparison as rich renderables.

    Parameters
    ----------
    result : Comparison
    max_rows : int
        Rows shown of the table of comparisons within datasets; the rest is counted in a line below it.

    Returns
    -------
    list of rich renderables
        For ``Console().print``, one after the other.

    Examples
    --------
    >>> import pandas as pd
    >>> from optbench.stats.compare import compare_table
    >>> rows = [("mnist", o, s, v + s / 100) for o, v in (("adam", 0.9), ("wame", 0.92)) for s in range(6)]
    >>> frame = pd.DataFrame(rows, columns=["dataset", "optimizer", "seed", "accuracy"])
    >>> len(render_comparison(compare_table(frame, metric="accuracy", baseline="adam")))
    5
    """
    parts: list[RenderableType] = [answer_lines(table_answer(result)), _head(result)]
    if result.within:
        parts.append(_within(result, max_rows))
    if result.these_datasets:
        parts.append(_these(result.these_datasets, result))
    if result.new_datasets is not None:
        parts.append(_comparisons(result.new_datasets, "On new datasets (the dataset is the unit)", result))
        parts.append(_ranks(result.new_datasets, result))
    elif len(result.within) == 1 and len(result.input.optimizers) > 2:
        parts.append(_ranks(result.within[0], result))
    if result.conjunctions:
        parts.append(_conjunctions(result))
    parts += [_times(t, result) for t in result.time_to_target[:max_rows]]
    parts.append(_verdicts(result, max_rows))
    parts += _posteriors(result, max_rows)
    notes = [
        *result.notes,
        *unseen([c for f in result.within for c in f.comparisons]),
        *(f"{f.scope}: {n}" for f in result.within[:max_rows] for n in f.notes),
    ]
    if result.new_datasets is not None:
        notes += [f"new datasets: {n}" for n in result.new_datasets.notes]
    if result.stability is not None and result.stability.flips:
        notes.append(f"order by mean rank changes: {'; '.join(result.stability.flips[:5])}")
    if _any_cut(result):
        notes.append(CUT_ENDS)
    parts.append(Text("\n".join(f"- {n}" for n in notes)))
    return parts


def _any_cut(result: Comparison) -> bool:
    families = [*result.within, *([result.new_datasets] if result.new_datasets is not None else [])]
    shown = [shown_difference(c).cut for family in families for c in family.comparisons]
    return any(shown) or any(c.method.endswith(CUT) for c in result.these_datasets)


def _head(result: Comparison) -> Text:
    i, s = result.input, result.settings
    against = f"each against {s.baseline}" if s.family == "baseline" else "all pairs"
    margin = "no margin given" if s.margin is None else f"margin {s.margin:g}"
    datasets = "1 dataset" if len(i.datasets) == 1 else f"{len(i.datasets)} datasets"
    return Text(
        f"{i.metric}: {i.direction}\n"
        f"{i.rows} trials: {datasets}, {len(i.optimizers)} optimizers ({', '.join(i.optimizers)}); "
        f"{i.completed} completed, {i.diverged} diverged, {i.missing} missing\n"
        f"{against}, alpha {s.alpha:g}, correction {CORRECTIONS[s.correction]}, {margin}\n"
        f"{_paired(result)}"
    )


def _paired(result: Comparison) -> str:
    if not result.within:
        return "Paired by dataset."
    return (
        "Paired by the seed numbers of the table: that equal numbers were matched trials is declared, not "
        "proved."
    )


def word_cell(verdict: Verdict) -> str:
    """The word of a verdict, in its colour."""
    return f"[{_STYLE[verdict.word]}]{verdict.word}[/]"


def grid(title: str, columns: Sequence[str], *, left: Sequence[str]) -> Table:
    """A table without lines; columns are right-aligned but those named in `left`."""
    table = Table(
        title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for name in columns:
        # Names, and an estimate with its interval, may take two lines; a number is never cut.
        wide = "[" in name or (name in left and name != "verdict")
        side: Literal["left", "right"] = "left" if name in left else "right"
        least = 18 if "[" in name else None
        table.add_column(escape(name), justify=side, no_wrap=not wide, overflow="fold", min_width=least)
    return table


def _table(title: str, result: Comparison) -> Table:
    s = result.settings
    size = len(s.pairs(result.input.optimizers))
    intervals = interval_name(size, alpha=s.alpha, correction=s.correction)
    columns = ["comparison", "n (0, =)", "mean difference [CI]", "p", "adj. p", "min p", "verdict"]
    table = grid(title, columns, left=["comparison", "verdict"])
    table.caption = (
        f"[CI]: {intervals}; n: pairs used (zeros, ties); positive if the first is better; mean: by sign "
        "flips, and Hall's t against a longer tail; p: "
        f"Wilcoxon signed-rank, Pratt zeros, exact (~: approximate); adj. p: {CORRECTIONS[s.correction]} "
        "within the family; min p: the smallest adjusted p that this row's n can reach"
    )
    return table


def _cells(c: PairedComparison) -> list[str]:
    if c.signed_rank is None or c.rank is None or c.mean is None:
        return ["0", *["-"] * 4, word_cell(c.verdict)]
    shown = shown_difference(c)
    if math.isnan(shown.estimate):
        diverged = f"{c.n_diverged_candidate} and {c.n_diverged_baseline} diverged"
        effect = f"{diverged}, rank-biserial {number(c.rank.rank_biserial, 2)}"
    else:
        effect = f"{number(shown.estimate)} {interval_cell(shown.low, shown.high, cut=shown.cut)}"
    test = c.signed_rank
    raw = (
        number(test.pvalue, 2) + _approximate(test.method)
        if c.crossed is None
        else number(c.crossed.pvalue, 2)
    )
    return [
        f"{c.n} ({test.n_zeros}, {test.n_ties})",
        effect,
        raw,
        number(c.p_adjusted, 2),
        number(c.smallest_adjusted_p, 2),
        word_cell(c.verdict),
    ]


def interval_cell(low: float, high: float, *, cut: bool = False) -> str:
    """An interval in brackets, as rich markup."""
    if math.isinf(low) and math.isinf(high):
        return rf"\[{UNBOUNDED}]"
    if cut:  # it ends at 0, which is not in it
        return f"(0, {number(high)}]" if low == 0 else rf"\[{number(low)}, 0)"
    return f"\\[{number(low)}, {number(high)}]"


def _approximate(method: str) -> str:
    return "" if method == "exact" else "~"


def _pair(candidate: str, baseline: str) -> str:
    return escape(f"{candidate} vs {baseline}")


def _comparisons(family: FamilyResult, title: str, result: Comparison) -> Table:
    table = _table(title, result)
    for c in family.comparisons:
        table.add_row(_pair(c.candidate, c.baseline), *_cells(c))
    return table


def _within(result: Comparison, max_rows: int) -> Group:
    several = len(result.within) > 1
    table = _table("Within each dataset" if several else f"On {escape(result.within[0].scope)}", result)
    per_family = max(1, len(result.within[0].comparisons))
    families = result.within[: max(1, max_rows // per_family)]
    for f in families:
        if several:
            table.add_row(f"[bold]{escape(f.scope)}[/]")
        for c in f.comparisons:
            table.add_row(_pair(c.candidate, c.baseline), *_cells(c))
    rest = len(result.within) - len(families)
    columns = ["dataset", *result.input.optimizers, "Friedman p (W)"]
    means = grid(f"Mean {result.input.metric} over seeds", columns, left=["dataset"])
    for f in families:
        omnibus = (
            "-"
            if f.friedman is None
            else f"{number(f.friedman.pvalue, 2)} ({number(f.friedman.kendall_w, 2)})"
        )
        means.add_row(escape(f.scope), *(number(m, 4) for m in f.means), omnibus)
    return Group(means, table, Text(f"{rest} more datasets; --json has all" if rest else ""))


def _these(comparisons: Iterable[StratifiedComparison], result: Comparison) -> Table:
    columns = ["comparison", "datasets", "pairs", "mean over datasets [CI]", "p", "adj. p", "verdict"]
    table = grid(
        "On these datasets (average of their mean differences, sign flips)",
        columns,
        left=["comparison", "verdict"],
    )
    compared = list(comparisons)
    for c in compared:
        table.add_row(
            _pair(c.candidate, c.baseline),
            str(c.n_datasets),
            str(c.n_pairs),
            f"{number(c.estimate)} {interval_cell(c.low, c.high, cut=c.method.endswith(CUT))}",
            number(c.pvalue, 2) + _approximate(c.method.removesuffix(f", {CUT}")),
            number(c.p_adjusted, 2),
            word_cell(c.verdict),
        )
    table.caption = (
        f"correction {CORRECTIONS[result.settings.correction]}; [CI] inverts the test and holds for all "
        "rows together; better and worse are about the typical run and need it too, by signed ranks of all "
        "pairs; nothing is claimed about other datasets"
    )
    if told := left_open((f"{c.candidate} against {c.baseline}", c.verdict) for c in compared):
        table.caption += f"; {told}"
    return table


def _ranks(family: FamilyResult, result: Comparison) -> RenderableType:
    f = family.friedman
    if f is None:
        return Text("")
    columns = ["optimizer", "mean rank", "95% interval", "letters", "rank interval"]
    table = grid("Mean ranks (1 = best)", columns, left=["optimizer"])
    for i in sorted(range(f.k), key=lambda i: f.mean_ranks[i]):
        interval = family.rank_intervals[i] if family.rank_intervals else None
        table.add_row(
            escape(family.optimizers[i]),
            f"{f.mean_ranks[i]:.3f}",
            interval_cell(family.mean_rank_low[i], family.mean_rank_high[i]),
            family.letters[i] if family.letters else "-",
            f"{interval[0]} to {interval[1]}" if interval else "-",
        )
    name = "Nemenyi" if result.settings.family == "all" else "Bonferroni-Dunn"
    table.caption = (
        f"n {f.n}, k {f.k}; Friedman p {number(f.pvalue)} ({f.method}); chi2 {f.statistic:.2f} (without "
        f"tie correction {f.statistic_uncorrected:.2f}), Iman-Davenport F {f.iman_davenport:.2f}, "
        f"Kendall's W {f.kendall_w:.2f}; {name} critical difference {number(family.critical_difference)}"
    )
    return table


def _conjunctions(result: Comparison) -> Text:
    lines = [
        "On at least how many datasets (bounds that hold for all pairs and both directions at once, so they "
        "may be lower than the verdicts within each dataset):"
    ]
    for c in result.conjunctions:
        lines.append(
            f"  {c.candidate} beats {c.baseline} on at least {c.better_on_at_least} of {c.n_datasets}, "
            f"loses on at least {c.worse_on_at_least}"
        )
    return Text("\n".join(lines))


def _times(t: TimeToTarget, result: Comparison) -> Group:
    columns = ["optimizer", "reached", "median", "mean of min(T, B)", "PAR-2", "ERT"]
    title = f"Time to target on {escape(t.dataset)}, budget {number(t.budget)}"
    table = grid(title, columns, left=["optimizer"])
    for s in t.summaries:
        cells = (number(x, 4) for x in (s.median, s.rmst, s.par2, s.ert))
        table.add_row(escape(s.optimizer), f"{s.successes} of {s.n}", *cells)
    pairs = _comparisons(t.family, "min(T, B), positive if the first is faster", result)
    lines = []
    for c, m, r in zip(t.family.comparisons, t.success_tests, t.log_rank, strict=True):
        once = f"reached by one only {m.b} against {m.c}, McNemar mid-p {number(m.p_midp)}"
        pairwise = f"log-rank stratified by pair exact p {number(r.p_exact)}"
        lines.append(f"  {c.candidate} vs {c.baseline}: {once}; {pairwise}")
    return Group(table, pairs, Text("\n".join(lines)))


def _verdicts(result: Comparison, max_rows: int) -> Text:
    comparisons: list[tuple[str, PairedComparison | StratifiedComparison]] = []
    if result.new_datasets is not None:
        comparisons += [("new datasets", c) for c in result.new_datasets.comparisons]
    comparisons += [("these datasets", c) for c in result.these_datasets]
    comparisons += [(f.scope, c) for f in result.within for c in f.comparisons][:max_rows]
    text = Text("Verdicts\n", style="bold")
    for scope, c in comparisons:
        text.append(f"  {scope}: ", style="not bold")
        text.append(c.verdict.word, style=_STYLE[c.verdict.word])
        text.append(f". {c.verdict.reason}", style="not bold")
        if isinstance(c, PairedComparison):
            few = c.verdict.word != "crashed" and not c.smallest_adjusted_p <= result.settings.alpha
            if few and c.crossed is None:
                text.append(f" ({c.attainable})", style="not bold")
            text.append(_shift(c), style="not bold")
            if c.sensitivity is not None and c.verdict.word != "crashed":
                text.append(f" {c.sensitivity.sentence.capitalize()}.", style="not bold")
        text.append("\n")
    return text


def _shift(c: PairedComparison) -> str:
    """The difference of the typical run, whose interval inverts the test of p."""
    shift = c.simultaneous
    if shift is None or c.crossed is not None or math.isnan(shift.estimate) or math.isinf(shift.low):
        return ""
    ends = f"[{number(shift.low)}, {number(shift.high)}]"
    return f" Typical difference (Hodges-Lehmann) {number(shift.estimate)} {ends}."


def _posteriors(result: Comparison, max_rows: int) -> list[RenderableType]:
    if not result.posteriors:
        return []
    first = result.posteriors[0].posterior
    table = grid(
        f"Posterior probabilities, region of practical equivalence {first.rope:g}",
        ["scope", "comparison", "n", "worse", "equivalent", "better"],
        left=["scope", "comparison"],
    )
    table.caption = (
        "on a dataset: t posterior of independent seeds; new datasets: Bayesian signed-rank; no verdict "
        "rests on them, and they are corrected for nothing"
    )
    for item in result.posteriors[:max_rows]:
        p = item.posterior
        shares = (f"{x:.3f}" if x == x else "-" for x in (p.worse, p.equivalent, p.better))
        table.add_row(escape(item.scope), _pair(item.candidate, item.baseline), str(p.n), *shares)
    return [table]


def render_profile(scores: Mapping[str, tuple[float, float]]) -> Table:
    """Lay out the scores of performance profiles, the best first.

    Examples
    --------
    >>> render_profile({"adam": (1.0, 1.0)}).row_count
    1
    """
    table = grid(
        "Performance profiles of times to target",
        ["method", "area, exact", "AlgoPerf's trapezoid"],
        left=["method"],
    )
    table.caption = "area under the profile within 4 times the best on each workload; 1 is best everywhere"
    for name, (exact, trapezoid) in sorted(scores.items(), key=lambda item: -item[1][0]):
        table.add_row(escape(name), f"{exact:.4f}", f"{trapezoid:.4f}")
    return table


def render_predictions(comparisons: Sequence[ModelComparison]) -> Table:
    """Lay out McNemar's tests of trained models.

    Parameters
    ----------
    comparisons : sequence of ModelComparison

    Returns
    -------
    rich Table

    Examples
    --------
    >>> render_predictions([]).row_count
    0
    """
    table = Table(title="Trained models on one test set (McNemar)", title_justify="left", pad_edge=False)
    for name in (
        "comparison",
        "n",
        "accuracies",
        "only first right",
        "only second right",
        "mid-p",
        "adj. p",
        "exact p",
    ):
        table.add_column(name, justify="left" if name == "comparison" else "right")
    for c in comparisons:
        table.add_row(
            _pair(c.candidate, c.baseline),
            str(c.n),
            f"{c.accuracy_candidate:.4f} / {c.accuracy_baseline:.4f}",
            str(c.test.b),
            str(c.test.c),
            number(c.test.p_midp),
            number(c.p_adjusted),
            number(c.test.p_exact),
        )
    table.caption = (
        "about these trained models, not about their optimizers: the variance of training is not in it"
    )
    return table
