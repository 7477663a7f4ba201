"""A report of some workloads: the same numbers, only their records read, no answer to the main question."""

from __future__ import annotations

import json
import sqlite3

import pandas as pd
import pytest
from typer.testing import CliRunner

from optbench import api
from optbench.cli import app
from optbench.records import declarations
from optbench.records.frames import load_results
from optbench.records.store import Store, StoreError
from optbench.suite.load import load_suite
from tests import made_store

SUITE = """
suite: parts
workloads:
  - {name: one, dataset: digits, model: {name: mlp, hidden: [8]}, batch_size: 64, epochs: 3}
  - {name: two, dataset: digits, model: {name: mlp, hidden: [9]}, batch_size: 64, epochs: 3}
  - {name: three, dataset: wine, model: {name: mlp, hidden: [9]}, batch_size: 64, epochs: 3}
optimizers: {adam: {lr: 0.01}, sgd: {lr: 0.1}}
tuning: {trials: 2, seeds: 1}
seeds: 6
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    (folder / "parts.yaml").write_text(SUITE)
    suite = load_suite(folder / "parts.yaml")
    with Store(folder, write=True) as opened:
        declarations.freeze(opened, suite)
    return made_store.fill(suite, folder, made_store.outcome("usual", suite))


def call(*words):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in words])


def test_numbers_of_a_part_are_those_of_the_whole(store):
    whole, part = load_results(store), load_results(store, workloads=["two"])
    assert set(part.trials["workload"]) == {"two"}
    for name in ("trials", "epochs", "tuning", "untuned"):
        all_rows, rows = getattr(whole, name), getattr(part, name)
        here = all_rows[all_rows["workload"] == "two"].reset_index(drop=True)
        assert len(rows)
        pd.testing.assert_frame_equal(
            rows[["trial_id", "optimizer"]].astype(str), here[["trial_id", "optimizer"]].astype(str)
        )
    assert part.planned == whole.planned / 3
    assert {study.workload for journal in part.journals for study in journal.studies} == {"two"}


def test_its_verdicts_are_exploratory_and_it_says_what_was_not_read(store, tmp_path):
    done = call("report", store, "--workload", "two", "--format", "json", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "Not read, as only others were asked for: one and three." in " ".join(done.output.split())
    assert "main question" not in done.output
    assert "only some were read: all verdicts are exploratory" in " ".join(done.output.split())
    assert "were declared before the first trial" in " ".join(done.output.split())
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert not written["declared"]["before_the_first_trial"]


def test_it_leaves_the_report_of_all_as_it_is(store):
    files = api.report(store, formats=("csv",), workloads=["one", "two"])
    assert files.index.is_relative_to(store.parent / "report-one-two")
    assert not (store.parent / "report").exists()


def test_a_workload_that_no_suite_has_is_answered_with_those_it_has(store):
    done = call("report", store, "--workload", "tow", "--format", "terminal")
    assert done.exit_code == 2
    assert "--workload: unknown value 'tow'. Did you mean 'two'" in done.output


def test_digests_of_the_part_and_of_the_plan_are_compared(store, tmp_path):
    def edited(statement):
        path = tmp_path / "store.sqlite"
        path.unlink(missing_ok=True)
        with sqlite3.connect(store) as here, sqlite3.connect(path) as there:
            here.backup(there)
        with sqlite3.connect(path) as db:
            assert db.execute(statement).rowcount == 1
        db.close()
        return path

    one = "trial_id = (SELECT trial_id FROM plan WHERE workload = 'one' LIMIT 1)"
    path = edited(f"UPDATE trials SET timings = '{{}}' WHERE {one}")
    assert not load_results(path, workloads=["two"]).integrity[0].misfits
    (misfit,) = load_results(path, workloads=["one"]).integrity[0].misfits
    assert "does not fit its digest" in misfit.what
    path = edited(f"UPDATE plan SET optimizer = 'sgd ' WHERE {one}")
    with pytest.raises(StoreError, match="the plan has changed since it was written"):
        load_results(path, workloads=["two"])
