"""Step times, measured the way that two optimizers can be told apart: interleaved, medians, warm."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from optbench.backends.torch.optimizers import make_optimizer
from optbench.optimizers import OptimizerConfig
from optbench.verification.checks import Check
from optbench.verification.matrix_checks import suited

#: Parameter counts of the 20 tensors of a small CNN: 504 648 weights.
CNN = (
    *(864, 32, 9216, 32, 18432, 64, 36864, 64, 73728, 128),
    *(147456, 128, 65536, 256, 65536, 256, 65536, 128, 20352, 40),
)


def interleaved(
    steps: Mapping[str, Callable[[], object]], *, repetitions: int, warm_up: int = 3
) -> dict[str, float]:
    """Time functions in turns; the median seconds of each.

    Parameters
    ----------
    steps : mapping of str to callable
        What to time, each to its end (a GPU's work included).
    repetitions : int
        Turns that count.
    warm_up : int
        Turns before them that do not.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(warm_up + repetitions):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def torch_steps(
    builders: Mapping[str, Callable[[list[torch.Tensor]], torch.optim.Optimizer]],
    sizes: Sequence[int | tuple[int, ...]],
    *,
    device: str = "cpu",
) -> dict[str, Callable[[], object]]:
    """Build a step for each optimizer, all on tensors of the same sizes and gradients of their own."""
    steps: dict[str, Callable[[], object]] = {}
    for name, build in builders.items():
        generator = torch.Generator(device).manual_seed(0)
        params = [torch.randn(n, device=device, generator=generator).requires_grad_() for n in sizes]
        for w in params:
            w.grad = torch.randn(w.shape, device=device, generator=generator)
        optimizer = build(params)
        steps[name] = _synchronised(optimizer.step) if device == "cuda" else optimizer.step
    return steps


def fused_adam(params: list[torch.Tensor]) -> torch.optim.Optimizer:
    """Build what everything is measured against."""
    return torch.optim.Adam(params, lr=1e-3, fused=True)


def against_adam(config: OptimizerConfig, *, n: int = 1_000_000, repetitions: int = 30) -> Check:
    """Time a step of one tensor against PyTorch's fused Adam."""
    # Of a class that takes matrices alone, one of as many weights.
    side = math.isqrt(n)
    matrix = all(w.ndim > 1 for w in suited(config, "torch").start)
    steps = torch_steps(
        {"adam": fused_adam, "this": lambda params: make_optimizer(config, params)},
        [(side, side) if matrix else (n,)],
    )
    seconds = interleaved(steps, repetitions=repetitions)
    return Check(
        name=f"step time, {n:,} float32 weights, against fused Adam",
        backend="torch",
        passed=None,
        figure=f"x {seconds['this'] / seconds['adam']:.2f}",
    )


def _synchronised(step: Callable[[], object]) -> Callable[[], object]:
    def whole() -> None:
        step()
        torch.cuda.synchronize()

    return whole
