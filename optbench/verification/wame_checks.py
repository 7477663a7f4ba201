"""What only WAME is held to: its golden vectors, what goes wrong easily in it, and the paths of its class."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from optbench.optimizers.wame import WAME
from optbench.verification.checks import Check
from optbench.verification.steppers import make

GOLDEN = {"float64": 1e-11, "float32": 1e-5}


def checks(backend: str, cases: Sequence[WAME]) -> Iterator[Check]:
    """Run them all; see :class:`optbench.optimizers.base.Verification`."""
    yield from golden_vectors(backend)
    yield from wame_traps(backend)
    if backend == "torch":
        yield torch_packing(cases)


def golden() -> list[dict[str, Any]]:
    """Read the golden vectors of WAME.

    Returns
    -------
    list of dict
        Cases with ``hyper``, ``w0``, ``grads`` (by step and tensor) and ``expected``: by variant and place of
        epsilon, step and tensor, the float64 values ``w``, ``zeta``, ``Z``, ``theta`` after that step.
        Compare with rtol 1e-11, and atol 1e-15 for w.
    """
    path = Path(__file__).with_name("wame_golden.json.gz")
    cases: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))["cases"]
    return cases


#: Names of the variants in the golden vectors.
GOLDEN_VARIANTS = {
    "adjusted": "adjusted",
    "paper": "paper",
    "foster": "divide",
    "mosca_fixed": "author",
    "hill_code": "report1_shipped",
}


def golden_config(hyper: dict[str, float], key: str) -> dict[str, Any]:
    """Translate a golden key (``adjusted/eps_inside``) to the arguments of a WAME config."""
    variant, _, place = key.partition("/")
    mode = None if variant == "paper" else place.removeprefix("eps_")
    return {**hyper, "variant": GOLDEN_VARIANTS[variant], "eps_mode": mode}


def golden_vectors(backend: str) -> Iterator[Check]:
    """Compare WAME with the golden vectors: weights, zeta, Z and theta after every step."""
    for dtype, bar in GOLDEN.items():
        worst = 0.0
        keys = 0
        for case in golden():
            for key, expected in case["expected"].items():
                keys += 1
                config = WAME(**golden_config(case["hyper"], key))
                stepper = make(backend, config, [np.array(w) for w in case["w0"]], dtype)
                for gradients, wanted in zip(case["grads"], expected, strict=True):
                    stepper.step([np.array(g) for g in gradients])
                    for w, state, want in zip(stepper.weights(), stepper.rule_state(), wanted, strict=True):
                        for name in ("w", "zeta", "Z", "theta"):
                            found, right = w if name == "w" else state[name], np.array(want[name])
                            slack = bar * np.abs(right) + (1e-15 if dtype == "float64" else 1e-7) * (
                                name == "w"
                            )
                            excess = np.abs(found - right) / np.where(slack > 0, slack, 1e-30)
                            worst = max(worst, float(excess.max()))
        yield Check(
            name=f"golden vectors, {keys} sequences, {dtype}",
            backend=backend,
            passed=worst <= 1,
            figure=f"{worst * bar:.1e}",
            bar=f"{bar:.0e}",
        )


def wame_traps(backend: str) -> Iterator[Check]:
    """Check what goes wrong easily: zeta's climb, signs of tiny gradients, exact and negative zeros."""

    def after(gradients: Sequence[float], dtype: str = "float32") -> list[float]:
        stepper = make(backend, WAME(lr=1e-3), [np.ones(1)], dtype)
        zetas = []
        for g in gradients:
            stepper.step([np.array([g])])
            zetas.append(float(stepper.rule_state()[0]["zeta"][0]))
        return zetas

    climb = after([1.0] * 30)
    reached = next((t for t, zeta in enumerate(climb, 1) if zeta >= 100), None)
    yield _equal("constant gradient: zeta reaches 100 at step", backend, reached, 27)
    flip = [round(zeta, 6) for zeta in after([1e-25, -1e-25, -1e-25])]
    yield _equal("gradients of 1e-25 flip and agree: zeta", backend, flip, [1.0, 0.1, 0.12])
    zero = [round(zeta, 6) for zeta in after([1.0, 1.0, 0.0, 1.0, 1.0])]
    yield _equal("an exact zero leaves zeta, and is no sign: zeta", backend, zero, [1.0, 1.2, 1.2, 1.2, 1.44])
    negative = [round(zeta, 6) for zeta in after([1.0, 1.0, -0.0, -1.0, -1.0])]
    yield _equal("-0.0 counts as zero: zeta", backend, negative, [1.0, 1.2, 1.2, 1.2, 1.44])


def torch_packing(cases: Sequence[WAME]) -> Check:
    """Compare the one-pass kernel with its fallback, bit for bit, on hostile gradients."""
    import torch

    from optbench.optimizers.torch import WAME as TorchWAME

    generator = np.random.default_rng(6)
    differing, path = 0, ""
    for config in cases:
        arguments = {name: value for name, value in asdict(config).items() if name != "optimizer"}
        start = torch.from_numpy(generator.normal(size=5003)).float()
        both = [start.clone().requires_grad_() for _ in range(2)]
        fast, plain = TorchWAME(both[:1], **arguments), TorchWAME(both[1:], **arguments, fused=False)
        path = fast.path
        for _ in range(30):
            g = generator.normal(size=5003) * 10.0 ** generator.integers(-25, 3, 5003)
            g[generator.random(5003) < 0.1] = generator.choice([0.0, -0.0])
            for w, optimizer in zip(both, (fast, plain), strict=True):
                w.grad = torch.from_numpy(g).float()
                optimizer.step()
        differing += int((both[0] != both[1]).sum())
    return Check(
        name=f"path {path} against plain PyTorch, differing weights",
        backend="torch",
        passed=differing == 0,
        figure=str(differing),
        bar="0",
    )


def _equal(name: str, backend: str, actual: Any, wanted: Any) -> Check:
    return Check(name=name, backend=backend, passed=actual == wanted, figure=str(actual), bar=str(wanted))
