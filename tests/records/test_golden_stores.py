"""Stores of every format there has been, as they were written: what they hold must read the same for ever."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from optbench import api
from optbench.cli import app
from optbench.records import format as store_format
from optbench.records import single
from optbench.records.store import Store
from optbench.report.analysis import analyse

GOLDEN = sorted((Path(__file__).parent / "golden").glob("store-format-*"))


@pytest.fixture(params=GOLDEN, ids=lambda folder: folder.name)
def golden(request, tmp_path):
    """A copy of a golden store's folder, and what it holds."""
    shutil.copytree(request.param, tmp_path / "golden")
    return tmp_path / "golden", json.loads((request.param / "expected.json").read_text())


def held(folder):
    with Store(folder) as opened:
        return {
            "plan": [list(row) for row in opened.plan()],
            "trials": [
                {
                    "trial_id": trial.trial_id,
                    "block_id": trial.block_id,
                    "status": trial.status,
                    "metrics": dict(trial.metrics),
                    "fingerprints": dict(trial.fingerprints),
                    "order_by_epoch": list(trial.order_by_epoch),
                    "history": {
                        name: [None if np.isnan(value) else value for value in values.tolist()]
                        for name, values in trial.history.items()
                        if not name.endswith("seconds")
                    },
                    "predictions": {
                        epoch: classes.tolist()[:20]
                        for epoch, classes in opened.predictions(trial.trial_id).items()
                    },
                }
                for trial in opened.trials()
            ],
        }


def version(path):
    with sqlite3.connect(path) as db:
        (found,) = db.execute("PRAGMA user_version").fetchone()
    db.close()
    return found


def test_there_is_one_of_every_format():
    assert [int(folder.name.rpartition("-")[2]) for folder in GOLDEN] == [
        number + 1 for number in range(len(store_format.MIGRATIONS))
    ]


def test_every_number_reads_as_it_was_written_and_the_file_is_not_touched(golden):
    folder, expected = golden
    before = hashlib.sha256((folder / "store.sqlite").read_bytes()).hexdigest()
    assert held(folder) == expected
    assert hashlib.sha256((folder / "store.sqlite").read_bytes()).hexdigest() == before
    assert sorted(path.name for path in folder.iterdir()) == ["expected.json", "store.sqlite"]


def test_its_pairs_are_still_proved_and_reported(golden):
    folder, expected = golden
    suite, results, _ = api.gather_results(folder)
    report = analyse(results, suite)
    (board,) = report.boards
    assert not results.refusals
    assert [c.n for c in board.family.comparisons] == [2]
    means = {row.optimizer: row.mean for row in board.rows}
    for label, mean in means.items():
        mine = [
            trial["metrics"]["test_accuracy"]
            for trial, (_, _, optimizer) in zip(expected["trials"], expected["plan"], strict=True)
            if optimizer == label
        ]
        assert mean == pytest.approx(np.mean(mine), rel=1e-15)


def test_its_trials_would_have_the_same_ids_today(golden):
    folder, _ = golden
    with Store(folder) as opened:
        for trial in opened.trials():
            suite, _ = single.planned(trial, folder=folder)  # refuses a trial that is another one today
            assert suite.workloads


def test_a_newer_optbench_reads_a_copy_and_migrates_only_when_it_writes(golden, monkeypatch):
    folder, expected = golden
    step = "ALTER TABLE trials ADD COLUMN later TEXT; CREATE TABLE later (key TEXT);"
    now = len(store_format.MIGRATIONS)
    monkeypatch.setattr(store_format, "MIGRATIONS", (*store_format.MIGRATIONS, step))
    assert held(folder) == expected
    before = version(folder / "store.sqlite")
    assert before < now + 1
    Store(folder, write=True).close()
    assert version(folder / "store.sqlite") == now + 1
    assert held(folder) == expected


def test_an_older_optbench_refuses_a_newer_store_in_a_line(golden):
    folder, _ = golden
    with sqlite3.connect(folder / "store.sqlite") as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    for command in (["report", str(folder)], ["export", str(folder), "-o", str(folder / "tables")]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2
        assert "written by a newer optbench (format 999" in done.output
        assert "upgrade optbench" in done.output
