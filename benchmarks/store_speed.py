"""A store of many trials: ``python benchmarks/store_speed.py``.

For 10 to 100,000 records of 30 epochs: records appended a second, one transaction each, by one writer;
seconds until a suite of so many trials, all of them done, is found to have nothing left to do, with every
digest read and with a file untouched since that; size of the file, and memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from optbench.execution import local
from optbench.records.store import Store
from optbench.suite.load import load_suite
from optbench.suite.spec import store_path
from optbench.task import CLASSIFICATION
from optbench.trial import Fingerprints, TrialRecord, block_id, trial_id

SUITE = """
suite: many
workloads:
  - dataset: digits
    model: {{name: mlp, hidden: [32]}}
    epochs: 29
    batch_size: 32
    grid: {{batch_size: [{batches}]}}
optimizers:
  adam: {{grid: {{lr: [{rates}]}}}}
seeds: {seeds}
"""


def suite_file(folder: Path, trials: int) -> Path:
    """A suite of so many trials: up to 10 batch sizes and 10 learning rates, the rest are seeds."""
    side = 10 if trials >= 1000 else 1
    path = folder / "many.yaml"
    path.write_text(
        SUITE.format(
            batches=", ".join(str(8 + k) for k in range(side)),
            rates=", ".join(f"{1e-4 * (k + 1):.4f}" for k in range(side)),
            seeds=trials // side**2,
        )
    )
    return path


def fill(folder: Path, trials: int) -> float:
    """Append the records of all trials; returns seconds without the making of the records."""
    suite = load_suite(suite_file(folder, trials))
    random = np.random.default_rng(0)
    taken = 0.0
    first: TrialRecord | None = None
    with Store(store_path(suite, folder), write=True) as store, store.writing():
        for trial in local.plan(suite):
            values = random.random((len(CLASSIFICATION.history), 30))
            record = TrialRecord(
                trial_id=trial_id(trial.spec),
                block_id=block_id(trial.spec),
                spec=trial.spec,
                status="completed",
                fingerprints=Fingerprints(
                    split="0" * 64, init="1" * 64, order="2" * 64, order_by_epoch=tuple(range(29))
                ),
                history=dict(zip(CLASSIFICATION.history, values, strict=True)),
                metrics={f"metric_{k}": float(value) for k, value in enumerate(values[:, 0])},
                timings={"step": 1.0, "eval": 0.1, "total": 1.2},
                predictions={"last": random.integers(0, 10, 360, dtype=np.uint8)},
                environment={"machine": "made"},
                started="2026-01-01T00:00:00+00:00",
            )
            first = first or record
            clock = time.perf_counter()
            store.add(record)
            taken += time.perf_counter() - clock
        assert first is not None
        store.add(replace(first, environment={"machine": "another"}))
    return taken


def resume(folder: Path, trials: int) -> tuple[float, int]:
    """Seconds of a run with nothing left to do, from the suite's file to the end; trials run."""
    path = suite_file(folder, trials)
    clock = time.perf_counter()
    outcome = local.run_suite(load_suite(path), results=folder)
    return time.perf_counter() - clock, outcome.run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", default="10,100,1000,10000,100000")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is None:
        for trials in options.trials.split(","):  # a process each, for its memory
            subprocess.run([sys.executable, __file__, "--one", trials], check=True)
        return
    trials = options.one
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = fill(folder, trials)
        size = sum(path.stat().st_size for path in (folder / "many").iterdir())
        checking, run = resume(folder, trials)
        taken, more = resume(folder, trials)
        if run + more:
            raise SystemExit(f"{run + more} trials were run again")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{trials:7,} trials: {trials / seconds:6,.0f} appended a second   nothing left to do after "
        f"{checking:5.2f} s, untouched {taken:5.2f} s   "
        f"{size / 2**20:7.1f} MiB on disk   {memory:5.0f} MiB of memory",
        flush=True,
    )


if __name__ == "__main__":
    main()
