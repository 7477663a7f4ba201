"""The command line: thin calls into the API. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import gc
from typing import Annotated

import typer

import optbench
from optbench.cli.common import flush_output
from optbench.cli.comparing import compare
from optbench.cli.data import data_app
from optbench.cli.doctor import doctor
from optbench.cli.importing import import_
from optbench.cli.look import list_, show
from optbench.cli.new import new_app
from optbench.cli.results import report, watch
from optbench.cli.run import plan, run
from optbench.cli.schema import schema
from optbench.cli.stores import export, merge, rerun, sign
from optbench.cli.verify import verify

#: What the program says without a command.
BEGIN = """optbench: is this optimizer better than that one, by how much, how sure are we, and at what cost?

To begin with:
  optbench run quick                       a first comparison, about two minutes, nothing to download
  optbench new optimizer my_opt.py         an optimizer of your own, and a suite that compares it
  optbench compare results.csv             the statistics alone, on any table of results

optbench --help lists every command."""

app = typer.Typer(
    name="optbench",
    help="Is this optimizer better than that one, by how much, how sure are we, and at what cost?",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: optbench run quick",
)


def main() -> None:
    """Run the command line."""
    gc.freeze()  # what is imported stays, so the collector need not look at it
    try:
        app(prog_name="optbench")
    finally:
        flush_output()
        gc.freeze()  # nor at all that is left at the end: a third of a second after pandas


def _version(show: bool) -> None:
    if show:
        print(f"optbench {optbench.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(BEGIN)


_COMPARE, _LOOK, _EXTEND, _KEEP = "Compare", "Look", "Extend", "Housekeeping"
for _name, _command, _panel, _example in (
    ("run", run, _COMPARE, "optbench run suites/quick.yaml --workers auto --only optimizer=wame,adam"),
    ("plan", plan, _COMPARE, "optbench plan suites/quick.yaml"),
    ("report", report, _COMPARE, "optbench report suites/quick.yaml --format latex --format plots"),
    ("watch", watch, _COMPARE, "optbench watch suites/quick.yaml"),
    ("compare", compare, _COMPARE, "optbench compare table.csv --metric accuracy --baseline adam"),
    ("import", import_, _COMPARE, "optbench import table.csv --map accuracy=test_accuracy -o results/theirs"),
    ("list", list_, _LOOK, "optbench list datasets"),
    ("show", show, _LOOK, "optbench show 3f9a --plots; optbench show suites/digits_augmented.yaml --augment"),
    ("new", new_app, _EXTEND, ""),
    ("verify", verify, _EXTEND, "optbench verify wame --backend torch"),
    ("data", data_app, _EXTEND, ""),
    ("schema", schema, _EXTEND, "optbench schema > optbench.schema.json"),
    ("rerun", rerun, _KEEP, "optbench rerun 3f9a --results results"),
    ("merge", merge, _KEEP, "optbench merge laptop/quick desk/quick -o results/quick"),
    ("export", export, _KEEP, "optbench export results/quick --to parquet -o tables"),
    ("sign", sign, _KEEP, "optbench sign results/quick --key ~/.ssh/id_ed25519"),
    ("doctor", doctor, _KEEP, "optbench doctor --full"),
):
    if isinstance(_command, typer.Typer):
        app.add_typer(_command, name=_name, rich_help_panel=_panel)
    else:
        app.command(_name, epilog=f"Example: {_example}", rich_help_panel=_panel)(_command)
