"""``optbench doctor``: what this machine has and lacks; whether a store holds what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from optbench.cli.common import DataDirOption, ResultsOption, errors, tell


def doctor(
    store: Annotated[
        Path | None, typer.Argument(help="A store, or its folder: verify it, not the machine.")
    ] = None,
    results: ResultsOption = Path("results"),
    data_dir: DataDirOption = None,
    full: Annotated[bool, typer.Option("--full", help="Import every framework and ask for devices.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Look at frameworks, devices, threads, data and disk, and say what to fix; or verify a store.

    Exit code 2 if a record, the plan or a fact in the store is not as it was written.
    """
    with errors():
        if store is not None:
            _verify(store, data_dir, as_json)
            return
        from optbench.environment import Context
        from optbench.verification import machine as look

        context = Context.from_environment(data_dir=data_dir)
        found = look.examine(results, full=full, context=context)
        if as_json:
            import json

            tell(json.dumps(found, indent=2))
            return
        for line in look.render(found):
            tell(line)


def _verify(store: Path, data_dir: Path | None, as_json: bool) -> None:
    from optbench.environment import Context
    from optbench.verification import stores

    found = stores.check_store(store, data_dir=Context.from_environment(data_dir=data_dir).data_dir)
    if as_json:
        import json

        misfits = [*found.integrity.misfits, *found.misscored]
        plain = {
            "store": str(found.path),
            "records": found.integrity.records,
            "without_digest": found.integrity.bare,
            "scores_computed_again": found.scored,
            "misfits": [{"trial": misfit.trial_id, "what": misfit.what} for misfit in misfits],
        }
        tell(json.dumps(plain, indent=2))
    else:
        for line in stores.render(found):
            tell(line)
    if not found.sound:
        raise typer.Exit(2)
