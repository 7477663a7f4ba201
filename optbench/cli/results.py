"""``optbench report`` and ``watch``: what records say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from optbench.cli import complete
from optbench.cli.common import (
    DataDirOption,
    ResultsOption,
    end_report,
    errors,
    importing,
    new_console,
    print_format,
    say,
    show_report,
)


def report(
    suites: Annotated[
        list[Path],
        typer.Argument(
            help="Suite files, stores, or their folders; several are one analysis.",
            autocompletion=complete.suites,
        ),
    ],
    results: ResultsOption = Path("results"),
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the files; beside the store if not given. A dash prints one format (csv, json, "
            "markdown, latex) to standard output and nothing else."
        ),
    ] = None,
    format: Annotated[
        list[str] | None,
        typer.Option(
            autocompletion=complete.of(complete.FORMATS),
            help="terminal only shows; html, markdown, latex, csv, json, plots, parquet: once or more. "
            "All but plots and parquet if not given; the page has every plot.",
        ),
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Compare with this optimizer.")] = None,
    primary: Annotated[str | None, typer.Option(help="Test this metric.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Level.")] = None,
    correction: Annotated[str | None, typer.Option(help="holm, bonferroni, bh or none.")] = None,
    workload: Annotated[
        list[str] | None, typer.Option(help="Read and report only this workload; once or more.")
    ] = None,
    both_columns: Annotated[
        bool, typer.Option("--both-columns", help="LaTeX tables over both columns of an article (table*).")
    ] = False,
    declaration: Annotated[
        Path | None, typer.Option(help="Say whether all is as in this published declaration.")
    ] = None,
    data_dir: DataDirOption = None,
) -> None:
    """Show the leaderboard of some records, and write the page, tables, exports and plots.

    Exit code 5 if a table, plot or format could not be made; all others are.
    """
    with errors():
        with importing():
            from optbench import api
            from optbench.report.build import FORMATS, check_formats
            from optbench.report.combine import with_analysis
            from optbench.suite.declaration import read as read_declaration

        spec, found, folder = api.gather_results(
            *suites, results=results, workloads=workload, data_dir=data_dir
        )
        spec = with_analysis(spec, baseline=baseline, primary=primary, alpha=alpha, correction=correction)
        published = None if declaration is None else read_declaration(declaration)
        check_formats(format or [], ("terminal", *FORMATS))
        if out == Path("-"):
            command = f"optbench report {' '.join(map(str, suites))}"
            print_format(found, spec, format or [], command=command, published=published)
            return
        console = new_console()
        shown = show_report(spec, found, console, published=published)
        out = out or folder / api.report_folder(workload)
        if format != ["terminal"]:
            from optbench.report.build import DEFAULT_FORMATS, write_report
            from optbench.report.failures import ReportError

            formats = [name for name in format or DEFAULT_FORMATS if name != "terminal"]
            try:
                written = write_report(
                    found, spec, out, formats=formats, report=shown, both_columns=both_columns
                )
            except ReportError as error:  # reported below, with this command
                written = error.written
            count = len(written.files)
            one = written.index if count == 1 or written.index.suffix == ".html" else out
            say(console, f"Wrote {count} file{'s' * (count > 1)}: {one}")
        end_report(shown.failures, out, f"optbench report {' '.join(map(str, suites))}")


def watch(
    suite: Annotated[
        Path,
        typer.Argument(help="Suite file, store, or the store's folder.", autocompletion=complete.suites),
    ],
    results: ResultsOption = Path("results"),
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between looks.")] = 2.0,
    web: Annotated[
        bool, typer.Option("--web", help="Serve a page on this machine, to be watched in a browser.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of --web; 0 takes a free one.")] = 0,
) -> None:
    """Follow a run from another terminal until every planned trial has ended."""
    with errors(suite):
        from optbench import api
        from optbench.report.watch import watch as follow

        spec, store = api.find_store(suite, results=results)
        if web:
            from optbench.report.live import serve

            console = new_console()
            primary = spec.metrics[spec.analysis.primary]
            serve(store, primary, port=port, every=every, say=lambda line: say(console, line))
            return
        follow(store, metric=spec.metrics[spec.analysis.primary], console=new_console(), every=every)
