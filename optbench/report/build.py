"""Write a report folder: page, tables, exports and plots."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from optbench.records.frames import Results
from optbench.report import exports
from optbench.report.analysis import Report, analyse, main_tables, side_tables
from optbench.report.parallel import map_forked
from optbench.report.tables import pairs_table
from optbench.report.text import escape_markdown, markdown
from optbench.suite.spec import Suite

#: Formats that a report may have; the default is all that need nothing beyond optbench.
FORMATS = ("html", "markdown", "latex", "csv", "json", "plots", "parquet")
DEFAULT_FORMATS = FORMATS[:-1]


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """What was written; ``index`` is the page, or the first file where no page was asked for."""

    folder: Path
    index: Path
    files: tuple[Path, ...]


def write_report(
    results: Results, suite: Suite, folder: Path, *, formats: Sequence[str] = DEFAULT_FORMATS
) -> ReportFiles:
    """Write a report into a folder.

    Parameters
    ----------
    results : Results
        The records.
    suite : Suite
        Labels, targets and analysis.
    folder : Path
        Made where missing; files of the same names are replaced.
    formats : sequence of str
        Of ``html`` (index.html), ``markdown`` (leaderboard.md), ``latex`` (leaderboard.tex), ``csv``
        (leaderboard.csv, comparisons.csv, trials.csv, and where there is any timing.csv, top_k.csv,
        metrics.csv, tuning.csv, untuned.csv and tuning_trials.csv),
        ``json`` (report.json), ``plots`` (each as PNG, SVG and PDF), ``parquet`` (trials.parquet,
        epochs.parquet).

    Returns
    -------
    ReportFiles
        The paths.

    Raises
    ------
    ExportError
        If a format is unknown, or needs a package that is not installed.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise exports.ExportError(f"format {unknown[0]!r}: not known; choose among {', '.join(FORMATS)}")
    folder.mkdir(parents=True, exist_ok=True)
    report = analyse(results, suite)
    writers: dict[str, Callable[[], list[Path]]] = {
        "markdown": lambda: [_write(folder / "leaderboard.md", markdown_text(report))],
        "latex": lambda: [_write(folder / "leaderboard.tex", latex_text(report))],
        "csv": lambda: _csv_files(report, folder),
        "json": lambda: [_write(folder / "report.json", json_text(report))],
        "parquet": lambda: exports.write_parquet(results, folder),
    }
    files = [path for name in formats if name in writers for path in writers[name]()]
    if {"html", "plots"} & set(formats):
        files = _draw(report, folder, formats) + files
    index = folder / "index.html" if "html" in formats else (files[0] if files else folder)
    return ReportFiles(folder=folder, index=index, files=tuple(files))


def markdown_text(report: Report) -> str:
    """Write claims, tables and methods as Markdown."""
    parts = [f"# {escape_markdown(report.suite.title)}\n"]
    parts += [f"**{escape_markdown(text)}**\n" for text in report.warnings]
    parts += ["\n".join(f"- {escape_markdown(text)}" for text in report.claims) + "\n"]
    parts += [markdown(table) for table in main_tables(report)]
    parts += ["## Method\n", escape_markdown(report.methods), ""]
    return "\n".join(parts)


def latex_text(report: Report) -> str:
    """Write the leaderboards and the methods paragraph as LaTeX."""
    methods = exports.escape_latex(report.methods)
    return exports.latex_text(report.boards) + f"\n% Methods\n{methods}\n"


def json_text(report: Report) -> str:
    """Write everything computed as JSON."""
    return exports.json_text(
        report.suite,
        report.results,
        report.boards,
        overall=report.overall,
        settings=report.settings,
        methods=report.methods,
    )


def file_name(label: str) -> str:
    """Turn a label into a file name: letters, digits, dots and dashes, at most 80 characters."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", label).strip("._")[:80] or "workload"


def _csv_files(report: Report, folder: Path) -> list[Path]:
    files = [
        _write(folder / "leaderboard.csv", exports.csv_text(report.boards)),
        _write(folder / "comparisons.csv", exports.table_csv(pairs_table(report.boards))),
    ]
    files += [
        _write(folder / f"{name}.csv", exports.table_csv(table))
        for name, table in side_tables(report).items()
        if name in ("timing", "top_k", "metrics", "tuning", "untuned")
    ]
    if len(report.results.trials):
        path = folder / "trials.csv"
        report.results.trials.to_csv(path, index=False, lineterminator="\n")
        files.append(path)
    if len(report.results.tuning):
        path = folder / "tuning_trials.csv"
        report.results.tuning.to_csv(path, index=False, lineterminator="\n")
        files.append(path)
    return files


def _draw(report: Report, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Draw each plot once, for the page and the files."""
    from optbench.report import html, plots
    from optbench.report.figures import Plot, report_plots

    stems: dict[str, str] = {}
    planned = [
        (
            number,
            plot,
            _unique(f"{plot.name}_{file_name(plot.section)}", f"{plot.name} {plot.section}", stems),
        )
        for number, plot in enumerate(report_plots(report))
    ]

    def draw(job: tuple[int, Plot, str]) -> tuple[list[Path], str | None, str | None] | None:
        number, plot, stem = job
        figure = plot.draw()
        if figure is None:
            return None
        plots.settle(figure)
        files = plots.save(figure, folder / stem) if "plots" in formats else []
        if "html" not in formats:
            return files, None, None
        svg = (folder / f"{stem}.svg").read_text("utf-8") if files else plots.svg_text(figure)
        return files, *html.inline(svg, figure, number=number)

    drawn = map_forked(draw, planned)
    files = [path for found in drawn if found for path in found[0]]
    if "html" in formats:
        pictures = [
            html.Picture(plot=plot, svg=found[1], png=found[2])
            for (_, plot, _), found in zip(planned, drawn, strict=True)
            if found
        ]
        files.insert(0, _write(folder / "index.html", html.render(report, pictures=pictures)))
    return files


def _unique(stem: str, key: str, taken: dict[str, str]) -> str:
    """A stem that no other key has; labels that differ in odd characters alone get a number."""
    number, found = 2, stem
    while taken.setdefault(found, key) != key:
        found = f"{stem}-{number}"
        number += 1
    return found


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8", newline="")
    return path
