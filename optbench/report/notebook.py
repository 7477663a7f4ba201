"""What a notebook's cell shows: the answer and the main tables as HTML, in the notebook's own style."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING

from optbench.report.answer import Answer
from optbench.report.text import TextTable

if TYPE_CHECKING:
    from optbench.records.frames import Results
    from optbench.stats.compare import Comparison


def results_html(results: Results) -> str:
    """Results as a cell shows them: the answer and the leaderboards, or how many trials there are."""
    from optbench.report.analysis import analyse, main_tables
    from optbench.report.declared import note_look
    from optbench.suite.report_spec import ReportSpec

    views = [meta["view"] for meta in results.meta if "view" in meta]
    if not views or results.trials.empty:
        return f"<p>{len(results.trials):,} trials of {results.planned:,} planned.</p>"
    report = analyse(results, ReportSpec.from_json(views[0]))
    report.failures.attempt("note of this look", lambda: note_look(report))
    warnings = [*report.failures.sentences, *report.warnings]
    return _page(report.answer, main_tables(report), warnings, report.declared.sentences)


def comparison_html(result: Comparison) -> str:
    """A comparison as a cell shows it: the answer and its comparisons."""
    from optbench.report.answer_of import table_answer
    from optbench.report.comparison_terminal import number

    rows = [
        (
            family.scope,
            f"{c.candidate} vs {c.baseline}",
            str(c.n),
            number(c.mean.estimate) if c.mean else "-",
            number(c.p_adjusted, 2),
            c.verdict.word,
        )
        for family in (*result.within, *([result.new_datasets] if result.new_datasets else []))
        for c in family.comparisons
    ]
    columns = ("scope", "comparison", "n", "mean difference", "p, adjusted", "verdict")
    table = TextTable(title=result.input.metric, columns=columns, rows=tuple(rows), notes=result.notes)
    return _page(table_answer(result), [table], [])


def _page(
    answer: Answer, tables: Iterable[TextTable], warnings: Iterable[str], declared: Iterable[str] = ()
) -> str:
    parts = [f"<p><strong>{escape(text)}</strong></p>" for text in warnings]
    parts += [
        f"<p>{'<strong>' if s.kind == 'verdict' else ''}{escape(s.text)}"
        f"{'</strong>' if s.kind == 'verdict' else ''}</p>"
        for s in answer.sentences
    ]
    parts += [f"<p>{escape(text)}</p>" for text in declared]
    return "\n".join([*parts, *map(table_html, tables)])


def table_html(table: TextTable) -> str:
    """A table with its notes folded."""
    names = [name for name in table.columns if name not in table.extras]
    keep = [table.columns.index(name) for name in names]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(row[k])}</td>" for k in keep) + "</tr>" for row in table.rows
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    folded = f"<details><summary>Notes</summary><ul>{notes}</ul></details>" if notes else ""
    body = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<h4>{escape(table.heading)}</h4>{body}{folded}"
