from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from optbench import api
from optbench.backends import engine
from optbench.environment import Context
from optbench.execution import memory, timing
from optbench.optimizers import custom
from optbench.records.frames import load_results
from optbench.records.step_times import read
from optbench.records.store import Store
from optbench.suite.load import load_suite
from tests.backends.contract import BACKENDS, spec

MEASURE = memory.measure


@pytest.fixture(autouse=True)
def _quick(request, monkeypatch, tmp_path):
    """A lock of this test's own, and no process for the memory."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if "memory" not in request.node.name:
        held = {"host_bytes": 2, "host_start_bytes": 1, "device_bytes": None}
        monkeypatch.setattr(memory, "measure", lambda spec, *, rows, context: held)


def quick_pass(suite, results, said=None, **options):
    said = [] if said is None else said
    options = {"rounds": 3, "round_seconds": 0.01, "progress": said.append, **options}
    return timing.time_suite(suite, results=results, **options)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_optimizer_is_timed_on_the_real_shapes(backend, write_suite, tmp_path):
    pytest.importorskip(backend)
    suite = load_suite(write_suite(("seeds: 2", f"seeds: 2\nbackends: [{backend}]")))
    found = quick_pass(suite, tmp_path)
    assert len(found) == 2
    for entry in found:
        # digits: 1437 training examples less a tenth, in batches of 256.
        assert entry.steps_per_epoch == 6
        assert entry.steps % 6 == 0, "whole epochs, the short batch included"
        assert len(entry.step_seconds) == len(entry.eval_seconds) == 3
        assert all(seconds > 0 for seconds in (*entry.step_seconds, *entry.eval_seconds))
        assert entry.warm_up_seconds > 0
        assert entry.facts["framework"].startswith(backend)
    wame, adam = found
    assert wame.state_bytes > adam.state_bytes > 4 * 64 * 8


def test_a_pass_is_kept_beside_the_trials_and_replaced(write_suite, tmp_path):
    pytest.importorskip("torch")
    path = write_suite()
    outcome = api.run(path, results=tmp_path)
    before = outcome.store.stat().st_size, Store(outcome.store).statuses()
    for _ in range(2):
        found = quick_pass(load_suite(path), tmp_path)
    results = load_results(outcome.store)
    assert {entry.key: entry for entry in results.passes} == {entry.key: entry for entry in found}
    assert set(results.trials["config"]) == {entry.config for entry in found}
    assert Store(outcome.store).statuses() == before[1]
    assert api.run(path, results=tmp_path).run == 0


def test_long_epochs_are_timed_in_part():
    assert timing._share(0.01, 1000, 0.5) == (50, 1)
    assert timing._share(1.0, 1000, 0.5) == (8, 1)
    assert timing._share(0.01, 60, 0.5) == (60, 1)
    assert timing._share(0.001, 10, 0.5) == (10, 50)


STILL = """
import torch

