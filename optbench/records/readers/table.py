"""A table of results: long (a row a trial, or a trial and epoch) or wide (datasets x methods), or refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from optbench.datasets.cells import Cells, TableError, at_line, is_count, is_unnamed, look_alike, read_cells
from optbench.datasets.numbers import DIVERGED, Locale, Numbers, is_gap, is_numeric
from optbench.records.readers import names, states
from optbench.records.readers.matrix import checked_matrix
from optbench.records.readers.naming import Naming
from optbench.records.readers.placed import with_facts
from optbench.suite.validation import shown
from optbench.task import known

if TYPE_CHECKING:
    import pandas as pd

FORMS = (
    "a long table has the columns dataset, optimizer, seed and one or more metrics (optional: status, "
    "reached, time, budget); a wide matrix has the dataset in its first column and one column of numbers per "
    "method"
)
_TRUE = {"true", "1", "1.0", "yes"}
_FALSE = {"false", "0", "0.0", "no", "", "nan"}
_TIMES = ("time", "budget")
#: In a column of a metric not a word that has a digit, as l1 has.
_MEANT_AS_NUMBER = re.compile(r"^\d|(?<![\w.])\d*[.,]\d")
_PLAIN = ("dataset", "optimizer", "seed", "model", "backend", "device", "reached", *_TIMES)


@dataclass(frozen=True, kw_only=True)
class ResultsTable:
    """A table as read.

    Attributes
    ----------
    frame : DataFrame
        Columns dataset, optimizer, seed (as text), the metrics and settings as numbers, and those of model,
        backend, device, status, reached, time, budget, epoch, step that the file has.
    form : {"long", "wide"}
    metrics : tuple of str
        Columns of numbers that say how a run came out, as the file names them.
    settings : tuple of str
        Columns of numbers that say how a run was made, such as lr.
    diverged : mapping of str to array of bool
        Rows whose metric was written as NaN or an infinity; a blank cell is a gap instead.
    explanation : str
        How the file was understood.
    notes : tuple of str
        What was decided, and what was left out.
    directions : mapping of str to str
        What is better, where the file itself says so.
    chosen : str
        Metric that is compared where none is asked for.
    """

    frame: pd.DataFrame
    form: Literal["long", "wide"]
    metrics: tuple[str, ...]
    explanation: str
    settings: tuple[str, ...] = ()
    diverged: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    directions: Mapping[str, str] = field(default_factory=dict)
    chosen: str = ""


def read_table(path: Path, naming: Naming | None = None, below: Path | None = None) -> ResultsTable:
    """Read a file of cells as a table of results; see :func:`optbench.records.tables.read_results`.

    Where --pattern says facts, its path below a folder is looked at.
    """
    naming = naming or Naming()
    cells = with_facts(read_cells(path, forms=FORMS), naming, below or path.parent)
    return table_of(cells, naming)


def table_of(cells: Cells, naming: Naming) -> ResultsTable:
    """Understand a table of text cells.

    Raises
    ------
    TableError
        Names the place, what was found, what is allowed and what to do.
    """
    notes = list(cells.notes)
    if cells.repeated:
        lines = ", ".join(map(str, cells.repeated[:5]))
        notes.append(f"line {lines} repeats the header, as where tables are appended, and is left out")
    naming.meet(cells.names)
    roles = _roles(cells, naming, notes)
    if "optimizer" in roles:
        return _long(cells, naming, roles, notes)
    return _wide(cells, naming, notes)


def _roles(cells: Cells, naming: Naming, notes: list[str]) -> dict[str, list[int]]:
    """Columns by role; several for the status only."""
    found: dict[str, list[int]] = {}
    asked: dict[str, list[tuple[int, int]]] = {}
    columns = {name: k for k, name in enumerate(cells.names)}
    for name, role in naming.names.items():
        if name in columns and role in names.ROLES:
            if role in found and role != "status":
                raise TableError(f"{cells.path}: --map: two columns are said to be the {role}; leave one out")
            found.setdefault(role, []).append(columns[name])
    for k, name in enumerate(cells.names):
        if name in naming.names:
            continue
        meant = names.role_of(name)
        if meant is None or meant[0] in found:
            continue
        role, rank = meant
        # An abbreviation may name a method of a matrix: then its column holds numbers.
        of_words = role in ("optimizer", "dataset", "status", "model") and rank >= 10
        flag = states.is_flag(name, cells.column(k)) if role == "status" else None
        if flag is False or (
            flag is None and of_words and is_numeric(cells.column(k)) and (role != "dataset" or k > 0)
        ):
            continue
        asked.setdefault(role, []).append((rank, k))
    for name, words in naming.failed.items():
        if not any(names.plain(name) == names.plain(c) for c in cells.names):
            listed = ", ".join(cells.names)
            raise TableError(f"{cells.path}: --failed: found the column {name!r}; the file has {listed}")
        k = next(k for k, c in enumerate(cells.names) if names.plain(c) == names.plain(name))
        if words is not None and k not in found.get("status", ()):
            asked.setdefault("status", []).append((0, k))
    for role, ranked in asked.items():
        ranked.sort()
        rank, k = ranked[0]
        if role == "status":
            found[role] = list(dict.fromkeys(k for _, k in ranked))
            continue
        for other_rank, other in ranked[1:]:
            same = cells.column(other) == cells.column(k)
            if other_rank // 10 != rank // 10 and not same:
                if role == "seed":
                    notes.append(f"column {cells.names[other]} names a seed too, and is left out")
                    found.setdefault("equal", []).append(other)
                continue
            if not same:
                raise TableError(
                    f"{cells.path}: line 1: the columns {cells.names[k]!r} and {cells.names[other]!r} both "
                    f"name the {role} and differ; leave one out with --map '{cells.names[other]}='"
                )
            notes.append(f"column {cells.names[other]} equals {cells.names[k]} and is left out")
            found.setdefault("equal", []).append(other)
        found[role] = [k]
        if rank >= 2 and role not in ("epoch", "step"):
            notes.append(f"column {cells.names[k]} is taken as the {role}")
    return found


def _long(cells: Cells, naming: Naming, roles: Mapping[str, list[int]], notes: list[str]) -> ResultsTable:
    import pandas as pd

    path = cells.path
    frame = pd.DataFrame(index=range(len(cells.rows)))
    used = {k for columns in roles.values() for k in columns}
    for role in ("dataset", "optimizer", "seed", "model"):
        if role in roles:
            frame[role] = pd.Series(_labels(cells, roles[role][0], role, notes), dtype=object)
    free = _free_columns(cells, naming, used, notes)
    reserved = {names.plain(cells.names[k]): k for k in free}
    timed = {"reached", "time"} <= set(reserved)
    special = {
        role: reserved[role]
        for role in ("reached", *_TIMES, "backend", "device")
        if role in reserved and (timed or role in ("backend", "device"))
    }
    for name, role in naming.names.items():
        if role in (*special, "reached", "backend", "device", *_TIMES) and name in cells.names:
            special[role] = cells.names.index(name)
    free = [k for k in free if k not in special.values()]
    numeric, texts = _numeric_columns(cells, free)
    axes = [k for role in ("epoch", "step") for k in roles.get(role, ())]
    clocks = [special[role] for role in _TIMES if role in special]
    locale = Locale(
        path,
        {cells.names[k]: cells.column(k) for k in (*numeric, *axes, *clocks)},
        cells.lines,
        point=naming.point,
    )
    columns = {k: locale.column(cells.names[k], cells.column(k), unit=unit_of(cells, k)) for k in numeric}
    status = _status(cells, roles.get("status", ()), naming, columns, notes)
    for k in (*numeric, *axes, *clocks):
        read = columns.get(k) or locale.column(cells.names[k], cells.column(k))
        role = next((r for r, found in roles.items() if k in found), cells.names[k])
        role = next((r for r, found in special.items() if found == k), role)
        frame[role] = read.values
    for role in ("backend", "device"):
        if role in special:
            frame[role] = pd.Series(cells.column(special[role]), dtype=object)
    if "reached" in special:
        frame["reached"] = _booleans(cells, special["reached"])
    if status is not None:
        frame["status"] = pd.Series(status, dtype=object)
    said = ["long table"]
    _complete(frame, cells, naming, said)
    named = {k: cells.names[k] for k in numeric}
    unsaid = {n for n in named.values() if naming.names.get(n, "") in ("", "lr")}
    settings = tuple(n for n in named.values() if n in unsaid and names.is_setting(n))
    metrics = tuple(n for n in named.values() if n not in settings)
    said[0] += f" with {len(frame)} {'rows' if axes else 'trials'}, metrics {', '.join(metrics) or 'none'}"
    left = [cells.names[k] for k in texts]
    if left:
        notes.append(f"columns of words are left out: {', '.join(left)}")
    notes.extend(locale.notes)
    _not_statistics(cells, frame)
    directions, chosen = _said_directions(cells, metrics), ""
    if {"solver_name", "idx_rep", "stop_val"} <= set(cells.names) and "objective_value" in metrics:
        directions["objective_value"], chosen = "lower", "objective_value"
        notes.append("a table of benchopt, which minimises objective_value")
    return ResultsTable(
        frame=frame,
        form="long",
        metrics=metrics,
        settings=settings,
        directions=directions,
        chosen=chosen,
        explanation="; ".join(said),
        diverged={cells.names[k]: column.diverged for k, column in columns.items()},
        notes=tuple(notes),
    )


def unit_of(cells: Cells, k: int) -> str:
    """Unit of a column: from a row of units, or a percent sign in brackets behind its name."""
    percent = re.search(r"[(\[]\s*(%|percent|pct)\s*[)\]]", cells.names[k], re.IGNORECASE)
    return cells.units.get(k, "%" if percent else "")


def _said_directions(cells: Cells, metrics: Sequence[str]) -> dict[str, str]:
    """What is better of metrics whose header says more than their name: a unit, an arrow."""
    found = {}
    for name in metrics:
        like, arrow = known(names.undecorated(name)), names.arrow_of(name)
        direction = like.direction if like is not None else None
        if arrow is not None and direction not in (None, arrow):
            raise TableError(
                f"{cells.path}: line 1, column {shown(name)}: its arrow and its name say opposites; "
                "give it another name"
            )
        if known(name) is None and (arrow or direction):
            found[name] = arrow or str(direction)
    return found


def _labels(cells: Cells, k: int, role: str, notes: list[str]) -> list[str]:
    """Labels as text, each row's own; which are alike but for case or space is said."""
    labels = cells.column(k)
    empty = [i for i, label in enumerate(labels) if not label]
    if empty and role != "model":
        raise TableError(
            f"{at_line(cells.path, cells.lines[empty[0]], cells.names[k])}: empty; every trial needs a "
            "dataset, an optimizer and a seed"
        )
    if role == "seed":
        labels = _seeds(labels, notes)
    look_alike(role, labels, notes)
    return labels


