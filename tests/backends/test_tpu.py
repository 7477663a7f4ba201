"""What a TPU would run, lowered for it ahead of time: there is none here to run it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("jax", reason="lowers JAX's programs for a TPU")
pytest.importorskip("optax", reason="the rules of JAX are optax's")

import jax

from optbench import backends, matching
from optbench.backends.functional import Configuration, batched
from optbench.backends.jax.programs import JaxPrograms
from optbench.datasets import registry
from optbench.datasets.base import network, trial_data
from optbench.models.layers import Model
from optbench.models.zoo import ZOO
from optbench.optimizers import SGD, WAME, Adam
from optbench.trial import Seeds, TrialSpec, Workload

NETWORKS = {
    "mlp": ZOO["mlp"](hidden=(8,), batch_norm="hidden", dropout=0.2),
    "cnn": ZOO["cnn_2c2d_bn"](dense=8),
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", [WAME(), Adam(), SGD(momentum=0.9)], ids=lambda o: o.optimizer)
@pytest.mark.parametrize("name", NETWORKS)
def test_epoch_and_evaluation_are_lowered_for_a_tpu(name, optimizer, precision):
    backends.engine("jax")  # settles JAX's threads
    workload = Workload(
        dataset="digits", model=Model(name=name, layers=NETWORKS[name]), batch_size=32, epochs=1
    )
    spec = TrialSpec(
        workload=workload,
        optimizer=optimizer,
        seeds=Seeds(),
        backend="jax",
        device="tpu",
        precision=precision,
    )
    data = trial_data(registry.synthetic("digits"), workload, spec.seeds)
    built = network(workload, data.info)
    programs = JaxPrograms(Configuration.of(spec, built), jax.devices("cpu")[0], {})
    with programs.scope():
        weights = matching.initial_weights(built, 0, "float32")
        # The state is made here, on a CPU; the program that is exported is the one of a TPU.
        on_cpu = JaxPrograms(Configuration.of(replace(spec, device="cpu"), built), jax.devices("cpu")[0], {})
        state = on_cpu.start(weights, np.zeros(2, np.uint32))
        programs._fixed_lr = False
        x = programs.put(data.train.x.astype(np.float32))
        y = programs.put(data.train.y)
        rows = programs.put(batched(data.train.rows[:32], 32))
        for program, arguments in (
            (programs._run_epoch, (state, programs.rate(0.1), x, y, rows, rows)),
            (programs._run_evaluation, (state["model"], x, y, rows)),
        ):
            exported = jax.export.export(jax.jit(program), platforms=["tpu"])(*arguments)
            assert exported.platforms == ("tpu",)
            text = exported.mlir_module()
            assert "stablehlo" in text
            assert ("bf16" in text) == (precision == "bfloat16")
            if name == "cnn":
                assert "convolution" in text
