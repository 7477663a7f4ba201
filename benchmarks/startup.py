"""CPU time to start: commands against the imports that they cannot do without, interleaved, medians.

    python benchmarks/startup.py [--repetitions 11]

Bars: `optbench --help` within 3 times `import typer, rich`; the report of a small store in the terminal
within 2 times `import pandas`; a suite with nothing left to do within 2 seconds; the first trial running
(its epoch 0 evaluated, with PyTorch) within 1.2 times `import torch`. From there to the leaderboard of one
short trial is given with it.
CPU time (user and system of the process) hardly depends on what else runs; the number of threads is 1.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from optbench import backends
from optbench.records.store import Store
from optbench.suite.expand import trials
from optbench.suite.load import load_suite
from optbench.trial import Fingerprints, TrialRecord, block_id, trial_id

SUITE = """
suite: small
workloads:
  - dataset: digits
    model: {name: mlp, hidden: [8]}
    batch_size: 32
    epochs: 30
    targets: {val_accuracy: 0.8}
optimizers: {wame: {lr: 0.01}, adam: {lr: 0.01}, sgd: {lr: 0.01}}
seeds: 7
analysis: {baseline: wame}
"""

FIRST = """
import os, sys
import optbench
class Stop:
    def planned(self, plan, statuses): pass
    def started(self, trial): pass
    def epoch(self, trial, epoch, row): os._exit(0)
    def finished(self, trial, record): pass
optbench.run(sys.argv[1], results=sys.argv[2], observer=Stop(), fresh=True)
"""

MEASURE = """
import json, resource, subprocess, sys
done = subprocess.run(json.loads(sys.argv[1]), stdout=subprocess.DEVNULL)
spent = resource.getrusage(resource.RUSAGE_CHILDREN)
print(done.returncode, spent.ru_utime + spent.ru_stime)
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--repetitions", type=int, default=11)
    repetitions = options.parse_args().repetitions
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "small.yaml"
        path.write_text(SUITE)
        store = small_store(path, folder / "results")
        command = [sys.executable, "-m", "optbench.cli"]
        commands = {
            "import typer, rich": [sys.executable, "-c", "import typer, rich"],
            "optbench --help": [*command, "--help"],
            "import pandas": [sys.executable, "-c", "import pandas"],
            "optbench report STORE --format terminal": [
                *command,
                "report",
                str(store),
                "--format",
                "terminal",
            ],
            "optbench run SUITE, nothing to do": [*command, "run", str(path), "--results", str(store.parent)],
        }
        if "torch" in backends.installed():
            one = folder / "one.yaml"
            one.write_text(SUITE.replace("suite: small", "suite: one").replace("seeds: 7", "seeds: 1"))
            again = [str(one), "--results", str(folder / "again"), "--fresh", "--only", "optimizer=adam"]
            commands |= {
                "import torch": [sys.executable, "-c", "import torch"],
                "the first trial runs": [
                    *(sys.executable, "-c", FIRST, str(one), str(folder / "first")),
                ],
                "optbench run SUITE, one trial of 30 epochs": [*command, "run", *again],
            }
        seconds = interleaved(commands, repetitions)
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        print(f"{name}: {middle[name]:.3f} s CPU ({min(values):.3f} to {max(values):.3f})")
    for name, base, bar in (
        ("optbench --help", "import typer, rich", 3),
        ("optbench report STORE --format terminal", "import pandas", 2),
        ("optbench run SUITE, nothing to do", "import pandas", None),
        ("the first trial runs", "import torch", 1.2),
        ("optbench run SUITE, one trial of 30 epochs", "import torch", None),
    ):
        if name not in seconds:
            continue
        ratios = [a / b for a, b in zip(seconds[name], seconds[base], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        wanted = f", bar {bar}" if bar else ""
        print(f"{name} / {base}: {statistics.median(ratios):.2f} (quartiles {low:.2f} to {high:.2f}{wanted})")


def interleaved(commands: dict[str, list[str]], repetitions: int) -> dict[str, list[float]]:
    """CPU seconds of every command, in turns; the first turn warms the disk's cache and does not count."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "COLUMNS": "150"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(repetitions + 1):
        for name, command in commands.items():
            measured = [sys.executable, "-S", "-c", MEASURE, json.dumps(command)]
            done = subprocess.run(measured, env=environment, capture_output=True, text=True, check=True)
            code, spent = done.stdout.split()
            if code != "0":
                raise SystemExit(f"{name}: exit code {code}\n{done.stderr}")
            if turn:
                seconds[name].append(float(spent))
    return seconds


def small_store(path: Path, results: Path) -> Path:
    """Fill a store with 21 made trials of 30 epochs."""
    suite = load_suite(path)
    generator = np.random.default_rng(0)
    plan = trials(suite, lambda *_: "cpu")
    with Store(results / suite.name, write=True) as store:
        seen = suite.report_spec.to_json()
        store.set_meta(suite=suite.name, title=suite.title, source=suite.text, hash=suite.hash, view=seen)
        store.set_plan((trial_id(t.spec), t.workload, t.optimizer) for t in plan)
        for trial in plan:
            rise = np.linspace(0.1, 0.8 + 0.1 * generator.random(), 31)
            seconds = np.array([math.nan, *generator.uniform(0.1, 0.2, 30)])
            history = {
                "train_loss": 1 - rise,
                "train_accuracy": rise,
                "val_loss": 1 - rise,
                "val_accuracy": rise,
            }
            history |= {"batch_loss": 1 - rise, "step_seconds": seconds, "eval_seconds": seconds}
            store.add(
                TrialRecord(
                    trial_id=trial_id(trial.spec),
                    block_id=block_id(trial.spec),
                    spec=trial.spec,
                    status="completed",
                    fingerprints=Fingerprints(split="s", init="i", order="o", order_by_epoch=(1,) * 30),
                    history=history,
                    metrics={"epochs": 30.0, "test_accuracy": rise[-1], "best_epoch": 30.0},
                    timings={"step": float(np.nansum(seconds)), "total": 5.0},
                    predictions={},
                    environment={"processor": "made"},
                    started="2020-01-01T00:00:00+00:00",
                )
            )
    return results / suite.name


if __name__ == "__main__":
    main()
