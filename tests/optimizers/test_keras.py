"""Keras, on each of its backends: the backend is chosen once a process, so each has one of its own."""

import importlib.util
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="needs Keras 3")


def backends(**marks):
    """Parameters of the backends of Keras, each with the marker that says when it is run."""
    return [
        pytest.param(
            name,
            marks=[
                getattr(pytest.mark, mark),
                pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"needs {name}"),
            ],
        )
        for name, mark in marks.items()
    ]


BACKENDS = backends(tensorflow="slow", jax="slow", torch="slow")

PRELUDE = """
import numpy as np, keras
from keras import ops
from optbench.optimizers import WAME as Config, SGD, Adam, FAMILIES
from optbench.optimizers.keras import WAME, Canonical, make_optimizer
if keras.config.backend() == "jax":
    import jax
    jax.config.update("jax_enable_x64", True)
"""

GOLDEN = """
from optbench.verification import wame_checks
found = list(wame_checks.checks("tensorflow", ()))
assert len(found) == 6 and all(c.passed for c in found), found
"""

FAMILIES = """
from optbench.verification import checks
for family in FAMILIES.values():
    found = list(checks.trajectories(family.all_cases(), "tensorflow", []))
    assert all(c.passed for c in found), found
"""

FIT = """
import tempfile, os
x = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
y = (x[:, :1] > 0).astype("float32")
def model(optimizer, **given):
    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential([keras.Input((8,)), layers.Dense(16, activation="relu"), layers.Dense(1)])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    net.compile(optimizer=optimizer, loss=loss, **given)
    return net
fit = dict(batch_size=32, shuffle=False, verbose=0)
net = model(WAME(0.02, variant="author", clipnorm=10.0))
losses = net.fit(x, y, epochs=6, **fit).history["loss"]
assert losses[-1] < 0.7 * losses[0], losses

half = model(WAME(0.02, variant="author", clipnorm=10.0))
half.fit(x, y, epochs=3, **fit)
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "net.keras")
    half.save(path)
    back = keras.models.load_model(path)
assert type(back.optimizer) is WAME and back.optimizer.get_config() == half.optimizer.get_config()
rest = back.fit(x, y, epochs=3, **fit).history["loss"]
np.testing.assert_allclose(rest, losses[3:], rtol=1e-5)

callback = keras.callbacks.LearningRateScheduler(lambda epoch: 0.02 / (epoch + 1))
net = model(WAME(0.5))
net.fit(x, y, epochs=2, callbacks=[callback], **fit)
assert abs(float(net.optimizer.learning_rate) - 0.01) < 1e-9
schedule = keras.optimizers.schedules.ExponentialDecay(0.02, 10, 0.5)
assert np.isfinite(model(WAME(schedule)).fit(x, y, epochs=1, **fit).history["loss"][0])

half = "mixed_float16" if keras.config.backend() == "tensorflow" else "mixed_bfloat16"
keras.mixed_precision.set_global_policy(half)
mixed = model(WAME(0.02), jit_compile=keras.config.backend() != "torch")
losses = mixed.fit(x, y, epochs=4, **fit).history["loss"]
assert losses[-1] < losses[0], losses
"""

CONFIG = """
damped = SGD(lr=0.1, momentum=0.9, dampening=0.5)
for optimizer in (WAME(0.03, variant="paper"), Canonical(damped, name="mine")):
    described = keras.optimizers.serialize(optimizer)
    again = keras.optimizers.deserialize(described)
    assert type(again) is type(optimizer) and again.get_config() == optimizer.get_config(), described
assert float(WAME(0.001).learning_rate) == 0.001  # float64, not rounded to float32
assert keras.config.floatx() == "float32"
"""

FLAVOR = """
from optbench.optimizers import RMSprop, AdamW, Adagrad
g = [np.array([0.3, -2.0, 1e-4]) * (-1) ** t for t in range(8)]
K = keras.optimizers
for ours, theirs in (
    (SGD(momentum=0.9, flavor="keras"), K.SGD(0.01, momentum=0.9)),
    (SGD(momentum=0.9, nesterov=True, flavor="keras"), K.SGD(0.01, momentum=0.9, nesterov=True)),
    (
        RMSprop(momentum=0.5, centered=True, eps=1e-7, flavor="keras"),
        K.RMSprop(0.001, momentum=0.5, centered=True),
    ),
    (Adam(eps=1e-7, flavor="keras"), K.Adam(0.001)),
    (AdamW(eps=1e-7, weight_decay=0.004, flavor="keras"), K.AdamW(0.001)),
    (Adagrad(lr=0.001, initial_accumulator=0.1, eps=1e-7, flavor="keras"), K.Adagrad(0.001)),
    (FAMILIES["nadam"].config(momentum_decay=1.0, eps=1e-7), K.Nadam(0.001)),
):
    family, w = FAMILIES[ours.optimizer], np.array([1.0, -1.0, 0.5])
    state, native = family.start(ours, w), keras.Variable(w.astype("float32"))
    for t, gradient in enumerate(g, 1):
        lr = ours.lr / t
        theirs.learning_rate = lr
        w, state = family.step(ours, w, gradient, state, t, lr=lr)
        theirs.apply([ops.convert_to_tensor(gradient.astype("float32"))], [native])
    np.testing.assert_allclose(ops.convert_to_numpy(native), w, rtol=3e-6, err_msg=str(ours))
"""


def python(code, backend):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", PRELUDE + code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("backend", BACKENDS)
def test_golden_vectors_and_traps(backend):
    python(GOLDEN, backend)


@pytest.mark.parametrize("backend", backends(tensorflow="slow", jax="nightly", torch="nightly"))
def test_every_family_follows_its_reference(backend):
    python(FAMILIES, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_fit_save_load_schedules_and_mixed_precision(backend):
    python(FIT, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_rebuilt_from_its_config(backend):
    python(CONFIG, backend)


@pytest.mark.slow
def test_the_keras_flavors_are_the_steps_of_keras_own_classes():
    python(FLAVOR, "tensorflow")
