"""The command line: thin calls into the API. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import gc
from typing import Annotated

import typer

import optbench
from optbench.cli.data import data_app
from optbench.cli.doctor import doctor
from optbench.cli.importing import import_
from optbench.cli.look import list_, show
from optbench.cli.new import new_app
from optbench.cli.results import compare, report, watch
from optbench.cli.run import plan, run
from optbench.cli.schema import schema
from optbench.cli.stores import export, merge, rerun
from optbench.cli.verify import verify

app = typer.Typer(
    name="optbench",
    help="Is this optimizer better than that one, by how much, how sure are we, and at what cost?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: optbench run suites/quick.yaml",
)


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


app.add_typer(data_app, name="data")
app.add_typer(new_app, name="new")
for _name, _command, _example in (
    ("schema", schema, "optbench schema > optbench.schema.json"),
    ("doctor", doctor, "optbench doctor --full"),
    ("rerun", rerun, "optbench rerun 3f9a --results results"),
    ("merge", merge, "optbench merge laptop/quick desk/quick -o results/quick"),
    ("export", export, "optbench export results/quick --to parquet -o tables"),
    ("import", import_, "optbench import table.csv --map accuracy=test_accuracy -o results/theirs"),
    ("run", run, "optbench run suites/quick.yaml --workers auto --only optimizer=wame,adam"),
    ("report", report, "optbench report suites/quick.yaml --format latex --format plots"),
    ("watch", watch, "optbench watch suites/quick.yaml"),
    ("plan", plan, "optbench plan suites/quick.yaml"),
    ("compare", compare, "optbench compare table.csv --metric accuracy --baseline adam"),
    ("verify", verify, "optbench verify wame --backend torch"),
    ("list", list_, "optbench list datasets"),
    ("show", show, "optbench show 3f9a --plots; optbench show suites/digits_augmented.yaml --augment"),
):
    app.command(_name, epilog=f"Example: {_example}")(_command)
