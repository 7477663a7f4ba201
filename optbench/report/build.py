"""Write a report folder: page, tables, exports and plots."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from optbench.records.frames import Results
from optbench.records.whole import whole
from optbench.report import exports
from optbench.report.analysis import (
    Report,
    analyse,
    by_class_tables,
    comparisons_table,
    leading_tables,
    main_tables,
    side_tables,
)
from optbench.report.class_tables import all_classes_table
from optbench.report.declared import as_json
from optbench.report.failures import Failure, ReportError, ReportFiles
from optbench.report.latex import latex_prose
from optbench.report.latex_tables import latex_tables, over_columns, text_table
from optbench.report.paper import paper_tables
from optbench.report.parallel import map_forked
from optbench.report.text import TextTable, escape_markdown, markdown, markdown_prose, with_column
from optbench.suite.report_spec import ReportSpec

if TYPE_CHECKING:
    import pandas as pd

    from optbench.report.figures import Plot

#: Formats that a report may have.
FORMATS = ("html", "markdown", "latex", "csv", "json", "plots", "parquet")
#: The default formats: the page has the plots, which become files on demand.
DEFAULT_FORMATS = FORMATS[:-2]
#: Folders of the files that there are many of.
PLOTS, TABLES = "plots", "tables"


def check_formats(formats: Iterable[str], choices: Sequence[str]) -> None:
    """Refuse a format that is none of the choices with an ``ExportError``."""
    unknown = [name for name in formats if name not in choices]
    if unknown:
        raise exports.ExportError(f"format {unknown[0]!r}: not known; choose among {', '.join(choices)}")


def write_report(
    results: Results,
    spec: ReportSpec,
    folder: Path,
    *,
    formats: Sequence[str] = DEFAULT_FORMATS,
    report: Report | None = None,
    both_columns: bool = False,
) -> ReportFiles:
    """Write a report into a folder.

    Parameters
    ----------
    results : Results
        The records.
    spec : ReportSpec
        Labels, targets and analysis.
    folder : Path
        Made where missing; files of the same names are replaced.
    formats : sequence of str
        Of ``html`` (index.html), ``markdown`` (leaderboard.md), ``latex`` (leaderboard.tex), ``csv``
        (leaderboard.csv, comparisons.csv, trials.csv, and where there is any across.csv, new_examples.csv,
        timing.csv, top_k.csv, metrics.csv, tuning.csv, untuned.csv and tuning_trials.csv),
        ``json`` (report.json), ``plots`` (each as PNG, SVG and PDF), ``parquet`` (trials.parquet,
        epochs.parquet).
    report : Report, optional
        What :func:`optbench.report.analysis.analyse` made of these results, if it has been made.
    both_columns : bool
        LaTeX tables over both columns of an article (``table*``).

    Returns
    -------
    ReportFiles
        The paths.

    Raises
    ------
    ExportError
        If a format is unknown.
    ReportError
        If a table, plot or format could not be made, or needs a package that is not installed; all others
        are written. The message says which, the page too, and ``report-errors.txt`` has the tracebacks.
    """
    check_formats(formats, FORMATS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise exports.ExportError(f"{folder}: no folder can be made here ({error.strerror})") from None
    made = analyse(results, spec) if report is None else report
    # The page comes last: it says what else could not be made.
    drawn = _draw(made, folder, formats) if {"html", "plots"} & set(formats) else []
    files = [path for picture in drawn for path in picture.files]
    for name in formats:
        files += _write_format(name, made, folder, both_columns=both_columns)
    if "html" in formats:
        files = _write_page(made, folder, drawn) + files
    found = [path for path in files if path.name == "index.html"] or files
    written = ReportFiles(folder=folder, index=found[0] if found else folder, files=tuple(files))
    trace = made.failures.write(folder)
    if made.failures:
        command = "make this report again"
        raise ReportError(made.failures.explain(file=trace, command=command), made.failures, written)
    return written


def _write_format(name: str, report: Report, folder: Path, *, both_columns: bool) -> list[Path]:
    """Write one format that is neither page nor plots; what fails is noted, and nothing of it counts."""
    writers: dict[str, Callable[[], list[Path]]] = {
        "markdown": lambda: [_write(folder / "leaderboard.md", markdown_text(report))],
        "latex": lambda: [_write(folder / "leaderboard.tex", latex_text(report, both_columns=both_columns))],
        "csv": lambda: _csv_files(report, folder),
        "json": lambda: [_write(folder / "report.json", json_text(report))],
        "parquet": lambda: exports.write_parquet(report.results, folder / TABLES),
    }
    return report.failures.attempt(f"format {name}", writers[name]) or [] if name in writers else []


def markdown_text(report: Report) -> str:
    """Write the answer, tables and methods as Markdown."""
    parts = [f"# {escape_markdown(report.spec.title)}\n"]
    tables = [markdown(table) for table in (*main_tables(report), *by_class_tables(report))]
    warnings = [*report.failures.sentences, *report.warnings]
    parts += [f"**{markdown_prose(text)}**\n" for text in warnings]
    if report.answer:
        sentences = [markdown_prose(sentence.text) for sentence in report.answer.sentences]
        bold = [sentence.kind == "verdict" for sentence in report.answer.sentences]
        lines = [
            f"- **{text}**" if strong else f"- {text}" for text, strong in zip(sentences, bold, strict=True)
        ]
        parts += ["## In short\n", *lines, ""]
    parts += [f"{markdown_prose(text)}\n" for text in report.declared.sentences]
    parts += tables
    parts += ["## Method\n", markdown_prose(report.methods), ""]
    return "\n".join(parts)


def latex_text(report: Report, *, both_columns: bool = False) -> str:
    """Write the answer, the tables and the methods paragraph as LaTeX; tables over both columns on demand."""
    text = _latex(report)
    return over_columns(text) if both_columns else text


def _latex(report: Report) -> str:
    methods = latex_prose(report.methods)
    missing = "".join(f"% {text}\n" for text in report.failures.sentences)
    short = (
        f"% In short\n\\paragraph{{In short.}} {latex_prose(report.answer.text)}\n\n" if report.answer else ""
    )
    classes = "\n".join([paper_tables(report), *map(text_table, by_class_tables(report))])
    notes = "".join(f"{latex_prose(text)}\n" for text in (*report.declared.sentences, *report.warnings))
    tables = latex_tables(report.boards)
    return f"{missing}{short}% Declared\n{notes}\n{tables}\n{classes}\n% Methods\n{methods}\n"


def json_text(report: Report) -> str:
    """Write everything computed as JSON."""
    return exports.json_text(
        report.spec,
        report.results,
        report.boards,
        answer=report.answer,
        overall=report.overall,
        settings=report.settings,
        over_examples=report.new_examples,
        methods=report.methods,
        declared=as_json(report.declared, report.results),
        missing=report.failures,
    )


def file_name(label: str) -> str:
    """Turn a label into a file name: letters, digits, dots and dashes, at most 80 characters."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", label).strip("._")[:80] or "workload"


