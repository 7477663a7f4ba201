"""Runs that are disturbed at moments that matter, and whether the store is the one of an undisturbed run."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from optbench.records.store import Store
from optbench.task import is_time

#: Seconds after which a run is taken to hang.
PATIENCE = 300
EPOCHS = 60
SUITE = """
suite: s
workloads:
  - dataset: digits
    model: {{name: {model}}}
    batch_size: {batch}
    epochs: {epochs}
    {more}
optimizers:
  wame: {{lr: 0.05}}
  {other}
seeds: {seeds}
backends: [{backend}]
{end}
"""
CLASS = "import torch\nclass Mine(torch.optim.SGD):\n    pass\n"
FEATURES = {
    "plain": {},
    "stack": {"end": "engine: {batch_seeds: 2}"},
    "tuned": {
        "end": "tuning: {sampler: random, trials: 2, seeds: 1, space: {wame: {lr: {log: [0.01, 0.1]}}, "
        "other: {lr: {log: [0.001, 0.1]}}}}"
    },
    "augmented": {"more": "augment: {rotation: 10}"},
    "custom class": {"other": 'other: {class: "mine.py:Mine", lr: 0.1}'},
}
EXECUTORS = {"one process": (), "two workers": ("--workers", "2")}


@dataclass(frozen=True)
class Case:
    """What runs, how it is disturbed, and at which moment."""

    feature: str = "plain"
    executor: str = "one process"
    backend: str = "torch"
    fault: str = "kill"
    moment: str = "checkpoint"
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.feature}, {self.executor}, {self.backend}: {self.fault} at {self.moment} ({self.seed})"


def write_suite(folder: Path, case: Case) -> Path:
    """Write the suite of a case; its trials last some tenths of a second."""
    parts = {"model": "mlp", "more": "", "other": "other: {optimizer: adam, lr: 0.01}", "end": ""}
    parts |= FEATURES[case.feature]
    numbers = {"epochs": EPOCHS, "batch": 64, "seeds": 2}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.py").write_text(CLASS)
    path = folder / "s.yaml"
    path.write_text(SUITE.format(**parts, **numbers, backend=case.backend))
    return path


def command(suite: Path, case: Case) -> list[str]:
    """The run, which saves its trials under way after every epoch."""
    words = ["run", suite.name, "--results", "results", "--checkpoint-minutes", "0.00001"]
    return [sys.executable, "-m", "optbench.cli", *words, *EXECUTORS[case.executor]]


def start(suite: Path, case: Case, **options: object) -> subprocess.Popen[str]:
    """Start the run in a session of its own."""
    return subprocess.Popen(
        command(suite, case),
        cwd=suite.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,  # type: ignore[call-overload]
    )


def finish(suite: Path, case: Case) -> str:
    """Run to the end; raises where that fails."""
    process = start(suite, case)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    return output


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


def wait_for(moment: str, folder: Path, process: subprocess.Popen[str], rng: random.Random) -> bool:
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

    while process.poll() is None:
        if there():
            time.sleep(rng.random() * 0.1)
            return process.poll() is None
        assert time.monotonic() < end, f"no {moment} in {PATIENCE} s"
        time.sleep(0.005)
    return False


def kill_all(process: subprocess.Popen[str]) -> None:
    """End the run's session as a power cut does."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE)


def _kill(process: subprocess.Popen[str], folder: Path) -> None:
    kill_all(process)


def _kill_the_run_alone(process: subprocess.Popen[str], folder: Path) -> None:
    process.kill()
    process.communicate(timeout=PATIENCE)


def _terminate(process: subprocess.Popen[str], folder: Path) -> None:
    process.terminate()
    process.communicate(timeout=PATIENCE)


def _interrupt(process: subprocess.Popen[str], folder: Path) -> None:
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=PATIENCE)


def _stop(process: subprocess.Popen[str], folder: Path) -> None:
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGCONT)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output


def _lose_the_log(process: subprocess.Popen[str], folder: Path) -> None:
    """A write-ahead log that is gone takes the last trials along; the run trains them again."""
    kill_all(process)
    for name in ("store.sqlite-wal", "store.sqlite-shm"):
        (folder / "results" / "s" / name).unlink(missing_ok=True)


def _damage_checkpoints(process: subprocess.Popen[str], folder: Path) -> None:
    kill_all(process)
    for path in (folder / "results" / "s" / "checkpoints").glob("*"):
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)


#: What is done to a run under way; it is then run again until it is through.
FAULTS: dict[str, Callable[[subprocess.Popen[str], Path], None]] = {
    "kill": _kill,
    "kill the run alone": _kill_the_run_alone,
    "terminate": _terminate,
    "interrupt": _interrupt,
    "stop": _stop,
    "lose the log": _lose_the_log,
    "damage the checkpoints": _damage_checkpoints,
}


def _limited(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


#: Settings under which a run is started that fails or not, and is then run again as usual.
SURROUNDINGS: dict[str, dict[str, object]] = {
    "little room": {"preexec_fn": _limited(30_000)},
    "no home": {"env": {k: v for k, v in os.environ.items() if k not in ("HOME", "USER")}},
    "closed input": {"stdin": subprocess.DEVNULL},
}


def disturbed(folder: Path, case: Case) -> tuple[dict[str, object], bool]:
    """Run a case, disturb it once, and run it to the end; its content, and whether the fault hit a run."""
    suite = write_suite(folder, case)
    hit = True
    if case.fault in SURROUNDINGS:
        process = start(suite, case, **SURROUNDINGS[case.fault])
        process.communicate(timeout=PATIENCE)
    else:
        process = start(suite, case)
        hit = wait_for(case.moment, folder, process, random.Random(case.seed))
        if hit:
            FAULTS[case.fault](process, folder)
        else:
            process.communicate(timeout=PATIENCE)
    finish(suite, case)
    return content(folder), hit


def undisturbed(folder: Path, case: Case) -> dict[str, object]:
    """What the same suite leaves when nothing happens."""
    finish(write_suite(folder, case), case)
    return content(folder)


def cases(count: int, seed: int = 0) -> Iterator[Case]:
    """Cases drawn at random over executors, features, faults and moments."""
    rng = random.Random(seed)
    for number in range(count):
        yield Case(
            feature=rng.choice(list(FEATURES)),
            executor=rng.choice(list(EXECUTORS)),
            fault=rng.choice([*FAULTS, *SURROUNDINGS]),
            moment=rng.choice(["checkpoint", "stored trial"]),
            seed=number,
        )


def clean(folder: Path) -> None:
    """Take a case's folder away."""
    shutil.rmtree(folder, ignore_errors=True)
