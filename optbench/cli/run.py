"""``optbench run`` and ``plan``: train what a suite declares, and say before what it costs."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from optbench.cli import complete
from optbench.cli.common import (
    CRASHED,
    DataDirOption,
    ResultsOption,
    end_report,
    errors,
    importing,
    new_console,
    say,
    show_answer,
    show_report,
)
from optbench.errors import UserError

if TYPE_CHECKING:
    from optbench.environment import Context
    from optbench.execution.local import RunOutcome
    from optbench.report.answer import Answer
    from optbench.report.failures import Failures
    from optbench.suite.spec import PlannedTrial, Suite

SuiteArgument = Annotated[
    Path,
    typer.Argument(
        help="Suite file, or the name of one of `optbench list suites`.",
        show_default=False,
        autocompletion=complete.suites,
    ),
]
SmokeOption = Annotated[
    bool, typer.Option("--smoke", help="Dry run: synthetic data, 2 epochs, 2 seeds, a store of its own.")
]
SeedsOption = Annotated[
    str | None, typer.Option(help="Other seeds than the suite's: a count, or a list as in 0,3,7.")
]
BackendOption = Annotated[
    str | None,
    typer.Option(help="Another backend than the suite's.", autocompletion=complete.of(complete.BACKENDS)),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        help="auto, cpu, cuda (or gpu), mps or tpu instead of the suite's device; CUDA_VISIBLE_DEVICES=1 "
        "before the command chooses the second GPU.",
        autocompletion=complete.of(complete.DEVICES),
    ),
]


def run(
    suite: SuiteArgument,
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
    fresh: Annotated[bool, typer.Option("--fresh", help="Remove the store's trials and start over.")] = False,
    checkpoint_minutes: Annotated[
        float, typer.Option(min=0, help="Save a running trial this often; 0 saves none.")
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
    declaration: Annotated[
        Path | None,
        typer.Option(help="Published declaration (plan --freeze); a suite that says otherwise is refused."),
    ] = None,
    until_decided: Annotated[
        bool,
        typer.Option(
            "--until-decided",
            help="Run seeds up to one look of `analysis.sequential` after the other, until all is decided.",
        ),
    ] = False,
) -> None:
    """Train what the store of a suite lacks, then show the leaderboard.

    Interrupt it whenever you like: the same command goes on where it stopped. Exit code 4 if trials crashed,
    5 if a part of the report could not be made: the records are stored all the same.
    """
    with errors(suite):
        with importing():
            from optbench.cli.progress import RunView
            from optbench.environment import Context
            from optbench.execution import local, running
            from optbench.suite.load import load_suite

        context = Context.from_environment(threads=threads, data_dir=data_dir)
        loaded = _changed(load_suite(suite), seeds=seeds, backend=backend, device=device)
        _say_of_own_data(loaded)
        if smoke:
            loaded = local.smoke(loaded)
        chosen = _filter(loaded, only or [])
        if show_plan:
            _show_plan(loaded, chosen, context)
            return
        console, count = new_console(), _workers(workers)
        with _terminated_as_interrupted(), RunView(loaded, console) as view:
            view.meanwhile(_import_ahead, workers=count)
            outcome = running.run(
                loaded,
                results=results,
                only=chosen,
                fresh=fresh,
                observer=view,
                checkpoint_minutes=checkpoint_minutes,
                workers=count,
                time_limit=time_limit,
                ray={"address": ray_address, "cpus": cpus_per_trial, "gpus": gpus_per_trial}
                if executor == "ray"
                else None,
                log=log or (),
                threads=threads,
                data_dir=data_dir,
                declaration=declaration,
                until_decided=until_decided,
            )
        if timing:
            from optbench.execution.timing import time_suite

            time_suite(
                loaded,
                results=results,
                only=chosen,
                progress=lambda line: say(console, line),
                context=context,
            )
        _say_counts(outcome, console)
        failures, answer = _show_leaderboards(loaded, outcome.store, console, context)
        where = outcome.store.parent if smoke or results != Path("results") else suite
        say(console, f"Plots and tables: optbench report {where}")
        _end_run(outcome, failures, answer, console)


def _say_counts(outcome: RunOutcome, console: Any) -> None:
    for note in outcome.notes:
        say(console, note)
    missing = outcome.planned - outcome.completed - outcome.diverged - outcome.crashed
    say(
        console,
        f"{outcome.run} trials run, {outcome.planned} planned: {outcome.completed} completed, "
        f"{outcome.diverged} diverged, {outcome.crashed} crashed, {missing} not run.",
    )
    say(console, f"Store: {outcome.store}")


def _end_run(outcome: RunOutcome, failures: Failures, answer: Answer, console: Any) -> None:
    """Say how to go on where trials crashed, then the answer, and end with the exit code."""
    if outcome.crashed:
        say(
            console,
            f"{outcome.crashed} trials crashed; the same command tries them again, and "
            f"`optbench show TRIAL --store {outcome.store.parent}` prints a traceback.",
        )
    show_answer(answer, console)
    end_report(failures, outcome.store.parent, f"optbench report {outcome.store}")
    if outcome.crashed:
        raise typer.Exit(CRASHED)


def plan(
    suite: SuiteArgument,
    results: ResultsOption = Path("results"),
    seeds: SeedsOption = None,
    backend: BackendOption = None,
    device: DeviceOption = None,
    freeze: Annotated[
        Path | None,
        typer.Option(help="Write analysis, seeds and workloads to this file, to publish before the run."),
    ] = None,
) -> None:
    """Say what a suite can show and what it costs, before any compute is spent.

    Trials, blocks, hours, the smallest attainable p, the detectable effect, and the seeds needed.
    """
    with errors(suite):
        from optbench.cli.plan_table import render_plan
        from optbench.environment import Context
        from optbench.errors import UserError
        from optbench.execution import local
        from optbench.execution.choice import try_optimizers
        from optbench.execution.estimate import estimate
        from optbench.execution.prerequisites import missing
        from optbench.suite import declaration
        from optbench.suite.load import load_suite

        loaded = _changed(load_suite(suite), seeds=seeds, backend=backend, device=device)
        _say_of_own_data(loaded)
        context = Context.from_environment()
        lacking = missing(loaded, data_dir=context.data_dir)
        console = new_console()
        try:
            found = estimate(loaded, results=results, context=context)
        except UserError:  # no plan without a time, but what else is lacking
            for text in lacking:
                say(console, text)
            raise
        console.print(render_plan(loaded, found, lacking), highlight=False)
        try_optimizers(local.plan(loaded, context), context)  # what cannot train is an error, below the plan
        if freeze is not None:
            written = declaration.write(loaded, freeze)
            say(
                console,
                f"Declared on {written.declared}, SHA-256 {written.hash}: {freeze}. Publish the file or its "
                f"hash, then: optbench run {suite} --declaration {freeze}",
            )


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Have SIGTERM interrupt this process as Ctrl-C does."""

    def interrupt(number: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _changed(suite: Suite, *, seeds: str | None, backend: str | None, device: str | None) -> Suite:
    """Apply the options that change a suite."""
    from dataclasses import replace

    from optbench.suite import load

    changes: dict[str, Any] = {}
    if seeds is not None:
        try:
            numbers = [int(word) for word in seeds.split(",")]
        except ValueError:
            raise typer.BadParameter(
                f"--seeds: found {seeds!r}; give a count, or a list as in 0,3,7"
            ) from None
        changes["seeds"] = load.parse_seeds(numbers[0] if "," not in seeds else numbers, option="--seeds")
    if backend is not None:
        changes["backends"] = (load.known_choice("--backend", backend, load.BACKENDS),)
    if device is not None:
        changes["device"] = load.known_choice("--device", device, load.DEVICES)
    return replace(suite, **changes)


def _workers(found: str) -> Any:
    if found != "auto" and not (found.isascii() and found.isdigit() and int(found)):
        raise UserError(f"--workers: found {found!r}; give a whole number from 1, or auto")
    return found if found == "auto" else int(found)


def _filter(suite: Suite, only: list[str]) -> Any:
    from optbench.suite import load

    wanted: dict[str, set[str]] = {}
    known = {"workload": [entry.label for entry in suite.workloads], "optimizer": list(suite.optimizers)}
    for option in only:
        kind, _, names = option.partition("=")
        load.known_choice("--only", kind, known)
        wanted[kind] = {load.known_choice(f"--only {kind}", name, known[kind]) for name in names.split(",")}
    if not wanted:
        return None

    def chosen(trial: PlannedTrial) -> bool:
        return all(getattr(trial, kind) in names for kind, names in wanted.items())

    return chosen


def _say_of_own_data(suite: Suite) -> None:
    """Say what was left out of custom tables, and which columns to look at."""
    from optbench.datasets import own_table
    from optbench.trial import OwnData

    found = {w.workload.dataset: None for w in suite.workloads if isinstance(w.workload.dataset, OwnData)}
    for dataset in found:
        if dataset.kind == "csv":
            for note in own_table.read(dataset).notes:
                say(new_console(), f"Data: {note}")


def _show_plan(suite: Suite, chosen: Any, context: Context) -> None:
    from rich.markup import escape
    from rich.table import Table

    from optbench.cli.plan_table import budget
    from optbench.execution import local
    from optbench.execution.choice import try_optimizers
    from optbench.execution.prerequisites import missing

    trials = [trial for trial in local.plan(suite, context) if chosen is None or chosen(trial)]
    table = Table("workload", "optimizer", "backend", "device", "epochs", "seeds", header_style="bold")
    groups: dict[tuple[str, ...], int] = {}
    for trial in trials:
        spec = trial.spec
        length = budget(spec.workload.epochs, spec.workload.steps)
        key: tuple[str, ...] = (trial.workload, trial.optimizer, spec.backend, spec.device, length)
        groups[key] = groups.get(key, 0) + 1
    for key, count in groups.items():
        table.add_row(*map(escape, key), str(count))
    console = new_console()
    console.print(table)
    if suite.tuning is not None:
        counts = [
            suite.tuning.trainings(entry.workload) for entry in suite.workloads for _ in entry.optimizers
        ]
        words = "as many as its seconds allow" if None in counts else f"{sum(n or 0 for n in counts)} trials"
        widening = (
            f"; up to {suite.tuning.widen} times more where a winner lies on an edge"
            if suite.tuning.widen
            else ""
        )
        say(console, f"Tuning first ({suite.tuning.sampler}): {words}{widening}.")
    say(console, f"{len(trials)} trials")
    for text in missing(suite, data_dir=context.data_dir):
        console.print(text, style="yellow", markup=False, highlight=False)
    try_optimizers(trials, context)


def _import_ahead() -> None:
    """Import the leaderboard's modules while other processes train, so that it appears at once at the end."""

    def work() -> None:
        from optbench import api  # noqa: F401
        from optbench.report import terminal  # noqa: F401

    threading.Thread(target=work, daemon=True).start()


def _show_leaderboards(suite: Suite, store: Path, console: Any, context: Context) -> tuple[Failures, Answer]:
    """Show the leaderboards of a store; a failure here is reported after the store's path."""
    from optbench.api import spec_for
    from optbench.records.frames import load_results
    from optbench.records.store import Store
    from optbench.report.answer import Answer
    from optbench.report.failures import Failures

    failures = Failures()
    results = failures.attempt("tables of the records", lambda: load_results(store))
    if results is None:
        return failures, Answer()
    with Store(store) as opened:
        spec = spec_for(suite, opened)
    report = show_report(spec, replace(results, data_dir=context.data_dir), console)
    return report.failures, report.answer
