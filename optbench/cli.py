"""The command line: thin calls into the API. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

import optbench
from optbench.commands.common import DataDirOption, ResultsOption, StoreOption
from optbench.commands.common import console as _console
from optbench.commands.common import errors as _errors
from optbench.commands.common import fail as _fail
from optbench.commands.common import say as _say
from optbench.commands.common import use_data_dir as _use_data_dir
from optbench.commands.doctor import doctor
from optbench.commands.imports import import_
from optbench.commands.new import new_app
from optbench.commands.schema import schema
from optbench.commands.stores import export, merge, rerun
from optbench.errors import UserError

if TYPE_CHECKING:
    from optbench.suite import PlannedTrial, Suite

DATA_MISSING, CRASHED = 3, 4

app = typer.Typer(
    name="optbench",
    help="Is this optimizer better than that one, by how much, how sure are we, and at what cost?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: optbench run suites/quick.yaml",
)

data_app = typer.Typer(
    help="Datasets: fetch, verify, path.",
    no_args_is_help=True,
    epilog="Example: optbench data fetch fashion-mnist",
)
app.add_typer(data_app, name="data")
app.add_typer(new_app, name="new")
app.command(epilog="Example: optbench schema > optbench.schema.json")(schema)
app.command(epilog="Example: optbench doctor --full")(doctor)
app.command(epilog="Example: optbench rerun 3f9a --results results")(rerun)
app.command(epilog="Example: optbench merge laptop/quick desk/quick -o results/quick")(merge)
app.command(epilog="Example: optbench export results/quick --to parquet -o tables")(export)
app.command(
    "import", epilog="Example: optbench import table.csv --map accuracy=test_accuracy -o results/theirs"
)(import_)

DatasetArgument = Annotated[str, typer.Argument(help="A dataset of `optbench list datasets`.")]
SmokeOption = Annotated[
    bool, typer.Option("--smoke", help="Dry run: made data, 2 epochs, 2 seeds, a store of its own.")
]

SeedsOption = Annotated[
    str | None, typer.Option(help="Other seeds than the suite's: a count, or a list as in 0,3,7.")
]
BackendOption = Annotated[str | None, typer.Option(help="Another backend than the suite's.")]
DeviceOption = Annotated[
    str | None, typer.Option(help="auto, cpu, cuda, mps or tpu instead of the suite's device.")
]


def main() -> None:
    """Run the command line."""
    gc.freeze()  # what is imported stays, so the collector need not look at it, nor at the end
    app(prog_name="optbench")


def _version(show: bool) -> None:
    if show:
        print(f"optbench {optbench.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command(epilog="Example: optbench run suites/quick.yaml --workers auto --only optimizer=wame,adam")
def run(
    suite: Annotated[Path, typer.Argument(help="Suite file.", show_default=False)],
    results: ResultsOption = Path("results"),
    seeds: SeedsOption = None,
    backend: BackendOption = None,
    device: DeviceOption = None,
    threads: Annotated[
        int, typer.Option(min=1, envvar="OPTBENCH_THREADS", help="CPU threads of a trial; part of its bits.")
    ] = 1,
    data_dir: DataDirOption = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Run a part: workload=A,B or optimizer=A,B; give it twice for both."),
    ] = None,
    show_plan: Annotated[bool, typer.Option("--plan", help="Show the trials and stop.")] = False,
    smoke: SmokeOption = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget the store's trials and begin again.")
    ] = False,
    checkpoint_minutes: Annotated[
        float, typer.Option(min=0, help="Save a trial under way this often; 0 saves none.")
    ] = 5.0,
    workers: Annotated[
        str, typer.Option(help="Trials side by side: a number, or auto. Their times are not compared.")
    ] = "1",
    time_limit: Annotated[
        float | None, typer.Option(min=0, help="Seconds that a trial may take before it is stopped.")
    ] = None,
    executor: Annotated[
        Literal["local", "ray"], typer.Option(help="This machine, or the nodes of a Ray cluster.")
    ] = "local",
    ray_address: Annotated[
        str | None, typer.Option(help="Running cluster, as host:port; one on this machine if not given.")
    ] = None,
    cpus_per_trial: Annotated[float, typer.Option(min=0, help="Of a Ray node, while a trial runs.")] = 1,
    gpus_per_trial: Annotated[float, typer.Option(min=0, help="The same; 0.25 puts four on a GPU.")] = 0,
    timing: Annotated[
        bool, typer.Option("--time", help="Then time every optimizer alone on this machine, in turns.")
    ] = False,
    log: Annotated[
        list[str] | None,
        typer.Option(help="Also log new trials to tensorboard, mlflow or wandb (offline); repeatable."),
    ] = None,
) -> None:
    """Train what the store of a suite lacks, then show the leaderboard.

    Interrupt it whenever you like: the same command goes on where it stopped.
    """
    with _errors(suite):
        with _importing():
            from optbench import api
            from optbench.execution import local
            from optbench.report.terminal import RunView

        loaded = _changed(api.load_suite(suite), seeds=seeds, backend=backend, device=device)
        if smoke:
            loaded = local.smoke(loaded)
        chosen = _filter(loaded, only or [])
        if show_plan:
            _show_plan(loaded, chosen)
            return
        os.environ["OPTBENCH_THREADS"] = str(threads)
        _use_data_dir(data_dir)
        console = _console()
        signal.signal(signal.SIGTERM, _interrupt)
        with RunView(loaded, console) as view:
            outcome = api.run(
                loaded,
                results=results,
                only=chosen,
                fresh=fresh,
                observer=view,
                checkpoint_minutes=checkpoint_minutes,
                workers=_workers(workers),
                time_limit=time_limit,
                ray={"address": ray_address, "cpus": cpus_per_trial, "gpus": gpus_per_trial}
                if executor == "ray"
                else None,
                log=log or (),
            )
        if timing:
            from optbench.execution.timing import time_suite

            time_suite(loaded, results=results, only=chosen, progress=lambda line: _say(console, line))
        _show_leaderboards(loaded, outcome.store, console)
        missing = outcome.planned - outcome.completed - outcome.diverged - outcome.crashed
        _say(
            console,
            f"{outcome.run} trials run, {outcome.planned} planned: {outcome.completed} completed, "
            f"{outcome.diverged} diverged, {outcome.crashed} crashed, {missing} not run.",
        )
        _say(console, f"Store: {outcome.store}")
        where = outcome.store.parent if smoke or results != Path("results") else suite
        _say(console, f"Plots and tables: optbench report {where}")
        if outcome.crashed:
            _say(
                console,
                f"{outcome.crashed} trials crashed; the same command tries them again, and "
                f"`optbench show TRIAL --store {outcome.store.parent}` prints a traceback.",
            )
            raise typer.Exit(CRASHED)


@app.command(epilog="Example: optbench report suites/quick.yaml --format latex --format plots")
def report(
    suites: Annotated[
        list[Path], typer.Argument(help="Suite files, stores, or their folders; several are one analysis.")
    ],
    results: ResultsOption = Path("results"),
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files; beside the store if not given.")
    ] = None,
    format: Annotated[
        list[str] | None,
        typer.Option(
            help="terminal only shows; html, markdown, latex, csv, json, plots, parquet: once or more. "
            "All but parquet if not given."
        ),
    ] = None,
    baseline: Annotated[str | None, typer.Option(help="Compare with this optimizer.")] = None,
    primary: Annotated[str | None, typer.Option(help="Test this metric.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Level.")] = None,
    correction: Annotated[str | None, typer.Option(help="holm, bonferroni, bh or none.")] = None,
) -> None:
    """Show the leaderboard of some records, and write the page, tables, exports and plots."""
    with _errors():
        with _importing():
            from optbench import api
            from optbench.report.combine import with_analysis

        console = _console()
        suite, found, folder = api.gather_results(*suites, results=results)
        suite = with_analysis(suite, baseline=baseline, primary=primary, alpha=alpha, correction=correction)
        _show_report(suite, found, console)
        if format == ["terminal"]:
            return
        from optbench.report.build import DEFAULT_FORMATS, write_report

        formats = [name for name in format or DEFAULT_FORMATS if name != "terminal"]
        written = write_report(found, suite, out or folder / "report", formats=formats)
        _say(console, f"Wrote {len(written.files)} files: {written.index}")


@app.command(epilog="Example: optbench watch suites/quick.yaml")
def watch(
    suite: Annotated[Path, typer.Argument(help="Suite file, store, or the store's folder.")],
    results: ResultsOption = Path("results"),
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between looks.")] = 2.0,
) -> None:
    """Follow a run from another terminal until every planned trial has ended."""
    with _errors(suite):
        from optbench import api
        from optbench.report.watch import watch as follow

        loaded, store = api.find_store(suite, results=results)
        follow(store, metric=loaded.analysis.primary, console=_console(), every=every)


@app.command(epilog="Example: optbench plan suites/quick.yaml")
def plan(
    suite: Annotated[Path, typer.Argument(help="Suite file.", show_default=False)],
    results: ResultsOption = Path("results"),
    seeds: SeedsOption = None,
    backend: BackendOption = None,
    device: DeviceOption = None,
) -> None:
    """Say what a suite can show and what it costs, before any compute is spent.

    Trials, blocks, hours, the smallest attainable p, the detectable effect, and the seeds needed.
    """
    with _errors(suite):
        from optbench import api
        from optbench.execution.estimate import estimate
        from optbench.report.planning import render_plan

        loaded = _changed(api.load_suite(suite), seeds=seeds, backend=backend, device=device)
        _console().print(render_plan(loaded, estimate(loaded, results=results)), highlight=False)


@app.command(epilog="Example: optbench compare table.csv --metric accuracy --baseline adam")
def compare(
    table: Annotated[
        Path,
        typer.Argument(
            help="CSV: columns dataset, optimizer, seed and metrics; or a matrix of datasets x methods."
        ),
    ],
    metric: Annotated[str | None, typer.Option(help="Column to compare, where there are several.")] = None,
    maximise: Annotated[
        bool | None, typer.Option("--maximise/--minimise", help="Is larger better? By the name if not given.")
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
    as_json: Annotated[bool, typer.Option("--json", help="Print everything computed as JSON.")] = False,
) -> None:
    """Run the statistics alone on any table of results."""
    with _errors(table):
        from optbench import tables
        from optbench.report import comparison as view

        if predictions:
            models = tables.compare_predictions(table, baseline=baseline, correction=correction)
            shown: list[Any] = [view.render_predictions(models)]
            plain = tables.predictions_to_dict(models)
        else:
            result = tables.compare_file(
                table,
                metric=metric,
                maximise=maximise,
                baseline=baseline,
                alpha=alpha,
                correction=correction,
                margin=margin,
            )
            shown, plain = list(view.render_comparison(result)), result.to_dict()
        if as_json:
            import json

            print(json.dumps(plain, indent=2, allow_nan=False))
            return
        console = _console()
        for part in shown:
            console.print(part)


@app.command(epilog="Example: optbench verify wame --backend torch")
def verify(
    optimizer: Annotated[
        str | None,
        typer.Argument(help="A family, package.module:Class or my_opt.py:MyOpt; all families if not given."),
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="torch, tensorflow or jax; those installed if not given.")
    ] = None,
    parity: Annotated[
        bool, typer.Option("--parity", help="Train one trial in every backend and compare the loss curves.")
    ] = False,
) -> None:
    """Prove update rules against golden vectors, the references and each other.

    Exit code 1 if a check fails.
    """
    with _errors():
        console = _console()

        def say(line: str) -> None:
            console.print(line, style="dim", highlight=False, markup=False)

        if parity:
            from optbench.verification import parity as trained

            compared = trained.run(optimizer, backends=backend, progress=say)
            passed, shown = compared.passed, trained.render(compared)
        else:
            from optbench import verify as prove

            found = prove.run(optimizer, backends=backend, progress=say)
            passed, shown = found.passed, prove.render(found)
        console.print(shown)
        if not passed:
            raise typer.Exit(1)


@data_app.command(epilog="Example: optbench data fetch fashion-mnist")
def fetch(name: DatasetArgument, data_dir: DataDirOption = None) -> None:
    """Find a dataset's files, or download them from the official address, checked."""
    with _errors():
        from optbench.datasets import registry

        located = registry.locate(_dataset(name), data_dir=data_dir)
        print(located.folder if located else f"{name} comes with optbench: there is nothing to fetch.")


