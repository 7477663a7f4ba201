"""The plain NumPy layers, against PyTorch's, and complete over the kinds and activations."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from optbench import backends, matching
from optbench.datasets import registry
from optbench.datasets.base import trial_data
from optbench.models import layers, numpy_layers
from optbench.models.layers import Conv2D, Dense, Dropout, MaxPool2D, Model, build
from optbench.models.zoo import ZOO
from optbench.optimizers import SGD
from optbench.trial import Seeds, TrialSpec, Workload


def test_every_kind_and_activation_is_there():
    assert set(numpy_layers.LAYERS) == set(layers.LAYERS)
    assert set(numpy_layers.ACTIVATIONS) == set(get_args(layers.Activation))


NETWORKS = {
    "cnn_2c2d_bn": ZOO["cnn_2c2d_bn"](dense=16),
    "cnn_bn": ZOO["cnn_bn"](filters=(3, 4, 5), dense=8),
    "mosca_cifar_cnn": ZOO["mosca_cifar_cnn"](),
    "strided": (
        Conv2D(filters=3, kernel=3, stride=2, padding="same", activation="gelu"),
        MaxPool2D(size=3, stride=2, padding="same"),
        Dropout(rate=0.5),
        Dense(units=7, activation="elu"),
        Dense(units=6, activation="tanh"),
        Dense(units=5, activation="sigmoid"),
        Dense(),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_outputs_are_those_of_pytorch(name):
    pytest.importorskip("torch")
    engine = backends.engine("torch")
    workload = Workload(
        dataset="digits", model=Model(name=name, layers=NETWORKS[name]), batch_size=64, epochs=1, scale="none"
    )
    spec = TrialSpec(
        workload=workload,
        optimizer=SGD(lr=1e-6),
        seeds=Seeds(),
        backend="torch",
        device="cpu",
        precision="float64",
    )
    data = trial_data(registry.synthetic("digits"), workload, spec.seeds)
    built = build(workload.model, data.info.shape, data.info.outputs)
    weights = matching.initial_weights(built, 3, "float64")
    session = engine.open(replace(spec), built, data, weights)
    session.train_epoch(data.train.rows, 1)  # moves the running averages
    found = session.evaluate("test", outputs=True).outputs
    weights = session.weights()
    for row, wanted in zip(data.test.x[data.test.rows][:3], found, strict=False):
        *_, (_, last) = numpy_layers.outputs(built, weights, row)
        np.testing.assert_allclose(last, wanted, rtol=1e-9, atol=1e-12)
