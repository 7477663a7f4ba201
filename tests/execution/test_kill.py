"""A run killed by the operating system in the middle of a trial goes on to the same bits."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest

from optbench.records.store import Store
from tests.backends.contract import BACKENDS


@pytest.fixture(params=BACKENDS)
def backend(request):
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


LONG = """
suite: long
workloads:
  - dataset: digits
    model: {name: mlp, hidden: [32], dropout: [0.3]}
    batch_size: 16
    epochs: EPOCHS
    split: {validation: 0.2}
    schedule: {kind: cosine}
optimizers:
  wame: {lr: 0.005}
  adam: {lr: 0.001}
seeds: SEEDS
backends: [BACKEND]
engine: {batch_seeds: STACKED}
"""


#: With all that a GPT's step has of its own.
GPT = """
suite: long
workloads:
  - dataset: shakespeare
    model: {name: gpt, depth: 1, width: 16, heads: 2, context: 16, dropout: 0.1}
    batch_size: 16
    steps: EPOCHS
    evaluate_every: 1
    split: {validation: 0.01}
    train_eval: 16
    clip_norm: 1.0
    schedule: {kind: wsd, warmup: 10, decay: 0.2}
    ema: 0.9
    accumulate: 4
optimizers: {adamw: {lr: 0.003}}
seeds: SEEDS
backends: [BACKEND]
engine: {batch_seeds: STACKED}
"""
#: A custom network with dropout and batch norm, and an optimizer that draws from all global generators.
OWN = """
suite: long
workloads:
  - dataset: digits
    model: {class: "nets.py:Net"}
    batch_size: 64
    epochs: EPOCHS
    split: {validation: 0.2}
optimizers: OPTIMIZERS
seeds: SEEDS
backends: [BACKEND]
engine: {batch_seeds: STACKED}
"""
NETS = {
    "torch": """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3))
        self.head = nn.Linear(4, 10)

    def forward(self, x):
        return self.head(self.body(x).mean((2, 3)))
""",
    "tensorflow": """
import keras
from keras import layers


def Net():
    return keras.Sequential([
        layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(), layers.Dropout(0.3),
        layers.GlobalAveragePooling2D(), layers.Dense(10),
    ])
""",
    "jax": """
from flax import linen as nn


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (3, 3))(x)))
        return nn.Dense(10)(nn.Dropout(0.3, deterministic=not train)(x.mean((1, 2))))
""",
}


#: By day a custom network of one framework stands for all.
HOW_OFTEN = {"own-tensorflow": pytest.mark.nightly, "own-jax": pytest.mark.nightly}
KILLED = {
    **{name: (name, LONG, "1", "off") for name in BACKENDS},
    "stacked": ("torch", LONG, "3", "3"),
    "gpt": ("torch", GPT, "1", "off"),
    **{f"own-{name}": (name, OWN, "1", "off") for name in BACKENDS},
}


@pytest.mark.parametrize(
    ("backend", "suite", "seeds", "stacked"),
    [
        pytest.param(*case, marks=HOW_OFTEN.get(name, pytest.mark.slow), id=name)
        for name, case in KILLED.items()
    ],
    indirect=["backend"],
)
def test_kill_9_in_mid_trial_then_the_same_command_goes_on(
    backend, suite, seeds, stacked, write_suite, tmp_path
):
    text = suite.replace("BACKEND", backend).replace("EPOCHS", "80")
    text = text.replace("SEEDS", seeds).replace("STACKED", stacked)
    if suite is OWN:
        if backend == "jax":
            pytest.importorskip("flax")
        noisy = '{noisy: {class: "tests.backends.test_own_network:Noisy", lr: 0.1}}'
        text = text.replace("OPTIMIZERS", noisy if backend == "torch" else "{adam: {lr: 0.01}}")
        (tmp_path / "nets.py").write_text(NETS[backend])
    path = write_suite(text=text, name="long.yaml")
    command = [sys.executable, "-m", "optbench.cli", "run", str(path), "--checkpoint-minutes", "0.001"]

    def start(folder):
        return subprocess.Popen(
            [*command, "--results", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    whole = start(tmp_path / "whole")
    output, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, output
    kills = 0
    folder = tmp_path / "cut" / "long"
    while kills < 2:
        process = start(tmp_path / "cut")
        before = {path: path.stat().st_mtime_ns for path in folder.glob("checkpoints/*.npz")}
        while process.poll() is None:
            now = {path: path.stat().st_mtime_ns for path in folder.glob("checkpoints/*.npz")}
            if now and now != before:
                break
            time.sleep(0.005)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    assert kills, "the run was over before it could be killed"
    final = start(tmp_path / "cut")
    output, _ = final.communicate(timeout=300)
    assert final.returncode == 0, output
    with Store(tmp_path / "whole" / "long") as a, Store(folder) as b:
        one, two = list(a.trials()), list(b.trials())
        assert [trial.trial_id for trial in one] == [trial.trial_id for trial in two]
        for left, right in zip(one, two, strict=True):
            assert left.metrics == right.metrics
            assert (left.fingerprints, left.order_by_epoch) == (right.fingerprints, right.order_by_epoch)
            for name in left.history:
                if not name.endswith("seconds"):
                    assert left.history[name].tobytes() == right.history[name].tobytes(), name
            mine, other = a.predictions(left.trial_id), b.predictions(right.trial_id)
            assert {k: v.tobytes() for k, v in mine.items()} == {k: v.tobytes() for k, v in other.items()}
        assert "resumed" in {trial.environment.get("checkpoint") for trial in two}
    assert not (folder / "checkpoints").exists()
