"""Run many cases and say what went wrong: ``python -m tests.fuzz --cases 10000``.

``--kind tables`` runs one kind, ``--first 17 --cases 1 --verbose`` repeats one case of it.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.cases import KINDS, Material, run_case


def main() -> int:
    """Run the cases; the exit code says whether anything was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    found: dict[str, list[str]] = {}
    whole = sum(share for _, share in KINDS.values())
    with tempfile.TemporaryDirectory() as scratch:
        material = Material(Path(scratch, "sound"))
        for kind in given.kind or KINDS:
            count = given.cases if given.kind else given.cases * KINDS[kind][1] // whole
            codes: Counter[int | None] = Counter()
            started, slowest, bad = time.monotonic(), 0.0, 0
            for number in range(given.first, given.first + count):
                with tempfile.TemporaryDirectory(dir=scratch) as folder:
                    begun = time.monotonic()
                    outcome = run_case(kind, number, Path(folder, "s"), material)
                    slowest = max(slowest, time.monotonic() - begun)
                    codes[outcome.code] += not outcome.error
                    if (complaint := outcome.complaint()) is not None:
                        bad += 1
                        found.setdefault(_gist(complaint), []).append(f"{kind} {number}")
                        if given.verbose:
                            again = (
                                f"python -m tests.fuzz --kind {kind!r} --first {number} --cases 1 --verbose"
                            )
                            print(f"--- {again}\n{outcome.arguments}\n{complaint}", flush=True)
            seconds = time.monotonic() - started
            print(
                f"{kind}: {count} cases in {seconds:.0f} s, slowest {slowest:.1f} s, exit codes "
                f"{dict(sorted((c or 0, n) for c, n in codes.items() if n))}, {bad} complaints",
                flush=True,
            )
    for gist, cases in sorted(found.items(), key=lambda item: -len(item[1])):
        print(f"\n{len(cases)} x [{'; '.join(cases[:3])}] {gist}")
    return bool(found)


def _gist(complaint: str) -> str:
    """Where and as what it failed: equal for cases of one cause."""
    frames = re.findall(r'File "([^"]*optbench/[^"]*)", line (\d+), in (\S+)', complaint)
    places = [f"{Path(file).name}:{line} {name}" for file, line, name in frames[-2:]]
    last = complaint.strip().splitlines()[-1]
    return f"{' < '.join(reversed(places))}: {last[:160]}" if frames else complaint[:300]


if __name__ == "__main__":
    sys.exit(main())