@data_app.command("verify", epilog="Example: optbench data verify mnist")
def verify_data(name: DatasetArgument, data_dir: DataDirOption = None) -> None:
    """Hash a dataset's files, compare with the published checksums, and read it once."""
    with _errors():
        from optbench.datasets import registry

        checks = registry.verify(_dataset(name), data_dir=data_dir)
        for check in checks:
            word = {True: "ok", False: "ALTERED", None: "ok, no checksum is published"}[check.ok]
            print(f"{check.path}  {check.bytes:,} bytes  sha256 {check.sha256}  {word}")
        if not checks:
            print(f"{name} comes with optbench and reads well.")
        if any(check.ok is False for check in checks):
            _fail(
                f"dataset {name}: altered files; take them away and run: optbench data fetch {name}",
                DATA_MISSING,
            )


@data_app.command(epilog="Example: optbench data path mnist")
def path(name: DatasetArgument, data_dir: DataDirOption = None) -> None:
    """Print the folder of a dataset's files; downloads nothing."""
    with _errors():
        from optbench.datasets import fetch as files
        from optbench.datasets import registry

        entry = registry.ENTRIES[_dataset(name)]
        source = getattr(entry, "source", None)
        if source is None:
            print(f"{name} comes with optbench.")
        elif (found := files.find(source, data_dir)) is not None:
            print(found.folder)
        else:
            searched = ", ".join(map(str, files.data_folders(data_dir)))
            _fail(
                f"dataset {name} is not here; searched {searched}; run: optbench data fetch {name}",
                DATA_MISSING,
            )


