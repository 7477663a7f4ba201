"""A custom torch.nn.Module: matched, repeated to the bit, gone on with; global generators."""

# ruff: noqa: NPY002  (NumPy's global generator is what is tested)

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from optbench.backends.global_draws import GlobalDraws
from optbench.datasets import registry
from optbench.datasets.base import network, trial_data
from optbench.suite.expand import trials
from optbench.suite.load import load_suite
from optbench.suite.spec import SuiteError

torch = pytest.importorskip("torch")

from optbench.backends import engine  # noqa: E402
from optbench.execution.protocol import run_trial  # noqa: E402

NETS = """
import random

import numpy as np
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, width=8, rate=0.3):
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(rate)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        if self.training:
            x = x + 0.01 * random.random() + 0.01 * np.random.rand()
        return self.head(self.drop(x))


class Odd:
    pass
"""
SUITE = """
suite: own
workloads:
  - dataset: digits
    model: {{class: "nets.py:{cls}"{more}}}
    batch_size: 128
    epochs: 2
optimizers: {{adam: {{lr: 0.01}}, wame: {{lr: 0.01}}}}
seeds: 2
"""


def planned(folder, cls="Net", more=", width: 6"):
    (folder / "nets.py").write_text(NETS)
    (folder / "s.yaml").write_text(SUITE.format(cls=cls, more=more))
    return [t.spec for t in trials(load_suite(folder / "s.yaml"), lambda backend, device: "cpu")]


def record(spec, **more):
    return run_trial(spec, engine("torch"), registry.load("digits"), environment={}, **more)


def opened(spec):
    data = trial_data(registry.load("digits"), spec.workload, spec.seeds)
    return engine("torch").open(spec, network(spec.workload, data.info), data, {}), data


def test_trials_of_a_block_start_alike_and_repeat_to_the_bit(tmp_path):
    specs = planned(tmp_path)
    first, other = record(specs[0]), record(specs[1])
    assert {s.optimizer.optimizer for s in specs[:2]} == {"adam", "wame"}
    assert first.fingerprints.init == other.fingerprints.init
    assert first.fingerprints.init != record(specs[2]).fingerprints.init
    assert first.history["val_loss"][-1] < first.history["val_loss"][0]
    torch.manual_seed(9), np.random.seed(9), random.seed(9)
    again = record(specs[0])
    assert np.array_equal(first.history["val_loss"], again.history["val_loss"])
    assert np.array_equal(first.history["batch_loss"], again.history["batch_loss"], equal_nan=True)


def test_a_trial_leaves_the_global_generators_as_they_were(tmp_path):
    (spec, *_) = planned(tmp_path)
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    wanted = torch.rand(1).item(), np.random.rand(), random.random()
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    record(spec)
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == wanted


def test_it_goes_on_from_a_state_to_the_same_bits(tmp_path):
    (spec, *_) = planned(tmp_path)
    spec = replace(spec, workload=replace(spec.workload, ema=0.9, accumulate=2))
    session, data = opened(spec)
    rows = data.epoch_rows(0, 1, shuffle=True)
    session.train_epoch(rows[:512], 1)
    state = session.state()
    after = session.train_epoch(rows[512:], 1)
    resumed, _ = opened(spec)
    resumed.restore(state)
    assert np.array_equal(resumed.train_epoch(rows[512:], 1), after)
    for name, value in session.weights().items():
        assert np.array_equal(resumed.weights()[name], value), name


@pytest.mark.slow
def test_its_code_and_arguments_are_its_identity(tmp_path):
    from optbench.trial import trial_id

    (spec, *_) = planned(tmp_path)
    assert trial_id(planned(tmp_path, more=", width: 7")[0]) != trial_id(spec)
    other = tmp_path / "elsewhere"
    other.mkdir()
    assert trial_id(planned(other)[0]) == trial_id(spec)
    (tmp_path / "nets.py").write_text(NETS + "\n# changed\n")
    with pytest.raises(Exception, match="this trial was declared with"):
        record(spec)


