"""``--workers auto`` against the choices by hand: ``python benchmarks/workers.py``.

Runs a suite of 2 optimizers x 4 seeds on ``mlp`` and ``small_cnn`` over and over, each time as a process of
its own from its start to its end, in turns: with ``--workers auto``, with one trial at a time on all threads,
and with one trial a core on one thread each. Printed is the median over the rounds of a contender's time
divided by that of ``auto`` in the same round. The bar: ``auto`` is never slower than the better of the others
by more than 5 %.
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

SUITE = """
suite: workers
workloads:
  - {{dataset: mnist-mini, model: mlp, batch_size: 64, epochs: {epochs}}}
  - {{dataset: mnist-mini, model: small_cnn, batch_size: 64, epochs: {epochs}}}
optimizers: {{adam: {{}}, sgd: {{lr: 0.05}}}}
seeds: {seeds}
"""
#: Slower than the better of the others by at most so much.
BAR = 1.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8, help="of a trial; sets the length of a run")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cores = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    contenders = {
        "auto": ["--workers", "auto"],
        f"1 x {cores} threads": ["--workers", "1", "--threads", cores],
        f"{cores} x 1 thread": ["--workers", cores, "--threads", "1"],
    }
    program = [sys.executable, "-m", "optbench.cli", "run", "workers.yaml", "--fresh"]
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as folder:
        suite = SUITE.format(epochs=options.epochs, seeds=options.seeds)
        (Path(folder) / "workers.yaml").write_text(suite)
        for _ in range(options.rounds):
            for name, chosen in contenders.items():
                clock = time.perf_counter()
                subprocess.run([*program, *chosen], cwd=folder, check=True, capture_output=True)
                taken[name].append(time.perf_counter() - clock)
    print("| contender | seconds | times auto |")
    print("| --- | --- | --- |")
    for name, seconds in taken.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, taken["auto"], strict=True))
        print(f"| {name} | {statistics.median(seconds):.1f} | {ratio:.2f} |")
    others = [taken[name] for name in contenders if name != "auto"]
    slower = statistics.median(a / min(rest) for a, *rest in zip(taken["auto"], *others, strict=True))
    print(f"\nauto takes {slower:.2f} of the better one's time (bar {BAR})")
    if slower > BAR:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
