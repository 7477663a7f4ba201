"""The leaderboards as LaTeX tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from optbench.report.effect import interval_name
from optbench.report.latex import escape_latex, latex_prose
from optbench.report.leaderboard import Leaderboard
from optbench.report.leaderboard_columns import latex_columns, told_apart
from optbench.report.reasons import reach
from optbench.report.text import NOT_RECORDED, TextTable, two_lines

#: A longer heading takes two lines.
_WIDE_HEADING = 14


def latex_tables(boards: Sequence[Leaderboard]) -> str:
    r"""Write the leaderboards as LaTeX tables; the document needs ``\usepackage{booktabs}`` and T1 fonts.

    Returns
    -------
    str
        One ``table`` environment a leaderboard, no wider than a column. The best mean is bold where it was
        told apart; ``*``, ``**`` and ``***`` mark
        adjusted p-values up to 0.05, 0.01 and 0.001 (the declared level decides the verdict, not the marks).
    """
    head = (
        "% Written by optbench. Preamble: \\usepackage[T1]{fontenc} \\usepackage{booktabs} "
        "\\usepackage{textcomp} \\usepackage{adjustbox}\n"
    )
    return head + "\n".join(_table(board, number) for number, board in enumerate(boards, start=1))


def _table(board: Leaderboard, position: int) -> str:
    columns = latex_columns(board)
    bold = " Bold: the best mean, told apart from the baseline." if told_apart(board) else ""
    return _float(
        caption=_caption(board) + bold,
        label=_label(board, position),
        align="".join(latex.align for _, latex in columns),
        head=[latex.heading(board) for _, latex in columns],
        rows=[[latex.cell(board, row) for _, latex in columns] for row in board.rows],
    )


def text_table(table: TextTable) -> str:
    """Write any of the report's tables as a LaTeX table: words to the left, numbers to the right."""
    columns = [k for k, name in enumerate(table.columns) if name not in table.extras]
    align = "".join("l" if all(not _is_number(row[k]) for row in table.rows) else "r" for k in columns)
    return _float(
        caption=escape_latex(table.heading),
        label=f"tab:{_slug(table.title)}",
        align=align,
        head=[_stacked(table.columns[k], side) for k, side in zip(columns, align, strict=True)],
        rows=[[escape_latex(row[k]) for k in columns] for row in table.rows],
        notes=latex_prose(" ".join(table.notes)),
    )


def chosen(table: TextTable, names: Sequence[str]) -> TextTable:
    """Some of a table's columns, for the width of a paper, and the notes that are about no other column."""
    keep = [table.columns.index(name) for name in names if name in table.columns]
    gone = tuple(f"{name.partition(',')[0]}:".lower() for name in table.columns if name not in names)
    return replace(
        table,
        columns=tuple(table.columns[k] for k in keep),
        rows=tuple(tuple(row[k] for k in keep) for row in table.rows),
        notes=tuple(note for note in table.notes if not note.lower().startswith(gone)),
        values=(),
        extras=frozenset(),
        details=frozenset(),
    )


def _float(
    *,
    caption: str,
    label: str | None,
    align: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: str = "",
) -> str:
    """A table that is scaled to the column where it would be wider; its notes stand below, small."""
    return "\n".join(
        [
            r"\begin{table}[tbp]",
            r"  \centering",
            rf"  \caption{{{caption}}}",
            *([rf"  \label{{{label}}}"] if label else []),
            r"  \begin{adjustbox}{max width=\linewidth}",
            rf"  \begin{{tabular}}{{{align}}}",
            r"    \toprule",
            f"    {' & '.join(head)} \\\\",
            r"    \midrule",
            *(f"    {' & '.join(row)} \\\\" for row in rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"  \end{adjustbox}",
            *([r"  \par\smallskip", rf"  \parbox{{\linewidth}}{{\footnotesize {notes}}}"] if notes else []),
            r"\end{table}",
            "",
        ]
    )


def over_columns(text: str) -> str:
    """The same tables over both columns of an article: ``table*``."""
    return text.replace(r"\begin{table}", r"\begin{table*}").replace(r"\end{table}", r"\end{table*}")


def _is_number(cell: str) -> bool:
    return cell.replace(".", "", 1).lstrip("+-").isdigit()


def _caption(board: Leaderboard) -> str:
    used = sorted({c.n for c in board.family.comparisons})
    pairs = f"{used[0]}" if len(used) == 1 else f"{used[0]} to {used[-1]}" if used else "0"
    smallest = reach((c.candidate, c) for c in board.family.comparisons)
    intervals = interval_name(
        sum(bool(c.n) for c in board.family.comparisons), alpha=board.alpha, correction=board.correction
    )
    correction = "uncorrected" if board.correction == "none" else f"after {board.correction.title()}"
    return (
        f"{escape_latex(board.title)}: {escape_latex(board.measure.heading)}, mean $\\pm$ standard "
        f"deviation over completed trials; mean difference to {escape_latex(board.baseline)} "
        f"[{escape_latex(intervals)}], positive is better; {pairs} pairs, signed-rank test of the typical "
        f"run, $p$ {correction}"
        + (f"; smallest attainable $p$ {escape_latex(smallest)}" if smallest else "")
        + r". $^{*}\,p\le .05$, $^{**}\,p\le .01$, $^{***}\,p\le .001$. "
        + escape_latex(f"Verdicts: {board.evidence}; analysis {_when(board.declared)}.")
    )


def _when(declared: str) -> str:
    return "not recorded when declared" if declared == NOT_RECORDED else declared


def _label(board: Leaderboard, position: int) -> str:
    """Letters, digits and dashes only; the number keeps labels apart."""
    return f"tab:{_slug(board.title) or 'workload'}-{position}"


def _slug(title: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in title).strip("-")[:60]


def _stacked(heading: str, side: str) -> str:
    """A heading on two lines, where one would make its column wide."""
    lines = two_lines(heading) if len(heading) > _WIDE_HEADING else [heading]
    text = r" \\ ".join(map(escape_latex, lines))
    return text if len(lines) == 1 else rf"\shortstack[{side}]{{{text}}}"