@app.command("list", epilog="Example: optbench list datasets")
def list_(
    what: Annotated[
        Literal["datasets", "models", "optimizers", "suites", "results"], typer.Argument(help="What to list.")
    ],
    results: ResultsOption = Path("results"),
) -> None:
    """List what a suite can name, the suites here, or the stores."""
    with _errors():
        from rich.markup import escape
        from rich.table import Table

        from optbench import listing

        columns, rows = listing.rows(what, results=results)
        table = Table(*columns, header_style="bold")
        for row in rows:
            table.add_row(*map(escape, row))
        _console().print(table)


@app.command(
    epilog="Example: optbench show 3f9a --plots; optbench show suites/digits_augmented.yaml --augment"
)
def show(
    what: Annotated[str, typer.Argument(help="Trial id or its first digits; with --augment a suite file.")],
    store: StoreOption = None,
    results: ResultsOption = Path("results"),
    augment: Annotated[
        bool, typer.Option("--augment", help="Draw a sample of a suite's augmented training images.")
    ] = False,
    plots: Annotated[
        bool, typer.Option("--plots", help="Say in words what the model gets wrong, and draw it.")
    ] = False,
    weights: Annotated[
        bool, typer.Option("--weights", help="With --plots: train again to draw weights and filters.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path(),
    data_dir: DataDirOption = None,
) -> None:
    """Show everything recorded of a trial, what its model gets wrong, or a suite's augmented images."""
    with _errors():
        from optbench import api, listing

        if augment:
            _use_data_dir(data_dir)
            for picture in listing.augmented_sample(api.load_suite(what), out):
                print(picture)
            return
        stores = [store] if store else listing.stores(results)
        if not plots:
            print(listing.show(what, stores=stores), end="")
            return
        from optbench.report.trial_plots import write_trial_plots
        from optbench.store import Store

        _use_data_dir(data_dir)
        path, trial = listing.find(what, stores=stores)
        with Store(path) as opened:
            written = write_trial_plots(opened, trial, out, weights=weights)
        for line in (*written.sentences, *map(str, written.files)):
            print(line)


@contextlib.contextmanager
def _importing() -> Iterator[None]:
    """Import without the collector, and keep what was imported out of its sight: a fifth of a start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _changed(suite: Suite, *, seeds: str | None, backend: str | None, device: str | None) -> Suite:
    """Apply the options that change a suite."""
    from dataclasses import replace

    from optbench import suite as schema

    changes: dict[str, Any] = {}
    if seeds is not None:
        try:
            numbers = [int(word) for word in seeds.split(",")]
        except ValueError:
            raise typer.BadParameter(
                f"--seeds: found {seeds!r}; give a count, or a list as in 0,3,7"
            ) from None
        changes["seeds"] = schema.parse_seeds(numbers[0] if "," not in seeds else numbers, option="--seeds")
    if backend is not None:
        changes["backends"] = (schema.known_choice("--backend", backend, schema.BACKENDS),)
    if device is not None:
        changes["device"] = schema.known_choice("--device", device, schema.DEVICES)
    return replace(suite, **changes)


def _workers(found: str) -> Any:
    if found != "auto" and not (found.isascii() and found.isdigit() and int(found)):
        raise UserError(f"--workers: found {found!r}; give a whole number from 1, or auto")
    return found if found == "auto" else int(found)


def _dataset(name: str) -> str:
    from optbench import suite as schema
    from optbench.datasets import registry
    from optbench.imports import plugins

    if name not in registry.ENTRIES and (reference := plugins("datasets").get(name)):
        raise UserError(
            f"dataset {name}: {reference} of an installed package reads it, not from files of ours"
        )
    return schema.known_choice("dataset", name, registry.ENTRIES)


def _filter(suite: Suite, only: list[str]) -> Any:
    from optbench import suite as schema

    wanted: dict[str, set[str]] = {}
    known = {"workload": [entry.label for entry in suite.workloads], "optimizer": list(suite.optimizers)}
    for option in only:
        kind, _, names = option.partition("=")
        schema.known_choice("--only", kind, known)
        wanted[kind] = {schema.known_choice(f"--only {kind}", name, known[kind]) for name in names.split(",")}
    if not wanted:
        return None

    def chosen(trial: PlannedTrial) -> bool:
        return all(getattr(trial, kind) in names for kind, names in wanted.items())

    return chosen


def _show_plan(suite: Suite, chosen: Any) -> None:
    from rich.table import Table

    from optbench.execution import local

    trials = [trial for trial in local.plan(suite) if chosen is None or chosen(trial)]
    table = Table("workload", "optimizer", "backend", "device", "epochs", "seeds", header_style="bold")
    groups: dict[tuple[str, ...], int] = {}
    for trial in trials:
        spec = trial.spec
        budget = (spec.backend, spec.device, str(spec.workload.epochs))
        key: tuple[str, ...] = (trial.workload, trial.optimizer, *budget)
        groups[key] = groups.get(key, 0) + 1
    for key, count in groups.items():
        table.add_row(*key, str(count))
    console = _console()
    console.print(table)
    if suite.tuning is not None:
        counts = [
            suite.tuning.trainings(entry.workload) for entry in suite.workloads for _ in entry.optimizers
        ]
        words = "as many as its seconds allow" if None in counts else f"{sum(n or 0 for n in counts)} trials"
        again = (
            f"; up to {suite.tuning.widen} times more where a winner lies on an edge"
            if suite.tuning.widen
            else ""
        )
        _say(console, f"Tuning first ({suite.tuning.sampler}): {words}{again}.")
    _say(console, f"{len(trials)} trials")


def _show_leaderboards(suite: Suite, store: Path, console: Any) -> None:
    from optbench.frames import load_results

    _show_report(suite, load_results(store), console)


def _show_report(suite: Suite, results: Any, console: Any) -> None:
    from optbench.report.analysis import analyse, main_tables
    from optbench.report.terminal import rich_table

    report = analyse(results, suite)
    for table in main_tables(report):
        console.print(rich_table(table, width=console.width))
    for text in report.warnings:
        console.print(text, style="yellow", markup=False)


if __name__ == "__main__":
    main()
