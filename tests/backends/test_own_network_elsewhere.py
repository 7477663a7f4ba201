"""Custom networks of Keras, Flax and Equinox: matched, repeated to the bit, gone on with."""

from __future__ import annotations

import random
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from optbench.backends import engine
from optbench.backends.own_network import OwnNetworkError
from optbench.datasets import registry
from optbench.datasets.base import network, trial_data
from optbench.execution.protocol import run_trial
from optbench.suite.expand import trials
from optbench.suite.load import load_suite
from optbench.suite.spec import SuiteError

KERAS = """
import random

import keras
import tensorflow as tf


class Net(keras.Model):
    def __init__(self, width=6, rate=0.3, l2=0.0, outputs=10):
        super().__init__()
        self.conv = keras.layers.Conv2D(width, 3, kernel_regularizer=keras.regularizers.L2(l2))
        self.norm = keras.layers.BatchNormalization()
        self.drop = keras.layers.Dropout(rate)
        self.out = keras.layers.Dense(outputs)

    def call(self, x, training=False):
        x = keras.ops.relu(self.norm(self.conv(x), training=training))
        return self.out(self.drop(keras.ops.mean(x, (1, 2)), training=training))


class Unseeded(Net):
    def call(self, x, training=False):
        return super().call(x + keras.random.normal((1,)), training=training)


class Stateful(Net):
    def call(self, x, training=False):
        return super().call(x + tf.random.normal((1,), seed=1), training=training)


class Frozen(Net):
    def call(self, x, training=False):
        return super().call(x + random.random(), training=training)
"""
LINEN = """
import random

import jax.numpy as jnp
from flax import linen as nn


class Net(nn.Module):
    width: int = 6
    rate: float = 0.3
    outputs: int = 10

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Conv(self.width, (3, 3))(x))
        x = nn.Dropout(self.rate, deterministic=not train)(nn.relu(x).mean((1, 2)))
        return nn.Dense(self.outputs)(x)


class Frozen(Net):
    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(10)((x + random.random()).reshape(len(x), -1))
"""
NNX = """
import jax
from flax import nnx


class Net(nnx.Module):
    def __init__(self, width=6, rate=0.3, outputs=10, *, rngs):
        self.conv = nnx.Conv(1, width, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.drop = nnx.Dropout(rate, rngs=rngs)
        self.out = nnx.Linear(width, outputs, rngs=rngs)

    def __call__(self, x):
        return self.out(self.drop(jax.nn.relu(self.norm(self.conv(x))).mean((1, 2))))
"""
EQUINOX = """
import equinox as eqx
import jax


class Net(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    drop: eqx.nn.Dropout
    out: eqx.nn.Linear

    def __init__(self, width=6, rate=0.3, outputs=10, *, key):
        one, two = jax.random.split(key)
        self.conv = eqx.nn.Conv2d(1, width, 3, padding=1, key=one)
        self.norm = eqx.nn.BatchNorm(width, axis_name="batch", mode="batch")
        self.drop = eqx.nn.Dropout(rate)
        self.out = eqx.nn.Linear(width, outputs, key=two)

    def __call__(self, x, state, key):
        x, state = self.norm(self.conv(x), state)
        return self.out(self.drop(jax.nn.relu(x).mean((1, 2)), key=key)), state
"""
#: Source, backend, package, and the role of each trained weight.
KINDS = {
    "keras": (KERAS, "tensorflow", "keras"),
    "linen": (LINEN, "jax", "flax"),
    "nnx": (NNX, "jax", "flax"),
    "equinox": (EQUINOX, "jax", "equinox"),
}
HEADS = {
    "keras": "net/dense/kernel",
    "linen": "Dense_0/kernel",
    "nnx": "out/kernel",
    "equinox": "out/weight",
}
SUITE = """
suite: own
workloads:
  - dataset: digits
    model: {{class: "nets.py:{cls}"{more}}}
    batch_size: 128
    epochs: 2
    weight_decay: 0.01
    accumulate: 2
    ema: 0.9
optimizers: {{adam: {{lr: 0.01}}, muon: {{lr: 0.01}}}}
seeds: 2
backends: [{backend}]
"""


@pytest.fixture(params=KINDS)
def kind(request):
    _, backend, package = KINDS[request.param]
    for needed in (backend, package):
        if find_spec(needed) is None:
            pytest.skip(f"needs {needed}")
    return request.param


def planned(folder, kind, cls="Net", more=", width: 5", backend=None):
    source, own, _ = KINDS[kind]
    (folder / "nets.py").write_text(source)
    (folder / "s.yaml").write_text(SUITE.format(cls=cls, more=more, backend=backend or own))
    return [t.spec for t in trials(load_suite(folder / "s.yaml"), lambda backend, device: "cpu")]


def record(spec):
    return run_trial(spec, engine(spec.backend), registry.load("digits"), environment={})


def opened(spec):
    data = trial_data(registry.load("digits"), spec.workload, spec.seeds)
    return engine(spec.backend).open(spec, network(spec.workload, data.info), data, {}), data


