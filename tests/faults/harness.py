"""Runs that are disturbed at moments that matter, and whether the store is the one of an undisturbed run."""

from __future__ import annotations

import contextlib
import math
import os
import random
import resource
import shutil
import sqlite3
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

from optbench.records.store import Store
from optbench.task import is_time
from tests.faults.kinds import EXECUTORS, KINDS, Scene, prefix
from tests.faults.nodes import TwoNodes
from tests.faults.processes import PATIENCE, Running
from tests.faults.suites import write_suite

#: Times that a run is started anew which ended before it could be disturbed.
TRIES = 3
#: Ray's clusters of several nodes share a port.
_CLUSTER = threading.Lock()


@dataclass(frozen=True)
class Case:
    """What runs, how it is disturbed, and at which moment."""

    sort: str = "plain"
    executor: str = "one process"
    backend: str = "torch"
    kind: str = "kill"
    moment: str = "checkpoint"
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.sort}, {self.executor}, {self.backend}: {self.kind} at {self.moment} ({self.seed})"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a case: whether the fault hit a run, the store's content, and what else went wrong."""

    hit: bool
    content: dict[str, object]
    complaints: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass
class _Runs:
    """The runs of one case in its folder."""

    folder: Path
    case: Case
    nodes: TwoNodes | None = None
    all: list[Running] = field(default_factory=list)

    def start(
        self,
        *,
        environment: dict[str, str | None] | None = None,
        stdin: int | None = None,
        limit: int | None = None,
    ) -> Running:
        """Start the command, which saves its trials under way after every epoch."""
        words = ["run", "s.yaml", "--results", "results", "--checkpoint-minutes", "0.00001"]
        address = [self.nodes.address] if self.nodes else []
        changed = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        run = Running(
            [
                *prefix(KINDS[self.case.kind]),
                *(sys.executable, "-m", "optbench.cli"),
                *words,
                *EXECUTORS[self.case.executor],
                *address,
            ],
            self.folder,
            environment={name: value for name, value in changed.items() if value is not None},
            stdin=stdin,
        )
        if limit is not None:
            resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        self.all.append(run)
        return run


def content(folder: Path) -> dict[str, object]:
    """Everything of a store that a repetition must have to the bit, by trial, and its plan."""
    with Store(folder / "results" / "s") as store:
        assert not store.verify().misfits
        found: dict[str, object] = {"plan": sorted(store.plan())}
        for trial in store.trials():
            found[trial.trial_id] = (
                trial.status,
                trial.block_id,
                {n: np.asarray(v).tobytes() for n, v in trial.history.items() if not is_time(n)},
                dict(trial.metrics),
                dict(trial.fingerprints),
                trial.order_by_epoch,
                {epoch: p.tobytes() for epoch, p in store.predictions(trial.trial_id).items()},
            )
        return found


def impossible_times(folder: Path) -> list[str]:
    """Name durations below zero, and dates that are none."""
    found = []
    with Store(folder / "results" / "s") as store:
        for trial in store.trials():
            seconds = {**trial.timings, **{n: v for n, v in trial.history.items() if is_time(n)}}
            found += [
                f"{trial.trial_id}: {name} is below zero"
                for name, values in seconds.items()
                if np.nanmin(np.append(values, math.inf)) < 0
            ]
            datetime.fromisoformat(trial.started)
    return found


def wait_for(moment: str, folder: Path, run: Running, rng: random.Random) -> bool:
    """Wait until a checkpoint or a stored trial is there, and a moment longer; False if the run has ended."""
    store = folder / "results" / "s" / "store.sqlite"
    end = time.monotonic() + PATIENCE

    def there() -> bool:
        if moment == "checkpoint":
            return any(store.parent.glob("checkpoints/*"))
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as db,
        ):
            return bool(db.execute("SELECT count(*) FROM trials").fetchone()[0])
        return False

    if moment == "start":
        time.sleep(3 * rng.random())
        return run.process.poll() is None
    while run.process.poll() is None:
        if there():
            time.sleep(rng.random() * 0.1)
            return run.process.poll() is None
        assert time.monotonic() < end, f"no {moment} in {PATIENCE} s: {run.output}"
        time.sleep(0.003)
    return False


def disturbed(folder: Path, case: Case) -> Outcome:
    """Run a case, disturb it once, and run it to the end."""
    clock = time.monotonic()
    with _CLUSTER if case.executor == "Ray, two nodes" else contextlib.nullcontext():
        for number in range(TRIES):
            place = folder.with_name(f"{folder.name}-{number}")
            outcome = _disturbed(place, case, random.Random(case.seed + number))
            clean(place)
            if outcome.hit:
                break
    return Outcome(
        hit=outcome.hit,
        content=outcome.content,
        complaints=outcome.complaints,
        seconds=time.monotonic() - clock,
    )


def _disturbed(folder: Path, case: Case, rng: random.Random) -> Outcome:
    kind = KINDS[case.kind]
    write_suite(folder, case.sort, case.backend)
    runs = _Runs(folder, case)
    if case.executor == "Ray, two nodes":
        runs.nodes = TwoNodes(str(folder))
    try:
        run = runs.start(**kind.before(folder))
        scene = Scene(run, runs.start, runs.nodes, rng)
        hit = True
        if kind.moments != ("start",):
            hit = wait_for(case.moment, folder, run, rng)
        if hit:
            kind.act(scene)
            hit = scene.hit
        elif (code := run.wait()) != 0:
            scene.complaints.append(f"undisturbed, it ended with exit code {code}: {run.output}")
        kind.after(scene)
        complaints = [*scene.complaints, *_after(run)]
        last = runs.start()
        if (code := last.wait()) != 0:
            complaints.append(f"run again, it ended with exit code {code}: {last.output}")
            return Outcome(hit=hit, content={}, complaints=tuple(complaints))
        complaints += [*_after(last), *impossible_times(folder)]
        return Outcome(hit=hit, content=content(folder), complaints=tuple(complaints))
    finally:
        for run in runs.all:
            run.kill()
        if runs.nodes is not None:
            runs.nodes.close()


def _after(run: Running) -> list[str]:
    """What is wrong with a run that has ended."""
    found = []
    if "Traceback" in run.output:
        found.append(f"a traceback:\n{run.output}")
    if left := run.left():
        found.append(f"outlived by {', '.join(one.words[:80] for one in left)}")
    return found


def undisturbed(folder: Path, sort: str, backend: str) -> dict[str, object]:
    """What the same suite leaves when nothing happens; with every executor it is the same."""
    write_suite(folder, sort, backend)
    runs = _Runs(folder, Case(sort=sort, backend=backend))
    run = runs.start()
    try:
        assert run.wait() == 0, run.output
        return content(folder)
    finally:
        run.kill()


def clean(folder: Path) -> None:
    """Take a case's folder and the output of its commands away."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in folder.parent.glob(f"{folder.name}.output-*"):
        path.unlink()
