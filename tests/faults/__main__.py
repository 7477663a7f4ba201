"""Disturb many runs: ``python -m tests.faults 100 SEED``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from tests.faults import commands, draw, harness, kinds
from tests.faults.suites import BACKENDS, backends_here


class _Calm:
    """Contents of undisturbed stores; each sort is trained once a backend."""

    def __init__(self, place: Path) -> None:
        self._place, self._locks = place, threading.Lock()
        self._lock_of = cache(lambda sort, backend: threading.Lock())
        self._found: dict[tuple[str, str], dict[str, object]] = {}

    def of(self, case: harness.Case) -> dict[str, object]:
        """What the suite of a case leaves."""
        key = case.sort, case.backend
        with self._locks:
            lock = self._lock_of(*key)
        with lock:
            if key not in self._found:
                folder = self._place / f"calm-{'-'.join(key).replace(' ', '_')}"
                self._found[key] = harness.undisturbed(folder, *key)
                harness.clean(folder)
            return self._found[key]


def main() -> int:
    """Disturb so many runs and commands, and print what came of each kind and backend."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("count", type=int, help="disturbed runs")
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("--jobs", type=int, default=2, help="cases at once")
    parser.add_argument("--kinds", nargs="+", choices=kinds.KINDS, help="these alone")
    parser.add_argument("--executors", nargs="+", choices=kinds.EXECUTORS, help="these alone")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, help="these alone")
    parser.add_argument("--commands", type=int, help="killed commands of each sort; by default a tenth")
    asked = parser.parse_args()
    listed = list(
        draw.cases(
            asked.count, asked.seed, backends=asked.backends, kinds=asked.kinds, executors=asked.executors
        )
    )
    table = _Table()
    clock = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as name, ThreadPoolExecutor(asked.jobs) as pool:
        place = Path(name)
        calm = _Calm(place)
        done = [pool.submit(_run, case, place, calm, table) for case in listed]
        kills = max(1, asked.count // 10) if asked.commands is None else asked.commands
        done += [
            pool.submit(_command, command, kills, asked.seed, place, table)
            for command in (commands.COMMANDS if kills else ())
        ]
        try:
            for future in done:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # what runs ends first, and takes its processes along
            raise
    for reason in _lacking(asked.backends):
        print(f"not tried: {reason}")
    return table.end(time.monotonic() - clock)


def _run(case: harness.Case, place: Path, calm: _Calm, table: _Table) -> None:
    names = (case.kind, case.backend, case.executor, case.sort)
    try:
        expected = calm.of(case)
        found = harness.disturbed(place / f"case-{case.seed}", case)
    except Exception:  # a case that cannot be judged has not survived; the others are tried
        table.add(names, hit=True, fine=False, words=f"{case}: FAILED", complaints=[traceback.format_exc()])
        return
    same = found.content == expected
    words = "too late" if not found.hit else "same" if same else "OTHER"
    table.add(
        names,
        hit=found.hit,
        fine=same and not found.complaints,
        words=f"{case}: {words}, {found.seconds:.0f} s",
        complaints=found.complaints,
    )


def _command(name: str, kills: int, seed: int, place: Path, table: _Table) -> None:
    try:
        for number, complaints in enumerate(commands.killed(name, kills, seed, place / name)):
            words = f"{name}: kill {number}: {'OTHER' if complaints else 'whole'}"
            table.add((f"kill {name}",), hit=True, fine=not complaints, words=words, complaints=complaints)
    except Exception:  # as above
        table.add(
            (f"kill {name}",),
            hit=True,
            fine=False,
            words=f"{name}: FAILED",
            complaints=[traceback.format_exc()],
        )


def _lacking(backends: Iterable[str] | None) -> list[str]:
    found = [f"{name}: {reason}" for name, reason in kinds.kinds_here()[1].items()]
    wanted = BACKENDS if backends is None else backends
    return found + [f"{name}: not installed" for name in wanted if name not in backends_here()]


class _Table:
    """How many of what were tried and survived."""

    def __init__(self, tell: Callable[[str], None] = lambda text: print(text, flush=True)) -> None:
        self._tell, self._lock = tell, threading.Lock()
        self._tried: list[Counter[str]] = [Counter() for _ in range(4)]
        self._survived: list[Counter[str]] = [Counter() for _ in range(4)]
        self._late = self._failed = 0

    def add(
        self, names: tuple[str, ...], *, hit: bool, fine: bool, words: str, complaints: Iterable[str]
    ) -> None:
        """Count a case by each of its names, and print it."""
        with self._lock:
            self._late += not hit
            self._failed += not hit and bool(list(complaints))
            for tried, survived, name in zip(self._tried, self._survived, names, strict=False):
                tried[name] += hit
                survived[name] += hit and fine
            self._tell("\n  ".join([words, *complaints]))

    def end(self, seconds: float) -> int:
        """Print the tables, and give the exit code."""
        for tried, survived in zip(self._tried, self._survived, strict=True):
            self._tell("")
            for name in sorted(tried):
                self._tell(f"{name:28s} {survived[name]:4d} of {tried[name]:4d} survived")
        whole, fine = self._tried[0].total(), self._survived[0].total()
        self._tell(f"\n{fine} of {whole} survived, {self._late} came too late; {seconds:.0f} s")
        return int(fine < whole or not whole or bool(self._failed))


if __name__ == "__main__":
    sys.exit(main())
