"""``optbench data``: fetch, verify and find datasets."""

from __future__ import annotations

from typing import Annotated

import typer

from optbench.cli import complete
from optbench.cli.common import DATA_MISSING, DataDirOption, errors, fail, tell
from optbench.errors import UserError

data_app = typer.Typer(
    help="Datasets: fetch, verify, path.",
    no_args_is_help=True,
    epilog="Example: optbench data fetch fashion-mnist",
)
DatasetArgument = Annotated[
    str,
    typer.Argument(help="A dataset of `optbench list datasets`.", autocompletion=complete.datasets),
]
SmokeOption = Annotated[
    bool, typer.Option("--smoke", help="Dry run: synthetic data, 2 epochs, 2 seeds, a store of its own.")
]


@data_app.command(epilog="Example: optbench data fetch fashion-mnist")
def fetch(name: DatasetArgument, data_dir: DataDirOption = None) -> None:
    """Find a dataset's files, or download them from the official address, checked."""
    with errors():
        from optbench.datasets import registry

        located = registry.locate(_dataset(name), data_dir=data_dir)
        tell(located.folder if located else f"{name} comes with optbench: there is nothing to fetch.")


@data_app.command("verify", epilog="Example: optbench data verify mnist")
def verify_data(name: DatasetArgument, data_dir: DataDirOption = None) -> None:
    """Hash a dataset's files, compare with the published checksums, and read it once."""
    with errors():
        from optbench.datasets import registry

        checks = registry.verify(_dataset(name), data_dir=data_dir)
        for check in checks:
            word = {True: "ok", False: "ALTERED", None: "ok, no checksum is published"}[check.ok]
            tell(f"{check.path}  {check.bytes:,} bytes  sha256 {check.sha256}  {word}")
        if not checks:
            tell(f"{name} comes with optbench and reads well.")
        if any(check.ok is False for check in checks):
            fail(
                f"dataset {name}: altered files; take them away and run: optbench data fetch {name}",
                DATA_MISSING,
            )


@data_app.command(epilog="Example: optbench data path mnist")
def path(name: DatasetArgument, data_dir: DataDirOption = None) -> None:
    """Print the folder of a dataset's files; downloads nothing."""
    with errors():
        from optbench.datasets import fetch as files
        from optbench.datasets import registry

        entry = registry.ENTRIES[_dataset(name)]
        source = getattr(entry, "source", None)
        if source is None:
            tell(f"{name} comes with optbench.")
        elif (found := files.find(source, data_dir)) is not None:
            tell(found.folder)
        else:
            searched = ", ".join(map(str, files.data_folders(data_dir)))
            fail(
                f"dataset {name} is not here; searched {searched}; run: optbench data fetch {name}",
                DATA_MISSING,
            )


def _dataset(name: str) -> str:
    from optbench.datasets import registry
    from optbench.suite.load import known_choice
    from optbench.suite.references import plugins

    if name not in registry.ENTRIES and (reference := plugins("datasets").get(name)):
        raise UserError(
            f"dataset {name}: {reference} of an installed package reads it, not from optbench's files"
        )
    return known_choice("dataset", name, registry.ENTRIES)
