"""A store of many trials: ``python benchmarks/store_speed.py``.

For 10 to 100,000 records of 30 epochs: records appended a second, one transaction each, by one writer;
seconds until a suite of so many trials, all of them done, is found to have nothing left to do, with every
digest read and with a file untouched since that; size of the file, and memory; and a report of one workload.
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

#: A command, then its CPU seconds and its MiB of memory.
MEASURED = """
import resource, sys
from optbench.cli import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    if end.code:
        raise
spent = resource.getrusage(resource.RUSAGE_SELF)
# The highest memory that getrusage tells has that of the process which started this one in it.
words = open("/proc/self/status").read().split("VmHWM:")[1].split()
print(spent.ru_utime + spent.ru_stime, int(words[0]) / 1024)
"""


def suite_file(folder: Path, trials: int) -> Path:
    """A suite of so many trials: up to 10 batch sizes (of a million 100) and 10 rates, else seeds."""
    side = 10 if trials >= 1000 else 1
    batches = 100 if trials >= 1_000_000 else side
    path = folder / "many.yaml"
    path.write_text(
        SUITE.format(
            batches=", ".join(str(8 + k) for k in range(batches)),
            rates=", ".join(f"{1e-4 * (k + 1):.4f}" for k in range(side)),
            seeds=trials // (batches * side),
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
                metrics={
                    **{f"metric_{k}": float(value) for k, value in enumerate(values[:, 0])},
                    "test_accuracy": float(random.integers(300, 361)) / 360,
                },
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


def part(folder: Path, trials: int) -> tuple[int, float, float]:
    """Report one workload in a process of its own; returns its trials, CPU seconds, and MiB of memory."""
    suite = load_suite(suite_file(folder, trials))
    label = suite.workloads[0].label
    store = store_path(suite, folder)
    words = ("report", str(store), "--workload", label, "--format", "terminal", "--format", "csv")
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *words], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds, memory = map(float, done.stdout.split()[-2:])
    return trials // len(suite.workloads), seconds, memory


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
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        of_part, reported, held = part(folder, trials)
        if run + more:
            raise SystemExit(f"{run + more} trials were run again")
    print(
        f"{trials:7,} trials: {trials / seconds:6,.0f} appended a second   nothing left to do after "
        f"{checking:5.2f} s, untouched {taken:5.2f} s   "
        f"{size / 2**20:7.1f} MiB on disk   {memory:5.0f} MiB of memory   "
        f"{of_part:,} of them reported in {reported:.1f} s of CPU and {held:.0f} MiB",
        flush=True,
    )


if __name__ == "__main__":
    main()
