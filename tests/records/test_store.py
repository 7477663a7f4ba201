from __future__ import annotations

import contextlib
import multiprocessing
import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from optbench.execution.jobs import crashed
from optbench.records.frames import load_results
from optbench.records.store import Store, StoreBusyError, StoreError, new_store
from optbench.suite.expand import trials
from optbench.suite.load import load_suite
from optbench.trial import Fingerprints, TrialRecord, block_id, trial_id
from tests.report.conftest import fill_store


@pytest.fixture
def record(write_suite) -> TrialRecord:
    spec = trials(load_suite(write_suite()), lambda backend, device: "cpu")[0].spec
    return TrialRecord(
        trial_id=trial_id(spec),
        block_id=block_id(spec),
        spec=spec,
        status="completed",
        fingerprints=Fingerprints(split="a", init="b", order="c", order_by_epoch=(1, 2**52 - 1)),
        history={"train_loss": np.array([2.0, 1.0 / 3]), "val_loss": np.array([np.nan, 1.5])},
        metrics={"test_accuracy": 0.1 + 0.2, "val_loss": float("nan")},
        timings={"total": 1.5},
        predictions={"last": np.array([3, 255], dtype=np.uint8)},
        environment={"cores": 2},
        started="2020-01-01T00:00:00+00:00",
    )


def test_a_record_reads_back_bit_for_bit(tmp_path, record):
    with Store(tmp_path, write=True) as store:
        store.add(record)
    with Store(tmp_path) as store:
        (back,) = store.trials()
        predictions = store.predictions(record.trial_id)
    assert back.metrics == {"test_accuracy": 0.1 + 0.2}
    for name, values in record.history.items():
        assert np.array_equal(back.history[name], values, equal_nan=True)
    assert back.order_by_epoch == record.fingerprints.order_by_epoch
    assert back.environment == {"cores": 2}
    assert np.array_equal(predictions["last"], [3, 255])
    assert predictions["last"].dtype == np.uint8


def test_a_retry_replaces_the_crash_and_counts_the_attempts(tmp_path, record):
    crash = crashed(record.spec, "boom", environment={}, started=record.started)
    with Store(tmp_path, write=True) as store:
        store.add(crash)
        (first,) = store.trials()
        assert (first.status, first.error, first.attempts) == ("crashed", "boom", 1)
        store.add(record)
        (second,) = store.trials()
        assert (second.status, second.error, second.attempts) == ("completed", None, 2)


def test_an_error_while_writing_leaves_the_store_as_it_was(tmp_path, record):
    with Store(tmp_path, write=True) as store:
        with pytest.raises(AttributeError):
            store.add(replace(record, predictions={"last": "no array"}))
        assert store.statuses() == {}


def test_a_missing_store_and_a_file_that_is_none_are_told_apart(tmp_path):
    with pytest.raises(StoreError, match="no store here"):
        Store(tmp_path / "nothing")
    path = tmp_path / "store.sqlite"
    path.write_bytes(b"not a database, but long enough to be looked at" * 20)
    for write in (False, True):
        with pytest.raises(StoreError, match="not a readable store"):
            Store(path, write=write)


def test_a_store_of_a_newer_format_is_refused(tmp_path):
    Store(tmp_path, write=True).close()
    with sqlite3.connect(tmp_path / "store.sqlite") as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    with pytest.raises(StoreError, match="newer optbench"):
        Store(tmp_path)


def test_migration_that_was_cut_short_is_done_again(tmp_path, record):
    # A file of format 0: made, but killed before the first step was committed.
    sqlite3.connect(tmp_path / "store.sqlite").close()
    with Store(tmp_path, write=True) as store:
        store.add(record)
        assert store.statuses() == {record.trial_id: "completed"}


def _hold(path, ready, done):
    with Store(path, write=True) as store, store.writing():
        ready.set()
        done.wait(30)


def test_a_second_writer_is_told_so_and_the_lock_dies_with_its_holder(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready, done))
    process.start()
    assert ready.wait(60)
    with Store(tmp_path, write=True) as store:
        with pytest.raises(StoreBusyError, match="another run"), store.writing():
            pass
        process.kill()
        process.join()
        with store.writing():
            pass


def test_a_new_store_has_its_name_when_it_is_whole_and_nothing_of_a_killed_one(tmp_path, record):
    target = tmp_path / "out" / "store.sqlite"
    with Store(tmp_path / "out" / "unfinished-store.sqlite", write=True) as left_by_a_kill:
        left_by_a_kill.add(record)
    with contextlib.suppress(KeyboardInterrupt), new_store(target) as store:
        store.set_meta(suite="s")
        raise KeyboardInterrupt
    assert not list(target.parent.glob("*.sqlite*"))
    with Store(tmp_path / "out" / "unfinished-store.sqlite", write=True) as left_by_a_kill:
        left_by_a_kill.add(record)
    with new_store(target) as store:
        store.set_meta(suite="s")
        assert not target.exists()
    assert [path.name for path in target.parent.glob("*.sqlite*")] == ["store.sqlite"]
    with Store(target) as store:
        assert (store.meta(), store.statuses()) == ({"suite": "s"}, {})


