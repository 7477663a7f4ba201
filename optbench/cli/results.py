"""``optbench report``, ``watch`` and ``compare``: what records and tables of results say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from optbench.cli import complete
from optbench.cli.common import (
    ResultsOption,
    end_report,
    errors,
    importing,
    new_console,
    print_format,
    say,
    show_report,
)
from optbench.cli.importing import DecimalOption, FailedOption, MapOption, PatternOption, naming_of


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
    both_columns: Annotated[
        bool, typer.Option("--both-columns", help="LaTeX tables over both columns of an article (table*).")
    ] = False,
    declaration: Annotated[
        Path | None, typer.Option(help="Say whether all is as in this published declaration.")
    ] = None,
) -> None:
    """Show the leaderboard of some records, and write the page, tables, exports and plots.

    Exit code 5 if a table, plot or format could not be made; all others are.
    """
    with errors():
        with importing():
            from optbench import api
            from optbench.report.combine import with_analysis
            from optbench.suite.declaration import read as read_declaration

        spec, found, folder = api.gather_results(*suites, results=results)
        spec = with_analysis(spec, baseline=baseline, primary=primary, alpha=alpha, correction=correction)
        published = None if declaration is None else read_declaration(declaration)
        if out == Path("-"):
            again = f"optbench report {' '.join(map(str, suites))}"
            print_format(found, spec, format or [], again=again, published=published)
            return
        console = new_console()
        shown = show_report(spec, found, console, published=published)
        out = out or folder / "report"
        if format != ["terminal"]:
            from optbench.report.build import DEFAULT_FORMATS, write_report
            from optbench.report.failures import ReportError

            formats = [name for name in format or DEFAULT_FORMATS if name != "terminal"]
            try:
                written = write_report(
                    found, spec, out, formats=formats, report=shown, both_columns=both_columns
                )
            except ReportError as error:  # what failed is said below, by the command that was given
                written = error.written
            say(console, f"Wrote {len(written.files)} files: {written.index}")
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


def compare(
    table: Annotated[
        Path,
        typer.Argument(
            help="Table: columns dataset, optimizer, seed and metrics; or a matrix of datasets x methods; or "
            "logs, or a folder of them, that optbench import reads."
        ),
    ],
    metric: Annotated[str | None, typer.Option(help="Column to compare, where there are several.")] = None,
    maximise: Annotated[
        bool | None,
        typer.Option("--maximise/--minimise", help="Is larger better? A known metric says."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Compare the others against this one; all pairs if not given.")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Level.")] = 0.05,
    correction: Annotated[
        Literal["holm", "shaffer", "bergmann-hommel", "bonferroni", "bh", "none"],
        typer.Option(help="Over the comparisons of a family."),
    ] = "holm",
    margin: Annotated[
        float | None, typer.Option(help="Difference that does not matter, in the metric's units.")
    ] = None,
    predictions: Annotated[
        bool, typer.Option("--predictions", help="The file has a column truth and one of labels a model.")
    ] = False,
    unpaired: Annotated[
        bool | None,
        typer.Option(
            "--unpaired/--paired",
            help="Take the runs as independent, or pair them by seed; where no seed has two optimizers "
            "they are independent.",
        ),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(help="Is each group's mean beyond this number? Independent runs, one-sided."),
    ] = None,
    sd: Annotated[
        float | None, typer.Option(help="Known standard deviation of a run; estimated if not given.")
    ] = None,
    loss_per_step: Annotated[
        float | None,
        typer.Option(
            help="Set-ups in the order of the table, with a column steps, claim records: what a step is "
            "worth in loss."
        ),
    ] = None,
    examples: Annotated[
        int | None,
        typer.Option(min=1, help="Size of the test part: accuracies are counts of it, equal ones tie."),
    ] = None,
    streams: Annotated[
        str | None,
        typer.Option(help="Columns with the seeds of streams that may be crossed, as init,order."),
    ] = None,
    rope: Annotated[
        float | None,
        typer.Option(help="Region of practical equivalence: adds posterior probabilities to the tests."),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="The file is a matrix of times to target: performance profiles.")
    ] = False,
    held_out: Annotated[
        Path | None,
        typer.Option(help="With --profile: times on variants of the workloads (AlgoPerf's rule)."),
    ] = None,
    names: MapOption = None,
    failed: FailedOption = None,
    decimal: DecimalOption = None,
    pattern: PatternOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything computed as JSON.")] = False,
) -> None:
    """Run the statistics alone on any table of results, or on logs of other tools."""
    with errors(table):
        from optbench.records import tables
        from optbench.report import comparison_terminal as view

        if predictions:
            models = tables.compare_predictions(table, baseline=baseline, correction=correction)
            shown: list[Any] = [view.render_predictions(models)]
            plain = tables.predictions_to_dict(models)
        elif profile:
            scores = tables.profile_file(table, held_out=held_out)
            shown = [view.render_profile(scores)]
            plain = {"schema": "optbench-profile/1", "scores": scores}
        else:
            naming = naming_of(pattern=pattern, names=names, failed=failed, decimal=decimal)
            runs = tables.read_runs(table, metric=metric, maximise=maximise, naming=naming)
            alone = unpaired or target is not None or loss_per_step is not None
            if alone or (unpaired is None and runs.independent):
                from optbench.report.independent_terminal import render_independent

                groups = runs.compare_independent(
                    baseline=baseline,
                    alpha=alpha,
                    correction=correction,
                    target=target,
                    sd=sd,
                    loss_per_step=loss_per_step,
                )
                shown, plain = render_independent(groups), groups.to_dict()
            else:
                result = runs.compare(
                    baseline=baseline,
                    alpha=alpha,
                    correction=correction,
                    margin=margin,
                    examples=examples,
                    streams=streams.split(",") if streams else None,
                    rope=rope,
                )
                shown, plain = list(view.render_comparison(result)), result.to_dict()
        if as_json:
            import json

            print(json.dumps(plain, indent=2, allow_nan=False))
            return
        console = new_console()
        for part in shown:
            console.print(part)
