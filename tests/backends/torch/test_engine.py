from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the torch engine needs PyTorch")

from optbench import matching  # noqa: E402
from optbench.backends import engine  # noqa: E402
from optbench.datasets import registry  # noqa: E402
from optbench.datasets.base import cut  # noqa: E402
from optbench.execution.protocol import run_trial  # noqa: E402
from optbench.models.layers import (  # noqa: E402
    Activate,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    GlobalAveragePool2D,
    MaxPool2D,
    Model,
    build,
)
from optbench.optimizers import FAMILIES, SGD, WAME, Adam, RMSprop  # noqa: E402
from optbench.trial import Seeds, TrialSpec, Workload  # noqa: E402

MLP = Model(name="mlp", layers=(Dense(units=16, activation="tanh"), Dense()))
CNN = Model(
    name="cnn",
    layers=(
        Conv2D(filters=4, kernel=3, padding="same", stride=2, activation="relu"),
        BatchNorm(),
        Conv2D(filters=6, kernel=2, activation="linear"),
        Activate(activation="elu"),
        MaxPool2D(size=2, padding="same"),
        Dropout(rate=0.3),
        Dense(units=12, activation="relu"),
        Dense(),
    ),
)


def spec(optimizer=Adam(), model=MLP, *, precision="float64", seeds=Seeds(), **workload) -> TrialSpec:  # noqa: B008
    fields = {"dataset": "digits", "model": model, "batch_size": 64, "epochs": 2, **workload}
    return TrialSpec(
        workload=Workload(**fields),
        optimizer=optimizer,
        seeds=seeds,
        backend="torch",
        device="cpu",
        precision=precision,
    )


def session(trial: TrialSpec):
    dataset = registry.load(trial.workload.dataset)
    data = cut(dataset, trial.workload.split, trial.seeds, train_eval=100)
    built = build(trial.workload.model, dataset.info.shape, len(dataset.info.classes))
    weights = matching.initial_weights(built, trial.seeds.init, trial.precision)
    return engine("torch").open(trial, built, data, weights), weights, data


def record(trial: TrialSpec):
    return run_trial(trial, engine("torch"), registry.load(trial.workload.dataset), environment={})


def mlp_gradients(w, x, y):
    """Loss and gradients of the tanh MLP by hand."""
    hidden = np.tanh(x @ w["dense_1/kernel"] + w["dense_1/bias"])
    logits = hidden @ w["dense_2/kernel"] + w["dense_2/bias"]
    logits -= logits.max(axis=1, keepdims=True)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    loss = -np.log(p[rows, y]).mean()
    p[rows, y] -= 1
    p /= len(y)
    back = (p @ w["dense_2/kernel"].T) * (1 - hidden**2)
    grads = {
        "dense_1/kernel": x.T @ back,
        "dense_1/bias": back.sum(axis=0),
        "dense_2/kernel": hidden.T @ p,
        "dense_2/bias": p.sum(axis=0),
    }
    return loss, grads


@pytest.mark.parametrize(
    "optimizer",
    [
        WAME(lr=0.05),
        Adam(lr=0.01),
        RMSprop(lr=0.003),
        SGD(lr=0.1),
        SGD(lr=0.05, momentum=0.9),
        SGD(lr=0.05, momentum=0.9, nesterov=True),
    ],
    ids=lambda config: f"{config.optimizer}{'-nesterov' if getattr(config, 'nesterov', False) else ''}",
)
def test_an_epoch_follows_the_reference_rule_on_gradients_by_hand(optimizer):
    trial = spec(optimizer)
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


