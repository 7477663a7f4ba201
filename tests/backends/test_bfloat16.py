"""Transformers, residual networks and regression in bfloat16: close to float32, and not the same."""

from __future__ import annotations

import numpy as np
import pytest

from optbench import backends
from optbench.optimizers import AdamW
from optbench.verification import parity

NETWORKS = [case for case in parity.MODELS if case.families]
BACKENDS = ("torch", "tensorflow", "jax")


@pytest.mark.parametrize(
    ("backend", "case"),
    [
        pytest.param(name, case, marks=[pytest.mark.slow] * (name != "torch"), id=f"{name}-{case.name}")
        for name in BACKENDS
        for case in NETWORKS
    ],
)
def test_the_loss_follows_that_of_float32(backend, case):
    """It has 8 bits: a loss of order 1 moves by a few times 2^-8 in fifty steps, a squared error by more."""
    if backend not in backends.installed():
        pytest.skip(f"{backend} is not installed")
    curves = {
        precision: parity.losses(AdamW(lr=0.003), case, precision, backend)
        for precision in ("float32", "bfloat16")
    }
    full, half = curves["float32"], curves["bfloat16"]
    assert not np.array_equal(full, half), "the precision must change something"
    np.testing.assert_allclose(half, full, atol=8 * 2**-8, rtol=0.02)
    assert half[-10:].mean() < half[:10].mean()
