"""What a store keeps of tuning, as JSON in its meta table: every setting, its trials, its score, the winner.

Reading it needs nothing of what searches, so that a report stays light.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from optbench.records.store import DamageError
from optbench.tuning.space import Axis

KEY = "tuning"
Stage = Literal["network", "optimizer"]


@dataclass(frozen=True, kw_only=True)
class Training:
    """One setting trained for ``epochs`` with every tuning seed: the trials' ids, and their mean score.

    The score is oriented so that larger is better; None where a trial diverged or crashed, which ranks last.
    """

    epochs: int
    trials: tuple[str, ...]
    score: float | None


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting of the hyperparameters: values by name, and its trainings, shortest first."""

    values: Mapping[str, Any]
    search: int = 0
    trainings: tuple[Training, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Study:
    """The search for one optimizer on one workload.

    ``searches`` holds the axes of the first search and of each widened one. ``winner`` is the number of the
    best setting; None while the search goes on, and where no setting has a score. ``edges`` names the
    winner's hyperparameters that lie on an edge, with the side.
    """

    workload: str
    optimizer: str
    stage: Stage
    epochs: int
    searches: tuple[tuple[Axis, ...], ...]
    settings: tuple[Setting, ...] = ()
    winner: int | None = None
    config: Mapping[str, Any] | None = None
    edges: Mapping[str, str] = field(default_factory=dict)

    def best(self) -> int | None:
        """Number of the best setting among those trained longest; the first of equals."""
        ranking = self.ranking()
        return ranking[0] if ranking else None

    def ranking(self) -> list[int]:
        """Numbers of the settings with a score, best first: by epochs trained, score, order; none twice."""
        scored = [
            (s.trainings[-1].epochs, s.trainings[-1].score, -k)
            for k, s in enumerate(self.settings)
            if s.trainings and s.trainings[-1].score is not None
        ]
        found: dict[str, int] = {}
        for _, _, k in sorted(scored, reverse=True):
            found.setdefault(repr(sorted(self.settings[-k].values.items())), -k)
        return list(found.values())


@dataclass(frozen=True, kw_only=True)
class Journal:
    """All studies of a suite; ``of`` is the suite's hash, ``untuned`` the trials of the declared numbers."""

    of: str
    sampler: str
    monitor: str
    budget: Mapping[str, Any]
    seeds: tuple[int, ...]
    studies: tuple[Study, ...] = ()
    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    untuned: tuple[str, ...] = ()
    done: bool = False

    def to_json(self) -> str:
        """Write it down."""
        return json.dumps(asdict(self))

    def trials(self) -> Iterator[tuple[str, int, int, int]]:
        """Every tuning trial: its id, and the numbers of study, setting and training."""
        for number, study in enumerate(self.studies):
            for k, setting in enumerate(study.settings):
                for rung, training in enumerate(setting.trainings):
                    for key in training.trials:
                        yield key, number, k, rung

    def study(self, workload: str, optimizer: str) -> Study | None:
        """The last search of an optimizer on a workload."""
        found = [s for s in self.studies if (s.workload, s.optimizer) == (workload, optimizer)]
        return found[-1] if found else None


def read(meta: Mapping[str, str]) -> Journal | None:
    """Read a store's journal; None where nothing was tuned.

    Raises
    ------
    DamageError
        If it is none that a run wrote.
    """
    text = meta.get(KEY)
    try:
        return _journal(json.loads(text)) if text else None
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise DamageError(f"meta entry {KEY!r}") from None


def _journal(plain: dict[str, Any]) -> Journal:
    studies = tuple(_study(entry) for entry in plain["studies"])
    lists = {name: tuple(plain[name]) for name in ("seeds", "untuned")}
    return Journal(**{**plain, **lists, "studies": studies})


def _study(plain: dict[str, Any]) -> Study:
    searches = tuple(tuple(map(_axis, axes)) for axes in plain["searches"])
    settings = tuple(
        Setting(
            values={name: _frozen(value) for name, value in entry["values"].items()},
            search=entry["search"],
            trainings=tuple(Training(**{**t, "trials": tuple(t["trials"])}) for t in entry["trainings"]),
        )
        for entry in plain["settings"]
    )
    return Study(**{**plain, "searches": searches, "settings": settings})


def _axis(plain: dict[str, Any]) -> Axis:
    parts = {name: _axis(plain[name]) for name in ("length", "of") if isinstance(plain.get(name), dict)}
    also = {"also": tuple(plain["also"])} if plain.get("also") else {}
    return Axis(**{**plain, **parts, **also, "choices": tuple(_frozen(c) for c in plain["choices"])})


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