def _csv_files(report: Report, folder: Path) -> list[Path]:
    """Write each table of numbers; one that fails keeps no other from being written."""
    texts: dict[str, Callable[[], str]] = {"leaderboard": lambda: exports.csv_text(report.boards)}
    tables = {
        "comparisons": comparisons_table(report),
        "per_class": all_classes_table(report.boards, report.results.trials),
        **side_tables(report),
    }
    for name, found in (("comparisons", tables["comparisons"]), ("across", _joined(report))):
        tables[name] = found and with_column(found, "declared", report.declared.short)
    named = (
        "comparisons",
        "new_examples",
        "curves",
        "across",
        "timing",
        "top_k",
        "metrics",
        "errors",
        "models",
        "per_class",
        "tuning",
        "untuned",
    )
    for name in named:
        if (table := tables.get(name)) is not None:
            texts[name] = partial(exports.table_csv, table)
    results = report.results
    for name, frame in (("trials", results.trials), ("tuning_trials", results.tuning)):
        if len(frame):
            texts[name] = partial(_frame_text, frame)
    written = []
    for name, text in texts.items():
        path = folder / TABLES / f"{name}.csv"
        if report.failures.attempt(path.name, partial(_write_made, path, text)) is not None:
            written.append(path)
    return written


def _frame_text(frame: pd.DataFrame) -> str:
    return exports.frame_csv(frame) or ""


