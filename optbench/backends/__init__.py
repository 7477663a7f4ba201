"""Engines that train: one folder a framework, behind the contract of :mod:`optbench.backends.base`."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from optbench.backends.base import BackendMissingError, Engine
from optbench.environment import Context, pip_hint, variable

#: Module and class of each backend's engine, imported when a trial needs it, and the packages it stands on.
_ENGINES = {
    "torch": ("optbench.backends.torch.engine", "TorchEngine", ("torch",)),
    "tensorflow": ("optbench.backends.tensorflow.engine", "TensorFlowEngine", ("tensorflow",)),
    "jax": ("optbench.backends.jax.engine", "JaxEngine", ("jax", "optax")),
}

#: The engines of this process. A framework starts once, so these outlive the run that asked for them.
_started: dict[str, Engine] = {}


def installed() -> list[str]:
    """Backends whose framework is installed, without importing it."""
    return [name for name, (_, _, packages) in _ENGINES.items() if _have(packages)]


def engine(name: str, context: Context | None = None) -> Engine:
    """Start a framework's engine, or set the one that this process has to other settings.

    Parameters
    ----------
    name : str
        The backend.
    context : Context, optional
        Threads, steps and determinism from now on; their defaults if not given. Whatever custom code
        changed in the framework's settings since the last call is restored.

    Raises
    ------
    BackendMissingError
        If the framework is not installed.
    UserError
        If the framework has started with other settings and cannot change them.
    """
    if name not in _ENGINES:
        raise BackendMissingError(
            f"backend {name!r} is not available yet; choose one of {', '.join(_ENGINES)}"
        )
    module, cls, packages = _ENGINES[name]
    if not _have(packages):
        raise BackendMissingError(f"backend {name}: not installed; bring it with `{pip_hint(name)}`")
    context = context or Context()
    if name not in _started:
        _started[name] = cast(Engine, getattr(import_module(module), cls)(context))
    _started[name].configure(context)
    return _started[name]


def resolve_device(backend: str, device: str, context: Context | None = None) -> str:
    """Turn ``auto`` into this machine's best device, importing the framework only where it could matter."""
    if device == "cpu" or (device == "auto" and not _may_have_accelerator()):
        return "cpu"
    return engine(backend, context).resolve_device(device)


def _have(packages: tuple[str, ...]) -> bool:
    return all(find_spec(package) is not None for package in packages)


def _may_have_accelerator() -> bool:
    dev = Path("/dev")
    return (
        sys.platform == "darwin"
        or os.name == "nt"
        or any(any(dev.glob(pattern)) for pattern in ("nvidia*", "kfd", "accel*", "dxg"))
        or variable("TPU_NAME") is not None
    )
