"""``optbench compare``: the statistics alone, on results from anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from optbench.cli.common import errors, new_console
from optbench.cli.reading import (
    DatasetOption,
    DecimalOption,
    FailedOption,
    FirstEpochOption,
    KindOption,
    LineOption,
    MapOption,
    ModelOption,
    OptimizerOption,
    PatternOption,
    PercentOption,
    SeedOption,
    naming_of,
)


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
    kind: KindOption = None,
    pattern: PatternOption = None,
    dataset: DatasetOption = "",
    model: ModelOption = "",
    optimizer: OptimizerOption = "",
    seed: SeedOption = "",
    names: MapOption = None,
    failed: FailedOption = None,
    decimal: DecimalOption = None,
    line: LineOption = None,
    first_epoch: FirstEpochOption = 1,
    percent: PercentOption = False,
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
            given = {"dataset": dataset, "model": model, "optimizer": optimizer, "seed": seed}
            naming = naming_of(
                kind=kind,
                pattern=pattern,
                names=names,
                failed=failed,
                decimal=decimal,
                line=line,
                given=given,
                first_epoch=first_epoch,
            )
            runs = tables.read_runs(table, metric=metric, maximise=maximise, percent=percent, naming=naming)
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
        told = "For a LaTeX table and a page: `optbench import TABLE -o STORE`, then `optbench report STORE`."
        console.print(told, style="dim", markup=False, highlight=False)