def _joined(report: Report) -> TextTable | None:
    """The comparisons over workloads as one table, a setting below the other."""
    tables = [table for _, table in leading_tables(report, boards=False) if table is not None]
    if not tables:
        return None
    rows = tuple((table.title, *row) for table in tables for row in table.rows)
    values = tuple((None, *row) for table in tables for row in table.values)
    return replace(tables[0], columns=("workloads", *tables[0].columns), rows=rows, values=values)


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """A plot as files and for the page."""

    plot: Plot
    files: list[Path]
    svg: str | None = None
    png: str | None = None


def _draw(report: Report, folder: Path, formats: Sequence[str]) -> list[_Drawn]:
    """Draw each plot once, for the page and the files; one that fails is noted."""
    from optbench.report import drawn as drawn_before
    from optbench.report import html, plots
    from optbench.report.figures import report_plots

    stems: dict[str, str] = {}
    planned = [
        (
            number,
            plot,
            _unique(f"{plot.name}_{file_name(plot.section)}", f"{plot.name} {plot.section}", stems),
        )
        for number, plot in enumerate(report_plots(report))
    ]
    Job = tuple[int, "Plot", str]
    # Results come from other processes and are pickled, which a plot's function cannot be.
    PlotFiles = tuple[list[Path], str | None, str | None]

    def draw(job: Job) -> PlotFiles | None:
        number, plot, stem = job
        key = None if "plots" in formats else drawn_before.key_of(plot.draw, number)
        if (found := drawn_before.read(key)) is not None:
            return ([], *found) if any(found) else None
        figure = plot.draw()
        if figure is None:
            drawn_before.keep(key, (None, None))
            return None
        plots.settle(figure)
        files = plots.save(figure, folder / PLOTS / stem) if "plots" in formats else []
        if "html" not in formats:
            return files, None, None
        svg = (folder / PLOTS / f"{stem}.svg").read_text("utf-8") if files else plots.svg_text(figure)
        inline = html.inline(svg, figure, number=number)
        drawn_before.keep(key, inline)
        return files, *inline

    def attempt(job: Job) -> PlotFiles | Failure | None:
        try:
            return draw(job)
        except Exception as error:
            return Failure.of(_plot_part(job[1]), error)

    def lost(job: Job, how: str) -> PlotFiles | Failure | None:
        return Failure(part=_plot_part(job[1]), reason=how, trace=how, fault=True)

    drawn = []
    for (_, plot, _), found in zip(planned, map_forked(attempt, planned, lost=lost), strict=True):
        if isinstance(found, Failure):
            report.failures.add(found)
        elif found is not None:
            drawn.append(_Drawn(plot=plot, files=found[0], svg=found[1], png=found[2]))
    drawn_before.tidy()
    return drawn


def _plot_part(plot: Plot) -> str:
    return f"plot {plot.name}: {plot.section}"


def _write_page(report: Report, folder: Path, drawn: Sequence[_Drawn]) -> list[Path]:
    from optbench.report import html

    def make() -> list[Path]:
        pictures = [html.Picture(plot=found.plot, svg=found.svg, png=found.png) for found in drawn]
        return [_write(folder / "index.html", html.render(report, pictures=pictures))]

    return report.failures.attempt("format html", make) or []


def _unique(stem: str, key: str, taken: dict[str, str]) -> str:
    """A stem that no other key has; labels that differ in odd characters alone get a number."""
    number, found = 2, stem
    while taken.setdefault(found, key) != key:
        found = f"{stem}-{number}"
        number += 1
    return found


def _write_made(path: Path, text: Callable[[], str]) -> Path:
    return _write(path, text())


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    with whole(path) as place:
        place.write_text(text, encoding="utf-8", newline="")
    return path
