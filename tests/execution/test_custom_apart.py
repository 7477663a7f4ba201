"""Custom code is run apart wherever it is run: nothing of it is left for the next trial, plan or timing."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optbench import api
from optbench.datasets import registry
from optbench.execution import local
from optbench.execution import pool as pools
from optbench.execution.pool import Pool
from optbench.records.store import Store
from optbench.suite.load import load_suite
from tests.execution.test_custom_code import SUITE, statuses, write

pytest.importorskip("torch")

#: What the constructor or a step changes in its process, for every later trial of it.
PATCHES = {
    "a patched function": "torch.nn.functional.relu = torch.nn.functional.gelu",
    "a patched method": "torch.Tensor.__mul__ = lambda self, other: self",
    "a patched optimizer": "torch.optim.Adam.step = lambda self, closure=None: None",
    "threads": "torch.set_num_threads(2)",
    "default dtype": "torch.set_default_dtype(torch.float64)",
    "a random state": "torch.manual_seed(torch.initial_seed() + 1)",
    "a module": "sys.modules['optbench.matching'].epoch_order = None",
    "an environment variable": "os.environ['OMP_NUM_THREADS'] = '7'",
    "closed descriptors": "os.closerange(0, 3)",
}
QUICK = ("a patched optimizer", "a patched function")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.nightly) for name in PATCHES]
)
def test_what_custom_code_changes_is_gone_for_the_next_trial(tmp_path, name):
    path = write(tmp_path, PATCHES[name])
    changed = api.run(path, results=tmp_path / "changed")
    calm = api.run(path, results=tmp_path / "calm", only=lambda t: t.optimizer == "adam")
    assert len([s for s, _ in statuses(changed.store)["adam"] if s == "completed"]) == 2
    with Store(changed.store) as one, Store(calm.store) as other:
        for trial in other.trials():
            (found,) = one.trials([trial.trial_id])
            assert found.history["train_loss"].tobytes() == trial.history["train_loss"].tobytes()
            assert found.environment["threads"] == trial.environment["threads"]


#: Starts a process that lives on, and notes which.
START = "print(__import__('subprocess').Popen(['sleep', '300']).pid, file=open('{file}', 'a'))"


def alive(file):
    """Processes of the file that still run; those that have just been killed get a moment."""
    found = [int(word) for word in file.read_text().split()]
    assert found
    for _ in range(50):
        states = [Path(f"/proc/{pid}/stat") for pid in found]
        left = [path for path in states if path.exists() and path.read_text().split()[2] != "Z"]
        if not left:
            return []
        time.sleep(0.1)
    return left


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_what_custom_code_starts_ends_with_its_trial(tmp_path):
    file = tmp_path / "pids"
    path = write(tmp_path, START.format(file=file), SUITE.replace("seeds: 2", "seeds: 1"))
    outcome = api.run(path, results=tmp_path)
    assert (outcome.completed, outcome.crashed) == (2, 0)
    assert not alive(file)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_what_a_function_for_data_starts_ends_with_it(tmp_path):
    file = tmp_path / "pids"
    (tmp_path / "data.py").write_text(
        f"import numpy as np\ndef moons():\n    {START.format(file=file)}\n"
        "    return np.arange(40.0).reshape(20, 2), np.arange(20) % 2\n"
    )
    path = write(tmp_path, "pass", SUITE.replace("dataset: digits", "dataset: {class: data.py:moons}"))
    registry.load(next(iter(local.plan(load_suite(path)))).spec.workload.dataset)
    assert not alive(file)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")
def test_what_custom_code_starts_ends_with_a_run_that_is_killed(tmp_path):
    file = tmp_path / "pids"
    write(tmp_path, f"{START.format(file=file)}; time.sleep(1)", SUITE.replace("seeds: 2", "seeds: 1"))
    run = subprocess.Popen([sys.executable, "-m", "optbench.cli", "run", "s.yaml"], cwd=tmp_path)
    while not file.exists() and run.poll() is None:
        time.sleep(0.1)
    run.kill()
    run.wait()
    assert not alive(file)


def test_a_trial_that_hangs_is_ended_without_a_declared_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(pools, "SILENCE", 2.0)
    path = write(tmp_path, "time.sleep(1000)", SUITE.replace("seeds: 2", "seeds: 1"))
    outcome = api.run(path, results=tmp_path)
    assert (outcome.completed, outcome.crashed) == (1, 1)
    ((_, error),) = statuses(outcome.store)["mine"]
    assert "said nothing for 2 seconds" in error
    assert "--time-limit" in error


@pytest.mark.nightly
@pytest.mark.parametrize("step", ["os._exit(0)", "sys.exit(0)"])
def test_commands_go_on_where_custom_code_ends_its_process(tmp_path, step):
    write(tmp_path, step, SUITE.replace("seeds: 2", "seeds: 1"))

    def call(*words):
        return subprocess.run(
            [sys.executable, "-m", "optbench.cli", *words], cwd=tmp_path, capture_output=True, text=True
        )

    planned = call("plan", "s.yaml")
    assert planned.returncode == 0, planned.stderr
    assert "mine" in planned.stdout
    timed = call("run", "s.yaml", "--time")
    assert timed.returncode == 4, timed.stderr
    assert "mine" in timed.stdout
    assert "1 completed, 0 diverged, 1 crashed" in timed.stdout
    with Store(tmp_path / "results" / "s") as store:
        (key,) = [key for key, _, optimizer in store.plan() if optimizer == "mine"]
    again = call("rerun", key, "--trust")
    assert again.returncode == 0, again.stderr
    assert "recorded: crashed; now: crashed" in again.stdout


@pytest.mark.nightly
def test_what_a_process_of_its_own_costs(tmp_path, capsys):
    """Interleaved: the same suite with its class in this process, and apart."""
    from optbench.execution.jobs import InProcess

    suite = load_suite(write(tmp_path, "pass", SUITE.replace("seeds: 2", "seeds: 10")))

    def seconds(name, executor):
        clock = time.perf_counter()
        local.run_suite(suite, results=tmp_path / name, executor=executor)
        return time.perf_counter() - clock

    ratios = []
    for k in range(5):
        here, apart = seconds(f"here{k}", InProcess), seconds(f"apart{k}", lambda: Pool(1))
        ratios.append((apart - here) / 10)
    with capsys.disabled():
        print(f"\na process of its own costs {statistics.median(ratios):.2f} s a trial")
    assert statistics.median(ratios) < 20
