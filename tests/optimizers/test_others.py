"""Optimizers of other packages, named in a suite and trained as they are."""

from __future__ import annotations

import subprocess
import sys

import pytest

from optbench import api
from optbench.records.frames import load_results

SUITE = """
suite: others
workloads:
  - dataset: iris
    model: {name: mlp, hidden: [16]}
    batch_size: 16
    epochs: 15
    schedule: {kind: step, at: [12], factor: 0.1}
seeds: 1
"""


def trained(folder, backend, **entries):
    """Train each for a few epochs; all must end well below the loss that they began with."""
    lines = [f"  {label}: {entry}" for label, entry in entries.items()]
    path = folder / "others.yaml"
    path.write_text("\n".join([SUITE, f"backends: [{backend}]", "optimizers:", *lines]))
    outcome = api.run(path, results=folder / "results")
    results = load_results(outcome.store)
    assert outcome.completed == len(entries), list(results.trials.error)
    for label, epochs in results.epochs.groupby("optimizer", observed=True):
        assert epochs.train_loss.iloc[-1] < 0.8 * epochs.train_loss.iloc[0], label
    return results


@pytest.mark.slow
def test_classes_of_pytorch_optimizer(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("pytorch_optimizer", reason="its classes are trained: pip install pytorch_optimizer")
    trained(
        tmp_path,
        "torch",
        lion="{class: 'pytorch_optimizer:Lion', lr: 0.003}",
        adabelief="{class: 'pytorch_optimizer:AdaBelief', lr: 0.01}",
        adan="{class: 'pytorch_optimizer:Adan', lr: 0.01, betas: [0.98, 0.92, 0.99]}",
        prodigy="{class: 'pytorch_optimizer:Prodigy', lr: 1.0}",
        soap="{class: 'pytorch_optimizer:SOAP', lr: 0.01}",
        free="{class: 'pytorch_optimizer:ScheduleFreeAdamW', lr: 0.02}",
    )


def test_classes_of_torch_optimizer(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("torch_optimizer", reason="its classes are trained: pip install torch-optimizer")
    trained(
        tmp_path,
        "torch",
        yogi="{class: 'torch_optimizer:Yogi', lr: 0.02}",
        radam="{class: 'torch_optimizer:RAdam', lr: 0.02}",
        lamb="{class: 'torch_optimizer:Lamb', lr: 0.02}",
    )


def test_functions_of_optax(tmp_path):
    pytest.importorskip("optax", reason="its functions are trained")
    trained(
        tmp_path,
        "jax",
        lion="{class: 'optax:lion', learning_rate: 0.003}",
        radam="{class: 'optax:radam', learning_rate: 0.02}",
        prodigy="{class: 'optax.contrib:prodigy', learning_rate: 1.0}",
    )


def test_a_class_of_keras(tmp_path):
    pytest.importorskip("tensorflow", reason="Keras trains on it")
    trained(tmp_path, "tensorflow", lion="{class: 'keras.optimizers:Lion', learning_rate: 0.003}")


def test_a_suite_that_names_a_framework_loads_without_importing_it(tmp_path):
    pytest.importorskip("keras", reason="a class of it is named")
    (tmp_path / "s.yaml").write_text(
        SUITE + "optimizers: {lion: {class: 'keras.optimizers:Lion', learning_rate: 1}}"
    )
    code = (
        "import sys; from optbench.suite.load import load_suite; load_suite('s.yaml'); "
        "print({'keras', 'tensorflow', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_an_optimizer_that_evaluates_the_loss_again_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    from optbench.backends.torch.optimizers import make_optimizer
    from optbench.optimizers import custom

    config = custom.from_mapping({"class": "torch.optim:LBFGS", "lr": 1.0}, base_dir=tmp_path)
    with pytest.raises(TypeError, match=r"torch.optim:LBFGS: its step\(\) needs a closure"):
        make_optimizer(config, [torch.zeros(2, requires_grad=True)])


def test_a_schedule_free_optimizer_is_evaluated_at_its_averaged_weights(tmp_path):
    """Its step trains one set of weights and shows another: the record must be of the latter."""
    pytest.importorskip("torch")
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "class Mine(torch.optim.SGD):\n"
        "    shown = 'eval'\n"
        "    def train(self): self.turn('train')\n"
        "    def eval(self): self.turn('eval')\n"
        "    def turn(self, mode):\n"
        "        if mode != self.shown:\n"
        "            self.shown = mode\n"
        "            for group in self.param_groups:\n"
        "                for w in group['params']: w.data.neg_()\n"
        "    def step(self, closure=None):\n"
        "        assert self.shown == 'train'\n"
    )
    (tmp_path / "s.yaml").write_text(SUITE + "optimizers: {mine: {class: 'mine.py:Mine', lr: 0.1}}")
    outcome = api.run(tmp_path / "s.yaml", results=tmp_path / "results")
    losses = load_results(outcome.store).epochs.train_loss
    assert outcome.completed == 1
    assert losses.nunique() == 1  # turned for every epoch, and turned back before it was evaluated
