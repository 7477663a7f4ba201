"""Whether a store holds what was written, and whether its scores are those of its predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optbench.datasets import fetch, registry
from optbench.datasets.base import DataError, cut
from optbench.datasets.bundled import BundledEntry
from optbench.execution.classification import per_class
from optbench.records.integrity import Integrity, Misfit
from optbench.records.store import Store, StoredTrial
from optbench.suite.validation import parse
from optbench.trial import Seeds, Split

#: Difference of a score that is computed once more from the same predictions.
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class StoreCheck:
    """What was found of a store.

    Attributes
    ----------
    path : Path
        Its file.
    integrity : Integrity
        Digests, ids and ranges.
    scored : int
        Records whose scores were computed again from their predictions and the data's labels.
    misscored : tuple of Misfit
        Those whose scores are others.
    unknown : tuple of str
        Datasets whose labels are not here, so that nothing was computed for their records.
    """

    path: Path
    integrity: Integrity
    scored: int
    misscored: tuple[Misfit, ...]
    unknown: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing was found that is not as it was written."""
        return not self.integrity.misfits and not self.misscored


def check_store(path: Path, *, data_dir: Path | None = None) -> StoreCheck:
    """Verify a store; see :func:`optbench.records.integrity.verify`, and compute its scores again.

    Parameters
    ----------
    path : Path
        The store, or its folder.
    data_dir : Path, optional
        Folder in which data are looked for first; nothing is downloaded, and no code of a store is run.

    Raises
    ------
    StoreError
        If there is none, or a value in it cannot be read at all.
    """
    with Store(path) as store:
        found = store.verify()
        if any(misfit.field is not None for misfit in found.misfits):
            return StoreCheck(path=store.path, integrity=found, scored=0, misscored=(), unknown=())
        scored, misscored, unknown = 0, [], dict[str, None]()
        for trial in store.trials():
            predictions = store.predictions(trial.trial_id)
            if not predictions:
                continue
            labels = _labels_of(trial, data_dir)
            if labels is None:
                unknown[_dataset_name(trial)] = None
                continue
            scored += 1
            if (what := _misscored(trial, predictions, *labels)) is not None:
                misscored.append(Misfit(trial_id=trial.trial_id, what=what))
        return StoreCheck(
            path=store.path,
            integrity=found,
            scored=scored,
            misscored=tuple(misscored),
            unknown=tuple(unknown),
        )


def render(found: StoreCheck) -> Iterator[str]:
    """Lay out what :func:`check_store` found, line by line."""
    records, bare = found.integrity.records, found.integrity.bare
    yield f"{found.path}: {records} records, {records - bare} with a digest, {bare} without."
    for misfit in (*found.integrity.misfits, *found.misscored):
        yield f"Not as it was written: {misfit}."
    if found.integrity.bare:
        yield found.integrity.without_digest
    if found.scored:
        yield f"The scores of {found.scored} records were computed again from their predictions."
    if found.unknown:
        yield (
            f"Not computed again, as the labels are not here: those of {', '.join(found.unknown)} "
            "(`optbench data fetch NAME` brings a registered dataset)."
        )
    if found.sound:
        yield "All is as it was written, as far as that shows: only `optbench rerun TRIAL` proves a number."
    else:
        yield (
            "Restore the file from a copy, or `optbench run SUITE` again: it trains what does not fit once "
            "more, and writes plan and facts anew."
        )


def _dataset_name(trial: StoredTrial) -> str:
    dataset = trial.spec["workload"]["dataset"]
    return dataset if isinstance(dataset, str) else str(dataset.get("name"))


def _labels_of(trial: StoredTrial, data_dir: Path | None) -> tuple[NDArray[Any], int] | None:
    """True classes of a trial's test part, and how many classes there are; None where they are not here."""
    workload = trial.spec["workload"]
    if not isinstance(workload["dataset"], str) or workload.get("task", "classification") != "classification":
        return None
    split = parse(Split, dict(workload["split"]))
    seeds = Seeds(split=trial.spec["seeds"]["split"])
    return _labels(workload["dataset"], split, seeds, bool(workload.get("smoke")), data_dir)


@lru_cache(maxsize=256)
def _labels(
    name: str, split: Split, seeds: Seeds, smoke: bool, data_dir: Path | None
) -> tuple[NDArray[Any], int] | None:
    entry = registry.ENTRIES.get(name)
    if entry is None:
        return None
    here = smoke or isinstance(entry, BundledEntry) or fetch.find(entry.source, data_dir) is not None
    if not here:
        return None
    try:
        dataset = registry.made(name) if smoke else registry.load(name, data_dir=data_dir)
    except DataError:
        return None
    test = cut(dataset, split, seeds, train_eval=1).test
    return test.targets, len(dataset.info.classes)


def _misscored(
    trial: StoredTrial, predictions: dict[str, NDArray[Any]], truth: NDArray[Any], classes: int
) -> str | None:
    """Say which score is not that of the predictions."""
    for epoch, predicted in predictions.items():
        if len(predicted) != len(truth):
            return f"{len(predicted)} predictions of {len(truth)} test examples"
        labels = predicted.astype(np.int64)
        scores = {
            f"test_accuracy_{epoch}": float((labels == truth).mean()),
            f"test_f1_{epoch}": per_class(truth, labels, classes).macro_f1,
        }
        for name, value in scores.items():
            recorded = trial.metrics.get(name)
            if recorded is not None and abs(recorded - value) > ROUNDING:
                return f"{name} is {recorded:g}, and by its predictions {value:g}"
    return None
