"""Make a result set of the repository from nothing: python tools/publish_results.py SUITE [--store FOLDER]

Runs the suite into build/results (interrupted, the same command goes on), or takes the store that
``--store`` names, which may lack trials. Then writes into results/<suite>: the store without predictions and
histories of tuning trials and without trials that the suite no longer plans (every number that a table of the
report needs stays, and `show --plots` works), the report's tables, and environment.json, which says of what
suite, on which machine and by which versions it was made, and which planned trials have not been run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import sys
import tempfile
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

from optbench.api import report, run
from optbench.records.digests import SEALS, reseal
from optbench.records.store import FILE_NAME, Store
from optbench.suite.load import load_suite
from optbench.suite.spec import Suite
from optbench.suite.yamlfile import read_text
from optbench.tuning import journal

ROOT = Path(__file__).resolve().parent.parent
TABLES = ("leaderboard.md", "comparisons.csv", "tuning.csv", "untuned.csv")
#: Facts of a record's environment that tell where it was made.
FACTS = (
    "processor",
    "cores",
    "memory_gb",
    "system",
    "python",
    "optbench",
    "git",
    "framework",
    "threads",
    "packages",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("suite", type=Path)
    parser.add_argument("--store", type=Path, help="folder of a store that has been run already")
    options = parser.parse_args()
    suite = load_suite(options.suite)
    source = options.store
    if source is None:
        source = run(suite, results=ROOT / "build" / "results", workers="auto").store.parent
    target = ROOT / "results" / suite.name
    target.mkdir(parents=True, exist_ok=True)
    store = target / FILE_NAME
    with tempfile.TemporaryDirectory(dir=target) as folder:
        made = Path(folder) / FILE_NAME
        shrink(source / FILE_NAME, made, suite)
        for leftover in target.glob(f"{FILE_NAME}*"):
            leftover.unlink()
        shutil.move(made, store)
    written = report(store, out=target / "report", formats=("markdown", "csv"))
    for path in written.files:
        if path.name in TABLES:
            path.replace(target / "report" / path.name)
        else:
            path.unlink()
    for folder in {path.parent for path in written.files} - {target / "report"}:
        folder.rmdir()
    (target / "environment.json").write_text(json.dumps(origin(store, suite), indent=1) + "\n")
    print(f"{store}: {store.stat().st_size / 1e6:.1f} MB")


def shrink(source: Path, copy: Path, suite: Suite) -> None:
    """Copy a store of a suite without what its tables do not need."""
    with sqlite3.connect(source) as found, sqlite3.connect(copy) as made:
        found.backup(made)
    with Store(copy, write=True) as opened:
        meta = opened.meta()
        notes = journal.read(meta)
    if read_text(meta["source"], path=source).data != read_text(suite.text, path=Path(suite.name)).data:
        sys.exit(f"{source}: was run with another suite of this name; run it again")
    db = sqlite3.connect(copy, isolation_level=None)
    if notes is None and (outside := drop_unplanned(db)):
        print(f"{source}: {outside} trials are not of this suite's plan: left out")
    if notes is not None:
        searched = [(key,) for key, *_ in notes.trials()]
        db.executemany("DELETE FROM predictions WHERE trial_id = ?", searched)
        db.executemany(  # without a digest, as they are no longer what was written
            "UPDATE trials SET history_columns = '[]', history = ?, order_by_epoch = '[]', digest = NULL "
            "WHERE trial_id = ?",
            [(zlib.compress(b""), key) for key, *_ in notes.trials()],
        )
    changed = {"hash": suite.hash, "source": suite.text}
    if notes is not None:
        changed[journal.KEY] = replace(notes, of=suite.hash).to_json()
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", changed.items())
    db.execute(f"DELETE FROM {SEALS}")
    reseal(db)
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute("PRAGMA page_size = 32768")  # a record of 3 kB wastes a quarter of a page of 4
    db.execute("VACUUM")
    db.close()


def drop_unplanned(db: sqlite3.Connection) -> int:
    """Remove the trials that an earlier version of the suite planned; returns how many."""
    count = db.execute("DELETE FROM trials WHERE trial_id NOT IN (SELECT trial_id FROM plan)").rowcount
    db.execute("DELETE FROM predictions WHERE trial_id NOT IN (SELECT trial_id FROM trials)")
    db.execute("DELETE FROM environments WHERE id NOT IN (SELECT environment FROM trials)")
    return count


def origin(store: Path, suite: Suite) -> dict[str, object]:
    """Say of what and where the trials of a store were made, and which of the plan it lacks."""
    with Store(store) as opened:
        trials = list(opened.trials())
        plan = opened.plan()
    have = {trial.trial_id for trial in trials}
    lacking = Counter(f"{workload}, {optimizer}" for key, workload, optimizer in plan if key not in have)
    places = Counter(json.dumps({name: t.environment.get(name) for name in FACTS}) for t in trials)
    return {
        "suite": f"suites/{suite.name}.yaml",
        "suite_hash": suite.hash,
        "trials": len(trials),
        "not_run": dict(lacking),
        "started": [min(t.started for t in trials), max(t.started for t in trials)],
        "environments": [{"trials": count, **json.loads(facts)} for facts, count in places.most_common()],
    }


if __name__ == "__main__":
    main()