@pytest.mark.parametrize("model", [MLP, CNN], ids=["mlp", "cnn"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_weights_go_in_and_come_out_unchanged(model, precision):
    live, weights, _ = session(spec(model=model, precision=precision))
    for name, value in live.weights().items():
        assert value.dtype == precision
        np.testing.assert_array_equal(value, weights[name])


def test_warming_up_changes_nothing():
    trial = spec(model=CNN)
    warm, _, data = session(trial)
    cold, _, _ = session(trial)
    warm.warm_up()
    order = data.train.rows
    np.testing.assert_array_equal(warm.train_epoch(order, 1), cold.train_epoch(order, 1))
    for (name, value), other in zip(warm.weights().items(), cold.weights().values(), strict=True):
        np.testing.assert_array_equal(value, other, err_msg=name)


@pytest.mark.parametrize("model", [MLP, CNN], ids=["mlp", "cnn"])
def test_the_same_trial_twice_is_bit_identical(model):
    trial = spec(WAME(), model, precision="float32")
    first, second = record(trial), record(trial)
    for name in first.history:
        if not name.endswith("seconds"):
            np.testing.assert_array_equal(first.history[name], second.history[name], err_msg=name)
    np.testing.assert_array_equal(first.predictions["last"], second.predictions["last"])
    assert first.fingerprints == second.fingerprints


def test_optimizers_of_a_block_share_fingerprints_first_loss_and_dropout_masks():
    records = [record(spec(optimizer, CNN)) for optimizer in (SGD(lr=1e-12), Adam(lr=1e-12))]
    assert records[0].fingerprints == records[1].fingerprints
    # With a vanishing learning rate the weights stay, so equal losses mean equal masks in every step.
    np.testing.assert_allclose(*(r.history["batch_loss"] for r in records), rtol=1e-6)
    other = record(spec(SGD(lr=1e-12), CNN, seeds=Seeds(dropout=1)))
    assert other.history["batch_loss"][1] != records[0].history["batch_loss"][1]


def test_evaluation_is_in_evaluation_mode_and_counts_by_hand():
    live, _, data = session(spec(model=CNN))
    first, second = live.evaluate("validation"), live.evaluate("validation")
    assert first.loss == second.loss
    labels = data.validation.y[data.validation.rows]
    assert first.accuracy == pytest.approx(np.mean(first.predictions == labels))


def test_batch_norm_keeps_unbiased_running_variance():
    model = Model(name="bn", layers=(BatchNorm(momentum=0.0), Dense()))
    live, _, data = session(spec(SGD(lr=1e-12), model, dataset="uci-letter"))
    rows = data.train.rows[:50]
    live.train_epoch(rows, 1)
    x = (data.train.x[rows] - data.shift) * data.scale
    weights = live.weights()
    np.testing.assert_allclose(weights["batch_norm_1/moving_mean"], x.mean(axis=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(weights["batch_norm_1/moving_variance"], x.var(axis=0, ddof=1), rtol=1e-9)


def test_penalties_enter_the_loss_as_in_keras():
    plain, weights, data = session(spec())
    layers = (Dense(units=16, activation="tanh", l1=0.01, l2=0.1), Dense())
    penalised, _, _ = session(spec(model=Model(name="mlp", layers=layers)))
    rows = data.train.rows[:64]
    difference = penalised.train_epoch(rows, 1)[0] - plain.train_epoch(rows, 1)[0]
    kernel = weights["dense_1/kernel"]
    assert difference == pytest.approx(0.01 * np.abs(kernel).sum() + 0.1 * (kernel**2).sum(), rel=1e-10)


def test_remembered_weights_come_back():
    live, weights, data = session(spec())
    live.remember()
    live.train_epoch(data.train.rows, 1)
    assert not np.array_equal(live.weights()["dense_1/kernel"], weights["dense_1/kernel"])
    live.recall()
    np.testing.assert_array_equal(live.weights()["dense_1/kernel"], weights["dense_1/kernel"])


def test_global_average_pooling_and_a_full_batch_train():
    layers = (Conv2D(filters=10, kernel=3), GlobalAveragePool2D())
    trial = spec(model=Model(name="gap", layers=layers), batch_size="full")
    result = record(replace(trial, precision="float32"))
    assert result.status == "completed"
    assert result.history["batch_loss"].shape == (3,)
