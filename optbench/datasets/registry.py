"""The datasets that a suite can name, and synthetic data in their shape for a dry run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np

from optbench.datasets import fetch, language_modelling, own
from optbench.datasets.base import DataError, Dataset, DatasetInfo, network
from optbench.datasets.bundled import BUNDLED_ENTRIES, BundledEntry
from optbench.datasets.download import Progress
from optbench.datasets.published import FILE_ENTRIES, FileEntry
from optbench.datasets.targets import TARGETS
from optbench.models.layers import multiplications
from optbench.trial import OwnData, Workload

#: Multiplications of an example from which on a dry run trains on a third of the examples.
LARGE = 30_000_000

Entry = FileEntry | BundledEntry

#: Registered datasets by name, bundled ones first.
ENTRIES: Mapping[str, Entry] = MappingProxyType(
    {entry.info.name: entry for entry in (*BUNDLED_ENTRIES, *FILE_ENTRIES)}
)


def info(dataset: str | OwnData) -> DatasetInfo:
    """Look up the facts of a dataset; ``KeyError`` where none of that name is registered."""
    return load(dataset).info if isinstance(dataset, OwnData) else ENTRIES[dataset].info


def label(dataset: str | OwnData) -> str:
    """Display name of a dataset."""
    return dataset.name if isinstance(dataset, OwnData) else dataset


def locate(
    name: str, *, data_dir: str | Path | None = None, progress: Progress | None = None
) -> fetch.Located | None:
    """Find the files of a registered dataset, or download them; None for those that need no file.

    Raises
    ------
    MissingDataError
        If they are nowhere and cannot be brought.
    """
    entry = ENTRIES[name]
    if isinstance(entry, BundledEntry):
        return None
    if (found := fetch.find(entry.source, data_dir)) is not None:
        return found
    if progress is not None:
        return fetch.obtain(name, entry.source, data_dir=data_dir, progress=progress)
    with fetch.progress_bar() as bar:
        return fetch.obtain(name, entry.source, data_dir=data_dir, progress=bar)


def is_present(dataset: str | OwnData, *, data_dir: str | Path | None = None) -> bool:
    """Whether a dataset can be read without a download and without running custom code."""
    if isinstance(dataset, OwnData):
        return dataset.kind != "class"
    entry = ENTRIES[dataset]
    return isinstance(entry, BundledEntry) or fetch.find(entry.source, data_dir) is not None


def verify(name: str, *, data_dir: str | Path | None = None) -> tuple[fetch.Check, ...]:
    """Hash the files of a dataset and read it once; nothing is downloaded.

    Returns
    -------
    tuple of Check
        One a file, empty for a bundled dataset.

    Raises
    ------
    DataError
        If files are missing or unreadable.
    """
    entry = ENTRIES[name]
    if isinstance(entry, BundledEntry):
        _frozen(entry.read(entry.info))
        return ()
    found = fetch.find(entry.source, data_dir)
    if found is None:
        searched = ", ".join(str(folder) for folder in fetch.data_folders(data_dir))
        raise DataError(f"dataset {name} is not here (searched {searched}); run: optbench data fetch {name}")
    checks = fetch.check_files(entry.source, found)
    if all(check.ok is not False for check in checks):
        _frozen(entry.read(entry.info, found.files, entry.source))
    return checks


@lru_cache(maxsize=4)
def load(dataset: str | OwnData, *, data_dir: str | Path | None = None) -> Dataset:
    """Read a dataset into memory, with targets checked against its facts; download it if need be.

    Its files are looked for in ``data_dir`` first, see :func:`optbench.datasets.fetch.data_folders`. The last
    four stay in memory. Their arrays are read-only, as every trial of a run shares them.

    Raises
    ------
    DataError
        If it is missing, altered, or not usable.
    """
    if isinstance(dataset, OwnData):
        return _frozen(own.load(dataset))
    entry = ENTRIES[dataset]
    if isinstance(entry, BundledEntry):
        return _frozen(entry.read(entry.info))
    found = locate(dataset, data_dir=data_dir)
    assert found is not None
    return _frozen(entry.read(entry.info, found.files, entry.source))


def of_workload(workload: Workload, *, data_dir: str | Path | None = None) -> Dataset:
    """Read the data that a workload trains on: :func:`synthetic` data for a dry run, else :func:`load`."""
    if not workload.smoke:
        return load(workload.dataset, data_dir=data_dir)
    made = synthetic(workload.dataset, context=workload.context)
    few = len(made.x_train) // 3
    if workload.context or multiplications(network(workload, made.info)) < LARGE or made.info.validation:
        return made
    info = replace(made.info, train=few)
    return replace(made, info=info, x_train=made.x_train[:few], y_train=made.y_train[:few])


@lru_cache(maxsize=8)
def synthetic(
    dataset: str | OwnData, *, train: int = 60, test: int = 30, context: int | None = None
) -> Dataset:
    """Make data of a dataset's shape and kind of targets for a dry run, without a download.

    Of a text, enough tokens for as many windows of ``context``.
    What is trained on it says nothing about the optimizer.
    """
    facts = info(dataset)
    generator = np.random.Generator(np.random.PCG64(0))
    longer = max(1, -(-(context or 1) // language_modelling.TOKENS_AN_EXAMPLE))
    parts = TARGETS[facts.targets].synthetic(facts, (train * longer, test * longer), generator)
    (x_train, y_train), (x_test, y_test) = parts
    validation = max(1, round(facts.validation / facts.train * len(x_train))) if facts.validation else 0
    return _frozen(
        Dataset(
            info=replace(facts, train=len(x_train), test=len(x_test), validation=validation),
            x_train=x_train,
            y_train=y_train,
            x_test=x_test,
            y_test=y_test,
        )
    )


def _frozen(dataset: Dataset) -> Dataset:
    for array in (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test):
        array.flags.writeable = False
    for targets in (dataset.y_train, dataset.y_test):
        problem = TARGETS[dataset.info.targets].problem(targets, dataset.info)
        if problem is not None:
            raise DataError(f"dataset {dataset.info.name}: {problem}: a file is altered; fetch it again")
    return dataset