def test_groups_choose_its_weights_by_their_roles(tmp_path):
    planned(tmp_path)
    text = SUITE.format(cls="Net", more=", width: 6")
    (tmp_path / "s.yaml").write_text(text.replace("wame: {lr: 0.01}", "muon: {lr: 0.01}"))
    muon = trials(load_suite(tmp_path / "s.yaml"), lambda backend, device: "cpu")[1]
    assert muon.spec.optimizer.optimizer == "muon"
    groups = opened(muon.spec)[0].facts()["groups"]
    assert [group["weights"] for group in groups] == [6 * 9, 6 + 6 + 6 + 60 + 10]


def test_its_weights_have_roles(tmp_path):
    (spec, *_) = planned(tmp_path)
    session, _ = opened(spec)
    assert session.roles == {
        "conv.weight": "conv",
        "conv.bias": "bias",
        "norm.weight": "norm",
        "norm.bias": "bias",
        "head.weight": "head",
        "head.bias": "bias",
    }


def test_a_class_that_is_no_network_is_refused_with_what_is_wanted(tmp_path):
    with pytest.raises(
        SuiteError, match=r"model: nets.py:Odd gave .*; return a Model, .* or a torch.nn.Module"
    ):
        planned(tmp_path, "Odd", "")


def test_draws_of_two_trials_do_not_mix():
    a, b, alone = GlobalDraws(1), GlobalDraws(2), GlobalDraws(1)

    def three(draws):
        with draws.mine():
            return (
                random.random(),
                np.random.rand(),
                torch.rand(1).item(),
                random.gauss(0, 1),
                np.random.randn(),
            )

    mixed = [three(draws) for draws in (a, b, a, b)]
    assert [mixed[0], mixed[2]] == [three(alone), three(alone)]
    kept = a.state()
    wanted = three(a)
    b.restore(kept)
    assert three(b) == wanted


class Noisy(torch.optim.SGD):
    """Draws from all global generators, as some libraries' optimizers do."""

    def step(self, closure=None):
        for group in self.param_groups:
            for w in group["params"]:
                noise = 0.01 * torch.randn_like(w.grad)
                w.grad += noise + 0.001 * random.random() + 0.001 * np.random.rand()
        return super().step(closure)


NOISY = """
suite: noisy
workloads: [{dataset: digits, model: {name: mlp, hidden: [8]}, batch_size: 128, epochs: 2}]
optimizers: {noisy: {class: "tests.backends.test_own_network:Noisy", lr: 0.1}}
seeds: 1
"""


def test_an_optimizer_that_draws_from_the_global_generators_repeats_to_the_bit(tmp_path):
    (tmp_path / "s.yaml").write_text(NOISY)
    (planned_trial,) = trials(load_suite(tmp_path / "s.yaml"), lambda backend, device: "cpu")
    first = record(planned_trial.spec)
    torch.manual_seed(5), random.seed(5)
    assert np.array_equal(first.history["val_loss"], record(planned_trial.spec).history["val_loss"])


@pytest.mark.slow
def test_a_recorded_trial_runs_its_code_only_where_it_is_trusted(tmp_path):
    from optbench import api
    from optbench.records.store import Store
    from optbench.records.trust import UntrustedError
    from optbench.verification.rerun import rerun

    planned(tmp_path)
    (tmp_path / "s.yaml").write_text(SUITE.format(cls="Net", more="").replace("seeds: 2", "seeds: 1"))
    with Store(api.run(tmp_path / "s.yaml", results=tmp_path / "results").store) as store:
        trial = next(iter(store.trials()))
    with pytest.raises(UntrustedError, match=r"model nets.py:Net \(sha256:.*, as recorded\)"):
        rerun(trial, folder=tmp_path)
    assert rerun(trial, folder=tmp_path, trust=True).verdict == "identical"


def test_another_framework_is_refused(tmp_path):
    planned(tmp_path)
    (tmp_path / "s.yaml").write_text(SUITE.format(cls="Net", more="") + "backends: [torch, jax]\n")
    with pytest.raises(SuiteError, match=r"is a torch.nn.Module, which jax cannot train"):
        load_suite(tmp_path / "s.yaml")
