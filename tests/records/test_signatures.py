"""A signature says which key vouches for a store, and shows any change after it."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from typer.testing import CliRunner

from optbench import api
from optbench.cli import app
from optbench.records import signatures
from optbench.records.digests import (
    CHAIN,
    DIGEST_COLUMNS,
    RECORDS,
    chain,
    read_seals,
    record_digest,
    sum_of_records,
)
from optbench.records.frames import load_results
from optbench.records.signatures import SignatureError, sign, signature
from optbench.records.store import Store
from optbench.report.analysis import analyse
from optbench.report.build import markdown_text
from optbench.suite.load import load_suite
from tests.records.test_integrity import edit, verified
from tests.report.conftest import fill_store

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen of OpenSSH's here")


@pytest.fixture
def made(write_suite, tmp_path):
    """A store of four records; gives its file."""
    suite = load_suite(write_suite())
    return fill_store(suite, tmp_path / "store", lambda trial: 0.7) / "store.sqlite"


def new_key(path):
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "someone", "-f", str(path)]
    subprocess.run(words, check=True)
    return path


def call(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, " ".join((done.output + done.stderr).split())


def found(path, signers=None):
    with Store(path) as store:
        return signature(store, signers)


def forge(path):
    """Edit a record as one who knows how digests are made, and computes all of them anew."""
    edit(path, ("UPDATE trials SET metrics = json_set(metrics, '$.test_loss', 0.1) WHERE rowid = 1",))
    with Store(path, write=True) as store:
        db = store._db
        columns = ", ".join(f'"{name}"' for name in DIGEST_COLUMNS)
        (row,) = db.execute(f"SELECT {columns} FROM trials WHERE rowid = 1")
        made_of = "SELECT epoch, dtype, classes FROM predictions WHERE trial_id = ? ORDER BY epoch"
        digest = record_digest(row, db.execute(made_of, (row[0],)).fetchall())
        db.execute("UPDATE trials SET digest = ? WHERE rowid = 1", (digest,))
        seals = {**read_seals(db), RECORDS: sum_of_records(db).text}
        seals[CHAIN] = chain(seals)
        db.executemany("INSERT OR REPLACE INTO seals VALUES (?, ?)", seals.items())


def test_a_signed_store_says_by_whom(made, tmp_path):
    path = made
    assert found(path) is None
    key = new_key(tmp_path / "key")
    code, said = call("sign", path, "--key", key)
    assert (code, path.with_name("store.sqlite.sig").is_file()) == (0, True)
    shown = subprocess.run(["ssh-keygen", "-l", "-f", key], check=True, capture_output=True, text=True)
    fingerprint = shown.stdout.split()[1]
    assert f"Signed by ED25519 {fingerprint}" in said
    assert found(path).key == f"ED25519 {fingerprint}"
    code, said = call("doctor", path)
    assert (code, f"Signed by ED25519 {fingerprint}" in said) == (0, True)
    code, said = call("doctor", path, "--json")
    assert json.loads(said)["signed_by"] == f"ED25519 {fingerprint}"
    spec, _ = api.find_store(path)
    assert f"Signed by ED25519 {fingerprint}" in markdown_text(analyse(load_results(path), spec))


def test_known_keys_have_names_and_a_stranger_s_is_refused(made, tmp_path):
    path = made
    key, other = new_key(tmp_path / "key"), new_key(tmp_path / "other")
    known = tmp_path / "known"
    known.write_text(f"ada@example.org {other.with_suffix('.pub').read_text()}")
    assert call("doctor", path, "--signers", known)[0] == 2, "it is not signed at all"
    sign(path, key)
    code, said = call("doctor", path, "--signers", known)
    assert (code, "No key of --signers has signed" in said) == (2, True)
    sign(path, other)
    code, said = call("doctor", path, "--signers", known)
    assert (code, "Signed by ada@example.org" in said) == (0, True)
    assert call("doctor", path, "--signers", tmp_path / "none")[0] == 2


def test_a_forger_who_computes_every_digest_anew_cannot_sign(made, tmp_path):
    path = made
    sign(path, new_key(tmp_path / "key"))
    forge(path)
    assert not verified(path).misfits, "the digests alone do not show it"
    assert "the signature does not fit" in found(path).problem
    code, said = call("doctor", path)
    assert (code, "the signature does not fit" in said) == (2, True)
    spec, _ = api.find_store(path)
    report = analyse(load_results(path), spec)
    assert any("the signature does not fit" in text for text in report.warnings)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE seals SET digest = digest || '0' WHERE part = 'plan'",
        "UPDATE meta SET value = 'another' WHERE key = 'suite'",
        "DELETE FROM seals WHERE part = 'plan'",
    ],
)
def test_any_change_of_what_is_signed_shows(made, tmp_path, change):
    path = made
    sign(path, new_key(tmp_path / "key"))
    edit(path, (change,))
    assert found(path).key is None


def test_a_report_s_look_changes_no_signature_and_a_copy_of_another_store_s_does_not_fit(made, tmp_path):
    path = made
    sign(path, new_key(tmp_path / "key"))
    with Store(path, write=True) as store:
        store.set_meta(looks="[]")
    assert found(path).key
    with Store(path, write=True) as store:
        store.set_meta(later="x")
    assert found(path).key is None


@pytest.mark.parametrize(
    "content", [b"", b"no signature", b"\0" * 100, b"x" * 100_000, b"-----BEGIN SSH SIGNATURE-----\n"]
)
def test_what_is_no_signature_is_said(made, content):
    path = made
    path.with_name("store.sqlite.sig").write_bytes(content)
    assert found(path).key is None
    assert found(path).checked
    code, said = call("doctor", path)
    assert (code, "store.sqlite.sig" in said, "Traceback" in said) == (2, True, False)


def test_a_signature_for_another_purpose_does_not_count(made, tmp_path, monkeypatch):
    path = made
    key = new_key(tmp_path / "key")
    with monkeypatch.context() as patched:
        patched.setattr(signatures, "NAMESPACE", "git")
        sign(path, key)
        assert found(path).key
    assert found(path).key is None


def test_a_damaged_store_and_one_without_digests_are_not_signed(made, tmp_path, repository):
    path = made
    key = new_key(tmp_path / "key")
    edit(path, ("UPDATE trials SET attempts = 7 WHERE rowid = 1",))
    with pytest.raises(SignatureError, match="not as it was written"):
        sign(path, key)
    golden = tmp_path / "golden.sqlite"
    shutil.copy(repository / "tests" / "records" / "golden" / "store-format-1" / "store.sqlite", golden)
    with pytest.raises(SignatureError, match="carry no digest"):
        sign(golden, key)
    assert not list(tmp_path.rglob("*.sig*"))


def test_a_key_that_cannot_sign_and_a_machine_without_openssh_are_said(made, tmp_path, monkeypatch):
    path = made
    (tmp_path / "text").write_text("no key")
    for key, said in ((tmp_path / "none", "no file"), (tmp_path / "text", "cannot sign")):
        code, words = call("sign", path, "--key", key)
        assert (code, said in words) == (2, True)
    key = new_key(tmp_path / "key")
    sign(path, key)
    monkeypatch.setattr(signatures, "_PROGRAM", "ssh-keygen-that-is-not-here")
    assert not found(path).checked
    code, said = call("doctor", path)
    assert (code, "was not checked" in said) == (0, True)
    assert call("sign", path, "--key", key)[0] == 2
