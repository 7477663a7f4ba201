"""A run that is disturbed and run again leaves the store of an undisturbed one, to the bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from optbench.records.store import Store
from tests.faults.harness import EXECUTORS, FAULTS, FEATURES, SURROUNDINGS, Case, disturbed, undisturbed
from tests.report.conftest import fill_store

pytestmark = pytest.mark.nightly
pytest.importorskip("torch")


@pytest.mark.parametrize("fault", [*FAULTS, *SURROUNDINGS])
def test_every_fault_leaves_the_store_of_a_calm_run(tmp_path, fault):
    case = Case(fault=fault, moment="stored trial")
    found, hit = disturbed(tmp_path / "disturbed", case)
    assert hit
    assert found == undisturbed(tmp_path / "calm", case)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("feature", FEATURES)
def test_a_kill_at_a_checkpoint_leaves_the_store_of_a_calm_run(tmp_path, feature, executor):
    if feature == "tuned":
        pytest.importorskip("optuna")
    case = Case(feature=feature, executor=executor, moment="checkpoint")
    found, hit = disturbed(tmp_path / "disturbed", case)
    assert hit
    assert found == undisturbed(tmp_path / "calm", case)


COMMANDS = {
    "report": ("report", "{store}", "--out", "{out}", "--format", "markdown", "--format", "csv"),
    "export": ("export", "{store}", "--to", "json", "-o", "{out}"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_leaves_whole_files(tmp_path, write_suite, name):
    from optbench.suite.load import load_suite

    suite = load_suite(write_suite(("seeds: 2", "seeds: 60")))
    store = fill_store(suite, tmp_path / "store", lambda t: 0.5 + t.spec.seeds.init / 200, epochs=30)
    out = tmp_path / "out"
    places = {"store": store, "out": out}
    words = [sys.executable, "-m", "optbench.cli", *(word.format(**places) for word in COMMANDS[name])]
    clock = time.monotonic()
    subprocess.run(words, check=True, capture_output=True)
    took = time.monotonic() - clock
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    for number in range(8):
        for path in out.iterdir():
            path.write_bytes(b"old")
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(took * (0.5 + number / 16))
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in out.iterdir():
            if not path.name.startswith(".unfinished-"):
                assert path.read_bytes() in (b"old", whole[path.name]), path


def test_a_killed_merge_leaves_no_store(tmp_path, write_suite):
    from optbench.suite.load import load_suite

    suite = load_suite(write_suite(("seeds: 2", "seeds: 300")))
    stores = [
        fill_store(suite, tmp_path / word, lambda t, w=word: 0.5 if t.optimizer == w else None)
        for word in ("wame", "adam")
    ]
    words = [sys.executable, "-m", "optbench.cli", "merge", *map(str, stores), "-o", str(tmp_path / "merged")]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not (tmp_path / "merged").exists() and time.monotonic() < end:
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    target = tmp_path / "merged" / "store.sqlite"
    assert not target.exists() or len(Store(target).statuses()) == 600
    subprocess.run(words, check=not target.exists(), capture_output=True)
    with Store(target) as merged:
        assert len(merged.statuses()) == 600
        assert not merged.verify().misfits
