"""Workers side by side: the same store as one after the other, whatever happens to a worker."""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from optbench import api
from optbench.environment import Context
from optbench.execution import choice, local, pool, processes
from optbench.execution.jobs import InProcess
from optbench.execution.worker import Done
from optbench.records.frames import load_results
from optbench.records.store import Store
from optbench.suite.load import load_suite

pytest.importorskip("torch")

SUITE = """
suite: s
workloads:
  - {{dataset: digits, model: {{name: mlp, hidden: [{hidden}]}}, batch_size: 32, epochs: {epochs}}}
  - {{dataset: iris, model: {{name: mlp, hidden: [8]}}, batch_size: 16, epochs: 2}}
optimizers: {{adam: {{}}, sgd: {{lr: 0.1}}}}
seeds: {seeds}
"""
SLEEPER = """
import time, torch
class Sleeper(torch.optim.SGD):
    def step(self, closure=None):
        time.sleep(60)
"""


def suite(folder, *, seeds=3, epochs=3, hidden=16):
    (folder / "s.yaml").write_text(SUITE.format(seeds=seeds, epochs=epochs, hidden=hidden))
    return folder / "s.yaml"


def content(folder):
    """All that a training determines, by trial."""
    with Store(folder) as store:
        return {
            t.trial_id: (
                t.status,
                t.attempts,
                {name: values.tobytes() for name, values in t.history.items() if "seconds" not in name},
                dict(t.metrics),
                dict(t.fingerprints),
                {name: array.tobytes() for name, array in store.predictions(t.trial_id).items()},
            )
            for t in store.trials()
        }


def children(pid):
    """Worker processes of a run: forks of its server, or started afresh, but not the resource tracker."""
    parents, commands = {}, {}
    for task in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(task.name)] = int((task / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(task.name)] = (task / "cmdline").read_bytes()
    mine = [task for task, parent in parents.items() if parent == pid]
    servers = [task for task in mine if b"forkserver" in commands.get(task, b"")]
    forks = [task for task, parent in parents.items() if parent in servers]
    return [task for task in mine if b"spawn_main" in commands.get(task, b"")] + forks


def start(path, results, *options):
    command = [sys.executable, "-m", "optbench.cli", "run", str(path), "--results", str(results), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def stored(results):
    try:
        with Store(results / "s") as store:
            return len(store.statuses())
    except Exception:
        return 0


class Listener:
    def __init__(self):
        self.epochs, self.begun = [], []

    def planned(self, plan, statuses):
        pass

    def started(self, trial):
        self.begun.append(trial.spec.seeds.init)

    def epoch(self, trial, epoch, row):
        self.epochs.append((trial.workload, epoch, row["val_loss"]))

    def finished(self, trial, record):
        pass


@pytest.fixture(scope="module")
def side_by_side(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    path, listener = suite(folder), Listener()
    api.run(path, results=folder / "one")
    api.run(path, results=folder / "two", workers=2, observer=listener)
    return folder, listener


def test_two_workers_leave_the_store_of_one_bit_for_bit(side_by_side):
    folder, _ = side_by_side
    assert content(folder / "two" / "s") == content(folder / "one" / "s")
    assert len(content(folder / "one" / "s")) == 12


def test_epochs_reach_the_observer_and_whole_blocks_begin_first(side_by_side):
    _, listener = side_by_side
    assert {epoch for _, epoch, _ in listener.epochs} >= {1, 2}
    assert all(np.isfinite(value) for *_, value in listener.epochs)
    assert listener.begun == [0] * 4 + [1] * 4 + [2] * 4


def test_times_of_trials_side_by_side_are_not_compared(side_by_side):
    folder, _ = side_by_side
    assert not load_results(folder / "two" / "s").trials["timed"].any()
    assert load_results(folder / "one" / "s").trials["timed"].all()
    with Store(folder / "two" / "s") as store:
        assert {t.environment["concurrent"] for t in store.trials()} == {2}


def killed_while_running(tmp_path, *, seeds, every, epochs=6, most=math.inf):
    """Kill a random worker every so often until the run ends; returns how many were killed.

    Between two shots a trial is stored: a busy machine may start workers more slowly than they are shot.
    """
    path = suite(tmp_path, seeds=seeds, epochs=epochs)
    api.run(path, results=tmp_path / "calm")
    run = start(path, tmp_path / "shot", "--workers", "2")
    chance, shots = random.Random(0), 0
    wait_for(lambda: stored(tmp_path / "shot") > 0 or run.poll() is not None)
    while run.poll() is None and shots < most:
        before = stored(tmp_path / "shot")
        if (workers := children(run.pid)) and run.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)
                shots += 1
        time.sleep(every)
        wait_for(lambda count=before: stored(tmp_path / "shot") > count or run.poll() is not None)
    output = run.communicate()[0]
    assert run.returncode in (0, 4), output
    if run.returncode == 4:  # a trial that was hit twice: missing data, and the same command retries it
        api.run(path, results=tmp_path / "shot", workers=2)
    calm, shot = content(tmp_path / "calm" / "s"), content(tmp_path / "shot" / "s")
    assert shot.keys() == calm.keys()
    assert all(shot[key][2:] == calm[key][2:] and shot[key][0] == "completed" for key in calm)
    return shots


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
def test_killed_workers_lose_nothing(tmp_path):
    assert killed_while_running(tmp_path, seeds=5, every=0.3, most=2) > 0


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
def test_a_hundred_trials_under_fire(tmp_path):
    assert killed_while_running(tmp_path, seeds=25, every=2, epochs=60) > 2


@pytest.mark.slow
def test_a_trial_beyond_its_time_limit_is_missing_data_and_the_others_go_on(tmp_path):
    path = suite(tmp_path, seeds=1)
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    text = path.read_text().replace("sgd: {lr: 0.1}", "sleepy: {class: sleeper.py:Sleeper, lr: 0.1}")
    path.write_text(text)
    only = {"only": lambda trial: trial.spec.workload.dataset == "iris"}
    outcome = api.run(path, results=tmp_path, workers=2, time_limit=5, **only)
    assert (outcome.completed, outcome.crashed) == (1, 1)
    with Store(tmp_path / "s") as store:
        (reason, *_) = [t.error for t in store.trials() if t.status == "crashed"]
    assert "limit of 5 seconds" in reason
    assert "--time-limit" in reason


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGKILL])
def test_a_run_that_ends_leaves_no_worker_behind_and_goes_on(tmp_path, number):
    path = suite(tmp_path, seeds=40, epochs=10)
    run = start(path, tmp_path, "--workers", "2")
    wait_for(lambda: stored(tmp_path) > 2)
    workers = children(run.pid)
    assert len(workers) == 2
    run.send_signal(number)
    output = run.communicate(timeout=120)[0]
    assert run.returncode == (130 if number == signal.SIGINT else -9), output
    wait_for(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    before = content(tmp_path / "s")
    api.run(path, results=tmp_path, only=lambda trial: trial.spec.seeds.init < 2, workers=2)
    after = content(tmp_path / "s")
    assert len(after) >= 8
    assert all(after[key] == before[key] for key in before)


def test_auto_measures_a_long_suite_and_takes_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "SHORT", 0.0)
    monkeypatch.setattr(choice, "LONG", 0.0)
    measured = []
    real = pool.Pool.gain
    monkeypatch.setattr(pool.Pool, "gain", lambda self, spec: measured.append(real(self, spec)) or 2.0)
    monkeypatch.setattr(choice, "most_workers", lambda threads: 2)
    assert api.run(load_suite(suite(tmp_path, seeds=2)), results=tmp_path, workers="auto").completed == 8
    assert len(measured) == 1
    assert measured[0] > 0
    with Store(tmp_path / "s") as store:
        assert {trial.environment.get("concurrent") for trial in store.trials()} == {2}


