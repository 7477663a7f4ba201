"""What readers of tools' own files share: curves by step, facts by name, a run of both."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optbench.datasets.cells import TableError, decode, read_bytes
from optbench.datasets.numbers import Numbers
from optbench.records.readers import names
from optbench.records.readers.naming import LogError, Naming
from optbench.records.readers.runs import RunLog, by_epoch, run_log
from optbench.records.readers.tabled import sorted_out
from optbench.trial import Status

Curve = Sequence[tuple[float, float]]


def on_steps(curves: Mapping[str, Curve]) -> tuple[NDArray[np.float64], dict[str, Numbers]]:
    """Lay curves of (step, value) on their common steps; where a curve has no point is a gap."""
    steps = sorted({step for curve in curves.values() for step, _ in curve})
    place = {step: i for i, step in enumerate(steps)}
    columns = {}
    for name, curve in curves.items():
        values = np.full(len(steps), np.nan)
        lost = np.zeros(len(steps), dtype=bool)
        for step, value in curve:
            values[place[step]] = value
            lost[place[step]] = not math.isfinite(value)
        columns[name] = Numbers(values, lost)
    return np.array(steps, dtype=np.float64), columns


def check_steps(where: str, curves: Mapping[str, Curve]) -> None:
    """Refuse curves whose steps do not rise: two runs were written into one place."""
    for name, curve in curves.items():
        for (before, _), (after, _) in pairwise(curve):
            if after <= before:
                raise LogError(
                    f"{where}: step: found {after:g} after {before:g} of {name!r}; is it the log of two "
                    "runs? Split it, or give each run a place of its own"
                )


def facts_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Dataset, optimizer, seed and model among the settings of a run, by the names that say so.

    Examples
    --------
    >>> facts_of({"optimizer": {"name": "adam", "lr": 0.1}, "random_seed": 3, "epochs": 2})
    {'optimizer': 'adam', 'seed': '3'}
    """
    found: dict[str, tuple[int, str]] = {}
    for name, value in _flat(settings):
        role = names.role_of(name)
        if role is None and name.endswith((".name", "/name")):
            role = names.role_of(name[:-5])
        if role is None or role[0] not in ("dataset", "optimizer", "seed", "model"):
            continue
        if value is None or isinstance(value, list | dict) or str(value) == "":
            continue
        if role[0] not in found or role[1] < found[role[0]][0]:
            found[role[0]] = role[1], str(value)
    return {role: value for role, (_, value) in found.items()}


def _flat(settings: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def rate_of(settings: Mapping[str, Any]) -> float | None:
    """Learning rate among the settings of a run."""
    for name, value in _flat(settings):
        if names.bare(name.rpartition(".")[2])[0] in ("lr", "learning_rate"):
            try:
                return float(value)
            except (TypeError, ValueError):
                return None
    return None


def run_of(
    where: str,
    kind: str,
    naming: Naming,
    facts: Mapping[str, Any],
    columns: Mapping[str, Numbers],
    *,
    epochs: NDArray[np.float64] | None = None,
    steps: NDArray[np.float64] | None = None,
    status: Status = "completed",
    notes: Sequence[str] = (),
    directions: Mapping[str, str] | None = None,
    rate: float | None = None,
    as_numbered: bool = False,
) -> RunLog:
    """Make a run of columns under the names of the tool.

    Epochs that a tool counts from 0 begin at ``naming.first_epoch``, unless they are taken ``as_numbered``.
    """
    if epochs is not None and not as_numbered:
        finite = epochs[np.isfinite(epochs)]
        if finite.size and finite[0] == 0 and not (finite % 1).any():
            epochs = epochs + naming.first_epoch
    taken, ignored = sorted_out({name: naming.metric(name) for name in columns}, where)
    said = list(notes)
    used = {metric: columns[name] for metric, name in taken.items()}
    axis = None
    if used and (epochs is not None or steps is not None):
        axis, used = by_epoch(where, epochs, steps, used, said, first=naming.first_epoch)
    if rate is not None and "lr" not in used and used:
        length = len(axis) if axis is not None else 1
        used["lr"] = Numbers(np.full(length, rate), np.zeros(length, dtype=bool))
    return run_log(
        source=where,
        kind=kind,
        facts=facts,
        epochs=axis,
        columns=used,
        ignored=ignored,
        status=status,
        notes=said,
        directions=directions,
    )


def folder_facts(path: Path, below: Path) -> dict[str, str]:
    """Facts that a path spells out: ``optimizer=adam``, ``seed_3``.

    Examples
    --------
    >>> folder_facts(Path("a/optimizer=adam,seed=3/version_0/metrics.csv"), Path("a"))
    {'optimizer': 'adam', 'seed': '3'}
    """
    found: dict[str, str] = {}
    try:
        parts = path.relative_to(below).parts
    except ValueError:
        parts = path.parts
    for part in (below.name, *parts):
        for piece in part.replace(";", ",").replace("__", ",").split(","):
            name, sign, value = piece.partition("=")
            role = names.role_of(name) if sign else None
            if role is not None and role[0] in ("dataset", "optimizer", "seed", "model") and value:
                found[role[0]] = value
            elif (seed := names.seed_in(piece)) is not None:
                found["seed"] = seed
    return found


#: Files beside a log in which frameworks and people keep a run's settings.
SETTINGS = (
    "hparams.yaml",
    "hparams.yml",
    "config.yaml",
    "config.yml",
    "config.json",
    "args.json",
    "params.json",
)


def facts_beside(path: Path, below: Path) -> dict[str, str]:
    """Facts that a log's folder says: a file of settings in it, and its name."""
    found = folder_facts(path, below)
    for name in SETTINGS:
        file = path.parent / name
        if file != path and file.is_file():
            found |= facts_of(_settings(file))
    return found


def _settings(path: Path) -> dict[str, Any]:
    """Settings in YAML or JSON; none where the file holds anything else, such as objects of Python."""
    import yaml

    try:
        content = yaml.safe_load(decode(read_bytes(path), path)[0])
    except (yaml.YAMLError, TableError):
        return {}
    return content if isinstance(content, dict) else {}
