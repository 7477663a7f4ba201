"""Facts that a table has from its name, from the names of its runs, or from options: columns of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from optbench.datasets.cells import Cells, TableError, at_line
from optbench.records.readers import names
from optbench.records.readers.naming import LogError, Naming
from optbench.suite.validation import shown

#: Columns in which trackers and people keep the name of a run, the plainest first.
_RUN_NAMES = (
    "run_name",
    "runname",
    "tags_mlflow_runname",
    "run",
    "name",
    "trial_name",
    "exp_name",
    "experiment_name",
    "experiment",
    "run_id",
    "id",
)


def with_facts(cells: Cells, naming: Naming, below: Path) -> Cells:
    """Add a column for each fact that --pattern or an option says and the table does not.

    The pattern is matched with the names of the runs, if a column has them, and else with the table's path.

    Raises
    ------
    TableError
        If the pattern fits neither, and no column names the optimizer.
    """
    found, note = _by_pattern(cells, naming, below)
    has = {role[0] for name in cells.names if (role := names.role_of(name)) is not None}
    has |= {role for name, role in naming.names.items() if name in cells.names}
    for name in ("model", "optimizer"):
        if name not in found and name not in has and naming.given.get(name):
            found[name] = [naming.given[name]] * len(cells.rows)
    note += tuple(
        f"--{name} {naming.given[name]} is not needed: the table says it"
        for name in ("model", "optimizer", "seed")
        if name in has and naming.given.get(name)
    )
    if not found:
        return replace(cells, notes=(*cells.notes, *note))
    kept = [k for k, name in enumerate(cells.names) if name not in found and name.casefold() not in found]
    return replace(
        cells,
        names=(*found, *(cells.names[k] for k in kept)),
        rows=[
            [*(column[i] for column in found.values()), *(row[k] for k in kept)]
            for i, row in enumerate(cells.rows)
        ],
        units={kept.index(k) + len(found): unit for k, unit in cells.units.items() if k in kept},
        notes=(*cells.notes, *note),
    )


def _by_pattern(cells: Cells, naming: Naming, below: Path) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Columns of facts by name, and what to say of them."""
    if naming.pattern is None:
        return {}, ()
    by_name = {names.plain(name): k for k, name in enumerate(cells.names)}
    candidates = [by_name[name] for name in _RUN_NAMES if name in by_name]
    for k in candidates:
        rows = [naming.fits(cell) for cell in cells.column(k)]
        whole = [row for row in rows if row is not None]
        if whole and len(whole) == len(rows):
            said = ", ".join(whole[0])
            note = f"{said}: as --pattern finds them in column {cells.names[k]}"
            return {name: [row[name] for row in whole] for name in whole[0]}, (note,)
        if whole:
            i = rows.index(None)
            raise TableError(
                f"{at_line(cells.path, cells.lines[i], cells.names[k])}: found {shown(cells.rows[i][k])}, "
                f"which does not fit --pattern {naming.pattern!r}; other rows do"
            )
    try:
        facts = naming.matched(cells.path, below)
    except LogError as error:
        if any((role := names.role_of(name)) and role[0] == "optimizer" for name in cells.names):
            return {}, (f"--pattern {naming.pattern!r} does not fit its path: its columns are taken",)
        looked = "".join(f", nor with column {cells.names[k]}" for k in candidates[:1])
        raise TableError(f"{error}{looked}") from None
    return {name: [value] * len(cells.rows) for name, value in facts.items()}, ()
