"""rerun, merge, export and doctor, as a user calls them."""

from __future__ import annotations

import json
import sqlite3

import pandas as pd
import pytest
from typer.testing import CliRunner

pytest.importorskip("torch", reason="runs trials with PyTorch")

from optbench import api
from optbench.cli import app
from optbench.records.frames import load_results
from optbench.records.store import Store
from tests.execution.test_local import content


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture
def store(write_suite, tmp_path):
    return api.run(write_suite(), results=tmp_path / "results").store


def first(store):
    with Store(store) as opened:
        return opened.plan()[0][0]


def test_a_trial_trained_again_is_identical_and_the_store_untouched(store):
    before = store.read_bytes()
    again = call("rerun", first(store), "--store", store)
    assert (again.exit_code, "identical" in again.output) == (0, True)
    assert store.read_bytes() == before


def test_other_numbers_are_different_and_the_likely_cause_is_named(store):
    key = first(store)
    with sqlite3.connect(store) as db:
        (_, facts), *_ = db.execute("SELECT * FROM environments").fetchall()
        changed = {**json.loads(facts), "processor": "Abacus 1"}
        column = [c[1] for c in db.execute("PRAGMA table_info(environments)")][1]
        db.execute(f"UPDATE environments SET {column} = ?", (json.dumps(changed),))
        db.execute("UPDATE trials SET history = (SELECT history FROM trials WHERE trial_id != ?)", (key,))
    again = call("rerun", key, "--store", store)
    assert again.exit_code == 1
    assert "different" in again.output
    assert "processor was Abacus 1" in again.output


def test_a_part_of_halving_trains_again_too(write_suite, tmp_path):
    pytest.importorskip("optuna")
    path = write_suite(
        ("seeds: 2", "seeds: 2\ntuning: {sampler: halving, trials: 3, seeds: 1}"), ("epochs: 2", "epochs: 3")
    )
    store = api.run(path, results=tmp_path).store
    results = load_results(store)
    part = results.tuning[results.tuning["setting_epochs"] == 1]["trial_id"].iloc[0]
    assert "identical" in call("rerun", part, "--store", store).output


def test_parts_of_a_suite_merge_to_the_whole(write_suite, tmp_path):
    path = write_suite()
    whole = api.run(path, results=tmp_path / "whole").store
    parts = [
        api.run(path, results=tmp_path / name, only=lambda t, name=name: t.optimizer == name).store
        for name in ("adam", "wame")
    ]
    before = [part.read_bytes() for part in parts]
    merged = call("merge", *parts, "-o", tmp_path / "merged")
    assert merged.exit_code == 0, merged.output
    assert sorted(p.name for p in (tmp_path / "merged").iterdir()) == ["run.lock", "store.sqlite"]
    assert "4 trials, 0 of them in several stores" in merged.output
    assert content(tmp_path / "merged") == content(whole)
    assert [part.read_bytes() for part in parts] == before
    assert len(load_results(tmp_path / "merged").trials) == 4
    again = call("merge", *parts, "-o", tmp_path / "merged")
    assert (again.exit_code, "a store is there already" in again.output) == (2, True)


def test_conflicts_are_told_and_suites_are_not_mixed(write_suite, tmp_path):
    a = api.run(write_suite(), results=tmp_path / "a").store
    b = api.run(write_suite(), results=tmp_path / "b").store
    with sqlite3.connect(b) as db:
        db.execute("UPDATE trials SET metrics = '{}'")
    merged = call("merge", a, b, "-o", tmp_path / "c")
    assert merged.output.count("has other numbers; kept the first") == 4
    assert content(tmp_path / "c") == content(a)
    other = api.run(write_suite(("suite: tiny", "suite: other")), results=tmp_path / "d").store
    refused = call("merge", a, other, "-o", tmp_path / "e")
    assert (refused.exit_code, "of suite 'other'" in refused.output) == (2, True)
    assert not list((tmp_path / "e").glob("*"))


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_tables_leave_and_read_back(store, tmp_path, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    done = call("export", store, "--to", kind, "-o", tmp_path / "out")
    assert done.exit_code == 0
    read = {"csv": pd.read_csv, "json": pd.read_json, "parquet": pd.read_parquet}[kind]
    trials = read(tmp_path / "out" / f"trials.{kind}")
    expected = load_results(store)
    assert trials["test_accuracy"].to_list() == pytest.approx(expected.trials["test_accuracy"].to_list())
    assert len(read(tmp_path / "out" / f"epochs.{kind}")) == len(expected.epochs)


def test_the_doctor_names_what_is_here_and_what_to_mend(tmp_path, monkeypatch):
    monkeypatch.setenv("OPTBENCH_THREADS", "512")
    plain = call("doctor", "--results", tmp_path / "none")
    assert plain.exit_code == 0
    assert "OPTBENCH_THREADS is 512" in plain.output
    found = json.loads(call("doctor", "--results", tmp_path, "--full", "--json").output)
    assert "cpu" in found["frameworks"]["torch"]["devices"]
    assert found["data"]["digits"] == "comes with optbench"
    assert found["disk_free_gb"] > 0


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE trials SET history = x'00'",
        "UPDATE meta SET value = '{' WHERE key = 'view'",
        "UPDATE meta SET value = '[]' WHERE key = 'view'",
        "DROP TABLE trials",
    ],
)
def test_a_damaged_store_is_said_to_be_one(store, damage):
    with sqlite3.connect(store) as db:
        db.execute(damage)
    done = call("report", store, "--format", "terminal")
    assert done.exit_code == 2
    assert "store" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize("words", [["run"], ["run", "--fresh"], ["run", "--workers", "2"], ["run", "--time"]])
def test_a_second_run_of_a_suite_is_told_and_changes_nothing(store, write_suite, words):
    before, suite = content(store), write_suite()
    with Store(store, write=True) as first_run, first_run.writing():
        second = call(words[0], suite, *words[1:], "--results", store.parent.parent)
        assert second.exit_code == 2, second.output
        assert "another run is writing to this store" in second.output
        assert "optbench merge" in second.output
        assert content(store) == before


def test_an_import_and_a_merge_wait_for_nobody_who_writes_there(store, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("optimizer,seed,test_accuracy\nwame,0,0.9\nadam,0,0.8\n")
    out = tmp_path / "out"
    assert call("import", table, "-o", out).exit_code == 0
    before = content(out)
    table.write_text(table.read_text() + "wame,1,0.9\nadam,1,0.8\n")
    with Store(out, write=True) as other, other.writing():
        told = call("import", table, "-o", out)
        assert (told.exit_code, "another run is writing" in told.output) == (2, True)
        assert content(out) == before
    assert call("import", table, "-o", out).exit_code == 0
    with Store(tmp_path / "merged", write=True) as other, other.writing():
        other.path.unlink()
        told = call("merge", store, store, "-o", tmp_path / "merged")
        assert (told.exit_code, "another run is writing" in told.output) == (2, True)
