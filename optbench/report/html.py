"""The HTML report: one self-contained page, which loads nothing and runs one small script of its own."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from optbench.report.analysis import (
    Report,
    by_class_tables,
    comparisons_table,
    leading_tables,
    side_tables,
)
from optbench.report.answer import quantity_of
from optbench.report.figures import Plot
from optbench.report.plots import svg_for_page
from optbench.report.side_tables import (
    friedman_note,
    trials_table,
)
from optbench.report.text import TextTable

#: A drawing with more characters than this is embedded as PNG.
LARGEST_SVG = 400_000
#: Most trials and comparisons that the page lists; the CSV files have all.
MOST_ROWS = 1000


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A plot as it stands in the page: inline SVG, or PNG as base64."""

    plot: Plot
    svg: str | None
    png: str | None


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page with its entry in the table of contents."""

    anchor: str
    title: str
    tables: tuple[TextTable, ...] = ()
    pictures: tuple[Picture, ...] = ()


def inline(svg: str, figure: Figure, *, number: int) -> tuple[str | None, str | None]:
    """Make a drawn plot ready for the page: as SVG, or as PNG in base64 where the SVG is too large."""
    if len(svg) <= LARGEST_SVG:
        return svg_for_page(svg, number=number), None
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130)
    return None, base64.b64encode(stream.getvalue()).decode()


def render(report: Report, *, pictures: Sequence[Picture]) -> str:
    """Render the page.

    Parameters
    ----------
    report : Report
    pictures : sequence of Picture

    Returns
    -------
    str
        HTML with every text escaped and no reference to anything outside; a content security policy keeps it
        so.
    """
    folder = files("optbench.report") / "templates"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"cell": _cell, "place": _place, "code": _code}
    template = environment.from_string((folder / "report.html.j2").read_text("utf-8"))
    script = (folder / "report.js").read_text("utf-8")
    trials = report.results.trials
    counts: dict[str, Any] = trials["status"].value_counts().to_dict() if len(trials) else {}
    page = template.render(
        report=report,
        spec=report.spec,
        analysis=report.spec.analysis,
        sections=_sections(report, pictures),
        margin=_margin(report),
        counts=counts,
        total=len(trials),
        style=(folder / "report.css").read_text("utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        environments=[_facts(facts) for facts in report.results.environments],
        omnibus=report.failures.attempt("Friedman's tests", lambda: _omnibus(report)) or [],
        missing=report.failures.sentences,
    )
    # Names may hold characters that change the direction of the text after them.
    return re.sub("[\u202a-\u202e\u2066-\u2069]", "\ufffd", page)


def _omnibus(report: Report) -> list[str]:
    return [friedman_note(board.all_pairs) for board in report.boards if board.all_pairs is not None]


def _sections(report: Report, pictures: Sequence[Picture]) -> list[Section]:
    def drawn(title: str) -> tuple[Picture, ...]:
        return tuple(p for p in pictures if p.plot.section == title)

    # An address stays whichever question is the confirmatory one.
    numbers = {id(item): n for n, item in enumerate((*report.boards, *report.overall), start=1)}
    sections = [
        Section(
            anchor=f"part-{numbers[id(item)]}",
            title=item.title if table is None else table.heading,
            tables=(table,) if table is not None else (),
            pictures=drawn(item.title),
        )
        for item, table in leading_tables(report)
    ]
    for name, table in side_tables(report).items():
        sections.append(Section(anchor=name, title=table.heading, tables=(table,)))
    for number, table in enumerate(by_class_tables(report), start=1):
        sections.append(Section(anchor=f"classes-{number}", title=table.title, tables=(table,)))
    pairs = comparisons_table(report)
    if pairs is not None and pairs.rows:
        sections.append(Section(anchor="comparisons", title=pairs.title, tables=(_cut(pairs),)))
    if len(report.results.trials):
        listed = report.failures.attempt(
            "table of trials",
            lambda: trials_table(
                report.results.trials, tested=[board.metric for board in report.boards], limit=MOST_ROWS
            ),
        )
        if listed is not None:
            sections.append(Section(anchor="trials", title=listed.title, tables=(listed,)))
    return sections


def _cut(table: TextTable) -> TextTable:
    rest = len(table.rows) - MOST_ROWS
    if rest <= 0:
        return table
    note = f"{rest:,} more comparisons are in comparisons.csv."
    return TextTable(
        title=table.title,
        columns=table.columns,
        rows=table.rows[:MOST_ROWS],
        notes=(*table.notes, note),
        values=table.values[:MOST_ROWS],
    )


def _margin(report: Report) -> str:
    """The declared margin, in the unit in which differences are shown."""
    analysis = report.spec.analysis
    if analysis.margin is None:
        return ""
    quantity = quantity_of(
        report.results.metrics[analysis.primary], alpha=analysis.alpha, correction=analysis.correction
    )
    return f"{quantity.write(analysis.margin).lstrip('+')} {quantity.unit}".rstrip()


def _place(table: TextTable, name: str) -> Markup:
    """Mark a column that a phone leaves out."""
    if not table.always or name in table.always or name.startswith("verdict"):
        return Markup()
    return Markup(' class="more"')


def _code(text: str) -> Markup:
    """What stands between backticks, as code; all else escaped."""
    parts = re.split(r"`([^`]+)`", text)
    shown = [Markup("<code>{}</code>").format(p) if k % 2 else escape(p) for k, p in enumerate(parts)]
    return Markup().join(shown)


def _cell(table: TextTable, row: int, column: int) -> dict[str, str]:
    """Attributes of a cell: the value to sort by, and the exact value where the text is shorter."""
    if not table.values:
        return {}
    value = table.values[row][column]
    if value is None or isinstance(value, str):
        return {}
    attributes = {"data-v": repr(float(value))}
    if isinstance(value, float) and value == value and table.columns[column] != "#":
        attributes["title"] = f"{value:.9g}"
    return attributes


def _facts(facts: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))
        for key, value in facts.items()
    ]
