"""``optbench doctor``: what this machine has and lacks; whether a store holds what was written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from optbench.cli.common import DataDirOption, ResultsOption, errors, tell
from optbench.errors import UserError


def doctor(
    store: Annotated[
        Path | None, typer.Argument(help="A store, or its folder: verify it, not the machine.")
    ] = None,
    results: ResultsOption = Path("results"),
    data_dir: DataDirOption = None,
    full: Annotated[bool, typer.Option("--full", help="Import every framework and ask for devices.")] = False,
    signers: Annotated[
        Path | None,
        typer.Option(help="Keys, one of which must have signed the store; lines as in allowed_signers."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Look at frameworks, devices, threads, data and disk, and say what to fix; or verify a store.

    Exit code 2 if a record, the plan or a fact in the store is not as it was written, a signature does not
    fit, or no key of --signers has signed.
    """
    with errors():
        if store is not None:
            _verify(store, data_dir, as_json, signers)
            return
        if signers is not None:
            raise UserError("--signers: name a store, too: `optbench doctor STORE --signers FILE`")
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


def _verify(store: Path, data_dir: Path | None, as_json: bool, signers: Path | None) -> None:
    from optbench.environment import Context
    from optbench.verification import stores

    if signers is not None and not signers.is_file():
        raise UserError(f"--signers: no file {signers}")
    context = Context.from_environment(data_dir=data_dir)
    found = stores.check_store(store, data_dir=context.data_dir, signers=signers)
    if as_json:
        import json

        misfits = [*found.integrity.misfits, *found.misscored]
        plain = {
            "store": str(found.path),
            "records": found.integrity.records,
            "without_digest": found.integrity.bare,
            "scores_computed_again": found.scored,
            "signature": found.signed.sentence if found.signed else None,
            "signed_by": found.signed.key if found.signed else None,
            "signer": found.signed.signer if found.signed else None,
            "misfits": [{"trial": misfit.trial_id, "what": misfit.what} for misfit in misfits],
        }
        tell(json.dumps(plain, indent=2))
    else:
        for line in stores.render(found):
            tell(line)
    if not found.sound:
        raise typer.Exit(2)
