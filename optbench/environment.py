"""Where a trial runs: the settings that it is given, and the machine's facts for its record.

This is the one module that reads environment variables, and the one that sets any. Settings are read from
them once, where a command or the Python API begins (:meth:`Context.from_environment`), and are passed on from
there to all that computes.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import optbench
from optbench.errors import UserError

#: How PyTorch may be asked to take its steps.
STEPS = ("auto", "eager", "compiled", "graph")
#: Those of its ways to take them, by a record's fact ``step``, that have the same bits.
SAME_BITS = frozenset({"autograd", "hand-written", "graph", "branches of a graph"})
#: Variables that hold optbench's settings.
THREADS_VARIABLE, DATA_VARIABLE, STEP_VARIABLE = "OPTBENCH_THREADS", "OPTBENCH_DATA", "OPTBENCH_STEP"
#: Variables by which numerical libraries learn how many threads to start, read when they are loaded.
LIBRARY_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

PACKAGES = ("numpy", "scipy", "pandas", "torch", "tensorflow", "keras", "jax", "jaxlib", "optax")


@dataclass(frozen=True, kw_only=True)
class Context:
    """Settings of a run that belong to no trial's spec; from the command line or the API to the engines.

    Attributes
    ----------
    threads : int
        CPU threads of a trial. They change the last bits of a sum, so they must not depend on the machine's
        cores; and threads that wait for each other on a busy machine are many times slower than one.
    step : str
        How PyTorch takes its steps, one of :data:`STEPS`.
    data_dir : Path, optional
        Folder in which data files are looked for first, and to which they are downloaded.
    deterministic : bool
        Ask the frameworks for the same bits every time. Without it a record says so.

    Raises
    ------
    UserError
        If a value is not allowed.
    """

    threads: int = 1
    step: str = "auto"
    data_dir: Path | None = None
    deterministic: bool = True

    def __post_init__(self) -> None:
        if type(self.threads) is not int or self.threads < 1:
            raise UserError(f"threads: found {self.threads!r}; give a whole number from 1")
        if self.step not in STEPS:
            raise UserError(f"step: found {self.step!r}; choose one of {', '.join(STEPS)}")

    @classmethod
    def from_environment(cls, *, threads: int | None = None, data_dir: str | Path | None = None) -> Context:
        """Make a context at the edge of the program: what is not given is taken from the environment.

        Parameters
        ----------
        threads : int, optional
            ``OPTBENCH_THREADS`` if not given, 1 if that is not set.
        data_dir : path, optional
            ``OPTBENCH_DATA`` if not given.

        Raises
        ------
        UserError
            If a variable has a value that is not allowed.
        """
        if threads is None:
            words = variable(THREADS_VARIABLE) or "1"
            if not (words.isascii() and words.isdigit() and int(words)):
                raise UserError(f"{THREADS_VARIABLE}: found {words!r}; give a whole number from 1")
            threads = int(words)
        step = variable(STEP_VARIABLE) or "auto"
        if step not in STEPS:
            raise UserError(f"{STEP_VARIABLE}: found {step!r}; choose one of {', '.join(STEPS)}")
        folder = Path(data_dir) if data_dir else None
        return cls(threads=threads, step=step, data_dir=data_folder() if data_dir is None else folder)

    def with_step(self, step: str) -> Context:
        """Take a suite's way of steps; its ``auto`` leaves the way as it is."""
        return self if step == "auto" else replace(self, step=step)


def pip_hint(extra: str) -> str:
    """The command that brings an extra: of this clone, or of the installed package."""
    clone = (Path(__file__).parents[1] / "pyproject.toml").is_file()
    return f"pip install -e '.[{extra}]'" if clone else f"pip install 'optbench[{extra}]'"


def data_folder() -> Path | None:
    """Folder that data are looked for in first, ``OPTBENCH_DATA``; None where it is not set."""
    folder = variable(DATA_VARIABLE)
    return Path(folder) if folder else None


def variable(name: str) -> str | None:
    """Read an environment variable; None where it is not set."""
    return os.environ.get(name)


def limit(name: str, default: float) -> float:
    """Read a limit that a user may raise; :class:`UserError` where the variable holds no positive number."""
    words = variable(name)
    try:
        found = default if words is None else float(words)
    except ValueError:
        found = math.nan
    if not found > 0:
        raise UserError(f"{name}: found {words!r}; give a positive number")
    return found


def set_framework_variables(
    values: Mapping[str, str | None], *, override: bool = False
) -> dict[str, str | None]:
    """Set environment variables that other libraries read; the only place that sets any.

    CUDA, cuBLAS, XLA, TensorFlow, the BLAS libraries, Ray and MLflow read some settings from the process
    environment alone, once, when they are loaded or start. A child process gets its environment from its
    parent.

    Parameters
    ----------
    values : mapping of str to str or None
        Variables; None removes one.
    override : bool
        Whether to replace what the user has set.

    Returns
    -------
    dict of str to str or None
        What was there before: give it back, with ``override``, where a setting must not outlive its purpose.
    """
    before = {name: os.environ.get(name) for name in values}
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        elif override or name not in os.environ:
            os.environ[name] = value
    return before


def snapshot() -> dict[str, str]:
    """Copy the whole environment, for a process that was not started with it: see :func:`adopt`."""
    return dict(os.environ)


def adopt(values: Mapping[str, str]) -> None:
    """Take over the environment of the process that asked for this one."""
    os.environ.clear()
    os.environ.update(values)


def visible_gpus() -> list[str]:
    """NVIDIA GPUs that a process started now would see, as ``CUDA_VISIBLE_DEVICES`` names them.

    No framework is asked, as that may start one.
    """
    chosen = variable("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for word in chosen.split(",") if (name := word.strip()) and name != "-1"]
    return [str(number) for number, _ in enumerate(Path("/dev").glob("nvidia[0-9]*"))]


@cache
def describe(folder: Path | None = None) -> dict[str, Any]:
    """Describe this machine and software.

    Parameters
    ----------
    folder : Path, optional
        Where to ask git for commit and uncommitted changes: the suite's folder.

    Returns
    -------
    dict
        JSON-ready: ``optbench``, ``python``, ``system``, ``machine``, ``processor``, ``cores``,
        ``memory_gb``, ``packages`` (installed versions), ``git`` (commit and whether it was dirty, or None).
    """
    return {
        "optbench": optbench.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": _cores(),
        "memory_gb": memory_gb(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "git": _git(folder or Path.cwd()),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gb() -> float | None:
    """Memory of this machine; None where it does not say."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def available_bytes() -> int | None:
    """Memory that new processes may take without swapping (Linux); None where it cannot be read."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _git(folder: Path) -> dict[str, Any] | None:
    def ask(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "dirty": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def now() -> str:
    """The time, as records write it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
