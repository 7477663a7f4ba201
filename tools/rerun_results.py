"""Train trials of the published result sets again: python tools/rerun_results.py [SET ...] [--each N]

Of each folder of results/ the N trials are taken that took least time, those made on a processor of this
machine's name first, each of another workload or optimizer where there is one. Prints a table: identical
(every bit), equal (within rounding) or different, and what differs. The code must be committed, so that the
outcome says of what it is. Data are looked for in OPTBENCH_DATA, too.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optbench import environment
from optbench.environment import Context
from optbench.errors import UserError
from optbench.records.store import FILE_NAME, Store, StoredTrial
from optbench.verification.rerun import rerun

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("set", "trial", "workload", "optimizer", "recorded on", "again", "what differs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sets", nargs="*", help="folders of results/; all if none is named")
    parser.add_argument("--each", type=int, default=2, help="trials of each set (2)")
    parser.add_argument("--same", action="store_true", help="only those of this machine's processor")
    options = parser.parse_args()
    here = environment.describe(ROOT)
    git = here["git"] or {"dirty": True}
    if git["dirty"]:
        sys.exit("not everything is committed: commit it, so that the outcome says of what it is")
    print(f"{here['processor']}, commit {git['commit'][:7]}\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    folders = [ROOT / "results" / name for name in options.sets] or sorted((ROOT / "results").iterdir())
    for folder in folders:
        if not (folder / FILE_NAME).is_file():
            continue
        processor = here["processor"]
        for workload, optimizer, trial in chosen(folder, options.each, processor, only=options.same):
            cells = (folder.name, trial.trial_id, workload, optimizer, place(trial.environment))
            print(f"| {' | '.join((*cells, *outcome(trial)))} |", flush=True)


def chosen(folder: Path, count: int, processor: str, *, only: bool) -> Iterator[tuple[str, str, StoredTrial]]:
    """Pick trials that have a history: of this processor, of each kind, and the quickest first."""
    with Store(folder) as store:
        found = [row for row in store.planned() if row[2].history]
    found.sort(key=lambda row: row[2].timings.get("total", 0.0))
    kinds: Counter[tuple[str, str]] = Counter()
    order = []
    for number, (workload, optimizer, trial) in enumerate(found):
        elsewhere = trial.environment.get("processor") != processor
        if not (only and elsewhere):
            order.append((elsewhere, kinds[workload, optimizer], number))
            kinds[workload, optimizer] += 1
    yield from (found[number] for *_, number in sorted(order)[:count])


def place(facts: Any) -> str:
    """Name the machine and framework of a record."""
    names = (facts.get("device_name") or facts.get("processor"), facts.get("framework"))
    return ", ".join(str(name) for name in names if name)


def outcome(trial: StoredTrial) -> tuple[str, str]:
    """Train a trial again: the verdict, and what differs."""
    try:
        found = rerun(trial, folder=ROOT, context=Context.from_environment())
    except UserError as error:
        return "not run", " ".join(str(error).split())
    return found.verdict, "; ".join(found.lines)


if __name__ == "__main__":
    main()
