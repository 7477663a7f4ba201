"""What a run costs around its training, by workers: ``python benchmarks/side_by_side.py``.

Runs 32 trials from the command to the leaderboard with one worker and with 16, and prints how many times
sooner they are done. An epoch waits instead of computing, so that two cores can stand for sixteen: what is
left is the start, the evaluations, the store and the report.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SUITE = """
suite: side-by-side
workloads:
  - {{dataset: mnist-mini, model: {{name: mlp, hidden: [32]}}, batch_size: 64, epochs: {epochs}}}
optimizers: {{adam: {{}}, sgd: {{lr: 0.05}}}}
seeds: {seeds}
"""
EPOCHS = 5
#: When each epoch began and ended.
TIMES = "times.txt"
#: Has every process of the run wait for an epoch, in the place of its training.
WAITING = """
import importlib.abc, importlib.util, sys, time

class Hook(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "optbench.execution.protocol":
            return None
        sys.meta_path.remove(self)
        found = importlib.util.find_spec(name)
        run = found.loader.exec_module

        def exec_module(module):
            run(module)
            import numpy as np

            def train(request):
                began = time.time()
                time.sleep({seconds})
                with open({times!r}, "a") as file:
                    file.write(f"{{began}} {{time.time()}}\\n")
                return np.ones(-(-len(request.rows) // 64))

            module.EpochRequest.train = train

        found.loader.exec_module = exec_module
        return found

sys.meta_path.insert(0, Hook())
"""
#: Times sooner than one worker that 16 should be done.
BAR = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", default="1,16")
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=1.45, help="that a trial waits")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    counts = [int(word) for word in options.workers.split(",")]
    taken: dict[int, list[tuple[float, float, float]]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "suite.yaml").write_text(SUITE.format(epochs=EPOCHS, seeds=options.trials // 2))
        hook = WAITING.format(seconds=options.seconds / EPOCHS, times=str(folder / TIMES))
        (folder / "sitecustomize.py").write_text(hook)
        for _ in range(options.rounds):
            for count in counts:
                taken[count].append(timed(folder, count))
    print(f"{options.trials} trials that wait {options.seconds:g} s, medians of {options.rounds} rounds\n")
    print("| workers | seconds | to the first trial | after the last | times one worker |")
    print("| --- | --- | --- | --- | --- |")
    middle = {
        count: [statistics.median(column) for column in zip(*taken[count], strict=True)] for count in counts
    }
    for count, (whole, start, end) in middle.items():
        times = middle[counts[0]][0] / whole
        print(f"| {count} | {whole:.1f} | {start:.1f} | {end:.1f} | {times:.1f} |")
    times = middle[counts[0]][0] / middle[counts[-1]][0]
    print(f"\n{counts[-1]} workers are done {times:.1f} times sooner (bar {BAR})")
    if times < BAR:
        raise SystemExit(1)


def timed(folder: Path, workers: int) -> tuple[float, float, float]:
    """Seconds of a run, to its first trial, and after its last."""
    command = [
        sys.executable,
        "-m",
        "optbench.cli",
        "run",
        "suite.yaml",
        "--fresh",
        "--workers",
        str(workers),
    ]
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    (folder / TIMES).unlink(missing_ok=True)
    began = time.time()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    ended = time.time()
    times = np.loadtxt(folder / TIMES)
    return ended - began, times[:, 0].min() - began, ended - times[:, 1].max()


if __name__ == "__main__":
    main()
