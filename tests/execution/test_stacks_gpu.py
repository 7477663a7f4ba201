"""Stacks on a GPU: recorded as one CUDA graph, and the same trials all the same. Skipped without one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from optbench.execution import stacks as stacked
from optbench.models.layers import BatchNorm
from optbench.optimizers import FAMILIES, SGD, WAME, Adam, RMSprop
from optbench.trial import Augment, CosineSchedule, EarlyStopping, ReduceOnPlateau
from tests.execution.test_stacks import (
    BACKENDS,
    CNN,
    MLP,
    OPTIMIZERS,
    POOLED,
    RULES,
    assert_twins,
    both_ways,
    specs,
)
from tests.execution.test_stacks_checkpoint import assert_resumes

pytestmark = pytest.mark.gpu


def on_gpu(backend, layers, optimizer, **options):
    return [replace(spec, device="cuda") for spec in specs(backend, layers, optimizer, **options)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: o.optimizer)
@pytest.mark.parametrize("layers", [MLP, CNN, POOLED], ids=["mlp", "cnn", "pooled"])
def test_a_recorded_stack_trains_as_its_trials_alone(layers, optimizer):
    """102 steps in float64 with every rule of a step switched on."""
    if optimizer.optimizer in ("wame", "adagrad") and layers is CNN:
        # The bias before a normalisation has a gradient of pure rounding, and these go by its sign.
        layers = tuple(layer for layer in layers if not isinstance(layer, BatchNorm))
    alone, together = both_ways(on_gpu("torch", layers, optimizer, **RULES))
    assert {r.environment["step"] for r in together} <= {"stacked graph", "branches of a graph"}
    assert_twins(alone, together, rtol=1e-9)


@pytest.mark.parametrize(
    "optimizer", [Adam(), SGD(lr=0.05, momentum=0.9), RMSprop(), WAME(lr=0.01)], ids=lambda o: o.optimizer
)
def test_branches_have_the_bits_of_their_trials_alone(optimizer):
    alone, together = both_ways(on_gpu("torch", CNN, optimizer, precision="float32", **RULES))
    assert {r.environment["step"] for r in together} == {"branches of a graph"}
    for one, other in zip(alone, together, strict=True):
        for name in ("batch_loss", "train_loss", "val_loss"):
            np.testing.assert_array_equal(one.history[name], other.history[name], err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layers", [MLP, POOLED], ids=["mlp", "pooled"])
def test_float32_agrees_to_1e_5_over_51_steps(backend, layers):
    wanted = on_gpu(backend, layers, Adam(), precision="float32", epochs=1)
    assert_twins(*both_ways(wanted), rtol=1e-5)


def test_a_stack_in_tf32_agrees_to_its_bits():
    """Factors of 10 bits, rounded at the same places; sums in another order."""
    wanted = on_gpu("torch", MLP, SGD(lr=0.05), precision="tf32", epochs=1)
    assert_twins(*both_ways(wanted), rtol=1e-3)


@pytest.mark.parametrize(
    ("layers", "workload"),
    [
        (layers, workload)
        for layers in (MLP, POOLED)
        for workload in (
            {"schedule": CosineSchedule(), "epochs": 3, "augment": Augment(shift=0.1)},
            {"schedule": ReduceOnPlateau(patience=1, min_delta=0.1), "epochs": 4},
            {"epochs": 10, "early_stopping": EarlyStopping(patience=1), "seeds": 6},
        )
    ],
)
def test_rates_ends_and_inputs_are_each_trial_s_own(layers, workload):
    wanted = on_gpu("torch", layers, Adam(), **workload)
    sweep = [replace(spec, optimizer=Adam(lr=0.005 * (1 + k % 2))) for k, spec in enumerate(wanted)]
    assert_twins(*both_ways(sweep), rtol=1e-8)


@pytest.mark.parametrize("optimizer", [Adam(), WAME(lr=0.01), SGD(lr=0.05, momentum=0.9)])
@pytest.mark.parametrize("layers", [MLP, CNN], ids=["mlp", "cnn"])
def test_a_recorded_stack_goes_on_to_the_same_bits(layers, optimizer, tmp_path):
    wanted = on_gpu("torch", layers, optimizer, precision="float32", epochs=4, batch_size=100, **RULES)
    assert_resumes(wanted, tmp_path / "c", cut_at=3)


def test_a_rule_over_whole_matrices_trains_in_branches():
    wanted = on_gpu("torch", MLP, FAMILIES["muon"].config(), **RULES)
    alone, together = both_ways(wanted)
    assert {r.environment["step"] for r in together} == {"branches of a graph"}
    assert_twins(alone, together, rtol=1e-8)


def test_half_precision_trains_in_branches():
    wanted = [replace(spec, precision="bfloat16") for spec in on_gpu("torch", MLP, Adam())]
    alone, together = both_ways(wanted)
    assert "not_stacked" not in together[0].environment
    assert_twins(alone, together, rtol=1e-3)
    assert stacked.obstacle(wanted[0]) == ""
