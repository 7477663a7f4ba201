"""Checkpoints: a long trial that was cut off goes on from its last saved epoch, to the same bits.

A file a trial, ``checkpoints/<trial id>.npz`` beside the store: arrays without pickle, and JSON. It is
written to a temporary name, brought to the disk and renamed, so that a kill at any moment leaves a whole one.
Trials trained as one program have one file together.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from optbench import matching
from optbench.suite.validation import one_line

FORMAT = 2
FOLDER = "checkpoints"
#: Minutes between two checkpoints of a trial, where nothing else is asked for.
MINUTES = 5.0
#: Facts of a record's environment that change no bit of a training; all others must agree.
_HARMLESS = frozenset({"checkpoint", "concurrent", "cores", "data_notes", "git", "memory_gb", "system"})

Arrays = Mapping[str, NDArray[Any]]


class CheckpointError(Exception):
    """A checkpoint that cannot be used; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What a checkpoint holds: the protocol's own progress, JSON-ready, and arrays by name."""

    progress: Mapping[str, Any]
    arrays: Arrays


class Slot(Protocol):
    """A place for the checkpoint of one trial.

    Attributes
    ----------
    seconds : float
        Between two of them; 0 is never.
    ends : bool
        Whether to keep the state of a trial that has ended, since others of its stack go on.
    """

    seconds: float
    ends: ClassVar[bool]

    def due(self) -> bool:
        """Say whether it is time to write one."""

    def save(self, saved: Saved) -> None:
        """Write, in the place of the one before."""

    def load(self) -> Saved | None:
        """Read it; None where there is none; ``CheckpointError`` where it cannot be used."""


class Slots(Protocol):
    """Places for the checkpoints of trials."""

    def of(self, trial_id: str, identity: Mapping[str, Any]) -> Slot:
        """Give a trial its place; ``identity`` is what must agree before a checkpoint may be used."""


@dataclass(frozen=True)
class Checkpoints:
    """Folder of a store's checkpoints, and minutes between two of a trial; 0 is never."""

    folder: Path
    minutes: float = MINUTES

    @classmethod
    def of_store(cls, store: Path, *, minutes: float) -> Checkpoints:
        """Checkpoints in the folder of a store."""
        return cls(store.parent / FOLDER, minutes)

    def store_is_here(self) -> bool:
        """Say whether this machine sees the store of these checkpoints."""
        return (self.folder.parent / "store.sqlite").is_file()

    def of(self, trial_id: str, identity: Mapping[str, Any]) -> TrialCheckpoint:
        """See :class:`Slots`."""
        return TrialCheckpoint(
            path=self.folder / f"{trial_id}.npz",
            identity=_identity(trial_id, identity),
            seconds=60 * self.minutes,
        )

    def remove(self, trial_ids: Collection[str] | None = None) -> None:
        """Remove the checkpoints of some trials, or all of them, half-written ones included."""
        for path in self.folder.glob("*.npz*") if self.folder.is_dir() else ():
            if trial_ids is None or path.name.partition(".")[0] in trial_ids:
                path.unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