def test_what_is_written_together_is_there_together(tmp_path, record):
    with Store(tmp_path, write=True) as store:
        store.set_meta(suite="before")
        with contextlib.suppress(KeyboardInterrupt), store.together():
            store.set_meta(suite="after")
            store.set_plan([(record.trial_id, "w", "o")])
            store.add(record)
            raise KeyboardInterrupt
        assert (store.meta(), store.plan(), store.statuses()) == ({"suite": "before"}, [], {})
        assert not store.verify().misfits
        with store.together():
            store.set_meta(suite="after")
            store.set_plan([(record.trial_id, "w", "o")])
            store.add(record)
            with Store(tmp_path) as seen:
                assert (seen.meta(), seen.statuses()) == ({"suite": "before"}, {})
        assert store.meta() == {"suite": "after"}
        assert store.statuses() == {record.trial_id: "completed"}
        found = store.verify()
        assert (found.records, found.bare, found.misfits) == (1, 0, ())
        store.set_meta(suite="later")  # a transaction of its own again
    with Store(tmp_path) as store:
        assert store.meta() == {"suite": "later"}


@pytest.fixture
def damage(tmp_path, write_suite):
    """A store of two trials in which one statement has been run; returns its path."""
    suite = load_suite(write_suite(("seeds: 2", "seeds: 1")))
    path = fill_store(suite, tmp_path / "store", lambda trial: 0.9) / "store.sqlite"

    def run(statement, *values):
        with sqlite3.connect(path) as db:
            db.execute(statement, values)
        db.close()
        return path

    return run


@pytest.mark.parametrize(
    ("statement", "values", "said"),
    [
        ("UPDATE trials SET history_columns = ?", ['[{"a": 1}]'], "history_columns of trial"),
        ("UPDATE trials SET history_columns = ?", ["epoch"], "history_columns of trial"),
        ("UPDATE trials SET history = ?", [b"no zlib"], "history of trial"),
        ("UPDATE trials SET order_by_epoch = 'x' || rowid", [], "order_by_epoch of trial"),
        ("UPDATE trials SET spec = json_remove(spec, '$.seeds.split')", [], "spec of trial"),
        ("UPDATE trials SET block_id = 'one'; ", [], None),
        ("UPDATE environments SET facts = '0.5'", [], "environment"),
        ("INSERT INTO meta VALUES ('tuning', ?)", ['{"studies": [1]}'], "meta entry 'tuning'"),
        ("ALTER TABLE trials RENAME COLUMN spec TO other", [], "no such column"),
        ("DROP TABLE environments", [], "no such table: environments"),
        ("ALTER TABLE environments ADD COLUMN extra", [], None),
    ],
)
def test_a_report_names_the_store_and_what_of_it_is_damaged(damage, statement, values, said):
    path = damage(statement, *values)
    if said is None:  # still to be read
        load_results(path)
        return
    with pytest.raises(StoreError) as caught:
        load_results(path)
    assert str(caught.value).startswith(f"{path}: damaged: ")
    assert said in str(caught.value)
    assert "restore the file from a copy" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_trials_of_one_optimizer_in_a_block_are_damage(damage):
    path = damage("UPDATE plan SET optimizer = 'adam'")
    with pytest.raises(StoreError, match="are both optimizer 'adam' of one block"):
        load_results(path)


def test_a_full_disk_is_no_damage(tmp_path, record):
    def fill():
        with Store(tmp_path, write=True) as store:
            (pages,) = store._db.execute("PRAGMA page_count").fetchone()
            store._db.execute(f"PRAGMA max_page_count = {pages}")
            store.add(replace(record, history={"loss": np.random.default_rng(0).random(10_000)}))

    with pytest.raises(StoreError, match="disk is full; make room on its disk, then run the same"):
        fill()
    with Store(tmp_path, write=True) as store:
        store.add(record)
        assert len(list(store.trials())) == 1


def test_a_file_that_another_program_locks_is_no_damage(tmp_path, record):
    def write():
        with Store(tmp_path, write=True) as store:
            store._db.execute("PRAGMA busy_timeout = 10")
            store.add(record)

    write()
    other = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked; end the program that has it open"):
        write()
    other.close()
    write()


def test_a_fault_of_ours_on_a_sound_store_keeps_its_traceback(damage):
    path = damage("SELECT 1")
    with pytest.raises(KeyError, match="ours"), Store(path):
        raise KeyError("ours")


def test_a_schema_that_is_no_text_is_an_unreadable_store(tmp_path, damage):
    path = damage("SELECT 1")
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"CREATE TABLE meta", b"CREATE TABL\x9d meta"))
    with pytest.raises(StoreError, match=r"store\.sqlite: "):
        load_results(path)
