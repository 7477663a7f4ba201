"""A store that could not be written or read, though it is sound, is not called damaged."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from optbench.cli import app
from optbench.errors import explain
from optbench.records import trouble
from optbench.records.store import Store, StoreError
from optbench.suite.expand import trials
from optbench.suite.load import SuiteError, load_suite
from tests.report.conftest import fill_store, made_record

#: Messages of SQLite, and what is said of them.
MESSAGES = {
    "database or disk is full": "make room",
    "database is locked": "end the program that has it open",
    "database table is locked: trials": "end the program that has it open",
    "attempt to write a readonly database": "make the file and its folder writable",
    "disk I/O error": "a limit on the size of files",
    "unable to open database file": "permission is missing|too many files",
    "locking protocol": "network",
    "out of memory": "close other programs",
}


@pytest.mark.parametrize("message", MESSAGES)
def test_what_is_no_damage_has_a_remedy_that_throws_nothing_away(tmp_path, message):
    path = tmp_path / "store.sqlite"
    path.touch()
    words = trouble.remedy(sqlite3.OperationalError(message), path)
    assert any(part in words for part in MESSAGES[message].split("|")), words
    assert words.startswith(message)
    assert "records are kept" in words
    assert "restore" not in words
    assert "move it away" not in words


@pytest.mark.parametrize("message", ["database disk image is malformed", "file is not a database"])
def test_damage_has_none(tmp_path, message):
    assert trouble.remedy(sqlite3.DatabaseError(message), tmp_path / "store.sqlite") is None


@pytest.fixture
def suite(write_suite):
    return load_suite(write_suite())


WRITES = """
import resource, sys
from optbench.records.store import Store
from optbench.suite.expand import trials
from optbench.suite.load import load_suite
from tests.report.conftest import made_record
plan = trials(load_suite(sys.argv[1]), lambda backend, device: "cpu")
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
with Store(sys.argv[2], write=True) as store:
    for trial in plan:
        store.add(made_record(trial.spec, 0.5, epochs=2000))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit on the size of files")
@pytest.mark.parametrize("limit", [60_000, 200_000])
def test_a_limit_on_the_size_of_files_is_named_and_what_was_stored_is_kept(
    suite, tmp_path, limit, repository
):
    folder = fill_store(suite, tmp_path / "store", lambda t: None)
    done = subprocess.run(
        [sys.executable, "-c", WRITES, str(suite.path), str(folder), str(limit)],
        capture_output=True,
        text=True,
        cwd=repository,
    )
    assert "StoreError" in done.stderr
    assert f"{limit:,} bytes (`ulimit -f`)" in done.stderr
    assert ": damaged:" not in done.stderr
    with Store(folder, write=True) as store:
        kept = len(store.statuses())
        assert not store.verify().misfits
        for trial in trials(suite, lambda backend, device: "cpu"):
            store.add(made_record(trial.spec, 0.5))
        assert kept < len(store.statuses())
        assert not store.verify().misfits


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write everywhere")
def test_a_store_in_a_folder_that_cannot_be_written_is_read(suite, tmp_path):
    folder = fill_store(suite, tmp_path / "store", lambda t: 0.9)
    folder.chmod(0o500)
    try:
        with Store(folder) as store:
            assert len(store.statuses()) == 4
        with pytest.raises(StoreError, match="writable"):
            Store(folder, write=True)
    finally:
        folder.chmod(0o700)


LONG = "x" * 300
COMMANDS = (
    ("run", "{suite}", "--results", LONG),
    ("report", LONG),
    ("report", "{store}", "--out", LONG),
    ("export", "{store}", "-o", LONG),
    ("merge", "{store}", LONG, "-o", "{folder}/merged"),
    ("merge", "{store}", "{store}", "-o", LONG),
    ("show", "12", "--store", LONG),
    ("list", "results", "--results", LONG),
    ("doctor", LONG),
    ("doctor", "--results", LONG),
    ("doctor", "{store}", "--signers", LONG),
    ("sign", LONG, "--key", "{table}"),
    ("sign", "{store}", "--key", LONG),
    ("watch", LONG),
    ("compare", LONG),
    ("import", LONG, "-o", "{folder}/imported"),
    ("import", "{table}", "-o", LONG),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command).replace(LONG, "LONG"))
def test_a_name_that_is_too_long_is_said_to_be(suite, tmp_path, command):
    store = fill_store(suite, tmp_path / "store", lambda t: 0.9)
    (tmp_path / "t.csv").write_text("dataset,optimizer,seed,accuracy\nd,a,0,0.5\nd,b,0,0.6\n")
    places = {"suite": suite.path, "store": store, "folder": tmp_path, "table": tmp_path / "t.csv"}
    done = CliRunner().invoke(app, [word.format(**places) for word in command])
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit)
    assert "too long" in done.output + done.stderr


def test_a_suite_s_name_that_no_folder_can_have_is_refused(write_suite):
    with pytest.raises(SuiteError, match=r"suite: found 300 characters; .* 200 at most"):
        load_suite(write_suite(("suite: tiny", f"suite: {LONG}")))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_standard_output_on_a_full_disk_is_said_in_a_line(suite, tmp_path):
    store = fill_store(suite, tmp_path / "store", lambda t: 0.9)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "optbench.cli", "report", str(store), "--out", str(tmp_path / "out")],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert "no room left" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_operating_system_s_refusals_are_explained():
    assert explain(OSError(28, "No space", "a")) == "a: there is no room left on its disk: make room"
    assert explain(OSError(36, "Too long", "b" * 500)).startswith("b" * 100)
    assert "odd" in explain(OSError("odd"))


@pytest.mark.parametrize("high", [1e308, 1e200])
def test_numbers_whose_squares_overflow_are_refused(tmp_path, high):
    rows = [f"d,{name},{s},{sign * high}" for s in range(7) for name, sign in (("a", 1), ("b", -1))]
    (tmp_path / "t.csv").write_text("\n".join(["dataset,optimizer,seed,loss", *rows]))
    done = CliRunner().invoke(app, ["compare", str(tmp_path / "t.csv"), "--baseline", "a"])
    assert done.exit_code == 2
    assert "beyond" in done.output + done.stderr


MOUNTS = """rootfs / rootfs rw 0 0
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/local ext4 rw 0 0
host:/x /mnt/two\\040words fuse.sshfs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/me/results", "nfs4"),
        ("/home/local/results", None),
        ("/homely", None),
        ("/mnt/two words/r", "fuse.sshfs"),
        ("/tmp", None),
    ],
)
def test_a_network_disk_is_known_by_its_mount(tmp_path, folder, kind):
    (tmp_path / "mounts").write_text(MOUNTS)
    assert trouble.network_disk(Path(folder), tmp_path / "mounts") == kind
    assert trouble.network_disk(Path(folder), tmp_path / "none") is None


def test_a_store_on_a_network_disk_has_no_write_ahead_log_and_says_so(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(trouble, "network_disk", lambda folder: "nfs")
    with pytest.warns(UserWarning, match="network disk"):
        folder = fill_store(suite, tmp_path / "store", lambda t: 0.9)
    assert not (folder / "store.sqlite-wal").exists()
    with contextlib.closing(sqlite3.connect(folder / "store.sqlite")) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    with Store(folder) as store:
        assert len(store.statuses()) == 4
        assert not store.verify().misfits
