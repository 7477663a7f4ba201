"""Stores of synthetic records: any suite's whole plan, with chosen outcomes, as a real run would leave them.

Plan, labels, tuning journal and facts of a store are written by the product's own code; only the training is
replaced, by numbers drawn from the trial's name.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from optbench import environment
from optbench.datasets import registry
from optbench.datasets.base import DatasetInfo
from optbench.execution import jobs, local
from optbench.records import machines, step_times
from optbench.records.store import Store
from optbench.suite.spec import PlannedTrial, Suite
from optbench.task import TASKS, sign_of
from optbench.trial import Fingerprints, TrialRecord, TrialSpec, Workload, block_id, trial_id

#: What may become of a trial. ``low``: completed far below any target; ``tie``: the same score as all others;
#: ``unmeasured``: completed with a test loss and validation scores that are no number; ``missing``: not run.
FATES = ("usual", "low", "tie", "unmeasured", "diverged", "crashed", "missing")
#: Outcomes of a whole suite; see :func:`outcome`.
OUTCOMES = ("usual", "low", "diverged", "crashed", "tie", "unmeasured", "one crashes", "one diverges")
OUTCOMES += ("half missing", "one workload", "one trial", "nothing", "mixed", "tuning stopped")
#: Says what becomes of a planned trial.
Fate = Callable[[PlannedTrial], str]

#: Records that are in memory at once.
_AT_ONCE = 1000
_BEGAN = datetime(2026, 1, 1, tzinfo=timezone.utc)
_TRACE = "Traceback (most recent call last):\n  ...\nRuntimeError: made to crash"


def drawn(*facts: object) -> np.random.Generator:
    """Numbers that these facts name: the same in every process."""
    digest = hashlib.sha256(repr(facts).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def outcome(name: str, suite: Suite) -> Fate:
    """An outcome of a whole suite: what becomes of each of its trials.

    ``usual``, ``low`` (nobody reaches a target), ``diverged`` and ``crashed`` (all of them), ``tie``,
    ``unmeasured``; ``one crashes`` and ``one diverges`` (an optimizer, the baseline, in every seed),
    ``half missing``, ``one workload`` (the others have not begun), ``one trial``, ``nothing``, ``mixed``, and
    ``tuning stopped`` (half of the tuning trials are missing).
    """
    loser = suite.analysis.baseline or suite.optimizers[0]
    first = suite.workloads[0]
    seen: list[str] = []

    def fate(trial: PlannedTrial) -> str:
        chance = drawn(name, trial_id(trial.spec)).random()
        if name == "tuning stopped":
            return "missing" if chance < 0.5 else "usual"
        if trial.role == "tuning":
            return "diverged" if chance < 0.1 else "usual"
        if name in ("low", "diverged", "crashed", "tie", "unmeasured"):
            return name
        if name in ("one crashes", "one diverges"):
            word = "crashed" if name == "one crashes" else "diverged"
            return word if trial.optimizer == loser else "usual"
        if name == "half missing":
            return "missing" if chance < 0.5 else "usual"
        if name == "one workload":
            return "usual" if trial.workload == first.label else "missing"
        if name == "one trial":
            seen.append(trial.workload)
            return "usual" if len(seen) == 1 else "missing"
        if name == "mixed":
            return FATES[int(chance * len(FATES))]
        if name == "nothing":
            return "missing"
        assert name == "usual", name
        return "diverged" if chance < 0.01 else "usual"

    return fate


def fill(
    suite: Suite,
    folder: Path,
    fate: Fate | str = "usual",
    *,
    device: str = "cpu",
    facts: dict[str, Any] | None = None,
    passes: bool = False,
    examples: int = 200,
) -> Path:
    """Fill a store with the records of a suite's whole plan.

    Parameters
    ----------
    suite : Suite
        Where it is tuned, the search is made too, so that optuna is needed.
    folder : Path
        Folder of the store.
    fate : callable or str
        Of each trial, or the name of an :func:`outcome`.
    device : str
        On which the trials say that they ran.
    facts : dict, optional
        More facts of the environment, such as ``{"concurrent": 2}``.
    passes : bool
        Write a timing pass of every configuration too.
    examples : int
        Predictions are kept of so many test examples at most.

    Returns
    -------
    Path
        The store.
    """
    suite = replace(suite, device=device)
    if isinstance(fate, str):
        fate = outcome(fate, suite)
    with Store(folder, write=True) as store:
        with MadeRun(suite, store, fate, facts=facts or {}, examples=examples) as run:
            if suite.tuning is None:
                store.set_meta(**{local.TUNING: ""})
                run.trials(local.plan(suite))
            else:
                local._tune_then_run(suite, run, store, environment.Context())
        if passes:
            _add_passes(store)
        return store.path


class MadeRun(local.Run):
    """A run whose trials are drawn, not trained."""

    def __init__(
        self, suite: Suite, store: Store, fate: Fate, *, facts: dict[str, Any], examples: int
    ) -> None:
        super().__init__(suite, store)
        self._fate, self._more, self._examples = fate, facts, examples

    def trials(self, planned: Sequence[PlannedTrial], *, last: bool = False) -> int:
        """See :meth:`optbench.execution.local.Run.trials`."""
        self.ids = [trial_id(trial.spec) for trial in planned]
        rows = zip(self.ids, planned, strict=True)
        self._store.set_plan((key, t.workload, t.optimizer) for key, t in rows)
        known = self._store.statuses()
        todo = [t for key, t in zip(self.ids, planned, strict=True) if key not in known]
        fates = [self._fate(trial) for trial in todo]
        count = 0
        for first in range(0, len(todo), _AT_ONCE):
            records = [
                record(
                    trial.spec,
                    fate,
                    optimizer=trial.optimizer,
                    facts=self._more,
                    examples=self._examples,
                    number=len(known) + first + k,
                )
                for k, (trial, fate) in enumerate(
                    zip(todo[first:], fates[first : first + _AT_ONCE], strict=False)
                )
                if fate != "missing"
            ]
            self._store.add(*records)
            count += len(records)
        return count


def record(
    spec: TrialSpec,
    fate: str,
    *,
    optimizer: str = "",
    facts: dict[str, Any] | None = None,
    examples: int = 200,
    number: int = 0,
) -> TrialRecord:
    """Make the record of a trial with what a real one has: history, metrics, timings, marks, predictions."""
    started = (_BEGAN + timedelta(seconds=4 * number)).isoformat(timespec="seconds")
    where = {
        **environment.describe(),
        "framework": f"{spec.backend} made",
        "device": spec.device,
        "threads": 1,
        "stored": "float32",
        "kernel": "cpp",
        "optimizer": spec.optimizer.optimizer,
        "step": "eager",
        "step_because": "made",
        **(facts or {}),
    }
    if fate == "crashed":
        return jobs.crashed(spec, _TRACE, environment=where, started=started)
    made = _Training(spec, fate, optimizer)
    history = made.history()
    status = "diverged" if fate == "diverged" else "completed"
    metrics, predictions = made.finish(history, examples=examples)
    step, evaluation = (float(np.nansum(history[f"{name}_seconds"])) for name in ("step", "eval"))
    spent = {"setup": 0.1, "warm_up": 0.2, "augment": 0.0, "step": step, "eval": evaluation + 0.01}
    return TrialRecord(
        trial_id=trial_id(spec),
        block_id=block_id(spec),
        spec=spec,
        status=status,
        fingerprints=_marks(spec, made.last),
        history=history,
        metrics=metrics,
        timings={**spent, "total": sum(spent.values())},
        predictions=predictions,
        environment=where,
        started=started,
    )


@dataclass
class _Training:
    """Curves that rise towards a score which the optimizer, its rate and the seed decide."""

    spec: TrialSpec
    fate: str
    optimizer: str

    def __post_init__(self) -> None:
        spec, workload = self.spec, self.spec.workload
        self.info = _info(workload)
        self.rng = drawn(trial_id(spec), self.fate)
        skill = drawn(self.optimizer, spec.optimizer.optimizer, spec.optimizer.lr).uniform(0.86, 0.97)
        luck = drawn(block_id(spec)).normal(0, 0.005)
        self.score = float(np.clip(skill + luck + self.rng.normal(0, 0.004), 0, 1))
        self.score = {"low": 0.02 + self.score / 100, "tie": 0.9}.get(self.fate, self.score)
        self.last = min(workload.stop or workload.epochs, workload.epochs)
        rule = workload.early_stopping
        if self.fate == "diverged":
            self.last = int(self.rng.integers(1, self.last + 1))
        elif rule is not None and self.last > rule.patience and self.fate != "tie":
            self.last = int(self.rng.integers(rule.patience, self.last + 1))

    def history(self) -> dict[str, np.ndarray]:
        """One value an epoch, epoch 0 included."""
        spec, n = self.spec, self.last + 1
        noise = 0.0 if self.fate == "tie" else self.rng.normal(0, 0.002, n)
        chance = 1 / (len(self.info.classes) or 10)
        rise = np.clip(self.score - (self.score - chance) * np.exp(-np.arange(n) / 2) + noise, 0, 1)
        loss = 2.3 * (1.001 - rise)
        lr = math.nan if spec.optimizer.lr is None else spec.optimizer.lr
        step = np.full(n, 0.05) * self.rng.uniform(1, 1.2, n)
        step[0] = math.nan
        batch = loss * 1.05
        batch[0] = math.nan
        columns = TASKS[spec.workload.task].history
        found = {}
        for place, name in enumerate(TASKS[spec.workload.task].final):
            part = 1.0 if name.startswith("train_") else 1.1
            found[name] = (
                rise - (part - 1) / 10 - place / 1000 if sign_of(name) > 0 else loss * part + place / 1000
            )
        found |= {"batch_loss": batch, "lr": np.full(n, lr), "step_seconds": step}
        found["eval_seconds"] = self.rng.uniform(0.01, 0.02, n)
        assert list(found) == list(columns)
        if not self.validated or self.fate == "unmeasured":
            found |= {name: np.full(n, math.nan) for name in columns if name.startswith("val_")}
        if self.fate == "diverged":
            for name in ("train_loss", "val_loss", "batch_loss"):
                found[name][-1] = math.nan
        return found

    @property
    def validated(self) -> bool:
        split = self.spec.workload.split
        return split.how == "published" or split.validation > 0

    def finish(
        self, history: dict[str, np.ndarray], *, examples: int
    ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Final metrics and predictions, as ``optbench.execution.protocol`` ends a trial."""
        workload = self.spec.workload
        steps = 1 if workload.batch_size == "full" else math.ceil(self.info.train / workload.batch_size)
        metrics = {"epochs": float(self.last), "steps": float(steps * self.last), "state_bytes": 4096.0}
        metrics["parameters"] = 1000.0
        for name in TASKS[workload.task].final:
            metrics[name] = float(history[name][-1])
        monitored = history[workload.monitor] * sign_of(workload.monitor)
        measured = bool(np.isfinite(monitored).any())
        if measured:
            best = int(np.nanargmax(monitored))
            metrics["best_epoch"] = float(best)
            validated = (name for name in TASKS[workload.task].final if name.startswith("val_"))
            metrics |= {f"{name}_best": float(history[name][best]) for name in validated}
        if self.fate == "diverged":
            return metrics, {}
        ends = ["last", "best"] if measured else ["last"]
        for suffix in (*(f"_{end}" for end in ends), ""):
            metrics |= self._test(suffix)
        for metric in workload.metrics or ():
            metrics |= {f"val_{metric.name}{s}": self.score for s in ("", "_best")} if measured else {}
        classes, count = len(self.info.classes), min(self.info.test, examples)
        if not classes:
            return metrics, {end: self.rng.normal(size=count) for end in ends}
        kind = np.uint8 if classes <= 256 else np.uint16
        return metrics, {end: self.rng.integers(0, classes, count).astype(kind) for end in ends}

    def _test(self, suffix: str) -> dict[str, float]:
        workload, score = self.spec.workload, self.score
        loss = math.nan if self.fate == "unmeasured" else 1 - score
        found = {f"test_loss{suffix}": loss}
        for name in TASKS[workload.task].metrics:
            found[f"test_{name}{suffix}"] = score if sign_of(f"test_{name}") > 0 else 1.01 - score
        found |= {f"test_top{k}_accuracy{suffix}": min(1.0, score + k / 100) for k in workload.top_k or ()}
        found |= {f"test_{metric.name}{suffix}": score for metric in workload.metrics or ()}
        if workload.per_class and not suffix:
            for name in ("precision", "recall", "f1"):
                found |= {f"test_{name}[{c}]": score for c in self.info.classes}
            for k in workload.top_k or ():
                found |= {f"test_top{k}_recall[{c}]": min(1.0, score + k / 100) for c in self.info.classes}
        return found


