"""Golden vectors as pytest parameters."""

import numpy as np
import pytest

from optbench.optimizers import WAME
from optbench.verification.wame_checks import golden, golden_config

SEQUENCES = [
    pytest.param(case, key, id=f"{case['name']}-{key.replace('/', '-')}")
    for case in golden()
    for key in case["expected"]
]
TOLERANCE = {"float64": {"rtol": 1e-11, "atol": 0.0}, "float32": {"rtol": 1e-5, "atol": 0.0}}


def assert_follows(case, key, dtype, make):
    """Hold a stepper, made by ``make(config, weights)``, to one golden sequence, after every step."""
    stepper = make(WAME(**golden_config(case["hyper"], key)), [np.array(w) for w in case["w0"]])
    tolerance = TOLERANCE[dtype]
    for gradients, expected in zip(case["grads"], case["expected"][key], strict=True):
        stepper.step([np.array(g) for g in gradients])
        for w, state, want in zip(stepper.weights(), stepper.rule_state(), expected, strict=True):
            for name in ("zeta", "Z", "theta"):
                np.testing.assert_allclose(state[name], want[name], **tolerance, err_msg=name)
            atol = 1e-15 if dtype == "float64" else 1e-7
            np.testing.assert_allclose(w, want["w"], rtol=tolerance["rtol"], atol=atol)