def test_a_few_short_trials_settle_nothing_for_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "most_workers", lambda threads: 2)
    monkeypatch.setattr(pool.Pool, "open", lambda self, frameworks: None)
    planned = local.plan(load_suite(suite(tmp_path, seeds=2)))
    auto = choice.AutoPool()
    monkeypatch.setattr(choice, "work", lambda spec: 0.0)
    auto.prepare(planned)
    assert isinstance(auto._chosen, InProcess)
    monkeypatch.setattr(choice, "work", lambda spec: 1.0)
    auto.prepare(planned)
    chosen = auto._chosen
    assert isinstance(chosen, pool.Pool)
    auto.prepare(planned[:1])
    assert auto._chosen is chosen
    auto.close()


@pytest.mark.parametrize(
    ("short", "long", "gain", "cores", "limit", "expected"),
    [
        (9.0, 9.0, None, 2, None, None),
        (9.0, 9.0, None, 2, 60, 2),
        (0.0, 9.0, None, 2, None, 2),
        (0.0, 0.0, 2.0, 2, None, 2),
        (0.0, 0.0, 1.0, 2, None, None),
        (0.0, 0.0, 1.0, 2, 60, 1),
        (0.0, 9.0, None, 1, None, None),
        (9.0, 9.0, None, 1, 60, 1),
    ],
)
def test_auto_takes_workers_where_they_are_of_use(
    tmp_path, monkeypatch, short, long, gain, cores, limit, expected
):
    """``gain`` None is not measured, ``expected`` None this process; a limit needs a process to end."""
    monkeypatch.setattr(choice, "SHORT", short)
    monkeypatch.setattr(choice, "LONG", long)
    monkeypatch.setattr(pool.Pool, "open", lambda self, frameworks: None)
    measured = []
    monkeypatch.setattr(pool.Pool, "gain", lambda self, spec: measured.append(spec) or gain)
    monkeypatch.setattr(choice, "most_workers", lambda threads: cores)
    planned = local.plan(load_suite(suite(tmp_path, seeds=2)))
    monkeypatch.setattr(choice, "work", lambda spec: 1.0 / len(planned))  # the suite takes a second
    chosen, _ = choice.AutoPool(time_limit=limit)._choose(planned)
    chosen.close()
    assert getattr(chosen, "_count", None) == expected
    assert len(measured) == (gain is not None)


