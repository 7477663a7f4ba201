"""Disturb many runs: ``python -m tests.faults 100``."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from tests.faults import harness


def main(count: int, seed: int) -> int:
    """Disturb so many runs, and print what came of each kind."""
    tried: Counter[str] = Counter()
    survived: Counter[str] = Counter()
    missed = 0
    calm: dict[harness.Case, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(prefix="faults-") as place:
        for number, case in enumerate(harness.cases(count, seed)):
            key = replace(case, fault="", moment="", seed=0)
            if key not in calm:
                calm[key] = harness.undisturbed(Path(place) / f"calm-{number}", case)
            folder = Path(place) / f"case-{number}"
            found, hit = harness.disturbed(folder, case)
            harness.clean(folder)
            missed += not hit
            tried[case.fault] += hit
            survived[case.fault] += hit and found == calm[key]
            print(
                f"{case}: {'same' if found == calm[key] else 'OTHER'}{'' if hit else ' (too late)'}",
                flush=True,
            )
    for name, n in tried.items():
        print(f"{name}: {survived[name]} of {n} survived")
    print(f"{sum(survived.values())} of {sum(tried.values())} survived; {missed} came too late")
    return int(survived != tried)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