def _seeds(labels: list[str], notes: list[str]) -> list[str]:
    """Seeds that are whole numbers without the decimal point that a column of floats gives them."""
    if not all(re.fullmatch(r"\d+(\.0*)?", label) for label in labels):
        return labels
    pointed = next((label for label in labels if "." in label), None)
    if pointed is None:
        return labels
    if any("." not in label for label in labels):
        notes.append(f"seed: {pointed} is read as {pointed.partition('.')[0]}")
    return [label.partition(".")[0] for label in labels]


def _free_columns(cells: Cells, naming: Naming, used: set[int], notes: list[str]) -> list[int]:
    """Columns without a role, an index column and what the user leaves out taken away."""
    free = []
    for k, name in enumerate(cells.names):
        if k in used:
            continue
        if naming.names.get(name) == "" and name in naming.names:
            notes.append(f"column {name} is left out, as asked")
            continue
        column = cells.column(k)
        if _is_index(cells, k):
            notes.append(f"column {name or '(no name)'} is an index of the rows and is left out")
            continue
        if is_count(column) and known(name) is None and name not in naming.names:
            notes.append(f"column {name} counts the rows and is left out")
            continue
        free.append(k)
    return free


def _is_index(cells: Cells, k: int) -> bool:
    """Whether a column is an index by its name, or for want of one."""
    name, column = cells.names[k], cells.column(k)
    whole = all(re.fullmatch(r"\d+(\.0)?", cell) for cell in column)
    apart = len(set(column)) == len(column)
    return is_unnamed(name) or (names.is_index_name(name) and apart and (whole or not is_numeric(column)))


