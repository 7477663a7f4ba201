"""How time and memory grow with weights, seeds and workers: ``python benchmarks/growth.py``.

Every row is ``optbench run`` as a process of its own, from its start to its end, on 5,000 28x28 images, Adam,
batches of 64. Seconds are the run's; memory is the largest sum of what the run and its workers held at once,
pages that they share counted once (Linux). `benchmarks/store_speed.py` has the growth over records.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SUITE = """
suite: growth
workloads:
  - {{dataset: mnist-mini, model: {{name: mlp, hidden: [{width}]}}, batch_size: 64, epochs: {epochs}}}
optimizers: {{adam: {{}}}}
seeds: {seeds}
"""
#: Weights and biases of one hidden layer between 784 pixels and 10 classes, by its width.
WEIGHTS_EACH = 784 + 1 + 10


def held(pid: int) -> int:
    """Bytes of a process and all that it started."""
    total, waiting = 0, [pid]
    while waiting:
        process = waiting.pop()
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            total += 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            for task in Path(f"/proc/{process}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except (OSError, StopIteration):  # it has ended
            continue
    return total


def run(folder: Path, *options: str, width: int = 128, epochs: int = 2, seeds: int = 1) -> tuple[float, int]:
    """Seconds and peak bytes of a run."""
    (folder / "growth.yaml").write_text(SUITE.format(width=width, epochs=epochs, seeds=seeds))
    command = [sys.executable, "-m", "optbench.cli", "run", "growth.yaml", "--fresh", *options]
    clock, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, held(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: ended with {process.returncode}")
    return time.perf_counter() - clock, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--widths", default="16,128,1024,4096,16384")
    parser.add_argument("--seeds", default="1,4,16,64")
    parser.add_argument("--workers", default="1,2,4")
    options = parser.parse_args()
    widths, seeds, workers = (
        [int(n) for n in getattr(options, name).split(",")] for name in ("widths", "seeds", "workers")
    )
    print("| what grows | seconds | peak memory, MiB |")
    print("| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = [(f"{n * WEIGHTS_EACH + 10:,} weights, 1 trial", (), {"width": n}) for n in widths]
        cases += [(f"{n} seeds, 1 worker", (), {"seeds": n, "epochs": 4}) for n in seeds]
        cases += [
            (f"{n} workers, 16 trials", ("--workers", str(n)), {"seeds": 16, "epochs": 8}) for n in workers
        ]
        for label, words, given in cases:
            found = np.median([run(folder, *words, **given) for _ in range(options.rounds)], axis=0)
            print(f"| {label} | {found[0]:.1f} | {found[1] / 2**20:.0f} |", flush=True)


if __name__ == "__main__":
    main()
