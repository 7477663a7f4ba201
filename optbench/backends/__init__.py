"""Engines that train: one folder a framework, behind the contract of :mod:`optbench.backends.base`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from optbench.backends.base import BackendMissingError, Engine
from optbench.errors import UserError

#: Module and class of each backend's engine, imported when a trial needs it, and the packages it stands on.
_ENGINES = {
    "torch": ("optbench.backends.torch.engine", "TorchEngine", ("torch",)),
    "tensorflow": ("optbench.backends.tensorflow.engine", "TensorFlowEngine", ("tensorflow",)),
    "jax": ("optbench.backends.jax.engine", "JaxEngine", ("jax", "optax")),
}

#: How PyTorch may be asked to take its steps, and the environment variable that tells worker processes.
STEPS = ("auto", "eager", "compiled", "graph")
STEP_VARIABLE = "OPTBENCH_STEP"


def wanted_step() -> str:
    """How this process was asked to take its steps.

    Raises
    ------
    UserError
        If the environment variable ``OPTBENCH_STEP`` is none of :data:`STEPS`.
    """
    found = os.environ.get(STEP_VARIABLE, "auto")
    if found not in STEPS:
        raise UserError(f"{STEP_VARIABLE}: found {found!r}; choose one of {', '.join(STEPS)}")
    return found


@contextlib.contextmanager
def asking_for_step(step: str) -> Iterator[None]:
    """Ask this process, and those that it starts meanwhile, to take steps so; ``auto`` leaves it as it is."""
    before = os.environ.get(STEP_VARIABLE)
    if step != "auto":
        os.environ[STEP_VARIABLE] = step
    try:
        yield
    finally:
        os.environ.pop(STEP_VARIABLE, None)
        if before is not None:
            os.environ[STEP_VARIABLE] = before


def installed() -> list[str]:
    """Backends whose framework is installed, without importing it."""
    return [name for name, (_, _, packages) in _ENGINES.items() if _have(packages)]


@cache
def engine(name: str) -> Engine:
    """Start a framework's engine; one a process.

    It computes with as many CPU threads as the environment variable ``OPTBENCH_THREADS`` says, 1 if it is not
    set: the number of threads changes the last bits of a sum, so it must not depend on the machine's cores,
    and two threads that wait for each other on a busy machine are many times slower than one.

    Raises
    ------
    BackendMissingError
        If the framework is not installed.
    UserError
        If ``OPTBENCH_THREADS`` is no whole number from 1.
    """
    if name not in _ENGINES:
        raise BackendMissingError(
            f"backend {name!r} is not available yet; choose one of {', '.join(_ENGINES)}"
        )
    module, cls, packages = _ENGINES[name]
    if not _have(packages):
        raise BackendMissingError(
            f"backend {name}: not installed; bring it with `pip install optbench[{name}]`"
        )
    words = os.environ.get("OPTBENCH_THREADS", "1")
    if not (words.isascii() and words.isdigit() and int(words)):
        raise UserError(f"OPTBENCH_THREADS: found {words!r}; give a whole number from 1")
    return cast(Engine, getattr(import_module(module), cls)(threads=int(words)))


def resolve_device(backend: str, device: str) -> str:
    """Turn ``auto`` into this machine's best device, importing the framework only where it could matter."""
    if device == "cpu" or (device == "auto" and not _may_have_accelerator()):
        return "cpu"
    return engine(backend).resolve_device(device)


def _have(packages: tuple[str, ...]) -> bool:
    return all(find_spec(package) is not None for package in packages)


def _may_have_accelerator() -> bool:
    dev = Path("/dev")
    return (
        sys.platform == "darwin"
        or os.name == "nt"
        or any(any(dev.glob(pattern)) for pattern in ("nvidia*", "kfd", "accel*", "dxg"))
        or "TPU_NAME" in os.environ
    )
