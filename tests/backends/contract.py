"""What the tests of all engines share: small trials, and the reference that they are held to."""

from __future__ import annotations

import numpy as np

from optbench import matching
from optbench.backends import engine
from optbench.datasets import registry
from optbench.datasets.base import cut
from optbench.environment import Context
from optbench.execution.protocol import run_trial
from optbench.models.layers import (
    Activate,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    MaxPool2D,
    Model,
    build,
)
from optbench.optimizers import Adam
from optbench.trial import Seeds, TrialSpec, Workload

BACKENDS = ("torch", "tensorflow", "jax")

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


def spec(
    backend: str,
    optimizer=Adam(),  # noqa: B008
    model=MLP,
    *,
    precision="float64",
    seeds=Seeds(),  # noqa: B008
    **workload,
) -> TrialSpec:
    fields = {"dataset": "digits", "model": model, "batch_size": 64, "epochs": 2, **workload}
    return TrialSpec(
        workload=Workload(**fields),
        optimizer=optimizer,
        seeds=seeds,
        backend=backend,
        device="cpu",
        precision=precision,
    )


def session(trial: TrialSpec, *, context: Context | None = None):
    """Open a trial: the session, its initial weights, its data."""
    dataset = registry.load(trial.workload.dataset)
    data = cut(dataset, trial.workload.split, trial.seeds, train_eval=100)
    built = build(trial.workload.model, dataset.info.shape, dataset.info.outputs)
    weights = matching.initial_weights(built, trial.seeds.init, trial.precision)
    return engine(trial.backend, context).open(trial, built, data, weights), weights, data


def record(trial: TrialSpec):
    return run_trial(trial, engine(trial.backend), registry.load(trial.workload.dataset), environment={})


def mlp_gradients(w, x, y, *, smoothing=0.0):
    """Loss and gradients of the tanh MLP by hand."""
    hidden = np.tanh(x @ w["dense_1/kernel"] + w["dense_1/bias"])
    logits = hidden @ w["dense_2/kernel"] + w["dense_2/bias"]
    logits -= logits.max(axis=1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    target = np.full(log_p.shape, smoothing / log_p.shape[1])
    target[np.arange(len(y)), y] += 1 - smoothing
    loss = -(target * log_p).sum(axis=1).mean()
    error = (np.exp(log_p) - target) / len(y)
    back = (error @ w["dense_2/kernel"].T) * (1 - hidden**2)
    grads = {
        "dense_1/kernel": x.T @ back,
        "dense_1/bias": back.sum(axis=0),
        "dense_2/kernel": hidden.T @ error,
        "dense_2/bias": error.sum(axis=0),
    }
    return loss, grads
