"""``optbench verify``: update rules against the references and each other."""

from __future__ import annotations

from typing import Annotated

import typer

from optbench.cli.common import errors, new_console


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
    with errors():
        console = new_console()

        def say(line: str) -> None:
            console.print(line, style="dim", highlight=False, markup=False)

        if parity:
            from optbench.environment import Context
            from optbench.verification import parity as trained

            context = Context.from_environment()
            compared = trained.run(optimizer, backends=backend, progress=say, context=context)
            passed, shown = compared.passed, trained.render(compared)
        else:
            from optbench.verification import verify as prove

            found = prove.run(optimizer, backends=backend, progress=say)
            passed, shown = found.passed, prove.render(found)
        console.print(shown)
        if not passed:
            raise typer.Exit(1)