def _numeric_columns(cells: Cells, free: Sequence[int]) -> tuple[list[int], list[int]]:
    """Columns of numbers, and columns of words: a typo in a metric is an error, a label is not."""
    numeric: list[int] = []
    texts: list[int] = []
    for k in free:
        column = cells.column(k)
        text, kind = names.bare(cells.names[k])
        metric = known(text)
        meant = metric is not None and metric.direction is not None and kind != "setting"
        share = 1.0 if names.is_setting(cells.names[k]) else 0.01 if meant else 0.5
        if all(is_gap(cell) for cell in column):
            (numeric if meant else texts).append(k)
        elif is_numeric(column, share=share) or (meant and any(map(_MEANT_AS_NUMBER.search, column))):
            numeric.append(k)
        else:
            texts.append(k)
    return numeric, texts


def _status(
    cells: Cells,
    columns: Sequence[int],
    naming: Naming,
    metrics: Mapping[int, Numbers],
    notes: list[str],
) -> list[str] | None:
    """Status of each row: the worst that any column of states, or the word diverged, says."""
    worst = {"completed": 0, "diverged": 1, "crashed": 2}
    found = ["completed"] * len(cells.rows)
    for k in columns:
        words = cells.column(k)
        failed = naming.failures(cells.names[k])
        codes = states.only_codes(words)
        counted: dict[str, int] = {}
        blank = sum(not word for word in words)
        if 0 < blank < len(words):
            notes.append(f"{cells.names[k]}: {blank} rows say nothing, and count as finished")
        for i, word in enumerate(words):
            status = None if failed else states.flag(cells.names[k], word)
            if status is None and (codes or not states.is_code(word) or failed):
                status = states.state(word, failed)
            if status is None:
                raise TableError(
                    f"{at_line(cells.path, cells.lines[i], cells.names[k])}: status: found {shown(word)}; "
                    "allowed are completed, diverged, crashed and what trackers and schedulers write: say "
                    f"--failed {cells.names[k]}=WORD,WORD, or leave the column out with --map "
                    f"'{cells.names[k]}='"
                )
            if status == "crashed":
                word = f"{cells.names[k]} {word}" if states.flag(cells.names[k], word) else word
                counted[word] = counted.get(word, 0) + 1
            if worst[status] > worst[found[i]]:
                found[i] = status
        if counted:
            listed = ", ".join(f"{count} {word}" for word, count in counted.items())
            notes.append(f"{cells.names[k]}: {listed}: failures, missing from the comparison")
    said = np.zeros(len(cells.rows), dtype=bool)
    for k in metrics:
        said |= np.array([row[k].lower() == DIVERGED for row in cells.rows])
    for i in map(int, np.flatnonzero(said)):
        if found[i] == "completed":
            found[i] = "diverged"
    return found if columns or said.any() else None


