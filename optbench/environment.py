"""Where a trial ran: hardware, versions and the state of the code. Facts for the record, gathered once."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import optbench

PACKAGES = ("numpy", "scipy", "pandas", "torch", "tensorflow", "keras", "jax", "jaxlib", "optax")


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
        "memory_gb": _memory_gb(),
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


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def available_bytes() -> int | None:
    """Memory that new processes may take without swapping (Linux); None where nobody says."""
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