@pytest.mark.slow
def test_trials_of_a_block_start_alike_and_repeat_to_the_bit(tmp_path, kind):
    specs = planned(tmp_path, kind)
    first, other = record(specs[0]), record(specs[1])
    assert {s.optimizer.optimizer for s in specs[:2]} == {"adam", "muon"}
    assert first.fingerprints.init == other.fingerprints.init
    assert first.history["train_loss"][-1] < first.history["train_loss"][0]
    assert first.metrics["parameters"] == 9 * 5 + 5 + 4 * 5 + 5 * 10 + 10
    assert [group["weights"] for group in other.environment["groups"]] == [45, 75]
    random.seed(9), np.random.seed(9)  # noqa: NPY002
    state = random.getstate()
    again = record(specs[0])
    assert random.getstate() == state
    for name in ("val_loss", "batch_loss", "val_loss_ema"):
        assert np.array_equal(first.history[name], again.history[name], equal_nan=True), name
    assert np.array_equal(first.predictions["last"], again.predictions["last"])
    (session, _), (other_seed, _) = opened(specs[0]), opened(specs[2])
    started = other_seed.weights()
    assert any(not np.array_equal(w, started[name]) for name, w in session.weights().items())
    roles = session.programs.roles
    assert roles[HEADS[kind]] == "head"
    assert sorted(roles.values()) == ["bias", "bias", "bias", "conv", "head", "norm"] or kind == "keras"


@pytest.mark.slow
def test_it_goes_on_from_a_state_to_the_same_bits(tmp_path, kind):
    (spec, *_) = planned(tmp_path, kind)
    session, data = opened(spec)
    rows = data.epoch_rows(0, 1, shuffle=True)
    session.train_epoch(rows[:512], 1)
    state = session.state()
    after = session.train_epoch(rows[512:], 1)
    resumed, _ = opened(spec)
    resumed.restore(state)
    assert np.array_equal(resumed.train_epoch(rows[512:], 1), after)
    moved, others = session.weights(), resumed.weights()
    for name, value in moved.items():
        assert np.array_equal(others[name], value), name
    begun = opened(spec)[0].weights()
    still = [name for name, value in begun.items() if np.array_equal(value, moved[name])]
    assert still == []  # weights and the averages of batch norm alike have moved


def test_its_dropout_differs_from_step_to_step_and_by_seed(tmp_path, kind):
    (spec, *_) = planned(tmp_path, kind, more=", rate: 0.5")
    spec = replace(spec, optimizer=replace(spec.optimizer, lr=0.0))
    spec = replace(spec, workload=replace(spec.workload, weight_decay=None, ema=None, accumulate=None))
    session, data = opened(spec)
    rows = np.tile(data.epoch_rows(0, 1, shuffle=True)[:128], 2)
    one, two = session.train_epoch(rows, 1)
    other, _ = opened(replace(spec, seeds=replace(spec.seeds, dropout=7)))
    assert len({one, two, *other.train_epoch(rows, 1)}) == 4
    again, _ = opened(spec)
    assert again.train_epoch(rows, 1).tolist() == [one, two]


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
@pytest.mark.slow
def test_it_trains_in_the_precision_of_the_trial(tmp_path, kind, precision):
    (spec, *_) = planned(tmp_path, kind)
    session, data = opened(replace(spec, precision=precision))
    losses = session.train_epoch(data.epoch_rows(0, 1, shuffle=True)[:512], 1)
    assert np.isfinite(losses).all()
    kept = "float64" if precision == "float64" else "float32"
    assert {str(w.dtype) for w in session.weights().values() if w.dtype.kind == "f"} == {kept}
    full, _ = opened(spec)
    whole = full.train_epoch(data.epoch_rows(0, 1, shuffle=True)[:512], 1)
    assert not np.array_equal(whole, losses)
    np.testing.assert_allclose(whole, losses, rtol=0.2)


def test_too_few_outputs_are_refused(tmp_path, kind):
    (spec, *_) = planned(tmp_path, kind, more=", outputs: 7")
    with pytest.raises(OwnNetworkError, match=r"gives outputs of shape \[7\] .* need \[10\]"):
        opened(spec)


@pytest.mark.slow
def test_another_backend_is_refused(tmp_path, kind):
    with pytest.raises(SuiteError, match=r"Net is a .*, which torch cannot train; set backends: \["):
        planned(tmp_path, kind, backend="torch")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "cls"),
    [("keras", "Unseeded"), ("keras", "Stateful"), ("keras", "Frozen"), ("linen", "Frozen")],
    indirect=["kind"],
)
def test_draws_that_cannot_be_repeated_are_refused(tmp_path, kind, cls):
    (spec, *_) = planned(tmp_path, kind, cls, more="")
    with pytest.raises(OwnNetworkError, match=r"draws from|changes a variable"):
        opened(spec)


@pytest.mark.slow
def test_a_regulariser_of_its_own_is_in_the_loss(tmp_path):
    pytest.importorskip("keras")
    plain, strong = (planned(tmp_path, "keras", more=f", rate: 0.0, l2: {value}")[0] for value in (0.0, 5.0))
    session, data = opened(plain)
    rows = data.epoch_rows(0, 1, shuffle=True)[:128]
    kernel = session.weights()["net/conv2d/kernel"]
    more = opened(strong)[0].train_epoch(rows, 1)[0] - session.train_epoch(rows, 1)[0]
    assert more == pytest.approx(5 * np.square(kernel).sum(), rel=1e-4)


def test_a_framework_that_is_not_installed_is_named_with_its_command(tmp_path):
    (tmp_path / "nets.py").write_text("import flax_of_nobody\n\n\nclass Net:\n    pass\n")
    (tmp_path / "s.yaml").write_text(SUITE.format(cls="Net", more="", backend="jax"))
    with pytest.raises(SuiteError, match=r"No module named 'flax_of_nobody'.*; bring flax_of_nobody with"):
        load_suite(tmp_path / "s.yaml")
    (tmp_path / "nets.py").write_text("raise ModuleNotFoundError('none', name='equinox')\nNet = None\n")
    with pytest.raises(SuiteError, match="bring equinox with `pip install equinox`"):
        load_suite(tmp_path / "s.yaml")