def _booleans(cells: Cells, k: int) -> NDArray[np.bool_]:
    words = [cell.lower() for cell in cells.column(k)]
    for i, word in enumerate(words):
        if word not in _TRUE | _FALSE:
            raise TableError(
                f"{at_line(cells.path, cells.lines[i], cells.names[k])}: found {shown(word)}; allowed are "
                "true, false"
            )
    return np.array([word in _TRUE for word in words], dtype=bool)


def _complete(frame: pd.DataFrame, cells: Cells, naming: Naming, said: list[str]) -> None:
    """Dataset and seed of a table that has no such column."""
    path = cells.path
    if "dataset" not in frame:
        frame["dataset"] = naming.given.get("dataset", path.stem)
        said.append(f"no column dataset: all rows are the dataset {frame['dataset'].iloc[0]!r}")
    if "seed" not in frame:
        keys = [c for c in ("dataset", "model", "optimizer") if c in frame]
        axis = next((c for c in ("epoch", "step") if c in frame), None)
        if frame.duplicated([*keys, axis] if axis else keys).any():
            raise TableError(
                f"{path}: line 1: no column seed, but several rows per optimizer; add one, or say which it "
                "is with --map COLUMN=seed"
            )
        frame["seed"] = naming.given.get("seed", "0")
        said.append("no column seed: one trial per dataset and optimizer")


