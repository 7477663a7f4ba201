"""The Triton kernel, for CUDA and ROCm; one launch a tensor, one pass over memory.

Operations and their order are those of plain.py, each rounded on its own. Parameters in float64 go the plain
way, as Triton takes numbers in float32.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from optbench.environment import variable
from optbench.optimizers.torch_kernels.plain import Hyper, addressable

BLOCK = 1024
_RATES = {"multiply": 0, "divide": 1, "ratio": 2, "constant": 3}
_ROOTS = {"inside": 0, "outside": 1, "none": 2}


def interpreted() -> bool:
    """Whether Triton's interpreter runs kernels on the CPU (environment variable TRITON_INTERPRET)."""
    return variable("TRITON_INTERPRET") == "1"


def supports(w: Tensor, state_dtype: torch.dtype) -> bool:
    """Whether the kernel can update a parameter: on a GPU, dense, and not in float64."""
    return (
        (w.device.type == "cuda" or (w.device.type == "cpu" and interpreted()))
        and w.dtype != torch.float64
        and state_dtype in (torch.float32, torch.bfloat16)
        and addressable(w)
    )


@functools.cache
def available() -> str | None:
    """Say why there is no kernel here; None where there is one."""
    try:
        _kernel()
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    return None


def step(
    w: Tensor, g: Tensor, zeta: Tensor, average: Tensor, theta: Tensor, *, lr: float, hyper: Hyper
) -> None:
    """Update one tensor and its state in place. All five have the same strides."""
    n, how = w.numel(), hyper.rule
    if n == 0:
        return
    with torch.cuda.device(w.get_device()):
        _kernel()[(-(-n // BLOCK),)](
            *(w, g, zeta, average, theta, n, lr),
            *(hyper.alpha, 1 - hyper.alpha, hyper.theta_decay, 1 - hyper.theta_decay),
            *(hyper.eta_plus, hyper.eta_minus, hyper.zeta_min, hyper.zeta_max, hyper.eps),
            RATE=_RATES[how.rate],
            ROOT=_ROOTS[how.root],
            SHIPPED=how.shipped,
            BLOCK=BLOCK,
            enable_fp_fusion=False,
        )


@functools.cache
def _kernel() -> Any:
    from optbench.optimizers.torch_kernels.triton import wame_step

    return wame_step
