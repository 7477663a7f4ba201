"""From a suite to its trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from optbench.optimizers import on_backend
from optbench.suite.entries import SuiteWorkload
from optbench.suite.spec import PlannedTrial, Suite, SuiteError
from optbench.suite.tuning_section import Tuning
from optbench.trial import TrialSpec


def trials(suite: Suite, resolve_device: Callable[[str, str], str]) -> list[PlannedTrial]:
    """List a suite's trials, block by block: all optimizers of a block stand together.

    Parameters
    ----------
    suite : Suite
        The suite.
    resolve_device : callable
        ``resolve_device(backend, device)`` turns ``auto`` into a device of this machine.

    Returns
    -------
    list of PlannedTrial
        Seeds vary slowest, then backends, then workloads, then optimizers: the standing makes sense early.
    """
    devices = {backend: resolve_device(backend, suite.device) for backend in suite.backends}
    if suite.precision == "tf32" and any(device != "cuda" for device in devices.values()):
        found = ", ".join(f"{backend} on {device}" for backend, device in devices.items())
        raise SuiteError(
            f"{suite.path or suite.name}: precision: found 'tf32' with {found}; TF32 is a mode of NVIDIA "
            "GPUs: set `device: cuda`, or `precision: float32`"
        )
    # One object for the trials of a config, as a plan that is read by its parts expects.
    there = {
        (id(config), backend): on_backend(config, backend)
        for backend in suite.backends
        for entry in suite.workloads
        for config in entry.optimizers.values()
    }
    return [
        PlannedTrial(
            workload=entry.label,
            optimizer=label,
            spec=TrialSpec(
                workload=entry.workload,
                optimizer=there[id(config), backend],
                seeds=seeds,
                backend=backend,
                device=devices[backend],  # type: ignore[arg-type]
                precision=suite.precision,
            ),
        )
        for seeds in suite.seeds
        for backend in suite.backends
        for entry in suite.workloads
        for label, config in entry.optimizers.items()
    ]


def tuning_total(tuning: Tuning | None, workloads: Sequence[SuiteWorkload]) -> int | None:
    """Trainings that tuning takes at most, a resumed one counted once; None if only time limits it."""
    if tuning is None:
        return 0
    rounds = tuning.stages * (1 + tuning.widen) * tuning.repeats
    counts = [(tuning.settings(w.workload), len(w.optimizers)) for w in workloads]
    if any(settings is None for settings, _ in counts):
        return None
    return sum(rounds * (settings or 0) * optimizers for settings, optimizers in counts)
