"""What is not as it was written is named: edits, flipped bits, records added and taken away."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import zlib
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from optbench import api
from optbench.cli import app
from optbench.records import checked
from optbench.records.format import pack_array
from optbench.records.frames import load_results
from optbench.records.identity import ids_of
from optbench.records.integrity import Integrity
from optbench.records.merge import merge
from optbench.records.store import Store, StoreError
from optbench.report.analysis import analyse
from optbench.report.build import markdown_text
from optbench.suite.expand import trials
from optbench.suite.load import load_suite
from optbench.task import CLASSIFICATION
from optbench.trial import block_id, to_plain, trial_id
from optbench.verification.stores import check_store
from tests.report.conftest import fill_store, made_record


def with_predictions(spec, score, examples=40):
    """A record whose accuracies are those of stored predictions."""
    record = made_record(spec, round(score * examples) / examples)
    value = record.metrics["test_accuracy"]
    metrics = {**record.metrics, "test_accuracy_last": value, "test_accuracy_best": value}
    classes = np.arange(examples, dtype=np.uint8) % 10
    return replace(record, metrics=metrics, predictions={"last": classes, "best": classes})


@pytest.fixture
def made(write_suite, tmp_path):
    """A store of four records with predictions; gives its file and its plan."""
    suite = load_suite(write_suite())
    folder = fill_store(suite, tmp_path / "store", lambda trial: None)
    plan = trials(suite, lambda backend, device: "cpu")
    with Store(folder, write=True) as store:
        for k, trial in enumerate(plan):
            store.add(with_predictions(trial.spec, 0.7 + k / 50))
    return folder / "store.sqlite", plan


def edit(path, *statements):
    with closing(sqlite3.connect(path)) as db, db:
        for statement, *values in statements:
            assert db.execute(statement, values).rowcount, statement


def verified(path, ids=None):
    with Store(path) as store:
        return store.verify(ids)


def test_what_was_written_fits(made):
    path, plan = made
    found = verified(path)
    assert (found.records, found.bare, found.misfits) == (4, 0, ())
    assert verified(path, [trial_id(plan[0].spec)]).records == 1
    assert not found.sentences


#: Edits of the first record, and what is said of it.
EDITS = {
    "metrics = json_set(metrics, '$.test_loss', 0.125)": "does not fit its digest",
    "metrics = json_set(metrics, '$.test_accuracy', 7.0)": "test_accuracy is 7, which is beyond 0..1",
    "metrics = json_set(metrics, '$.test_accuracy_last', 0.71)": "no whole number of the 40 predictions",
    "metrics = json_set(metrics, '$.test_accuracy', 0.5)": "neither that of the last nor that of the best",
    "spec = json_set(spec, '$.optimizer.lr', 0.5)": "its spec is that of trial",
    "spec = json_set(spec, '$.seeds.init', 9)": "its spec is that of trial",
    "block_id = 'another'": "its spec is of block",
    "status = 'diverged'": "does not fit its digest",
    "started = '2031-01-01T00:00:00+00:00'": "does not fit its digest",
    "attempts = 2": "does not fit its digest",
    "error = 'none'": "does not fit its digest",
    "init = 'other'": "does not fit its digest",
    "order_by_epoch = '[2, 1, 1, 1]'": "does not fit its digest",
    "timings = json_set(timings, '$.step', 0.001)": "does not fit its digest",
    "history = (SELECT history FROM trials WHERE rowid = 3)": "does not fit its digest",
    "digest = digest || '0'": "does not fit its digest",
}


@pytest.mark.parametrize("change", EDITS)
def test_an_edited_record_is_named_with_what_is_wrong(made, change):
    path, plan = made
    key = trial_id(plan[0].spec)
    edit(path, (f"UPDATE trials SET {change} WHERE trial_id = ?", key))
    found = verified(path)
    assert list(found.unfit) == [key]
    assert EDITS[change] in found.unfit[key].what
    assert key in found.sentences[0]
    assert verified(path, [key]).misfits[0].trial_id == key


def test_edited_predictions_and_environments_are_named(made):
    path, plan = made
    keys = [trial_id(trial.spec) for trial in plan]
    edit(path, ("DELETE FROM predictions WHERE trial_id = ? AND epoch = 'best'", keys[1]))
    assert list(verified(path).unfit) == [keys[1]]
    edit(path, ("UPDATE environments SET facts = json_set(facts, '$.threads', 2)",))
    found = verified(path)
    assert list(found.unfit) == keys
    assert found.unfit[keys[0]].what == "its environment has changed"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE plan SET optimizer = CASE optimizer WHEN 'adam' THEN 'wame' ELSE 'adam' END", "the plan"),
        ("DELETE FROM plan WHERE position = 3", "the plan"),
        ("UPDATE meta SET value = 'Another title' WHERE key = 'title'", "meta entry 'title'"),
        ("DELETE FROM meta WHERE key = 'hash'", "meta entry 'hash' is missing"),
        ("INSERT INTO meta VALUES ('smoke', '')", "meta entry 'smoke' was added"),
        ("DELETE FROM trials WHERE rowid = 2", "3 records, and 4 were written"),
        ("UPDATE seals SET digest = '0' WHERE part = 'chain'", "the digest over all digests"),
        ("UPDATE seals SET digest = '4:0' WHERE part = 'records'", "not those that were written"),
    ],
)
def test_plan_facts_and_the_number_of_records_are_covered_and_the_report_refuses(made, statement, said):
    path, _ = made
    edit(path, (statement,))
    (first, *_) = verified(path).parts
    assert said in str(first)
    with pytest.raises(StoreError, match=r"damaged: .*restore the file from a copy"):
        load_results(path)
    for command in (("report", path, "--format", "terminal"), ("doctor", path)):
        done = CliRunner().invoke(app, [str(word) for word in command])
        assert done.exit_code == 2
        assert said in done.output + done.stderr


def test_a_table_of_a_later_format_is_covered_too(made):
    path, _ = made
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE declaration (time TEXT PRIMARY KEY, content TEXT) WITHOUT ROWID")
    with Store(path, write=True) as store, store._transaction("declaration"):
        store._db.execute("INSERT INTO declaration VALUES ('1', 'alpha 0.05')")
    assert not verified(path).misfits
    edit(path, ("UPDATE declaration SET content = 'alpha 0.5'",))
    assert [str(misfit) for misfit in verified(path).misfits] == [
        "the declaration has changed since it was written"
    ]


def test_the_report_leaves_an_edited_record_out_and_names_it(made, tmp_path):
    path, plan = made
    key = trial_id(plan[0].spec)
    edit(path, ("UPDATE trials SET metrics = json_set(metrics, '$.test_loss', 0.1) WHERE trial_id = ?", key))
    results = load_results(path)
    assert key not in set(results.trials["trial_id"])
    (refusal,) = results.refusals
    assert (refusal.trial_id, refusal.unfit) == (key, True)
    spec, _ = api.find_store(path)
    text = markdown_text(analyse(results, spec))
    assert key in text
    assert "Every pair was proved" not in text
    assert "have not been run" not in text
    commands = {
        ("report", path, "--out", tmp_path / "report"): 2,
        ("report", path, "--format", "terminal"): 2,
        ("export", path, "-o", tmp_path / "tables"): 2,
        ("doctor", path): 2,
        ("doctor", path, "--json"): 2,
        ("show", key, "--store", path): 0,
    }
    for command, code in commands.items():
        done = CliRunner().invoke(app, [str(word) for word in command])
        assert (done.exit_code, key in done.output + done.stderr) == (code, True), command
    assert key in (tmp_path / "report" / "index.html").read_text()
    assert key not in (tmp_path / "tables" / "trials.csv").read_text()


def test_a_merge_takes_an_edited_record_from_the_store_that_has_it_as_it_was_written(made, tmp_path):
    path, plan = made
    edited = tmp_path / "edited" / "store.sqlite"
    edited.parent.mkdir()
    edited.write_bytes(path.read_bytes())
    key, other = (trial_id(trial.spec) for trial in plan[:2])
    edit(edited, ("UPDATE trials SET metrics = '{}' WHERE trial_id = ?", key))
    for order in ((path, edited), (edited, path)):
        merged = merge(order, tmp_path / f"merged-{order[0] == path}")
        assert (merged.trials, merged.left_out) == (4, 0)
        assert any(key in words and "taken from another store" in words for words in merged.conflicts)
        assert not verified(merged.store).misfits
        with Store(merged.store) as store:
            (trial,) = store.trials([key])
            assert trial.metrics["test_accuracy"] > 0.6
    edit(path, ("UPDATE trials SET metrics = '{}' WHERE trial_id IN (?, ?)", key, other))
    done = CliRunner().invoke(app, ["merge", str(edited), str(path), "-o", str(tmp_path / "part")])
    assert done.exit_code == 2
    assert f"trial {key}" in done.output
    assert "left out" in done.output
    assert verified(tmp_path / "part").records == 3
    edit(path, ("UPDATE plan SET workload = 'x'",))
    with pytest.raises(StoreError, match="the plan has changed"):
        merge((edited, path), tmp_path / "none")


def test_a_merge_names_trials_that_two_plans_call_otherwise(made, tmp_path):
    path, _ = made
    with Store(path) as store:
        rows = store.plan()
    for name, labels in (("same", "{}"), ("other", "{} too")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "store.sqlite").write_bytes(path.read_bytes())
        with Store(tmp_path / name, write=True) as store:
            store.set_plan((key, workload, labels.format(optimizer)) for key, workload, optimizer in rows)
    assert not merge((path, tmp_path / "same"), tmp_path / "a").conflicts
    merged = merge((path, tmp_path / "other"), tmp_path / "b")
    assert len(merged.conflicts) == 4
    assert f"trial {rows[0][0]} is called" in merged.conflicts[0]
    assert "wame too there" in merged.conflicts[0]
    with Store(merged.store) as store:
        assert store.plan() == rows


def test_a_run_makes_anew_what_is_not_as_it_was_written(write_suite, tmp_path):
    pytest.importorskip("torch", reason="runs trials with PyTorch")
    path = write_suite()
    store = api.run(path, results=tmp_path).store
    before = [row.metrics for row in stored(store)]
    edit(
        store,
        ("UPDATE trials SET metrics = '{}' WHERE rowid = 2",),
        ("UPDATE plan SET optimizer = CASE optimizer WHEN 'adam' THEN 'wame' ELSE 'adam' END",),
        ("INSERT INTO meta VALUES ('later', '')",),
    )
    again = api.run(path, results=tmp_path)
    assert all(str(store) in note and "is made again" in note for note in again.notes)
    assert any("the plan has changed" in note for note in again.notes)
    assert (again.run, again.completed) == (1, 4)
    assert not verified(store).misfits
    assert sorted(map(str, before)) == sorted(str(row.metrics) for row in stored(store))


def test_a_changed_environment_is_written_anew(write_suite, tmp_path):
    pytest.importorskip("torch", reason="runs trials with PyTorch")
    path = write_suite()
    store = api.run(path, results=tmp_path).store
    edit(store, ("UPDATE environments SET facts = json_set(facts, '$.threads', 2)",))
    assert api.run(path, results=tmp_path).run == 4
    assert not verified(store).misfits


@pytest.mark.parametrize("dtype", ["|u\0", ".0", "S", "O", "(", "u1,u1", ""])
def test_predictions_of_no_type_are_named_and_the_report_is_made_without_their_trial(made, dtype):
    path, plan = made
    key = trial_id(plan[0].spec)
    edit(path, ("UPDATE predictions SET dtype = ? WHERE trial_id = ?", dtype, key))
    assert list(verified(path).unfit) == [key]
    assert key not in set(load_results(path).trials["trial_id"])
    edit(path, ("UPDATE trials SET digest = NULL",), ("DELETE FROM seals",))
    assert verified(path).records == 4


def test_a_message_shortens_what_a_damaged_store_names(made):
    path, _ = made
    edit(path, ("INSERT INTO meta VALUES (?, '')", "x" * 5000))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"CREATE TABLE {'y' * 5000} (a)")
    with pytest.raises(StoreError) as raised:
        load_results(path)
    assert len(str(raised.value)) < 900


def test_a_store_that_nothing_touched_since_a_run_is_not_read_again(write_suite, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="runs trials with PyTorch")
    path = write_suite()
    store = api.run(path, results=tmp_path).store
    read = []
    monkeypatch.setattr(
        Store, "verify", lambda self, *args: read.append(args) or Integrity(records=0, bare=0)
    )
    for _ in range(2):
        assert api.run(path, results=tmp_path).run == 0
    assert not read
    edit(store, ("UPDATE trials SET attempts = 2 WHERE rowid = 1",))
    api.run(path, results=tmp_path)
    assert len(read) == 1


def test_what_a_killed_run_left_is_read_whatever_the_note_says(made):
    path, _ = made
    checked.mark(path)
    path.with_name("store.sqlite-wal").write_bytes(b"left by a killed run")
    assert not checked.unmark(path)
    path.with_name("store.sqlite-wal").unlink()
    assert not checked.unmark(path), "the note holds once"
    checked.mark(path)
    assert checked.unmark(path)


def stored(path):
    with Store(path) as store:
        return list(store.summaries())


def test_an_older_store_says_that_it_carries_no_digest(repository, tmp_path):
    golden = repository / "tests" / "records" / "golden" / "store-format-1"
    found = verified(golden)
    assert (found.records, found.bare, found.misfits) == (4, 4, ())
    assert "carry no digest" in found.sentences[0]
    with Store(golden) as store:
        key = store.plan()[0][0]
    for command in (
        ("report", golden, "--out", tmp_path),
        ("show", key, "--store", golden),
        ("doctor", golden),
    ):
        done = CliRunner().invoke(app, [str(word) for word in command])
        assert done.exit_code == 0
        words = " ".join((done.output + done.stderr).split())
        assert "no digest" in words


def test_values_of_a_record_without_a_digest_are_held_against_each_other(repository, tmp_path):
    golden = repository / "tests" / "records" / "golden" / "store-format-1" / "store.sqlite"
    for change, said in (
        ("metrics = json_set(metrics, '$.val_accuracy', 7.0)", "beyond 0..1"),
        ("metrics = json_set(metrics, '$.test_accuracy_last', 0.377)", "no whole number"),
        ("spec = json_set(spec, '$.optimizer.lr', 0.5)", "its spec is that of trial"),
        ("history = (SELECT h FROM made)", "val_accuracy in its history is beyond"),
    ):
        path = tmp_path / "store.sqlite"
        path.write_bytes(golden.read_bytes())
        with Store(path) as store:
            (trial, *_) = store.trials()
        matrix = np.array([trial.history[name] for name in trial.history])
        matrix[list(trial.history).index("val_accuracy")] = 242.0
        edit(
            path,
            ("CREATE TABLE made AS SELECT ? AS h", pack_array(matrix)),
            (f"UPDATE trials SET {change} WHERE trial_id = ?", trial.trial_id),
        )
        found = verified(path)
        assert list(found.unfit) == [trial.trial_id]
        assert said in found.unfit[trial.trial_id].what


def test_scores_are_computed_again_where_the_labels_are_here(repository, tmp_path):
    golden = repository / "tests" / "records" / "golden" / "store-format-1" / "store.sqlite"
    path = tmp_path / "store.sqlite"
    path.write_bytes(golden.read_bytes())
    edit(
        path,
        (
            "UPDATE trials SET metrics = json_set(metrics, '$.test_accuracy', 0.95, '$.test_accuracy_last', "
            "0.95, '$.test_accuracy_best', 0.95) WHERE rowid = 1",
        ),
    )
    assert not verified(path).misfits  # 342 of 360, which only the labels contradict
    done = CliRunner().invoke(app, ["doctor", str(path)])
    assert done.exit_code == 2
    assert "is 0.95, and by its predictions 0.37" in done.output


@pytest.mark.parametrize("name", CLASSIFICATION.metrics)
def test_every_metric_of_the_task_is_computed_again(repository, tmp_path, name):
    golden = repository / "tests" / "records" / "golden" / "store-format-1" / "store.sqlite"
    path = tmp_path / "store.sqlite"
    path.write_bytes(golden.read_bytes())
    column = f"test_{name}_last"
    edit(path, (f"UPDATE trials SET metrics = json_set(metrics, '$.{column}', 0.95) WHERE rowid = 1",))
    found = check_store(path)
    assert found.scored > 0
    assert found.misscored[0].what.startswith(f"{column} is 0.95, and by its predictions 0.")


def test_ids_are_those_of_the_trials(write_suite):
    suite = load_suite(write_suite())
    for trial in trials(suite, lambda backend, device: "cpu"):
        plain = to_plain(trial.spec)
        expected = trial_id(trial.spec), block_id(trial.spec)
        assert ids_of(json.dumps(plain, sort_keys=True)) == expected
        assert ids_of(json.dumps(plain, indent=1)) == expected  # read whole


def everything(path):
    """Every value of a store, or None where it is no readable store any more."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            db.text_factory = bytes
            names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            tables = {name: list(db.execute(f"SELECT * FROM {name.decode()}")) for name in sorted(names)}
            by_id = [
                list(db.execute("SELECT rowid, trial_id FROM trials WHERE trial_id = ?", (row[0].decode(),)))
                for row in tables[b"trials"]
            ]
            return repr((tables, by_id))
    except (sqlite3.Error, UnicodeDecodeError, AttributeError, KeyError):
        return None


