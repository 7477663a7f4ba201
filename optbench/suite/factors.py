"""Workload fields as factors: which workloads differ in one field alone, and so compare its settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from optbench.suite.entries import SuiteWorkload
from optbench.suite.report_spec import Factor
from optbench.suite.validation import listed, problem

#: Fields of a workload that change what is recorded of a training, or when it is given up.
ASIDE = ("per_class", "top_k", "metrics", "divergence")
#: Fields whose absence means that there is none of it; any other has a default.
OPTIONAL = (
    *("l1", "l2", "dropout", "batch_norm", "augment", "early_stopping", "schedule", "ema"),
    *("label_smoothing", "clip_norm", "clip_value", "weight_decay"),
)


def factors(workloads: Sequence[SuiteWorkload], fields: Sequence[str]) -> dict[str, tuple[Factor, ...]]:
    """Group workloads by everything but one field, for each of the fields.

    Parameters
    ----------
    workloads : sequence of SuiteWorkload
    fields : sequence of str
        As a suite names them: ``batch_size``, ``model``, ``model.l2``.

    Returns
    -------
    dict of str to tuple of Factor
        By the workload's label. A group is called by its first workload, and has at least two settings.

    Raises
    ------
    InvalidError
        If no two workloads differ in a field alone.
    """
    found: dict[str, list[Factor]] = {}
    for place, field in enumerate(fields):
        groups: dict[str, list[tuple[str, str]]] = {}
        for entry in workloads:
            plain = {key: value for key, value in entry.given.items() if key not in ASIDE}
            setting, rest = _without(plain, field.split("."))
            key = json.dumps(rest, sort_keys=True, default=str)
            groups.setdefault(key, []).append((entry.label, _shown(field, setting)))
        several = [members for members in groups.values() if len({setting for _, setting in members}) > 1]
        if not several:
            names = sorted({key for entry in workloads for key in entry.given})
            raise problem(
                ("analysis", "compare", place),
                f"found {field!r}; no two workloads differ in it alone. Fields here: {listed(names)}, and "
                "parts of a model as in model.dropout",
            )
        for members in several:
            for label, setting in members:
                factor = Factor(field=field, group=members[0][0], setting=setting)
                found.setdefault(label, []).append(factor)
    return {label: tuple(items) for label, items in found.items()}


def _without(plain: Mapping[str, Any], path: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """A value by its path, None where there is none, and everything else."""
    rest = dict(plain)
    if len(path) == 1:
        return rest.pop(path[0], None), rest
    inner = rest.get(path[0])
    inner = {"name": inner} if isinstance(inner, str) else inner
    if not isinstance(inner, Mapping):
        return None, rest
    value, rest[path[0]] = _without(inner, path[1:])
    return value, rest


def _shown(field: str, value: Any) -> str:
    name = field.rpartition(".")[2]
    if value is None:
        return f"no {name}" if name in OPTIONAL else f"default {name}"
    text = value if isinstance(value, str) else json.dumps(value, default=str).replace('"', "")
    return f"{name} {text}"
