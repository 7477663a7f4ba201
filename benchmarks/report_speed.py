"""How long a report over very many trials takes.

    python benchmarks/report_speed.py [--trials 100000] [--epochs 30] [--workloads 10] [--optimizers 10]

Makes a store, reports in a process of its own, prints figures. The store is made by
writing rows like those of real trials straight into SQLite; its numbers are random.
"""

from __future__ import annotations

import argparse
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from optbench.records.store import Store
from optbench.suite.expand import trials
from optbench.suite.load import load_suite
from optbench.trial import Seeds, block_id, to_plain, trial_id

HISTORY = ["train_loss", "train_accuracy", "val_loss", "val_accuracy", "batch_loss", "lr"]
HISTORY += ["step_seconds", "eval_seconds"]

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
    suite = load_suite(path)
    one_seed = trials(replace(suite, seeds=(Seeds(),)), lambda backend, device: "cpu")
    with Store(folder / "store", write=True) as store:
        store.set_meta(suite="big", title=suite.title, source=suite.text, hash=suite.hash)
        store.set_meta(view=suite.report_spec.to_json())
        target = store.path
    db = sqlite3.connect(target)
    db.execute("INSERT INTO environments VALUES ('e', ?)", (json.dumps({"processor": "made", "threads": 1}),))
    rng = np.random.default_rng(0)
    skill = {t.optimizer: 0.9 + 0.003 * (hash(t.optimizer) % 7) for t in one_seed}
    position = 0
    for seed in range(len(suite.seeds)):
        for trial in one_seed:
            spec = replace(trial.spec, seeds=suite.seeds[seed])
            key = trial_id(spec)
            score = float(np.clip(skill[trial.optimizer] + rng.normal(0, 0.01), 0, 1))
            rise = np.linspace(0.1, score, epochs + 1) + rng.normal(0, 0.003, epochs + 1)
            loss = 2.3 * np.exp(-3 * rise)
            step = np.full(epochs + 1, 0.1 + rng.random() / 50)
            step[0] = np.nan
            matrix = np.array(
                [loss, rise, loss * 1.1, rise - 0.01, loss, 0 * loss + 0.01, step, 0 * loss + 0.02]
            )
            status = "diverged" if rng.random() < 0.01 else "completed"
            metrics = {"epochs": epochs, "best_epoch": epochs, "val_accuracy": score, "val_loss": 0.3}
            if status == "completed":
                metrics |= {"test_accuracy": score, "test_loss": 1 - score, "test_accuracy_best": score}
            timings = {
                "step": float(np.nansum(step)),
                "eval": 0.6,
                "setup": 0.1,
                "warm_up": 0.1,
                "total": 4.0,
            }
            orders = json.dumps([seed * 1000 + e + 2**51 for e in range(epochs)])
            db.execute(
                "INSERT INTO trials VALUES (?, ?, ?, 1, '2020', 'e', ?, 's', ?, 'o', ?, ?, ?, ?, ?, NULL)",
                (
                    key,
                    block_id(spec),
                    status,
                    json.dumps(to_plain(spec)),
                    f"{seed:064x}",
                    orders,
                    json.dumps(metrics),
                    json.dumps(timings),
                    json.dumps(HISTORY),
                    zlib.compress(matrix.astype("<f8").tobytes(), 1),
                ),
            )
            db.execute(
                "INSERT INTO plan VALUES (?, ?, ?, ?)", (position, key, trial.workload, trial.optimizer)
            )
            position += 1
    db.commit()
    db.close()
    return target


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
