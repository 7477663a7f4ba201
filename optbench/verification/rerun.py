"""Train a recorded trial again, and say whether it is the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from optbench import backends, environment
from optbench.datasets import registry
from optbench.environment import Context
from optbench.execution.choice import isolated
from optbench.execution.jobs import Setting
from optbench.execution.worker import ignore
from optbench.records import single
from optbench.records.store import StoredTrial
from optbench.records.trust import check_trust
from optbench.task import is_time
from optbench.trial import TrialRecord

#: Relative difference of a loss within which two trainings count as equal, as between stacked twins.
TOLERANCE = 1e-3
#: Facts that change bits, the likeliest cause first.
_CAUSES = (
    *("optbench", "framework", "stacked", "threads", "step", "processor", "device_name"),
    *("packages", "git"),
)
#: Facts that a record has only where they apply; any other that is absent was not measured.
_ONLY_WHERE_TRUE = ("stacked",)


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """What came of training a trial again.

    Attributes
    ----------
    verdict : str
        ``identical``: every bit of the history; ``equal``: training losses within the tolerance and the same
        status; ``different``.
    lines : tuple of str
        For people: largest differences, the first epoch that differs, likely causes.
    """

    verdict: Literal["identical", "equal", "different"]
    lines: tuple[str, ...]


def rerun(trial: StoredTrial, *, folder: Path, context: Context | None = None, trust: bool = False) -> Rerun:
    """Train a trial again, writing nothing.

    Parameters
    ----------
    trial : StoredTrial
        As a store gives it.
    folder : Path
        Where an optimizer's file is looked for.
    context : Context, optional
        Threads and data folder; the defaults if not given.
    trust : bool
        Whether code that the trial's store names may be run.

    Returns
    -------
    Rerun

    Raises
    ------
    NotRunnableError
        If its code or data are gone or changed, or it was imported.
    UntrustedError
        If it has code of its own that is not trusted, or has changed; none of it has been run then.
    UserError
        If this machine lacks the framework, the device or the data.
    """
    check_trust(trial, folder=folder, trust=trust)
    _, found = single.planned(trial, folder=folder)
    spec = found.spec
    context = context or Context()
    backends.resolve_device(spec.backend, spec.device, context)
    setting = Setting(
        context=context,
        datasets={spec.workload.dataset: registry.of_workload(spec.workload, data_dir=context.data_dir)},
        facts=environment.describe(folder),
        checkpoints=None,
        started=ignore,
        epoch=ignore,
    )
    with isolated([found], context) as executor:
        ((_, (record,)),) = executor.run([(found,)], setting)
    return compare(trial, record)


def compare(trial: StoredTrial, record: TrialRecord) -> Rerun:
    """Compare a recorded trial with its repetition."""
    if record.status == "crashed" or trial.status == "crashed":
        last = (record.error or "").strip().splitlines()[-1:]
        same = record.status == trial.status
        return Rerun(
            verdict="equal" if same else "different",
            lines=(f"recorded: {trial.status}; now: {record.status} {''.join(last)}".rstrip(),),
        )
    names = [n for n in trial.history if not is_time(n) and n in record.history]
    lines = [f"recorded: {trial.status}; now: {record.status}"] if trial.status != record.status else []
    first, worst = math.inf, 0.0
    for name in names:
        before, now = trial.history[name], record.history[name]
        if len(before) != len(now):
            lines.append(f"{name}: {len(before) - 1} epochs recorded, {len(now) - 1} now")
        length = min(len(before), len(now))
        differing = np.flatnonzero(~_same(before[:length], now[:length]))
        if len(differing):
            first = min(first, int(differing[0]))
            scale = np.maximum(np.abs(before[:length]), 1e-12)
            far = float(np.nanmax(np.abs(before[:length] - now[:length]) / scale))
            lines.append(f"{name}: differs from epoch {differing[0]} on, by up to {far:.2g} of its value")
            if name == "train_loss":
                worst = far
    prints = {name: getattr(record.fingerprints, name) for name in ("split", "init", "order")}
    changed = [name for name, value in trial.fingerprints.items() if prints.get(name) != value]
    if changed:
        lines.append(f"fingerprints differ: {', '.join(changed)}: not the data or seeding of then")
    if not lines:
        return Rerun(verdict="identical", lines=(f"{len(names)} columns of the history, every bit",))
    equal = trial.status == record.status and not changed and worst <= TOLERANCE
    return Rerun(
        verdict="equal" if equal else "different",
        lines=(*lines, *_causes(trial.environment, record.environment)),
    )


def _same(a: Any, b: Any) -> Any:
    return (a == b) | (np.isnan(a) & np.isnan(b))


def _causes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Facts of the two machines that differ, and those that only one of the records has."""
    found: list[str] = []
    missing: list[str] = []
    for name in _CAUSES:
        a, b = before.get(name), now.get(name)
        if a is None and b is None:
            continue
        if (a is None or b is None) and name not in _ONLY_WHERE_TRUE:
            missing.append(f"{name} ({'then' if a is None else 'now'})")
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            parts = sorted(key for key in {*a, *b} if a.get(key) != b.get(key) and key != "dirty")
            a, b = ({key: x.get(key) for key in parts} for x in (a, b))
        if a != b:
            found.append(f"likely cause: {name} was {_word(a)}, is {_word(b)}")
    if not found:
        found = ["no recorded fact of the machine differs: rounding may depend on what ran at the same time"]
    return [*found, f"not recorded, so it may be a cause: {', '.join(missing)}"] if missing else found


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "the same"
    return "not used" if value is None else str(value)
