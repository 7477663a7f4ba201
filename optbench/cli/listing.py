"""What there is: datasets, models, optimizers, suites, stores, and single trials."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

from optbench.records.store import FILE_NAME, Store, StoredTrial, StoreError
from optbench.suite.references import ImportProblem, Kind, identify, plugins
from optbench.suite.spec import Suite, SuiteError

Rows = tuple[Sequence[str], list[Sequence[str]]]


def rows(what: str, *, results: str | Path = "results") -> Rows:
    """List datasets, models, optimizers, suites or results: column names, and rows of text."""
    if what == "results":
        return _results(results)
    return {"datasets": _datasets, "models": _models, "optimizers": _optimizers, "suites": _suites}[what]()


def stores(results: str | Path) -> list[Path]:
    """Folders with a store under the results folder."""
    with contextlib.suppress(FileNotFoundError):
        os.stat(results)  # a search says nothing of a name that no folder can have, from Python 3.13 on
    return sorted(path.parent for path in Path(results).glob(f"*/{FILE_NAME}"))


def show(prefix: str, *, stores: Iterable[Path]) -> str:
    """A trial as a suite file, what was recorded beside it as comments; see :func:`find`.

    First come, as comments, what of the record is not as it was written, or that it carries no digest.
    """
    from optbench.records.single import write

    path, trial = find(prefix, stores=stores)
    with Store(path) as store:
        found = store.verify([trial.trial_id])
        labels = {key: (workload, optimizer) for key, workload, optimizer in store.plan()}
    workload, optimizer = labels.get(trial.trial_id, ("", ""))
    notes = "".join(f"# {sentence}\n" for sentence in found.sentences)
    return notes + write(trial, store=path, workload=workload, optimizer=optimizer)


def find(prefix: str, *, stores: Iterable[Path]) -> tuple[Path, StoredTrial]:
    """Find a trial and its store.

    Parameters
    ----------
    prefix : str
        The trial's id, or its first digits.
    stores : iterable of Path
        Where to look.

    Raises
    ------
    StoreError
        If no trial or more than one fits.
    """
    looked = list(stores)
    found: list[tuple[Path, StoredTrial]] = []
    for path in looked:
        with Store(path) as store:
            ids = [key for key in store.statuses() if key.startswith(prefix)]
            found += [(path, trial) for trial in store.trials(ids)]
    if len(found) != 1:
        where = ", ".join(str(path) for path in looked) or "no store"
        if found and len({trial.trial_id for _, trial in found}) == 1:
            holding = ", ".join(str(path) for path, _ in found)
            raise StoreError(
                f"trial {found[0][1].trial_id} is in {len(found)} stores: {holding}; name one with --store"
            )
        begin = f"{len(found)} trials begin so" if found else "no trial begins so"
        raise StoreError(
            f"trial {prefix!r}: {begin}; "
            f"looked in {where}; name one store with --store, and as many digits as it takes"
        )
    return found[0]


def augmented_sample(suite: Suite, out: Path, *, data_dir: Path | None = None) -> list[Path]:
    """Draw augmented training images of every workload that declares augmentation, as PNG files.

    Parameters
    ----------
    suite : Suite
        The suite; the first seed decides.
    out : Path
        Folder of the pictures. A row is an image, its first column as stored, the others one epoch each.
    data_dir : Path, optional
        Folder in which the data are looked for first.

    Raises
    ------
    SuiteError
        If no workload augments.
    DataError
        If the data are missing.
    """
    from optbench.datasets import augmentation, registry
    from optbench.datasets.base import cut
    from optbench.report.build import file_name

    written: dict[Any, Path] = {}
    for entry in suite.workloads:
        workload, seeds = entry.workload, suite.seeds[0]
        key = (workload.dataset, workload.split, workload.augment)
        if workload.augment is None or key in written:
            continue
        data = cut(registry.load(workload.dataset, data_dir=data_dir), workload.split, seeds, train_eval=1)
        out.mkdir(parents=True, exist_ok=True)
        written[key] = out / f"augmented_{file_name(entry.label)}.png"
        picture = augmentation.sample(data.train, workload.augment, seed=seeds.augment)
        augmentation.save_sample(written[key], picture)
    if not written:
        raise SuiteError(f"{suite.path or suite.name}: no workload has `augment`; there is nothing to show")
    return list(written.values())


def _offered(kind: Kind, known: Iterable[str], blank: int) -> list[Sequence[str]]:
    """List what installed packages offer, without running it: name, reference, blank columns, package."""
    found: list[Sequence[str]] = []
    for name, reference in plugins(kind).items():
        try:
            package = identify(reference, Path())
        except ImportProblem as error:
            package = f"not usable: {error}"
        if name in known:
            package += f"; not used, as {name!r} is optbench's own"
        found.append((name, reference, *[""] * blank, package))
    return found


def _datasets() -> Rows:
    from optbench.datasets.registry import ENTRIES

    columns = ("name", "title", "shape", "classes", "train", "test", "licence or package")
    facts = [entry.info for entry in ENTRIES.values()]
    rows = [
        (
            i.name,
            i.title,
            "x".join(map(str, i.shape)),
            str(len(i.classes)),
            f"{i.train:,}",
            f"{i.test:,}",
            i.licence,
        )
        for i in facts
    ]
    return columns, [*rows, *_offered("datasets", ENTRIES, 4)]


def _models() -> Rows:
    from optbench.models.zoo import ZOO

    rows = [
        (
            name,
            ", ".join(f"{p.name}={_default(p.default)}" for p in signature(make).parameters.values()),
            (make.__doc__ or "").strip().splitlines()[0],
        )
        for name, make in ZOO.items()
    ]
    return ("name", "parameters and defaults", "what, or package"), [*rows, *_offered("models", ZOO, 0)]


def _optimizers() -> Rows:
    from optbench.optimizers import FAMILIES
    from optbench.optimizers.library import LIBRARY, place

    rows = [
        (
            family.name,
            ", ".join(
                f"{f.name}={_default(f.default)}" for f in fields(family.config) if f.name != "optimizer"
            ),
            ", ".join(
                f"{name} {space.low:g}..{space.high:g}{' log' if space.log else ''}"
                for name, space in family.space.items()
            ),
        )
        for family in FAMILIES.values()
    ]
    columns = ("name", "hyperparameters and defaults", "search space, or package")
    named = [
        (name, "by name, from a library", "; ".join(place(b, ref) for b, ref in entry.places().items()))
        for name, entry in LIBRARY.items()
    ]
    return columns, [*rows, *named, *_offered("optimizers", (*FAMILIES, *LIBRARY), 0)]


def _suites() -> Rows:
    from optbench.suite.load import load_suite
    from optbench.suite.shipped import shipped_suites

    here, packaged = Path("suites"), shipped_suites()
    paths = {path: str(path) for path in sorted(here.glob("*.yaml"))}
    if packaged is not None and packaged.resolve() != here.resolve():
        paths |= {path: path.stem for path in sorted(packaged.glob("*.yaml"))}
    found = []
    for path, name in paths.items():
        try:
            suite = load_suite(path)
        except SuiteError as error:
            found.append((name, "not usable", str(error)))
            continue
        count = len(suite.seeds) * len(suite.backends) * sum(len(w.optimizers) for w in suite.workloads)
        found.append((name, f"{count:,}", suite.title))
    return ("name for `optbench run`", "trials", "title"), list(found)


def _results(results: str | Path) -> Rows:
    found = []
    for path in stores(results):
        with Store(path) as store:
            statuses = list(store.statuses().values())
            counts = [str(statuses.count(s)) for s in ("completed", "diverged", "crashed")]
            found.append((str(path), *counts, store.meta().get("title", "")))
    return ("store", "completed", "diverged", "crashed", "title"), list(found)


def _default(value: Any) -> str:
    name = getattr(value, "name", None)
    return str(name if name is not None else value)