def _not_statistics(cells: Cells, frame: pd.DataFrame) -> None:
    """Refuse rows that are statistics over others: they are no trials."""
    for role in ("dataset", "optimizer", "seed"):
        for label in dict.fromkeys(frame[role]):
            if names.is_statistic(str(label), last=role == "seed"):
                i = int(np.flatnonzero((frame[role] == label).to_numpy())[0])
                raise TableError(
                    f"{cells.path}: line {cells.lines[i]}: {role}: found {shown(label)}, a statistic over "
                    "other rows and no trial; take such rows out"
                )


def _wide(cells: Cells, naming: Naming, notes: list[str]) -> ResultsTable:
    import pandas as pd

    path = cells.path
    keep = [k for k, name in enumerate(cells.names) if not (name in naming.names and not naming.names[name])]
    left = [cells.names[k] for k in range(len(cells.names)) if k not in keep]
    if left:
        notes.append(f"columns left out, as asked: {', '.join(left)}")
    index = [
        k
        for k in keep[1:]
        if is_unnamed(cells.names[k]) or (names.is_index_name(cells.names[k]) and is_count(cells.column(k)))
    ]
    notes += [
        f"column {cells.names[k] or '(no name)'} is an index of the rows and is left out" for k in index
    ]
    keep = [k for k in keep if k not in index]
    first, methods = checked_matrix(cells, keep, notes, FORMS)
    labels = cells.column(first)
    look_alike("dataset", labels, notes)
    locale = Locale(path, {cells.names[k]: cells.column(k) for k in methods}, cells.lines, point=naming.point)
    parts, diverged = [], []
    for k in methods:
        read = locale.column(cells.names[k], cells.column(k), unit=unit_of(cells, k))
        words = np.array([cell.lower() == DIVERGED for cell in cells.column(k)])
        diverged.append(read.diverged)
        parts.append(
            pd.DataFrame(
                {
                    "dataset": pd.Series(labels, dtype=object),
                    "optimizer": cells.names[k],
                    "seed": "0",
                    "value": read.values,
                    "status": np.where(words, "diverged", "completed"),
                }
            )
        )
    notes.extend(dict.fromkeys(locale.notes))
    listed = ", ".join(cells.names[k] for k in methods)
    return ResultsTable(
        frame=pd.concat(parts, ignore_index=True),
        form="wide",
        metrics=("value",),
        explanation=f"wide matrix of {len(labels)} datasets x {len(methods)} methods ({listed})",
        diverged={"value": np.concatenate(diverged)},
        notes=tuple(notes),
    )


def rows_of(frame: Any) -> list[dict[str, Any]]:
    """Rows of a frame as mappings."""
    return list(frame.to_dict(orient="records"))
