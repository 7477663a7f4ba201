"""What only the TensorFlow engine does."""

import subprocess
import sys

import numpy as np
import pytest

from optbench import backends, matching
from optbench.backends.arrays import Resident
from optbench.backends.functional import Configuration, FunctionalSession
from optbench.datasets import registry
from optbench.datasets.base import cut
from optbench.models.layers import Conv2D, Dense, Dropout, MaxPool2D, Model, build
from optbench.optimizers import WAME, Adam
from tests.backends.contract import spec

if "tensorflow" not in backends.installed():
    pytest.skip("TensorFlow is not installed", allow_module_level=True)

LAYERS = (
    Conv2D(filters=4, kernel=3, activation="relu"),
    MaxPool2D(size=2),
    MaxPool2D(size=2, stride=1, padding="same"),
    Dropout(rate=0.3),
    Dense(),
)


def losses_of(optimizer, *, xla):
    from optbench.backends.tensorflow.programs import TensorFlowPrograms

    trial = spec("tensorflow", optimizer, Model(name="cnn", layers=LAYERS))
    dataset = registry.load("digits")
    data = cut(dataset, trial.workload.split, trial.seeds, train_eval=100)
    built = build(trial.workload.model, dataset.info.shape, 10)
    weights = matching.initial_weights(built, 0, "float64")
    programs = TensorFlowPrograms(Configuration.of(trial, built), "/CPU:0", xla=xla)
    live = FunctionalSession(programs, Resident(), trial, built, data, weights)
    live.warm_up()
    return live.train_epoch(data.train.rows, 1)


def test_xla_and_the_kernels_of_tensorflow_train_alike():
    """The program that a TPU gets, compiled for the CPU, against the one that a CPU gets."""
    backends.engine("tensorflow")
    one, other = (losses_of(WAME(), xla=xla) for xla in (False, True))
    np.testing.assert_allclose(one, other, rtol=1e-10)


@pytest.mark.parametrize("optimizer", [WAME(), Adam()], ids=lambda o: o.optimizer)
def test_an_update_that_xla_makes_of_many_weights_is_the_same(optimizer, monkeypatch):
    backends.engine("tensorflow")
    from optbench.backends.tensorflow import programs

    plain = losses_of(optimizer, xla=False)
    calls = []
    compile_ = programs.tf.function
    monkeypatch.setattr(programs, "LARGE", 1)
    monkeypatch.setattr(
        programs.tf, "function", lambda f, **options: calls.append(options) or compile_(f, **options)
    )
    np.testing.assert_allclose(losses_of(optimizer, xla=False), plain, rtol=1e-10)
    assert [options["jit_compile"] for options in calls] == [True, False, False]


def test_nothing_is_printed_by_a_run():
    code = (
        "from tests.backends.contract import record, spec\n"
        "assert record(spec('tensorflow', precision='float32')).status == 'completed'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""


def test_a_process_that_used_tensorflow_otherwise_is_told_so():
    code = (
        "import tensorflow as tf; tf.constant(0) + 1\n"
        "from optbench import backends; from optbench.errors import UserError\n"
        "try: backends.engine('tensorflow')\n"
        "except UserError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "this process has used TensorFlow before" in done.stdout, done.stderr