class Still(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    def step(self, closure=None):
        BODY
"""


@pytest.mark.parametrize("batch_norm", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_steps_that_change_nothing_are_no_timing(batch_norm, write_suite, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "still.py").write_text(STILL.replace("BODY", "pass"))
    layers = "[{kind: flatten}, {kind: batch_norm}, {kind: dense}]" if batch_norm else "[{kind: dense}]"
    suite = load_suite(
        write_suite(
            ("adam: {lr: 0.01}", 'still: {class: "still.py:Still"}'),
            ("{name: mlp, hidden: [8]}", f"{{name: m, layers: {layers}}}"),
        )
    )
    with pytest.raises(timing.TimingError, match="still: the weights did not change"):
        quick_pass(suite, tmp_path)
    with Store(tmp_path / "tiny") as store:
        (kept,) = read(store.meta())
    assert kept.state_bytes > 0, "the other optimizer's time is kept"


def test_an_optimizer_that_fails_is_left_out_and_named(write_suite, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "still.py").write_text(STILL.replace("BODY", "raise ValueError('no luck')"))
    suite = load_suite(write_suite(("adam: {lr: 0.01}", 'still: {class: "still.py:Still"}')))
    said = []
    assert len(quick_pass(suite, tmp_path, said)) == 1
    assert any("still is not timed" in line and "no luck" in line for line in said)


def test_a_process_that_cannot_measure_the_memory_leaves_the_times(write_suite, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(memory.sys, "executable", "/bin/false")
    monkeypatch.setattr(memory, "measure", MEASURE)
    said = []
    found = quick_pass(load_suite(write_suite()), tmp_path, said)
    assert [entry.host_bytes for entry in found] == [None, None]
    assert sum("the process that measures failed" in line for line in said) == 2


def test_two_passes_never_run_at_once(write_suite, tmp_path):
    pytest.importorskip("torch")
    suite = load_suite(write_suite())
    hold = "import filelock, sys\nwith filelock.FileLock(sys.argv[1]):\n print(flush=True)\n sys.stdin.read()"
    lock = Path(tempfile.gettempdir()) / "optbench-timing.lock"
    command = [sys.executable, "-c", hold, str(lock)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        with pytest.raises(timing.TimingError, match="another timing pass"):
            quick_pass(suite, tmp_path)
    finally:
        other.communicate(b"")
    assert quick_pass(suite, tmp_path)


def test_a_busy_machine_is_told_and_recorded(write_suite, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr(timing._Load, "busy", lambda self: 0.4)
    said = []
    found = quick_pass(load_suite(write_suite()), tmp_path, said)
    assert "40%" in said[0]
    assert all(entry.disturbed for entry in found)


def test_the_load_is_what_others_do(monkeypatch):
    looks = iter([(10.0, 100.0, 1.0), (16.0, 110.0, 3.0)])
    monkeypatch.setattr(timing._Load, "_now", staticmethod(lambda: next(looks)))
    assert timing._Load().busy() == pytest.approx(0.4)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the load is read from /proc/stat")
def test_the_load_of_another_process_is_seen():
    load = timing._Load()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        time.sleep(1)
        busy = load.busy()
        other.kill()
    assert busy * os.cpu_count() > 0.5


def test_the_memory_of_a_users_optimizer_is_measured_from_any_folder(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "mine.py").write_text("import torch\n\nclass Mine(torch.optim.SGD):\n    pass\n")
    mine = custom.from_mapping({"class": "mine.py:Mine", "lr": 0.1}, base_dir=tmp_path)
    held = memory.measure(spec("torch", mine), rows=64, context=Context())
    assert (held["host_bytes"] or 1) > (held["host_start_bytes"] or 0)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_is_that_of_the_configuration_and_not_of_this_process():
    pytest.importorskip("torch")
    ballast = bytearray(2**30)
    for start in range(0, len(ballast), 4096):
        ballast[start] = 1
    wide = spec("torch", model=_wide(2**15), precision="float32")
    small, large = (memory.measure(trial, rows=128, context=Context()) for trial in (spec("torch"), wide))
    assert small["host_bytes"] < len(ballast) + small["host_start_bytes"] // 2
    # 64 x 32768 and 32768 x 10 weights, their gradients, and Adam's two moments: 4 x 9.7 MB at the least.
    rise = [held["host_bytes"] - held["host_start_bytes"] for held in (small, large)]
    assert rise[1] - rise[0] > 30e6
    assert small["device_bytes"] is None


def _wide(units):
    from optbench.models.layers import Dense, Model

    return Model(name="wide", layers=(Dense(units=units, activation="relu"), Dense()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_state_bytes_are_those_of_the_rule(backend):
    pytest.importorskip(backend)
    from tests.backends.contract import session

    opened, weights, data = session(spec(backend, precision="float32"))
    opened.warm_up()
    opened.train_epoch(data.train.rows[:64], 1)
    parameters = sum(w.nbytes for w in weights.values())
    # Adam: two moments a weight, and at most a step counter a tensor.
    assert 2 * parameters <= opened.state_bytes() <= 2 * parameters + 8 * len(weights)
    assert engine(backend).peak_bytes("cpu") is None
