"""The contract of an engine, the same tests for every framework."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from importlib import import_module

import numpy as np
import pytest

from optbench import backends, matching
from optbench.backends.base import BackendMissingError, DeviceError
from optbench.datasets import registry
from optbench.models.layers import (
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    GlobalAveragePool2D,
    MaxPool2D,
    Model,
    build,
)
from optbench.optimizers import FAMILIES, SGD, WAME, Adagrad, Adam, AdamW, Nadam, RMSprop, custom
from optbench.trial import Augment, Seeds
from tests.backends.contract import CNN, MLP, mlp_gradients, record, session, spec


@pytest.mark.parametrize(
    "optimizer",
    [
        WAME(lr=0.05),
        Adam(lr=0.01),
        AdamW(lr=0.01),
        Nadam(lr=0.01),
        Adagrad(lr=0.01),
        RMSprop(lr=0.003),
        SGD(lr=0.1),
        SGD(lr=0.05, momentum=0.9),
        SGD(lr=0.05, momentum=0.9, nesterov=True),
    ],
    ids=lambda config: f"{config.optimizer}{'-nesterov' if getattr(config, 'nesterov', False) else ''}",
)
def test_an_epoch_follows_the_reference_rule_on_gradients_by_hand(backend, optimizer):
    trial = spec(backend, optimizer)
    live, weights, data = session(trial)
    order = data.train.rows[matching.epoch_order(0, 1, len(data.train))]
    losses = live.train_epoch(order, 1)

    family = FAMILIES[optimizer.optimizer]
    w = dict(weights)
    state = {name: family.start(optimizer, value) for name, value in w.items()}
    x = data.train.x.reshape(len(data.train.x), -1) * data.scale
    expected = []
    for t, start in enumerate(range(0, len(order), 64), start=1):
        rows = order[start : start + 64]
        loss, grads = mlp_gradients(w, x[rows], data.train.y[rows])
        expected.append(loss)
        for name, g in grads.items():
            w[name], state[name] = family.step(optimizer, w[name], g, state[name], t)
    assert len(losses) == -(-len(order) // 64), "the last short batch is trained on"
    np.testing.assert_allclose(losses, expected, rtol=1e-10)
    for name, value in live.weights().items():
        np.testing.assert_allclose(value, w[name], rtol=1e-8, atol=1e-12)


def test_smoothing_clipping_decay_and_a_moved_rate_follow_the_reference(backend):
    features = {"label_smoothing": 0.1, "clip_value": 0.02, "clip_norm": 0.1, "weight_decay": 0.5}
    live, w, data = session(spec(backend, SGD(lr=0.5), **features))
    x = data.train.x.reshape(len(data.train.x), -1) * data.scale
    for lr in (0.5, 0.1):
        live.set_lr(lr)
        rows = data.train.rows[:64]
        loss, grads = mlp_gradients(w, x[rows], data.train.y[rows], smoothing=0.1)
        grads = {name: np.clip(g, -0.02, 0.02) for name, g in grads.items()}
        norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
        assert norm > 0.1, "the clipping must bite to be tested"
        decay = {name: 1 - lr * 0.5 if name.endswith("kernel") else 1 for name in w}
        w = {name: w[name] * decay[name] - lr * grads[name] * (0.1 / norm) for name in w}
        assert live.train_epoch(rows, 1)[0] == pytest.approx(loss, rel=1e-12)
    for name, value in live.weights().items():
        np.testing.assert_allclose(value, w[name], rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("model", [MLP, CNN], ids=["mlp", "cnn"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_weights_go_in_and_come_out_unchanged(backend, model, precision):
    live, weights, _ = session(spec(backend, model=model, precision=precision))
    assert list(live.weights()) == list(weights)
    for name, value in live.weights().items():
        assert value.dtype == precision
        np.testing.assert_array_equal(value, weights[name])


def test_warming_up_changes_nothing(backend):
    trial = spec(backend, model=CNN)
    warm, _, data = session(trial)
    cold, _, _ = session(trial)
    warm.warm_up()
    order = data.train.rows
    np.testing.assert_array_equal(warm.train_epoch(order, 1), cold.train_epoch(order, 1))
    for (name, value), other in zip(warm.weights().items(), cold.weights().values(), strict=True):
        np.testing.assert_array_equal(value, other, err_msg=name)


@pytest.mark.parametrize("model", [MLP, CNN], ids=["mlp", "cnn"])
def test_the_same_trial_twice_is_bit_identical(backend, model):
    trial = spec(backend, WAME(), model, precision="float32")
    first, second = record(trial), record(trial)
    for name in first.history:
        if not name.endswith("seconds"):
            np.testing.assert_array_equal(first.history[name], second.history[name], err_msg=name)
    np.testing.assert_array_equal(first.predictions["last"], second.predictions["last"])
    assert first.fingerprints == second.fingerprints


def test_optimizers_of_a_block_share_fingerprints_first_loss_and_dropout_masks(backend):
    records = [record(spec(backend, optimizer, CNN)) for optimizer in (SGD(lr=1e-12), Adam(lr=1e-12))]
    assert records[0].fingerprints == records[1].fingerprints
    # With a vanishing learning rate the weights stay, so equal losses mean equal masks in every step.
    np.testing.assert_allclose(*(r.history["batch_loss"] for r in records), rtol=1e-6)
    other = record(spec(backend, SGD(lr=1e-12), CNN, seeds=Seeds(dropout=1)))
    assert other.history["batch_loss"][1] != records[0].history["batch_loss"][1]


def test_dropout_draws_a_new_mask_each_step_and_keeps_the_mean(backend):
    model = Model(name="dropout", layers=(Dense(units=512), Dropout(rate=0.4), Dense()))
    live, weights, data = session(spec(backend, SGD(lr=1e-12), model))
    rows = np.tile(data.train.rows[:64], 40)
    losses = live.train_epoch(rows, 1)
    assert len(np.unique(losses)) == len(losses)
    x = data.train.x[rows[:64]].reshape(64, -1) * data.scale
    hidden = x @ weights["dense_1/kernel"]
    kernel = weights["dense_2/kernel"]
    logits = hidden @ kernel
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    spread = 0.4 / 0.6 * (hidden**2) @ kernel**2  # variance of the logits under dropout
    p = np.exp(log_p)
    labels = data.train.y[rows[:64]]
    rise = 0.5 * (p * (1 - p) * spread).sum(axis=1)  # second order of the log-sum-exp
    expected = (rise - log_p[np.arange(64), labels]).mean()
    assert losses.mean() == pytest.approx(expected, abs=6 * losses.std() / np.sqrt(len(losses)) + 0.02)


def test_evaluation_is_in_evaluation_mode_and_counts_by_hand(backend):
    live, _, data = session(spec(backend, model=CNN))
    first, second = live.evaluate("validation", outputs=True), live.evaluate("validation")
    assert first.loss == second.loss
    labels = data.validation.y[data.validation.rows]
    assert second.outputs is None
    logits = first.outputs
    np.testing.assert_array_equal(logits.argmax(axis=1), first.predictions)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert first.loss == pytest.approx(-log_p[np.arange(len(labels)), labels].mean(), rel=1e-12)


def test_batch_norm_keeps_unbiased_running_variance(backend):
    model = Model(name="bn", layers=(BatchNorm(momentum=0.0), Dense()))
    live, _, data = session(spec(backend, SGD(lr=1e-12), model, dataset="uci-letter"))
    rows = data.train.rows[:50]
    live.train_epoch(rows, 1)
    x = (data.train.x[rows] - data.shift) * data.scale
    weights = live.weights()
    np.testing.assert_allclose(weights["batch_norm_1/moving_mean"], x.mean(axis=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(weights["batch_norm_1/moving_variance"], x.var(axis=0, ddof=1), rtol=1e-9)


def test_penalties_enter_the_loss_as_in_keras(backend):
    plain, weights, data = session(spec(backend))
    layers = (Dense(units=16, activation="tanh", l1=0.01, l2=0.1), Dense())
    penalised, _, _ = session(spec(backend, model=Model(name="mlp", layers=layers)))
    rows = data.train.rows[:64]
    difference = penalised.train_epoch(rows, 1)[0] - plain.train_epoch(rows, 1)[0]
    kernel = weights["dense_1/kernel"]
    assert difference == pytest.approx(0.01 * np.abs(kernel).sum() + 0.1 * (kernel**2).sum(), rel=1e-10)


def test_given_inputs_take_the_place_of_the_pools(backend):
    pooled, _, data = session(spec(backend, augment=Augment(rotation=1.0)))
    given, _, _ = session(spec(backend, augment=Augment(rotation=1.0)))
    given.warm_up()
    rows = data.train.rows[::-1].copy()
    np.testing.assert_array_equal(given.train_epoch(rows, 1, data.train.x[rows]), pooled.train_epoch(rows, 1))


def test_remembered_weights_come_back(backend):
    live, weights, data = session(spec(backend))
    live.remember()
    live.train_epoch(data.train.rows, 1)
    assert not np.array_equal(live.weights()["dense_1/kernel"], weights["dense_1/kernel"])
    live.recall()
    np.testing.assert_array_equal(live.weights()["dense_1/kernel"], weights["dense_1/kernel"])


def test_global_average_pooling_and_a_full_batch_train(backend):
    layers = (Conv2D(filters=10, kernel=3), MaxPool2D(size=3, stride=1), GlobalAveragePool2D())
    trial = spec(backend, model=Model(name="gap", layers=layers), batch_size="full")
    result = record(replace(trial, precision="float32"))
    assert result.status == "completed"
    assert result.history["batch_loss"].shape == (3,)


def test_the_engine_tells_what_it_runs_on(backend):
    facts = backends.engine(backend).describe("cpu")
    assert facts["framework"].startswith(backend)
    assert facts["threads"] == 1
    assert facts["device"] == "cpu"


def test_a_device_that_is_not_there_is_refused_with_those_that_are(backend):
    engine = backends.engine(backend)
    assert engine.resolve_device("cpu") == "cpu"
    with pytest.raises(DeviceError, match=f"{backend} .* has no device 'abacus' here; it has .*cpu"):
        engine.resolve_device("abacus")


OWN = {
    "torch": "import torch\nclass Mine(torch.optim.SGD):\n    pass\n",
    "tensorflow": "import keras\nclass Mine(keras.optimizers.SGD):\n"
    "    def __init__(self, lr, **rest):\n        super().__init__(learning_rate=lr, **rest)\n",
    "jax": "import optax\ndef Mine(lr, momentum):\n    return optax.sgd(lr, momentum=momentum)\n",
}


def test_a_class_of_the_users_own_trains(backend, tmp_path):
    (tmp_path / "mine.py").write_text(OWN[backend])
    own = custom.from_mapping({"class": "mine.py:Mine", "lr": 0.05, "momentum": 0.9}, base_dir=tmp_path)
    ours, _, data = session(spec(backend, SGD(lr=0.05, momentum=0.9), precision="float32"))
    live, _, _ = session(spec(backend, own, precision="float32"))
    live.warm_up()
    for epoch in (1, 2):
        rows = data.train.rows[matching.epoch_order(0, epoch, len(data.train))]
        expected = ours.train_epoch(rows, epoch)
        np.testing.assert_allclose(live.train_epoch(rows, epoch), expected, rtol=1e-4)


def test_a_schedule_moves_the_learning_rate_of_a_class_of_the_users_own(backend, tmp_path):
    (tmp_path / "mine.py").write_text(OWN[backend])
    own = custom.from_mapping({"class": "mine.py:Mine", "lr": 0.05, "momentum": 0.9}, base_dir=tmp_path)
    live, _, data = session(spec(backend, own, precision="float32"))
    live.set_lr(0.0)
    before = live.weights()
    live.train_epoch(data.train.rows, 1)
    for name, weight in live.weights().items():
        np.testing.assert_array_equal(weight, before[name], err_msg=name)


def test_an_optax_function_that_asks_for_a_number_trains_and_is_not_scheduled(tmp_path):
    if "jax" not in backends.installed():
        pytest.skip("needs JAX")
    (tmp_path / "mine.py").write_text("import optax\ndef Mine(lr):\n    return optax.sgd(float(lr))\n")
    own = custom.from_mapping({"class": "mine.py:Mine", "lr": 0.05}, base_dir=tmp_path)
    live, _, data = session(spec("jax", own, precision="float32"))
    assert np.isfinite(live.train_epoch(data.train.rows, 1)).all()
    live.set_lr(0.01)
    with pytest.raises(TypeError, match="a schedule cannot move it"):
        live.train_epoch(data.train.rows, 2)


def test_an_unknown_backend_is_refused_with_the_known_ones():
    with pytest.raises(BackendMissingError, match="choose one of torch"):
        backends.engine("abacus")


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (3, 2), (2, 4)])
def test_convolution_and_pooling_agree_with_differences(backend, padding, stride, kernel):
    """One full-batch step of plain gradient descent is the gradient; a sum of loss differences checks it."""
    layers = (
        Conv2D(filters=3, kernel=kernel, stride=stride, padding=padding, activation="tanh"),
        MaxPool2D(size=2, padding=padding, stride=None if stride == 1 else 1),
        Conv2D(filters=4, kernel=2, padding="same", activation="gelu"),
        Dense(),
    )
    if padding == "valid" and stride == 3:
        layers = layers[:1] + layers[2:]
    trial = spec(backend, SGD(lr=1.0), Model(name="conv", layers=layers), batch_size=32)
    live, weights, data = session(trial)
    rows = data.train.rows[:32]
    live.train_epoch(rows, 1)
    gradient = {name: weights[name] - value for name, value in live.weights().items()}
    direction = {
        name: np.random.default_rng(len(name)).normal(size=value.shape) for name, value in weights.items()
    }
    dataset = registry.load("digits")
    built = build(trial.workload.model, dataset.info.shape, 10)
    losses = []
    for h in (-1e-5, 1e-5):
        moved = {name: weights[name] + h * direction[name] for name in weights}
        losses.append(backends.engine(backend).open(trial, built, data, moved).train_epoch(rows, 1)[0])
    slope = sum(float((gradient[name] * direction[name]).sum()) for name in weights)
    assert (losses[1] - losses[0]) / 2e-5 == pytest.approx(slope, rel=1e-5)


RELU_CNN = Model(
    name="relu",
    layers=(
        Conv2D(filters=8, kernel=3, activation="relu"),
        MaxPool2D(),
        BatchNorm(),
        Conv2D(filters=8, kernel=3, padding="same", activation="relu"),
        MaxPool2D(padding="same"),
        Dense(units=16, activation="relu"),
        Dense(),
    ),
)


@pytest.mark.parametrize("ties", [False, True])
def test_relu_behind_the_pooling_trains_the_same_bits(backend, ties, monkeypatch):
    """The declared order, switched on by patching the move away, gives the same losses and weights."""
    fresh = import_module(f"optbench.backends.{backend}.layers")
    trial = spec(backend, SGD(lr=0.1), RELU_CNN, precision="float32")
    found = []
    for moved in (True, False):
        if not moved:
            monkeypatch.setattr(fresh, "relu_after_pool", lambda built: [(layer, False) for layer in built])
        _, weights, data = session(trial)
        if ties:  # constant kernels make whole windows equal, and half of them negative
            weights = {
                n: np.sign(w) * np.float32(0.1) if n.endswith("kernel") else w for n, w in weights.items()
            }
        built = build(RELU_CNN, data.info.shape, 10)
        engine = backends.engine(backend)
        if hasattr(engine, "_programs"):
            monkeypatch.setattr(engine, "_programs", lru_cache(engine._make))
        live = engine.open(trial, built, data, weights)
        found.append((live.train_epoch(data.train.rows[:320], 1), live.weights()))
    (losses, weights), (declared_losses, declared) = found
    exact = backend == "torch"  # a compiler fuses the two orders differently
    np.testing.assert_allclose(losses, declared_losses, rtol=0 if exact else 1e-5)
    for name, value in weights.items():
        np.testing.assert_allclose(
            value, declared[name], rtol=0 if exact else 1e-4, atol=0 if exact else 1e-5
        )


@pytest.mark.parametrize("model", [MLP, RELU_CNN], ids=["mlp", "cnn"])
def test_bfloat16_trains_close_to_float32_and_keeps_float32_weights(backend, model):
    """bfloat16 keeps 8 bits: a loss of order 1 moves by a few times 2^-8, over an epoch of steps too."""
    curves = {}
    for precision in ("float32", "bfloat16"):
        live, _, data = session(spec(backend, Adam(lr=0.003), model, precision=precision))
        live.warm_up()
        curves[precision] = [live.train_epoch(data.train.rows, epoch).mean() for epoch in (1, 2, 3)]
        assert {w.dtype.name for w in live.weights().values()} == {"float32"}
        assert np.isfinite(live.evaluate("validation").loss)
    assert curves["bfloat16"] != curves["float32"], "the precision must change something"
    np.testing.assert_allclose(curves["bfloat16"], curves["float32"], atol=8 * 2**-8)
    assert curves["bfloat16"][-1] < 0.8 * curves["bfloat16"][0]
