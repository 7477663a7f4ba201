"""``optbench doctor``: what this machine has, what is missing, what will be slow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from optbench.cli.common import DataDirOption, ResultsOption, errors


def doctor(
    results: ResultsOption = Path("results"),
    data_dir: DataDirOption = None,
    full: Annotated[bool, typer.Option("--full", help="Import every framework and ask for devices.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Look at frameworks, devices, threads, data and disk, and say what to mend."""
    with errors():
        from optbench.environment import Context
        from optbench.verification import machine as look

        context = Context.from_environment(data_dir=data_dir)
        found = look.examine(results, full=full, context=context)
        if as_json:
            import json

            print(json.dumps(found, indent=2))
            return
        for line in look.render(found):
            print(line)
