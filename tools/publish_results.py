"""Make a result set small enough to be kept: python tools/publish_results.py SUITE STORE OUT

Copies a store without the predictions of single examples and the histories of tuning trials (every number
that a table of the report needs stays), and writes the report's tables beside it.
"""

from __future__ import annotations

import sqlite3
import sys
import zlib
from dataclasses import replace
from pathlib import Path

from optbench.api import report
from optbench.store import Store
from optbench.suite import load_suite
from optbench.tuning import journal
from optbench.yamlfile import read_text

TABLES = ("leaderboard.md", "comparisons.csv", "tuning.csv", "untuned.csv")


def main(suite_file: str, source: str, out: str) -> None:
    suite, target = load_suite(suite_file), Path(out)
    target.mkdir(parents=True, exist_ok=True)
    store = target / "store.sqlite"
    for leftover in target.glob("store.sqlite*"):
        leftover.unlink()
    with sqlite3.connect(Path(source) / "store.sqlite") as found, sqlite3.connect(store) as copy:
        found.backup(copy)
    with Store(store) as opened:
        meta = opened.meta()
        notes = journal.read(meta)
    if read_text(meta["source"], path=Path(source)).data != read_text(suite.text, path=Path(suite_file)).data:
        sys.exit(f"{source}: was run with another suite than {suite_file} is now; run it again")
    db = sqlite3.connect(store, isolation_level=None)
    db.execute("DELETE FROM predictions")
    if notes is not None:
        db.executemany(
            "UPDATE trials SET history_columns = '[]', history = ?, order_by_epoch = '[]' WHERE trial_id = ?",
            [(zlib.compress(b""), key) for key, *_ in notes.trials()],
        )
    changed = {"hash": suite.hash, "source": suite.text}
    if notes is not None:
        changed[journal.KEY] = replace(notes, of=suite.hash).to_json()
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", changed.items())
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute("PRAGMA page_size = 32768")  # a record of 3 kB wastes a quarter of a page of 4
    db.execute("VACUUM")
    db.close()
    written = report(store, out=target / "report", formats=("markdown", "csv"))
    for path in written.files:
        if path.name not in TABLES:
            path.unlink()
    print(f"{store}: {store.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
