"""The JAX engine: data resident on the device, an epoch one compiled ``lax.scan``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import jax
import platformdirs

from optbench.backends.arrays import Resident, keep_pages
from optbench.backends.base import DeviceError, Stack, Weights, check_started
from optbench.backends.functional import KEPT, Configuration, FunctionalSession
from optbench.backends.jax.programs import JaxPrograms
from optbench.backends.jax.stack import JaxStack
from optbench.datasets.base import TrialData
from optbench.environment import Context, set_framework_variables, variable
from optbench.models.layers import BuiltLayer
from optbench.trial import TrialSpec

#: JAX's platform of each of our devices.
PLATFORMS = {"cuda": "gpu", "tpu": "tpu", "cpu": "cpu"}


class JaxEngine:
    """Trains trials on CPU, CUDA or TPU. One instance serves a process and keeps programs and data."""

    name = "jax"

    def __init__(self, context: Context) -> None:
        self._context = context
        with _start_up(context):
            found = jax.devices()
        if found[0].platform != "cpu":
            _keep_programs()
        keep_pages()
        self._resident = Resident()
        self._programs = lru_cache(KEPT)(self._make)
        self._evaluations = lru_cache(KEPT)(_no_programs)

    def configure(self, context: Context) -> None:
        """See :class:`optbench.backends.base.Engine`; XLA reads its threads once, when it starts."""
        check_started(context, self._context, self.name)

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
        facts: dict[str, Any] = {
            "framework": f"jax {jax.__version__}",
            "threads": self._context.threads,
            "device": device,
            **({} if self._context.deterministic else {"deterministic": False}),
        }
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
        """Join trials that differ in seeds and learning rates alone; raises ``NotStackableError``."""
        return JaxStack(specs, sessions)

    def _make(self, configuration: Configuration) -> JaxPrograms:
        evaluations = self._evaluations(configuration.evaluated())
        return JaxPrograms(configuration, _devices(configuration.device)[0], evaluations)


def _no_programs(configuration: Configuration) -> dict[Any, Any]:
    """Compiled evaluations of a configuration, which the programs of several optimizers fill and share."""
    return {}


def _devices(name: str) -> list[jax.Device]:
    try:
        return jax.devices(PLATFORMS[name])
    except RuntimeError:  # no such platform in this installation, or no such device
        return []


def _keep_programs() -> None:
    """Keep compiled programs in the user's cache folder, so that the next run need not compile them again.

    Not those of a CPU: they are made for its very model, and the folder may be shared with another machine.
    A folder of the user's choice (``JAX_COMPILATION_CACHE_DIR``) stays.
    """
    if jax.config.jax_compilation_cache_dir is None:
        folder = platformdirs.user_cache_path("optbench") / "jax"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@contextmanager
def _start_up(context: Context) -> Iterator[None]:
    """Set what XLA reads when its clients start, and put the environment back for child processes."""
    set_framework_variables({"XLA_PYTHON_CLIENT_PREALLOCATE": "false"})  # a GPU's memory as it is needed
    flags = [variable("XLA_FLAGS") or ""]
    if context.deterministic:
        flags.append("--xla_gpu_deterministic_ops=true")
    if context.threads == 1:
        flags.append("--xla_cpu_multi_thread_eigen=false")
    threads = str(context.threads)
    ours = {"XLA_FLAGS": " ".join(filter(None, flags)), "PJRT_NPROC": threads, "NPROC": threads}
    before = set_framework_variables(ours, override=True)
    try:
        yield
    finally:
        set_framework_variables(before, override=True)
