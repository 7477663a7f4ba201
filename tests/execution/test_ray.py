"""A Ray cluster of two nodes: the same store as in one process, though one of them is lost on the way."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from optbench import api
from optbench.environment import pip_hint
from optbench.execution.checkpoint import FOLDER
from optbench.execution.jobs import LAST
from optbench.execution.ray import RayError, RayExecutor
from optbench.execution.stacks import StackSize
from optbench.records.store import Store
from tests.execution.test_pool import content, start, stored, suite, wait_for

pytest.importorskip("torch", reason="runs trials with PyTorch")


def going_on(checkpoints):
    """Trials that write checkpoint after checkpoint at the moment."""

    def written():
        return {path.name: path.stat().st_mtime_ns for path in checkpoints.glob("*.npz")}

    with contextlib.suppress(FileNotFoundError):
        before = written()
        time.sleep(0.3)
        after = written()
        return sum(after.get(name, when) != when for name, when in before.items())
    return 0


@pytest.mark.slow
def test_a_node_that_is_lost_in_mid_run_costs_what_its_trial_did_since_its_checkpoint(tmp_path):
    pytest.importorskip("ray", reason="needs the extra ray")
    from ray.cluster_utils import Cluster

    path = suite(tmp_path, seeds=4, epochs=150)
    api.run(path, results=tmp_path / "one")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        other = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        options = ("--executor", "ray", "--ray-address", cluster.address, "--checkpoint-minutes", "1e-9")
        run = start(path, tmp_path / "two", *options)
        wait_for(lambda: stored(tmp_path / "two") > 3, 300)
        wait_for(lambda: going_on(tmp_path / "two" / "s" / FOLDER) == 2, 120)
        cluster.remove_node(other, allow_graceful=False)
        output = run.communicate(timeout=400)[0]
        assert run.returncode == 0, output
    finally:
        cluster.shutdown()
    assert content(tmp_path / "two" / "s") == content(tmp_path / "one" / "s")
    with Store(tmp_path / "two" / "s") as store:
        assert any(trial.environment.get("checkpoint") == "resumed" for trial in store.trials())


def test_without_ray_the_extra_is_named(tmp_path):
    path = suite(tmp_path, seeds=1)
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['ray'] = None\n")
    command = [sys.executable, "-m", "optbench.cli", "run", path, "--results", tmp_path, "--executor", "ray"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert pip_hint("ray") in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interruption_keeps_what_has_ended_on_the_cluster():
    class Lost(Exception):
        pass

    class Cluster:
        class exceptions:
            RayError = Lost

        def wait(self, references, *, num_returns, timeout):
            assert (num_returns, timeout) == (3, LAST)
            return references[:2], references[2:]

        def get(self, reference):
            if reference == "lost":
                raise Lost
            return [f"record of {reference}"]

    executor = RayExecutor.__new__(RayExecutor)
    executor._ray, executor._pending = Cluster(), {}
    assert list(executor.drain()) == []
    executor._pending = {"ended": ("job 1",), "lost": ("job 2",), "running": ("job 3",)}
    assert list(executor.drain()) == [(("job 1",), ["record of ended"])]


def test_a_trial_is_not_blamed_where_ray_itself_has_ended():
    class Cluster:
        class exceptions:
            class RayError(Exception):
                pass

        alive = True

        def get_runtime_context(self):
            return SimpleNamespace(get_node_id=lambda: "a")

        def nodes(self):
            if self.alive is None:
                raise self.exceptions.RayError("no answer")
            return [{"NodeID": "a", "Alive": self.alive}, {"NodeID": "b", "Alive": True}]

    executor = RayExecutor.__new__(RayExecutor)
    cluster = executor._ray = Cluster()
    executor._check_node(Cluster.exceptions.RayError("lost"))
    for cluster.alive in (False, None):
        with pytest.raises(RayError, match=r"Ray has ended on the machine of this run \(lost\)"):
            executor._check_node(Cluster.exceptions.RayError("lost"))


STACKED = """
suite: s
workloads:
  - {dataset: digits, model: {name: mlp, hidden: [16]}, batch_size: 64, epochs: 40}
optimizers: {adam: {}, sgd: {lr: 0.1}}
seeds: 6
engine: {batch_seeds: 2}
"""


@pytest.mark.nightly
def test_ctrl_c_stores_what_has_ended_leaves_the_cluster_up_and_stacks_go_on(tmp_path):
    pytest.importorskip("ray", reason="needs the extra ray")
    from ray.cluster_utils import Cluster

    path = tmp_path / "s.yaml"
    path.write_text(STACKED)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        options = ("--executor", "ray", "--ray-address", cluster.address)
        run = start(path, tmp_path, *options)
        wait_for(lambda: stored(tmp_path) >= 2, 300)
        run.send_signal(signal.SIGINT)
        output = run.communicate(timeout=120)[0]
        assert run.returncode == 130, output
        before = content(tmp_path / "s")
        assert 2 <= len(before) < 12
        again = start(path, tmp_path, *options)
        output = again.communicate(timeout=400)[0]
        assert again.returncode == 0, output
    finally:
        cluster.shutdown()
    after = content(tmp_path / "s")
    assert len(after) == 12
    assert all(after[key] == before[key] for key in before)
    with Store(tmp_path / "s") as store:
        assert {trial.environment.get("stacked") for trial in store.trials()} == {2}


def test_a_stack_is_measured_with_what_a_trial_holds_of_a_node():
    asked, called = [], []

    class Cluster:
        class exceptions:
            RayError = RuntimeError

        def put(self, data):
            return data

        def remote(self, **resources):
            asked.append(resources)

            class Remote:
                def remote(self, *arguments):
                    called.append(arguments)
                    return "reference"

            return lambda function: Remote()

        def get(self, reference):
            if len(called) > 1:
                raise RuntimeError("the node is gone")
            return StackSize(4)

    executor = RayExecutor.__new__(RayExecutor)
    executor._ray, executor._shared, executor._cpus, executor._gpus = Cluster(), {"d": "data"}, 2, 0.5
    trial = SimpleNamespace(spec=SimpleNamespace(workload=SimpleNamespace(dataset="d")))
    setting = SimpleNamespace(context="context")
    assert executor.best_size([trial], setting) == StackSize(4)
    assert asked == [{"num_cpus": 2, "num_gpus": 0.5}]
    assert called == [((trial.spec,), "data", "context")]
    assert executor.best_size([trial], setting) == StackSize(1, refused="not measured: the node is gone")


@pytest.mark.parametrize(
    ("address", "failures", "calls", "said"),
    [
        (None, 1, 2, None),
        (None, 2, 2, "Ray does not start on this machine (The node timed out)"),
        ("h:1", 1, 1, "--ray-address h:1: no Ray cluster answers (The node timed out)"),
    ],
)
def test_a_cluster_that_does_not_start_is_tried_again_and_then_said_in_a_line(address, failures, calls, said):
    tried = []

    class Ray:
        class exceptions:
            RayError = KeyError

        def init(self, **options):
            tried.append(options["address"])
            if len(tried) <= failures:
                raise Exception("The node timed out")

        def shutdown(self):
            pass

    executor = RayExecutor.__new__(RayExecutor)
    executor._ray = Ray()
    if said is None:
        executor._join(address, {})
    else:
        with pytest.raises(RayError, match=re.escape(said)):
            executor._join(address, {})
    assert tried == [address] * calls
