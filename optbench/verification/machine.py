"""What this machine has for training, what is missing, and what will be slow."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from optbench import backends, environment
from optbench.datasets import fetch, registry
from optbench.environment import Context, pip_hint
from optbench.errors import UserError

#: Distributions of each framework; TensorFlow comes under several names.
FRAMEWORKS: Mapping[str, tuple[str, ...]] = {
    "torch": ("torch",),
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
    "jax": ("jax",),
}
OPTIONAL: Mapping[str, str] = {
    "optax": "jax",
    "optuna": "tuning",
    "ray": "ray",
    "pyarrow": "parquet",
}
#: Free bytes on the disk of the results below which a long run may fail.
LITTLE_DISK = 2 * 2**30


def examine(results: Path, *, full: bool = False, context: Context | None = None) -> dict[str, Any]:
    """Look at this machine.

    Parameters
    ----------
    results : Path
        Folder of all stores; its disk is looked at.
    full : bool
        Import the frameworks, which takes seconds, and ask each for its devices.
    context : Context, optional
        Threads and data folder; as the environment says if not given.

    Returns
    -------
    dict
        JSON-ready: ``machine`` (as records have it), ``frameworks``, ``packages``, ``threads``, ``compiler``,
        ``data``, ``disk_free_gb``, and ``advice``: sentences, empty if all is well.
    """
    context = context or Context.from_environment()
    machine = environment.describe()
    frameworks = {
        name: _framework(name, names, context=context, full=full) for name, names in FRAMEWORKS.items()
    }
    compiler = shutil.which(environment.variable("CXX") or "c++") or shutil.which("g++")
    existing = next(path for path in (results.absolute(), *results.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    found = {
        "machine": machine,
        "frameworks": frameworks,
        "packages": {name: _version((name,)) for name in OPTIONAL},
        "threads": {
            "a trial": context.threads,
            "OMP_NUM_THREADS": environment.variable("OMP_NUM_THREADS"),
            "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        },
        "compiler": compiler,
        "data": {name: _data(name, context.data_dir) for name in registry.ENTRIES},
        "disk_free_gb": round(free / 2**30, 1),
    }
    return {**found, "advice": list(_advice(found, free))}


def render(found: Mapping[str, Any]) -> Iterator[str]:
    """Lay out what :func:`examine` found, line by line."""
    machine = found["machine"]
    yield f"optbench {machine['optbench']}, Python {machine['python']}, {machine['system']}"
    yield f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB"
    threads = ", ".join(f"{name} {value}" for name, value in found["threads"].items() if value is not None)
    yield f"threads: {threads}; disk: {found['disk_free_gb']} GB free"
    yield f"C++ compiler: {found['compiler'] or 'none'}"
    for name, facts in found["frameworks"].items():
        devices = f", devices {', '.join(facts['devices'])}" if facts.get("devices") else ""
        yield f"{name}: {facts['version'] or 'not installed'}{devices}"
    yield "optional: " + ", ".join(f"{name} {at or 'no'}" for name, at in found["packages"].items())
    here = [name for name, where in found["data"].items() if where]
    yield f"data: {', '.join(here)}"
    missing = [name for name, where in found["data"].items() if not where]
    if missing:
        yield f"data not here: {', '.join(missing)} (optbench data fetch NAME)"
    yield ""
    yield from found["advice"] or ["Nothing to fix."]


def _framework(name: str, names: tuple[str, ...], *, context: Context, full: bool) -> dict[str, Any]:
    at = _version(names)
    devices: list[str] = []
    if full and at:
        for device in ("cpu", "cuda", "mps", "tpu"):
            try:
                backends.resolve_device(name, device, context)
                devices.append(device)
            except UserError:
                continue
    return {"version": at, "devices": devices}


def _version(names: tuple[str, ...]) -> str | None:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def _data(name: str, data_dir: Path | None) -> str | None:
    source = getattr(registry.ENTRIES[name], "source", None)
    if source is None:
        return "comes with optbench"
    located = fetch.find(source, data_dir)
    return str(located.folder) if located else None


def _advice(found: Mapping[str, Any], free: int) -> Iterator[str]:
    cores, threads = found["machine"]["cores"], found["threads"]
    if not any(facts["version"] for facts in found["frameworks"].values()):
        yield f"No framework is installed, so nothing can be trained: {pip_hint('torch')}."
    if threads["a trial"] > cores:
        yield (
            f"OPTBENCH_THREADS is {threads['a trial']}, but there are {cores} cores: threads that wait "
            "for each other are many times slower. Unset it."
        )
    if threads["load"] is not None and threads["load"] > 0.5 * cores:
        yield (
            f"Others keep this machine busy (load {threads['load']} on {cores} cores): results stay the "
            "same, times do not. Time with --time on a quiet machine."
        )
    if found["frameworks"]["torch"]["version"] and found["compiler"] is None:
        yield (
            "No C++ compiler: PyTorch's WAME takes its plain form, several times slower on many small "
            "tensors. Install g++ or clang."
        )
    if free < LITTLE_DISK:
        yield f"Only {free / 2**30:.1f} GB are free where results go: checkpoints may fail."
    for name, extra in OPTIONAL.items():
        if found["packages"][name] is None and (name != "optax" or found["frameworks"]["jax"]["version"]):
            yield f"{name} is not installed; what needs it says so: {pip_hint(extra)}."
