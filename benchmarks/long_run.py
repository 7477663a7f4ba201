"""Whether a long run stays as it began: ``python benchmarks/long_run.py --trials 5000``.

One ``optbench run`` of very small trials (digits, a network of 8 units, one epoch). While it works, a table
of its parts: seconds a trial, memory of the run and its workers (pages that they share counted once), open
descriptors, threads, and files in the temporary folder and beside the store (Linux). Ends with exit code 1
where the last quarter, against the second (the first has the start in it), has a tenth more memory, any more
descriptors, threads or files, or takes half as long again a trial.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from growth import held

SUITE = """
suite: long
workloads:
  - {{dataset: digits, model: {{name: mlp, hidden: [8]}}, batch_size: 256, epochs: 1}}
optimizers: {{adam: {{lr: 0.01}}, {other}}}
seeds: {seeds}
"""
OWN = "import torch\nclass Mine(torch.optim.SGD):\n    pass\n"


@dataclass(frozen=True)
class Look:
    """What the run and its workers hold at one moment."""

    seconds: float
    trials: int
    memory: int
    descriptors: int
    threads: int
    files: int


def look(pid: int, began: float, store: Path, temporary: Path) -> Look:
    """Count what a process and all that it started hold."""
    descriptors = threads = 0
    waiting = [pid]
    while waiting:
        place = Path(f"/proc/{waiting.pop()}")
        with contextlib.suppress(OSError):  # it has ended
            descriptors += len(list((place / "fd").iterdir()))
            for task in (place / "task").iterdir():
                threads += 1
                waiting += map(int, (task / "children").read_text().split())
    files = sum(len(names) for folder in (temporary, store.parent) for _, _, names in os.walk(folder))
    return Look(time.monotonic() - began, stored(store), held(pid), descriptors, threads, files)


def stored(path: Path) -> int:
    """Records in a store; none before there is one."""
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db,
    ):
        return int(db.execute("SELECT count(*) FROM trials").fetchone()[0])
    return 0


def watch(folder: Path, command: list[str], *, trials: int, every: float) -> list[Look]:
    """Run a command to its end; looks at it while it trains, one every so many seconds."""
    temporary, store = folder / "tmp", folder / "results" / "long" / "store.sqlite"
    temporary.mkdir()
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(temporary)}
    )
    began, looks = time.monotonic(), list[Look]()
    while process.poll() is None:
        found = look(process.pid, began, store, temporary)
        if 0 < found.trials < trials and found.memory:  # then come the leaderboard and what it takes
            looks.append(found)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(every)
    if process.returncode:
        raise SystemExit(f"the run ended with {process.returncode}")
    if left := list(temporary.glob("optbench-*")):  # PyTorch leaves a cache of its own
        raise SystemExit(f"left in the temporary folder: {', '.join(path.name for path in left)}")
    return looks


def parts(looks: list[Look], trials: int, count: int) -> list[tuple[Look, float]]:
    """Medians of the looks of each part of the run, by trials stored, and its seconds a trial."""
    found = []
    edges = [(1, 0.0), *((seen.trials, seen.seconds) for seen in looks), (trials, looks[-1].seconds)]
    numbers, seconds = zip(*edges, strict=True)
    for part in range(count):
        first, last = trials * part // count, trials * (part + 1) // count
        inside = [seen for seen in looks if first < seen.trials <= last] or looks[-1:]
        names = ("seconds", "trials", "memory", "descriptors", "threads", "files")
        middle = Look(*(np.median([getattr(seen, name) for seen in inside]) for name in names))
        start, end = np.interp([first, last], numbers, seconds)
        found.append((middle, float(end - start) / (last - first)))
    return found


def grown(found: list[tuple[Look, float]]) -> list[str]:
    """Say what of the last quarter is more than flat, against the second."""
    quarter = max(len(found) // 4, 1)
    before, after = found[quarter : 2 * quarter], found[-quarter:]

    def middle(rows: list[tuple[Look, float]], name: str) -> float:
        return float(np.median([getattr(seen, name) for seen, _ in rows]))

    more = [
        f"{name}: {middle(before, name):,.0f}, then {middle(after, name):,.0f}"
        for name, room in (("memory", 1.1), ("descriptors", 1.0), ("threads", 1.0), ("files", 1.0))
        if middle(after, name) > room * middle(before, name)
    ]
    each = [float(np.median([seconds for _, seconds in rows])) for rows in (before, after)]
    if each[1] > 1.5 * each[0]:
        more.append(f"seconds a trial: {each[0]:.3f}, then {each[1]:.3f}")
    return more


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--parts", type=int, default=10, help="rows of the table")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between looks")
    parser.add_argument(
        "--custom", action="store_true", help="half of the trials run a class of the suite's own"
    )
    parser.add_argument("options", nargs="*", help="of `optbench run`, after --: -- --workers 2")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        other = 'mine: {class: "mine.py:Mine", lr: 0.1}' if given.custom else "sgd: {lr: 0.1}"
        (folder / "long.yaml").write_text(SUITE.format(seeds=given.trials // 2, other=other))
        (folder / "mine.py").write_text(OWN)
        command = [sys.executable, "-m", "optbench.cli", "run", "long.yaml", *given.options]
        found = parts(
            watch(folder, command, trials=given.trials, every=given.every), given.trials, given.parts
        )
    print("| trials stored | seconds a trial | memory, MiB | descriptors | threads | files |")
    print("| --- | --- | --- | --- | --- | --- |")
    for number, (seen, seconds) in enumerate(found, 1):
        facts = f"{seen.memory / 2**20:.0f} | {seen.descriptors:.0f} | {seen.threads:.0f} | {seen.files:.0f}"
        print(f"| {given.trials * number // given.parts:,} | {seconds:.3f} | {facts} |")
    if more := grown(found):
        raise SystemExit(f"not flat: {'; '.join(more)}")


if __name__ == "__main__":
    main()
