"""``optbench list`` and ``show``: what there is, and what a trial left."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from optbench.cli import complete
from optbench.cli.common import (
    DataDirOption,
    ResultsOption,
    StoreOption,
    TrustOption,
    asked_to_trust,
    errors,
    new_console,
    tell,
)


def list_(
    what: Annotated[
        str,
        typer.Argument(
            help="datasets, models, optimizers, suites or results.",
            autocompletion=complete.of(complete.LISTS),
            show_default=False,
        ),
    ] = "",
    results: ResultsOption = Path("results"),
) -> None:
    """List what a suite can name, the suites here, or the stores."""
    with errors():
        from rich.markup import escape
        from rich.table import Table

        from optbench.cli import listing
        from optbench.suite.load import known_choice

        if not what:
            commands = [f"optbench list {name}" for name in complete.LISTS]
            new_console().print("\n".join(commands), highlight=False)
            return
        # One of something is asked for in the singular.
        plural = what if what in complete.LISTS or f"{what}s" not in complete.LISTS else f"{what}s"
        columns, rows = listing.rows(known_choice("list", plural, complete.LISTS), results=results)
        table = Table(*columns, header_style="bold")
        for row in rows:
            table.add_row(*map(escape, row))
        new_console().print(table)


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
    epoch: Annotated[
        Literal["last", "best"] | None,
        typer.Option(
            help="With --plots: this epoch's model; by default the one that the leaderboard counts."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path(),
    data_dir: DataDirOption = None,
    trust: TrustOption = False,
) -> None:
    """Show everything recorded of a trial, what its model gets wrong, or a suite's augmented images."""
    with errors():
        from optbench import api
        from optbench.cli import listing
        from optbench.environment import Context

        context = Context.from_environment(data_dir=data_dir)
        if augment:
            for picture in listing.augmented_sample(api.load_suite(what), out, data_dir=context.data_dir):
                tell(picture)
            return
        stores = [store] if store else listing.stores(results)
        if not plots:
            tell(listing.show(what, stores=stores), end="")
            return
        from optbench.records.store import Store
        from optbench.report.trial_plots import write_trial_plots

        path, trial = listing.find(what, stores=stores)
        with Store(path) as opened:
            allowed = asked_to_trust(trial, Path(), trust=trust, data_only=not weights)
            written = write_trial_plots(
                opened, trial, out, epoch=epoch, weights=weights, context=context, trust=allowed
            )
        for line in (*written.sentences, *map(str, written.files)):
            tell(line)
