"""How long a report over very many trials takes.

    python benchmarks/report_speed.py [--trials 100000] [--epochs 30] [--workloads 10] [--optimizers 10]

Makes a store, reports in a process of its own, prints figures. The records come from ``tests/made_store.py``:
like those of real trials, their numbers drawn.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the tests make stores too

from optbench.suite.load import load_suite
from tests import made_store

REPORT = """
import resource, sys, time
began = time.perf_counter()
from optbench import api
written = api.report(sys.argv[1], out=sys.argv[2])
seconds = time.perf_counter() - began
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(f"report: {seconds:.1f} s, {memory:.2f} GiB at most, {len(written.files)} files")
"""


def make_store(folder: Path, *, count: int, epochs: int, workloads: int, optimizers: int) -> Path:
    families = ("wame", "adam", "rmsprop", "sgd")
    lines = ["suite: big", "title: a big store of random numbers", "workloads:"]
    for number in range(workloads):
        lines += [f"  - name: workload-{number}", "    dataset: digits"]
        lines += [f"    model: {{name: mlp, hidden: [{8 + number}]}}", "    batch_size: 64"]
        lines += [f"    epochs: {epochs}", "    targets: {val_accuracy: 0.8}"]
    lines.append("optimizers:")
    for number in range(optimizers):
        family = families[number % 4]
        label = family if number < 4 else f"{family}-{number}"
        lines.append(f"  {label}: {{optimizer: {family}, lr: {0.001 * (number + 1):g}}}")
    lines += [f"seeds: {count // (workloads * optimizers)}", "analysis: {baseline: wame}"]
    path = folder / "big.yaml"
    path.write_text("\n".join(lines))
    return made_store.fill(load_suite(path), folder / "store")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--workloads", type=int, default=10)
    parser.add_argument("--optimizers", type=int, default=10)
    parser.add_argument("--keep", type=Path, help="Make the store here, or use the one that is here.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        store = folder / "store" / "store.sqlite"
        if not store.exists():
            began = time.perf_counter()
            make_store(
                folder,
                count=options.trials,
                epochs=options.epochs,
                workloads=options.workloads,
                optimizers=options.optimizers,
            )
            print(f"store made in {time.perf_counter() - began:.0f} s, {store.stat().st_size / 1e6:.0f} MB")
        subprocess.run([sys.executable, "-c", REPORT, str(store), str(folder / "report")], check=True)
    start_up()


def start_up() -> None:
    """Compare the start of the terminal report with that of pandas (user and system time, least of 5)."""
    commands = {"import pandas": "import pandas"}
    commands["import what the terminal report needs"] = "import optbench.api, optbench.report.terminal"
    for name, code in commands.items():
        times = []
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", code], check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        print(f"{name}: {min(times):.2f} s")


if __name__ == "__main__":
    main()