def _info(workload: Workload) -> DatasetInfo:
    """Facts of a registered dataset; those of digits stand for a custom dataset."""
    known = isinstance(workload.dataset, str) and workload.dataset in registry.ENTRIES
    return registry.info(workload.dataset if known else "digits")


def _marks(spec: TrialSpec, epochs: int) -> Fingerprints:
    """Fingerprints that agree exactly where those of real trials do."""
    workload, seeds = spec.workload, spec.seeds
    data = (workload.dataset, workload.split)
    orders = _orders(data, workload.shuffle, seeds.order, workload.epochs)
    return Fingerprints(
        split=_hex("split", data, seeds.split, workload.train_eval),
        init=_hex("init", workload.model, seeds.init, spec.precision),
        order=_hex("order", data, workload.shuffle, seeds.order),
        order_by_epoch=orders[:epochs],
    )


@cache
def _orders(data: object, shuffle: bool, seed: int, epochs: int) -> tuple[int, ...]:
    return tuple(drawn("orders", data, shuffle, seed).integers(0, 2**52, epochs).tolist())


@cache
def _hex(*facts: object) -> str:
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _add_passes(store: Store) -> None:
    """Write a timing pass of every recorded configuration."""
    facts = {**environment.describe(), "framework": "made", "device": "cpu", "threads": 1}
    entries = {}
    for trial in store.trials():
        config = step_times.config_id(trial.spec)
        step = float(drawn(config).uniform(0.001, 0.01))
        entries[config] = step_times.PassTimes(
            config=config,
            machine=machines.machine_id(facts),
            facts=facts,
            measured=_BEGAN.isoformat(),
            steps=20,
            steps_per_epoch=50,
            step_seconds=(step, 0.9 * step, 1.2 * step),
            eval_seconds=(0.01,) * 3,
            warm_up_seconds=0.2,
            state_bytes=4096,
            host_bytes=500_000_000,
            host_start_bytes=400_000_000,
            device_bytes=None,
            busy=0.01,
        )
    store.set_meta(**{entry.key: entry.to_json() for entry in entries.values()})
