"""Checkpoints: a long trial that was cut off goes on from its last saved epoch, to the same bits.

A file a trial, ``checkpoints/<trial id>.npz`` beside the store: arrays without pickle, and JSON. It is
written to a temporary name, brought to the disk and renamed, so that a kill at any moment leaves a whole one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optbench import matching
from optbench.validation import one_line

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


@dataclass(frozen=True)
class Checkpoints:
    """Where the checkpoints of a store are, and how often a trial writes one; ``minutes`` 0 is never."""

    folder: Path
    minutes: float = MINUTES

    @classmethod
    def beside(cls, store: Path, *, minutes: float) -> Checkpoints:
        """Keep checkpoints beside a store's file."""
        return cls(store.parent / FOLDER, minutes)

    def store_is_here(self) -> bool:
        """Say whether this machine sees the store that these are beside."""
        return (self.folder.parent / "store.sqlite").is_file()

    def of(self, trial_id: str, identity: Mapping[str, Any]) -> TrialCheckpoint:
        """Make the checkpoint of a trial; ``identity`` is what must agree before one may be used."""
        facts = {name: value for name, value in identity.items() if name not in _HARMLESS}
        return TrialCheckpoint(
            path=self.folder / f"{trial_id}.npz",
            identity=json.loads(json.dumps({"format": FORMAT, "trial": trial_id, **facts})),
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
        for name in {**identity, **self.identity}:
            if identity.get(name) != self.identity.get(name):
                found, here = identity.get(name), self.identity.get(name)
                raise CheckpointError(f"its {name} is {found}, here it is {here}")
        return Saved(progress=progress, arrays=arrays)


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