def flips(path, sound, count, seed):
    """Flip bits one at a time, those that change a value; give each damaged file's place and bit."""
    raw = sound.read_bytes()
    before = everything(sound)
    rng = random.Random(seed)
    found = 0
    while found < count:
        place, bit = rng.randrange(100, len(raw)), rng.randrange(8)
        changed = bytearray(raw)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        if (after := everything(path)) is not None and after != before:
            found += 1
            yield place, bit


def named(path):
    """Whether a verification, or the attempt to read the store, names that something is wrong."""
    try:
        return bool(verified(path).misfits)
    except StoreError:
        return True


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_flipped_bit_that_changes_a_value_is_named(made, tmp_path, count):
    path, _ = made
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
    victim = tmp_path / "flipped.sqlite"
    missed = [flip for flip in flips(victim, path, count, seed=count) if not named(victim)]
    assert not missed


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize(
    "words",
    [
        "report {} --format terminal",
        pytest.param("doctor {}", marks=pytest.mark.slow),
        pytest.param("export {} -o out", marks=pytest.mark.slow),
    ],
)
def test_values_that_unpack_to_very_much_are_refused_in_bounded_memory(made, tmp_path, words):
    path, _ = made
    bomb = zlib.compressobj(1)
    packed = b"".join([*(bomb.compress(bytes(2**24)) for _ in range(60)), bomb.flush()])
    assert len(packed) < 5_000_000
    edit(path, ("UPDATE trials SET history = ?, digest = NULL WHERE rowid = 1", packed))
    edit(path, ("UPDATE predictions SET classes = ?", packed), ("DELETE FROM seals",))
    code = (
        "import resource, sys\n"
        "import optbench.api\n"
        "from optbench.cli import app\n"
        "with open('/proc/self/statm') as file:\n"
        "    now = int(file.read().split()[5]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (now + 700 * 2**20, resource.RLIM_INFINITY))\n"
        "app(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", code, *words.format(path).split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "damaged: history of trial" in done.stderr or "a value cannot be read" in done.stdout


def test_histories_that_would_fill_the_memory_are_refused(made, monkeypatch):
    path, _ = made
    monkeypatch.setenv("OPTBENCH_DATA_LIMIT", "0.0000001")
    with pytest.raises(StoreError, match=r"histories unpack to more than 1e-07 GB.*OPTBENCH_DATA_LIMIT"):
        load_results(path)
