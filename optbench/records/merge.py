"""Several stores of one suite as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from optbench.records import declarations, step_times
from optbench.records.integrity import NAMED, Misfit
from optbench.records.store import FILE_NAME, Store, StoredTrial, StoreError, new_store
from optbench.task import is_time
from optbench.tuning import journal


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What was written: trials in all, how many several stores had, and sentences about conflicts.

    ``left_out`` counts records that are not as they were written, and that no other store has.
    """

    store: Path
    trials: int
    shared: int
    conflicts: tuple[str, ...]
    left_out: int = 0


def merge(stores: Sequence[Path], out: Path) -> Merged:
    """Write the trials of several stores of one suite into a new one; the stores themselves stay as they are.

    Parameters
    ----------
    stores : sequence of Path
        Store files or their folders. Of a trial that several have, one with an outcome wins over a crash,
        and else the first named. A record that is not as it was written is taken from another, or left out.
    out : Path
        Folder of the new store; there must be none yet.

    Returns
    -------
    Merged

    Raises
    ------
    StoreError
        If a store is missing, they are of different suites, there is one at ``out``, or what lies beside the
        records of one is not as it was written.
    """
    target = (out if out.suffix == ".sqlite" else out / FILE_NAME).absolute()
    if target.exists():
        raise StoreError(f"{target}: a store is there already; give another folder with -o")
    if len(stores) < 2:
        raise StoreError("merge: name at least two stores")
    conflicts: list[str] = []
    bare: list[str] = []
    unfit: dict[str, str] = {}
    shared = 0
    with new_store(target) as merged:
        for number, path in enumerate(stores):
            with Store(path) as store:
                if not number:
                    first, meta = store.path, store.meta()
                here = store.meta()
                if (here.get("suite"), here.get("hash")) != (meta.get("suite"), meta.get("hash")):
                    raise StoreError(
                        f"{store.path}: of suite {here.get('suite')!r} ({here.get('hash')}), but {first} "
                        f"of {meta.get('suite')!r} ({meta.get('hash')}); `optbench report A B` analyses "
                        "stores of several suites together"
                    )
                found = store.verify()
                if found.parts:
                    raise store.damaged("; ".join(misfit.what for misfit in found.parts[:NAMED]))
                if found.bare:
                    bare.append(f"{store.path}: {found.without_digest}")
                known = merged.statuses()
                wanted = []
                sizes = len(known), len(store.statuses())
                for key, status in store.statuses().items():
                    shared += key in known
                    if (misfit := found.unfit.get(key)) is not None:
                        conflicts += _unfit(merged, store, misfit) if key in known else []
                        unfit.setdefault(key, f"{store.path}: {misfit}")
                    elif key not in known or (known[key] == "crashed" and status != "crashed"):
                        wanted.append(key)
                    elif status != "crashed":
                        conflicts += _differ(merged, store, key)
                merged.copy_trials(store, wanted)
                conflicts += _join_plans(merged, store)
                both = declarations.joined(merged.meta(), here, sizes) if number else {}
                merged.set_meta(**{**_newer(merged.meta(), here), **both})
        have = merged.statuses()
    lost = [f"{words}: left out" for key, words in unfit.items() if key not in have]
    conflicts += [f"{words}: taken from another store" for key, words in unfit.items() if key in have]
    return Merged(
        store=target,
        trials=len(have),
        shared=shared,
        conflicts=(*conflicts, *lost, *bare),
        left_out=len(lost),
    )


def _join_plans(merged: Store, store: Store) -> list[str]:
    """Plan what both stores planned; where their searches went different ways, what the kept one planned.

    The label of an optimizer stands for what tuning found: of two searches it would stand for two optimizers.
    """
    plan, other = merged.plan(), store.plan()
    ours, theirs = journal.read(merged.meta()), journal.read(store.meta())
    if ours is None or theirs is None or _search(ours) == _search(theirs):
        have, labels = set(plan), {key: names for key, *names in plan}
        merged.set_plan([*plan, *(row for row in other if row[0] not in labels)])
        return [
            f"{store.path}: trial {key} is called {' and '.join(names)} there, and "
            f"{' and '.join(labels[key])} in the stores before it; kept the first"
            for key, *names in other
            if key in labels and (key, *names) not in have
        ]
    further = _progress(theirs) > _progress(ours)
    kept, left = (other, plan) if further else (plan, other)
    merged.set_plan(kept)
    known, planned = merged.statuses(), {key for key, _, _ in kept}
    lost = sum(key in known and key not in planned for key, _, _ in left)
    place = "the stores before it" if further else str(store.path)
    return (
        [f"{store.path}: its tuning went another way; {lost} trials of {place} are in no table"]
        if lost
        else []
    )


def _search(study_journal: journal.Journal) -> object:
    """What makes the labels of two tuned stores mean the same: networks, winners, the trials spent."""
    winners = {(s.workload, s.optimizer, s.stage): s.config for s in study_journal.studies}
    return study_journal.networks, winners, {key for key, *_ in study_journal.trials()}


def _newer(mine: dict[str, str], other: dict[str, str]) -> dict[str, str]:
    """Facts to take over: what is missing, newer timing passes, and the tuning that got further."""
    found = {key: value for key, value in other.items() if key not in mine}
    passes = {entry.key: entry for entry in step_times.read(mine)}
    for entry in step_times.read(other):
        if entry.key in passes and entry.measured > passes[entry.key].measured:
            found[entry.key] = entry.to_json()
    ours, theirs = journal.read(mine), journal.read(other)
    if theirs is None:
        return found
    further = theirs if ours is None or _progress(theirs) > _progress(ours) else ours
    if ours is not None and _search(ours) == _search(theirs):
        # Other seeds of the evaluation have other trials of the declared numbers.
        further = replace(further, untuned=tuple(dict.fromkeys((*ours.untuned, *theirs.untuned))))
    found[journal.KEY] = further.to_json()
    return found


def _progress(study_journal: journal.Journal) -> tuple[bool, int]:
    return study_journal.done, sum(1 for _ in study_journal.trials())


def _differ(a: Store, b: Store, key: str) -> list[str]:
    (left,), (right,) = a.trials([key]), b.trials([key])
    same = _content(left) == _content(right)
    return [] if same else [f"trial {key}: {b.path} has other numbers; kept the first"]


def _unfit(a: Store, b: Store, misfit: Misfit) -> list[str]:
    """Say of a record that is not as it was written whether its numbers are others, too."""
    if misfit.field is not None or misfit.trial_id is None:
        return []
    return _differ(a, b, misfit.trial_id)


def _content(trial: StoredTrial) -> object:
    history = {n: np.asarray(v).tobytes() for n, v in trial.history.items() if not is_time(n)}
    return trial.status, dict(trial.metrics), dict(trial.fingerprints), history