@dataclass(kw_only=True)
class TrialCheckpoint:
    """The checkpoint of one trial."""

    ends: ClassVar[bool] = False
    path: Path
    identity: Mapping[str, Any]
    seconds: float
    _last: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Say whether it is time to write one."""
        return self.seconds > 0 and time.monotonic() - self._last >= self.seconds

    def save(self, saved: Saved) -> None:
        """Write, in the place of the one before."""
        progress = json.loads(json.dumps(saved.progress))
        digest = _digest(progress, saved.arrays)
        meta = json.dumps({"identity": self.identity, "progress": progress, "digest": digest}).encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_name(f"{self.path.name}.tmp")
        with unfinished.open("wb") as file:
            everything: dict[str, Any] = {"meta": np.frombuffer(meta, np.uint8), **saved.arrays}
            np.savez(file, **everything)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, self.path)
        _sync_folder(self.path.parent)
        self._last = time.monotonic()

    def load(self) -> Saved | None:
        """Read it; None where there is none.

        Raises
        ------
        CheckpointError
            If it is damaged, or was written by another machine, framework or version.
        """
        found = self.read()
        if found is None:
            return None
        _check(found[0], self.identity)
        return found[1]

    def read(self) -> tuple[dict[str, Any], Saved] | None:
        """Read the identity and content of a file, whichever trial it belongs to."""
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            meta = json.loads(arrays.pop("meta").tobytes())
            identity, progress = dict(meta["identity"]), meta["progress"]
            if meta["digest"] != _digest(progress, arrays):
                raise ValueError("the sum is another")
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever a damaged file makes of the readers
            raise CheckpointError(f"damaged ({one_line(error)})") from None
        return identity, Saved(progress=progress, arrays=arrays)


class StackCheckpoint:
    """The checkpoint of trials trained as one program: one file, so that all go on from the same epoch.

    Parameters
    ----------
    checkpoints : Checkpoints
        Where, and how often.
    trial_ids : sequence of str
        The trials; the file bears the name of the first.
    """

    def __init__(self, checkpoints: Checkpoints, trial_ids: Sequence[str]) -> None:
        path, seconds = checkpoints.folder / f"{trial_ids[0]}.stack.npz", 60 * checkpoints.minutes
        self._file = TrialCheckpoint(path=path, identity={}, seconds=seconds)
        self._found: tuple[dict[str, Any], Saved] | None = None
        self._due = False
        self.members = [_Member(self, place, seconds) for place in range(len(trial_ids))]

    def begin(self, live: Collection[int]) -> None:
        """Begin an epoch of the trials that have not ended."""
        self._found = None
        self._due = self._file.due()
        for place in live:
            self.members[place].saved = None

    def end(self) -> None:
        """Write, if every trial has left its state, and one of them may go on.

        Raises
        ------
        OSError
            If the disk is full, say.
        """
        states = [member.saved for member in self.members]
        there = [saved for saved in states if saved is not None]
        if len(there) < len(states) or all(saved.progress["ended"] for saved in there):
            return
        self._file.identity = {"trials": [member.identity for member in self.members]}
        self._file.save(
            Saved(
                progress={"trials": [saved.progress for saved in there]},
                arrays={
                    f"{k}/{name}": x for k, saved in enumerate(there) for name, x in saved.arrays.items()
                },
            )
        )

    def due(self) -> bool:
        """Whether this epoch's end is to be written."""
        return self._due

    def ended(self, place: int) -> bool:
        """Whether a trial had ended when the file was written from which it goes on."""
        saved = self.members[place].saved
        return saved is not None and bool(saved.progress["ended"])

    def read(self, place: int) -> Saved | None:
        """What the file holds of one trial; see :meth:`TrialCheckpoint.load`."""
        self._found = self._found or self._file.read()
        if self._found is None:
            return None
        identity, saved = self._found
        identities = identity.get("trials", [])
        if len(identities) != len(self.members):
            raise CheckpointError(f"it is of {len(identities)} trials, here are {len(self.members)}")
        _check(identities[place], self.members[place].identity)
        mine = {name: array for name, array in saved.arrays.items() if name.startswith(f"{place}/")}
        return Saved(
            progress=saved.progress["trials"][place],
            arrays={name.partition("/")[2]: array for name, array in mine.items()},
        )


@dataclass
class _Member:
    """One trial of a stack's checkpoint: a :class:`Slot`, and the :class:`Slots` that has this one alone."""

    ends: ClassVar[bool] = True
    stack: StackCheckpoint
    place: int
    seconds: float
    identity: Mapping[str, Any] = field(default_factory=dict)
    saved: Saved | None = None

    def of(self, trial_id: str, identity: Mapping[str, Any]) -> _Member:
        self.identity = _identity(trial_id, identity)
        return self

    def due(self) -> bool:
        return self.stack.due()

    def save(self, saved: Saved) -> None:
        self.saved = Saved(progress=json.loads(json.dumps(saved.progress)), arrays=saved.arrays)

    def load(self) -> Saved | None:
        found = self.stack.read(self.place)
        if found is not None and found.progress["ended"]:
            self.saved = found
        return found


def _identity(trial_id: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What must agree before a trial may go on, JSON-ready."""
    telling = {name: value for name, value in facts.items() if name not in _HARMLESS}
    found: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, "trial": trial_id, **telling}))
    return found


def _check(saved: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name in {**saved, **expected}:
        if saved.get(name) != expected.get(name):
            raise CheckpointError(f"its {name} is {saved.get(name)}, here it is {expected.get(name)}")


def _digest(progress: Mapping[str, Any], arrays: Arrays) -> str:
    """SHA-256 of the content; the zip's own sums leave out the names, and what was rewritten."""
    parts: list[str | NDArray[Any]] = [json.dumps(progress, sort_keys=True)]
    for name in sorted(arrays):
        raw = np.frombuffer(arrays[name].tobytes(), np.uint8)
        parts += [name, str(arrays[name].shape), raw]
    return matching.fingerprint(*parts)


def _sync_folder(folder: Path) -> None:
    """Bring a rename to the disk, where folders can be opened."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
