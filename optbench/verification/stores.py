"""Whether a store holds what was written, and whether its scores are those of its predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optbench.backends.base import Evaluation
from optbench.datasets import fetch, registry
from optbench.datasets.base import DataError, DatasetInfo, Part, cut
from optbench.datasets.bundled import BundledEntry
from optbench.execution import evaluation
from optbench.records.integrity import Integrity, Misfit
from optbench.records.signatures import Signature, signature
from optbench.records.store import Store, StoredTrial
from optbench.suite.validation import parse
from optbench.task import CLASSIFICATION
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
    signed : Signature or None
        The signature beside the store, if there is one.
    asked : bool
        Whether it must be of a key that was given.
    """

    path: Path
    integrity: Integrity
    scored: int
    misscored: tuple[Misfit, ...]
    unknown: tuple[str, ...]
    signed: Signature | None = None
    asked: bool = False

    @property
    def sound(self) -> bool:
        """Whether nothing was found that is not as it was written, nor a signature that does not fit."""
        forged = self.signed is not None and self.signed.checked and self.signed.key is None
        return not self.integrity.misfits and not self.misscored and not forged and not self.unsigned

    @property
    def unsigned(self) -> bool:
        """Whether a key was asked for that has not signed."""
        return self.asked and (self.signed is None or self.signed.signer is None)


def check_store(path: Path, *, data_dir: Path | None = None, signers: Path | None = None) -> StoreCheck:
    """Verify a store; see :func:`optbench.records.integrity.verify`, and compute its scores again.

    Parameters
    ----------
    path : Path
        The store, or its folder.
    data_dir : Path, optional
        Folder in which data are looked for first; nothing is downloaded, and no code of a store is run.
    signers : Path, optional
        Keys, one of which must have signed it; see :func:`optbench.records.signatures.signature`.

    Raises
    ------
    StoreError
        If there is none, or a value in it cannot be read at all.
    """
    with Store(path) as store:
        found, signed, asked = store.verify(), signature(store, signers), signers is not None
        if any(misfit.field is not None for misfit in found.misfits):
            return StoreCheck(
                path=store.path,
                integrity=found,
                scored=0,
                misscored=(),
                unknown=(),
                signed=signed,
                asked=asked,
            )
        scored, misscored, unknown = 0, [], dict[str, None]()
        for trial in store.trials():
            predictions = store.predictions(trial.trial_id)
            if not predictions:
                continue
            test = _test_part_of(trial, data_dir)
            if test is None:
                unknown[_dataset_name(trial)] = None
                continue
            scored += 1
            if (what := _misscored(trial, predictions, *test)) is not None:
                misscored.append(Misfit(trial_id=trial.trial_id, what=what))
        return StoreCheck(
            path=store.path,
            integrity=found,
            scored=scored,
            misscored=tuple(misscored),
            unknown=tuple(unknown),
            signed=signed,
            asked=asked,
        )


def render(check: StoreCheck) -> Iterator[str]:
    """Lay out what :func:`check_store` found, line by line."""
    records, bare = check.integrity.records, check.integrity.bare
    yield f"{check.path}: {records} records, {records - bare} with a digest, {bare} without."
    for misfit in (*check.integrity.misfits, *check.misscored):
        yield f"Not as it was written: {misfit}."
    if check.integrity.bare:
        yield check.integrity.without_digest
    if check.scored:
        yield f"The scores of {check.scored} records were computed again from their predictions."
    if check.unknown:
        yield (
            f"Not computed again, as the labels are not here: those of {', '.join(check.unknown)} "
            "(`optbench data fetch NAME` brings a registered dataset)."
        )
    if check.signed is not None:
        yield check.signed.sentence
    if check.unsigned:
        yield "No key of --signers has signed this store."
    if check.sound:
        yield "All is as it was written, as far as that shows: only `optbench rerun TRIAL` proves a number."
    elif check.integrity.misfits or check.misscored:
        yield (
            "Restore the file from a copy, or `optbench run SUITE` again: it trains what does not fit once "
            "more, and writes plan and facts anew."
        )


def _dataset_name(trial: StoredTrial) -> str:
    dataset = trial.spec["workload"]["dataset"]
    return dataset if isinstance(dataset, str) else str(dataset.get("name"))


def _test_part_of(trial: StoredTrial, data_dir: Path | None) -> tuple[Part, DatasetInfo] | None:
    """The test part of a classifier's trial; None where its data are not here."""
    workload = trial.spec["workload"]
    if not isinstance(workload["dataset"], str) or trial.task is not CLASSIFICATION:
        return None
    split = parse(Split, dict(workload["split"]))
    seeds = Seeds(split=trial.spec["seeds"]["split"])
    return _test_part(workload["dataset"], split, seeds, bool(workload.get("smoke")), data_dir)


@lru_cache(maxsize=256)
def _test_part(
    name: str, split: Split, seeds: Seeds, smoke: bool, data_dir: Path | None
) -> tuple[Part, DatasetInfo] | None:
    entry = registry.ENTRIES.get(name)
    if entry is None:
        return None
    here = smoke or isinstance(entry, BundledEntry) or fetch.find(entry.source, data_dir) is not None
    if not here:
        return None
    try:
        dataset = registry.synthetic(name) if smoke else registry.load(name, data_dir=data_dir)
    except DataError:
        return None
    return cut(dataset, split, seeds, train_eval=1).test, dataset.info


def _misscored(
    trial: StoredTrial, predictions: dict[str, NDArray[Any]], test: Part, info: DatasetInfo
) -> str | None:
    """Say which score is not that of the predictions."""
    for epoch, predicted in predictions.items():
        if len(predicted) != len(test):
            return f"{len(predicted)} predictions of {len(test)} test examples"
        found = Evaluation(loss=math.nan, predictions=predicted.astype(np.int64))
        names = CLASSIFICATION.metrics
        scores = evaluation.declared(CLASSIFICATION, found, test, info, names=names)
        for name in names:
            recorded = trial.metrics.get(f"test_{name}_{epoch}")
            if recorded is not None and abs(recorded - scores[name]) > ROUNDING:
                return f"test_{name}_{epoch} is {recorded:g}, and by its predictions {scores[name]:g}"
    return None
