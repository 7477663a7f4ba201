"""The C++ kernel: built once a machine by its own compiler, and called without PyTorch's headers.

The library has a plain C interface, so that it takes a second to build and does not depend on the version of
PyTorch. It uses the OpenMP runtime that PyTorch has loaded.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import platformdirs
import torch
from torch import Tensor

from optbench.environment import variable
from optbench.optimizers.torch_kernels.plain import Hyper, addressable

SOURCE = Path(__file__).with_name("wame.cpp")
#: Contraction into fused multiply-adds is off, as it would change bits; the other two let roots vectorise.
FLAGS = (
    *("-O3", "-march=native", "-mprefer-vector-width=512", "-std=c++17", "-fopenmp", "-fPIC", "-shared"),
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
)
_RATES = ("multiply", "divide", "ratio", "constant")
_ROOTS = ("inside", "outside", "none")
_LAYOUTS = {
    (torch.float32, torch.float32): 0,
    (torch.float64, torch.float64): 1,
    (torch.float32, torch.bfloat16): 2,
}


class KernelError(RuntimeError):
    """No kernel can be built here; the message says why."""


def supports(w: Tensor, state_dtype: torch.dtype) -> bool:
    """Whether the kernel can update a parameter: on the CPU, dense, in a precision that it knows."""
    return w.device.type == "cpu" and (w.dtype, state_dtype) in _LAYOUTS and addressable(w)


def step(
    tensors: Sequence[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]], *, lr: float, hyper: Hyper
) -> None:
    """Update tensors of one layout, each with its gradient, zeta, Z and theta, in one call.

    All five have the same strides.
    """
    count = len(tensors)
    pointers = (ctypes.c_void_p * (5 * count))(*[x.data_ptr() for entry in tensors for x in entry])
    sizes = (ctypes.c_int64 * count)(*[entry[0].numel() for entry in tensors])
    numbers, rate, root, shipped = _arguments(hyper)
    layout = _LAYOUTS[tensors[0][0].dtype, tensors[0][2].dtype]
    threads = torch.get_num_threads()
    load()(layout, count, pointers, sizes, lr, numbers, rate, root, shipped, threads)


@functools.cache
def load() -> ctypes._NamedFuncPointer:
    """Load the kernel, after building it where this machine has not yet.

    Raises
    ------
    KernelError
        Without a compiler, or where it fails.
    """
    try:
        function = ctypes.CDLL(str(_built())).wame_step
    except OSError as error:
        raise KernelError(f"the C++ kernel cannot be loaded: {error}") from None
    pointer = ctypes.c_void_p
    function.argtypes = [
        *(ctypes.c_int, ctypes.c_int64, pointer, pointer, ctypes.c_double, pointer),
        *(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int),
    ]
    function.restype = None
    return function


@functools.cache
def available() -> str | None:
    """Say why there is no kernel here; None where there is one. Builds it, so call this before any timing."""
    try:
        load()
    except KernelError as error:
        return str(error)
    return None


def _built() -> Path:
    compiler = shutil.which(variable("CXX") or "") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise KernelError("there is no C++ compiler (g++ or clang++, or the one that CXX names)")
    key = "\n".join((SOURCE.read_text(encoding="utf-8"), compiler, *FLAGS, platform.machine(), _cpu()))
    folder = Path(variable("OPTBENCH_KERNELS") or platformdirs.user_cache_path("optbench") / "kernels")
    library = folder / f"wame-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    if library.exists():
        return library
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / library.name
            command = [compiler, *FLAGS, "-o", str(made), str(SOURCE)]
            built = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            if built.returncode:
                raise KernelError(f"{compiler} failed: {built.stderr.strip().splitlines()[-1:]}")
            made.replace(library)  # in one piece: another process may be doing the same
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelError(f"the C++ kernel cannot be built: {error}") from None
    return library


def _cpu() -> str:
    """Instruction sets of this CPU, as the library is built for them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


@functools.lru_cache(maxsize=64)
def _arguments(hyper: Hyper) -> tuple[ctypes.Array[ctypes.c_double], int, int, int]:
    how = hyper.rule
    numbers = (ctypes.c_double * 7)(
        *(hyper.alpha, hyper.eta_plus, hyper.eta_minus, hyper.zeta_min, hyper.zeta_max, hyper.eps),
        hyper.theta_decay,
    )
    return numbers, _RATES.index(how.rate), _ROOTS.index(how.root), int(how.shipped)
