"""Copies of data for workers: gone with their run, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile

import pytest

from optbench import api
from optbench.execution.shared import SharedFolder, sweep
from tests.execution.test_pool import start, stored, suite, wait_for

OWNER = """
from optbench.execution.shared import SharedFolder
held = SharedFolder()
print(held.path, flush=True)
input()
"""


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def test_a_folder_lives_as_long_as_its_process_and_is_swept_after_its_kill(temporary_folder):
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    owner.stdout.readline()
    (folder,) = temporary_folder.iterdir()
    (folder / "0").mkdir()
    (folder / "0" / "x_train.npy").write_bytes(b"large")
    sweep()
    assert (folder / "0" / "x_train.npy").exists()
    owner.kill()
    owner.communicate()
    sweep()
    assert not any(temporary_folder.iterdir())


def test_a_closed_folder_is_gone_and_folders_of_others_stay(temporary_folder):
    (temporary_folder / "optbench-notes").mkdir()
    folder = SharedFolder()
    assert folder.path.is_dir()
    folder.close()
    sweep()
    assert [path.name for path in temporary_folder.iterdir()] == ["optbench-notes"]


def test_the_next_run_removes_what_a_killed_one_left(tmp_path, temporary_folder):
    pytest.importorskip("torch")
    path = suite(tmp_path, seeds=40, epochs=30)
    run = start(path, tmp_path / "killed", "--workers", "2")
    wait_for(lambda: stored(tmp_path / "killed") > 0)
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=30)
    assert list(temporary_folder.glob("optbench-*/0/x_train.npy"))
    api.run(path, results=tmp_path / "other", only=lambda trial: trial.spec.seeds.init < 1)
    assert not list(temporary_folder.glob("optbench-*"))
