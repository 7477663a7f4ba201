"""Ids of trial and block from a spec as a store keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic_core import from_json

from optbench.trial import canonical, content_hash, short_hash, without_labels

#: Marks in the text of a stored spec, whose keys are sorted: backend .. precision, seeds, workload.
_SEEDS, _WORKLOAD = ', "seeds": ', ', "workload": '


def ids_of(text: str) -> tuple[str, str]:
    """Compute the ids of a trial and of its block.

    Parameters
    ----------
    text : str
        The spec as JSON, as the store has it.

    Returns
    -------
    trial_id, block_id : str
        As :func:`optbench.trial.trial_id` and :func:`optbench.trial.block_id` make them of the spec, and the
        import of other tools' results of its own.

    Raises
    ------
    ValueError, TypeError, KeyError, AttributeError
        If the text is no spec.

    Notes
    -----
    The trials of a suite share most of their text, so parts of it are computed once. A text that cannot be
    cut where a written one can is read whole.
    """
    head, _, rest = text.partition(_SEEDS)
    seeds, _, workload = rest.partition(_WORKLOAD)
    try:
        with_optimizer, without, names = _head(head + "}")
        parts = f'"seeds":{_canonical(seeds)},"workload":{_workload(workload[:-1])}}}'
    except (ValueError, TypeError, KeyError, AttributeError):
        return _whole(json.loads(text))
    if names != {"backend", "device", "optimizer", "precision"} or workload[-1:] != "}":
        return _whole(json.loads(text))
    return short_hash(f"{with_optimizer},{parts}"), short_hash(f"{without},{parts}")


def imported_ids(spec: Mapping[str, Any]) -> tuple[str, str]:
    """Ids of an imported trial and of its block: its optimizer counts by its name alone."""
    block = {key: value for key, value in spec.items() if key not in ("optimizer", "imported")}
    named = {**block, "optimizer": spec["optimizer"]["optimizer"], "imported": True}
    return content_hash(named), content_hash({**block, "imported": True})


def _whole(spec: dict[str, Any]) -> tuple[str, str]:
    if "imported" in spec:
        return imported_ids(spec)
    spec["workload"] = without_labels(spec["workload"])
    block = {key: value for key, value in spec.items() if key != "optimizer"}
    return content_hash(spec), content_hash(block)


@lru_cache(maxsize=4096)
def _head(text: str) -> tuple[str, str, frozenset[str]]:
    """Canonical text of what stands before the seeds, open at its end: with the optimizer, and without it."""
    spec = json.loads(text)
    block = {key: value for key, value in spec.items() if key != "optimizer"}
    return canonical(spec)[:-1], canonical(block)[:-1], frozenset(spec)


@lru_cache(maxsize=4096)
def _canonical(text: str) -> str:
    return canonical(from_json(text))  # several times faster than json, and every trial has other seeds


@lru_cache(maxsize=256)
def _workload(text: str) -> str:
    return canonical(without_labels(json.loads(text)))