def on_a_gpu(planned):
    return [replace(trial, spec=replace(trial.spec, device="cuda")) for trial in planned]


def seen():
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_workers_are_dealt_out_over_the_gpus(tmp_path, monkeypatch):
    """A faked list of two: each worker sees one of them, and so does the one that takes its place."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    planned = local.plan(load_suite(suite(tmp_path, seeds=2)))
    workers = pool.Pool(3, gpus=("0", "GPU-b"))
    try:
        workers.prepare(on_a_gpu(planned))
        assert workers._call(workers._workers, seen) == ["0", "GPU-b", "0"]
        workers._workers[1].kill()
        workers._workers[1]._process.join()
        assert workers._call(workers._workers, seen) == ["0", "GPU-b", "0"]
    finally:
        workers.close()


def test_trials_on_a_cpu_leave_the_gpus_to_all_workers(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    workers = pool.Pool(2)
    try:
        workers.prepare(local.plan(load_suite(suite(tmp_path, seeds=2))))
        assert workers._call(workers._workers, seen) == ["1,2", "1,2"]
        workers.close()
        workers = pool.Pool(2)
        workers.prepare(on_a_gpu(local.plan(load_suite(suite(tmp_path, seeds=2)))))
        assert workers._call(workers._workers, seen) == ["1", "2"]
    finally:
        workers.close()


@pytest.mark.parametrize(
    ("seconds", "gpus", "gain", "expected"),
    [
        (1.0, 1, None, None),
        (10.0, 1, None, None),
        (100.0, 1, 2.0, 4),
        (100.0, 1, 1.0, None),
        (1.0, 2, None, None),
        (10.0, 2, None, 2),
        (100.0, 2, 3.0, 8),
        (100.0, 2, 2.0, 2),
    ],
)
def test_auto_shares_a_gpu_only_where_that_trains_more(tmp_path, monkeypatch, seconds, gpus, gain, expected):
    """``seconds`` is one trial of eight; ``gain`` None is not measured, ``expected`` None this process."""
    monkeypatch.setattr(choice, "visible_gpus", lambda: [str(k) for k in range(gpus)])
    monkeypatch.setattr(choice, "calibrate", lambda spec, context: seconds)
    monkeypatch.setattr(choice, "most_workers", lambda threads: 16)
    monkeypatch.setattr(pool.Pool, "open", lambda self, frameworks: None)
    measured = []
    monkeypatch.setattr(pool.Pool, "gain", lambda self, spec: measured.append(spec) or gain)
    planned = on_a_gpu(local.plan(load_suite(suite(tmp_path, seeds=2))))
    chosen, settled = choice.AutoPool()._choose(planned)
    chosen.close()
    assert settled
    assert getattr(chosen, "_count", None) == expected
    assert len(measured) == (gain is not None)


def test_a_server_of_workers_has_one_number_of_threads_and_is_for_pytorch_alone():
    starter = processes.Starter()

    def how(frameworks, threads):
        return starter.context(frameworks, Context(threads=threads)).get_start_method()

    first = "forkserver" if sys.platform == "linux" else "spawn"
    assert [how(["torch"], 1), how(["torch"], 2), how(["torch"], 1)] == [first, "spawn", first]
    assert {how(["jax"], 1), how(["jax", "torch"], 1), how([], 1)} == {"spawn"}


def test_a_wrong_number_of_workers_is_named(tmp_path):
    path = suite(tmp_path, seeds=2)
    run = start(path, tmp_path, "--workers", "many")
    assert run.wait() == 2
    assert "--workers: found 'many'" in run.communicate()[0]


def done_waits(inbox):
    """Whether a result is among what workers have said; all of it is put back."""
    said = [inbox.get() for _ in range(inbox.qsize())]
    for message in said:
        inbox.put(message)
    return any(isinstance(message, Done) for _, message in said)


def test_an_interruption_keeps_what_has_ended_in_a_worker(tmp_path):
    workers = pool.Pool(2)

    class Interrupted(Listener):
        def finished(self, trial, record):
            self.stored = getattr(self, "stored", 0) + 1
            if self.stored == 1:  # another one ends meanwhile
                assert len(workers._tasks) == 2
                wait_for(lambda: workers._inbox.qsize() and done_waits(workers._inbox))
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local.run_suite(
            load_suite(suite(tmp_path)), results=tmp_path, observer=Interrupted(), executor=lambda: workers
        )
    with Store(tmp_path / "s") as store:
        found = list(store.trials())
    assert len(found) >= 2
    assert {(trial.status, trial.attempts) for trial in found} == {("completed", 1)}
