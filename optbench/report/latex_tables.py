"""The leaderboards as LaTeX tables."""

from __future__ import annotations

from collections.abc import Sequence

from optbench.report.effect import interval_name
from optbench.report.latex import escape_latex
from optbench.report.leaderboard import Leaderboard
from optbench.report.leaderboard_columns import latex_columns
from optbench.report.reasons import reach
from optbench.report.text import TextTable


def latex_tables(boards: Sequence[Leaderboard]) -> str:
    r"""Write the leaderboards as LaTeX tables; the document needs ``\usepackage{booktabs}`` and T1 fonts.

    Returns
    -------
    str
        One ``table`` environment a leaderboard. The best mean is bold; ``*``, ``**`` and ``***`` mark
        adjusted p-values up to 0.05, 0.01 and 0.001 (the declared level decides the verdict, not the marks).
    """
    head = (
        "% Written by optbench. Preamble: \\usepackage[T1]{fontenc} \\usepackage{booktabs} "
        "\\usepackage{textcomp}\n"
    )
    return head + "\n".join(_table(board, number) for number, board in enumerate(boards, start=1))


def _table(board: Leaderboard, position: int) -> str:
    columns = latex_columns(board)
    lines = [" & ".join(latex.cell(board, row) for _, latex in columns) + r" \\" for row in board.rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{_caption(board)}}}",
            rf"  \label{{{_label(board, position)}}}",
            rf"  \begin{{tabular}}{{{''.join(latex.align for _, latex in columns)}}}",
            r"    \toprule",
            f"    {' & '.join(latex.title for _, latex in columns)} \\\\",
            r"    \midrule",
            *(f"    {line}" for line in lines),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def text_table(table: TextTable) -> str:
    """Write any of the report's tables as a LaTeX table: words to the left, numbers to the right."""
    align = "".join(
        "l" if all(not _is_number(row[k]) for row in table.rows) else "r" for k in range(len(table.columns))
    )
    notes = " ".join(table.notes)
    caption = escape_latex(f"{table.title}. {notes}" if notes else table.title)
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{caption}}}",
            rf"  \begin{{tabular}}{{{align}}}",
            r"    \toprule",
            f"    {' & '.join(map(escape_latex, table.columns))} \\\\",
            r"    \midrule",
            *(f"    {' & '.join(map(escape_latex, row))} \\\\" for row in table.rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


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
        + r". $^{*}\,p\le .05$, $^{**}\,p\le .01$, $^{***}\,p\le .001$."
    )


def _label(board: Leaderboard, position: int) -> str:
    """Letters, digits and dashes only; the number keeps labels apart."""
    word = "".join(c if c.isascii() and c.isalnum() else "-" for c in board.title).strip("-")[:60]
    return f"tab:{word or 'workload'}-{position}"
