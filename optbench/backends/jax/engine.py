"""The JAX engine: data resident on the device, an epoch one compiled ``lax.scan``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import jax

from optbench.backends.arrays import Resident, keep_pages
from optbench.backends.base import DeviceError, Stack, Weights
from optbench.backends.functional import KEPT, Configuration, FunctionalSession
from optbench.backends.jax.programs import JaxPrograms
from optbench.backends.jax.stack import JaxStack
from optbench.datasets.base import TrialData
from optbench.models.layers import BuiltLayer
from optbench.trial import TrialSpec

#: JAX's platform of each of our devices.
PLATFORMS = {"cuda": "gpu", "tpu": "tpu", "cpu": "cpu"}


class JaxEngine:
    """Trains trials on CPU, CUDA or TPU. One instance serves a process and keeps programs and data."""

    name = "jax"

    def __init__(self, *, threads: int) -> None:
        self._threads = threads
        with _start_up(threads):
            jax.devices()
        keep_pages()
        self._resident = Resident()
        self._programs = lru_cache(KEPT)(self._make)

    def resolve_device(self, device: str) -> str:
        """See :class:`optbench.backends.base.Engine`."""
        available = [name for name in PLATFORMS if _devices(name)]
        if device == "auto":
            return available[0]
        if device not in available:
            have = ", ".join(available)
            raise DeviceError(f"jax {jax.__version__} has no device {device!r} here; it has {have}")
        return device

    def describe(self, device: str) -> Mapping[str, Any]:
        """See :class:`optbench.backends.base.Engine`."""
        facts = {"framework": f"jax {jax.__version__}", "threads": self._threads, "device": device}
        if device != "cpu":
            found = _devices(device)[0]
            facts |= {"device_name": found.device_kind, "platform": found.client.platform_version}
        return facts

    def peak_bytes(self, device: str) -> int | None:
        """See :class:`optbench.backends.base.Engine`."""
        return (
            None if device == "cpu" else (_devices(device)[0].memory_stats() or {}).get("peak_bytes_in_use")
        )

    def open(
        self, spec: TrialSpec, built: tuple[BuiltLayer, ...], data: TrialData, weights: Weights
    ) -> FunctionalSession:
        """See :class:`optbench.backends.base.Engine`."""
        programs = self._programs(Configuration.of(spec, built))
        return FunctionalSession(programs, self._resident, spec, built, data, weights)

    def stack(
        self,
        specs: Sequence[TrialSpec],
        built: tuple[BuiltLayer, ...],
        sessions: Sequence[FunctionalSession],
    ) -> Stack:
        """Join trials that differ in their seeds alone; raises ``NotStackableError``."""
        return JaxStack(specs, sessions)

    def _make(self, configuration: Configuration) -> JaxPrograms:
        return JaxPrograms(configuration, _devices(configuration.device)[0])


def _devices(name: str) -> list[jax.Device]:
    try:
        return jax.devices(PLATFORMS[name])
    except RuntimeError:  # no such platform in this installation, or no such device
        return []


@contextmanager
def _start_up(threads: int) -> Iterator[None]:
    """Set what XLA reads when its clients start, and put the environment back for child processes."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU's memory as it is needed
    flags = [os.environ.get("XLA_FLAGS", ""), "--xla_gpu_deterministic_ops=true"]
    if threads == 1:
        flags.append("--xla_cpu_multi_thread_eigen=false")
    ours = {"XLA_FLAGS": " ".join(filter(None, flags)), "PJRT_NPROC": str(threads), "NPROC": str(threads)}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
