"""Reading stores into rows, one a trial, with what tells apart whom they belong to."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from optbench.datasets import registry
from optbench.records import step_times
from optbench.records.integrity import Integrity
from optbench.records.signatures import Signature, signature
from optbench.records.step_times import PassTimes
from optbench.records.store import DamageError, History, Store, StoredTrial
from optbench.suite.validation import shown
from optbench.task import CustomMetric
from optbench.trial import STREAMS, content_hash
from optbench.tuning import journal as tuning_journal
from optbench.tuning.journal import Journal


@dataclass
class Gathered:
    """What has been read of some stores; rows, histories and batch orders are by trial id."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    histories: dict[str, History] = field(default_factory=dict)
    orders: dict[str, tuple[int, ...]] = field(default_factory=dict)
    metas: list[dict[str, str]] = field(default_factory=list)
    environments: list[dict[str, Any]] = field(default_factory=list)
    environment_ids: dict[str, int] = field(default_factory=dict)
    passes: dict[str, PassTimes] = field(default_factory=dict)
    journals: list[Journal] = field(default_factory=list)
    metrics: list[CustomMetric] = field(default_factory=list)
    roles: dict[str, dict[str, Any]] = field(default_factory=dict)
    planned: set[str] = field(default_factory=set)
    in_plans: set[str] = field(default_factory=set)
    recorded: set[str] = field(default_factory=set)
    integrity: list[Integrity] = field(default_factory=list)
    signatures: list[Signature] = field(default_factory=list)
    unfit: dict[str, dict[str, Any]] = field(default_factory=dict)
    test_examples: dict[str, int] = field(default_factory=dict)

    def read(self, store: Store, position: int, *, several: bool, part: Sequence[str] | None = None) -> None:
        """Take in one store, or of it some workloads.

        ``several`` asks for what tells equal labels of different stores apart.
        """
        meta = store.meta()
        self.metas.append(meta)
        self.metrics += declared_metrics(meta)
        passes = step_times.read(meta)
        for entry in passes:
            if entry.key not in self.passes or entry.measured > self.passes[entry.key].measured:
                self.passes[entry.key] = entry
        if (journal := tuning_journal.read(meta)) is not None:
            if part is not None:
                journal = replace(journal, studies=tuple(s for s in journal.studies if s.workload in part))
            self.journals.append(journal)
            self.roles |= _roles(journal)
        in_plan = {key for key, _, _ in store.plan(part)}
        self.planned.update(in_plan - self.roles.keys())
        self.in_plans |= in_plan
        if part is None:
            self.recorded |= store.statuses().keys()
            found = store.verify()
        else:
            found = store.verify(sorted(in_plan), beside=True)
        self.integrity.append(found)
        if (signed := signature(store)) is not None:
            self.signatures.append(signed)
        if damaged := next((m for m in found.misfits if m.field is not None), None):
            raise DamageError(f"{damaged.field} of trial {shown(damaged.trial_id)}")
        self.test_examples |= store.test_examples(part)
        configs: dict[tuple[str, ...], str] = {}
        for workload, optimizer, trial in store.planned(part):
            if self._has_better(trial):
                continue
            if (misfit := found.unfit.get(trial.trial_id)) is not None:
                facts = {"trial_id": trial.trial_id, "block_id": trial.block_id, "optimizer": optimizer}
                self.unfit[trial.trial_id] = {**facts, **trial.fingerprints, "reason": misfit.what}
                self.orders[trial.trial_id] = trial.order_by_epoch
                continue
            self.unfit.pop(trial.trial_id, None)  # another store has it as it was written
            place = {
                "suite": meta.get("suite", ""),
                "store": position,
                "workload": workload,
                "optimizer": optimizer,
                "environment": self._environment(trial),
            }
            row = _trial_row(trial, place)
            if several:
                row |= _content_hashes(trial.spec)
            if trial.trial_id in self.roles:
                row["resumed"] = trial.environment.get("checkpoint") == "resumed"
            if passes:
                row["config"] = _config(trial, (workload, optimizer), configs)
            self.rows[trial.trial_id] = row
            self.histories[trial.trial_id] = trial.history
            self.orders[trial.trial_id] = trial.order_by_epoch

    def _has_better(self, trial: StoredTrial) -> bool:
        """Whether an earlier store's record is kept: only a crash is replaced, and only by an outcome."""
        known = self.rows.get(trial.trial_id)
        return known is not None and (known["status"] != "crashed" or trial.status == "crashed")

    def _environment(self, trial: StoredTrial) -> int:
        """Position of a trial's environment among the different ones."""
        number = self.environment_ids.setdefault(trial.environment_id, len(self.environment_ids))
        if number == len(self.environments):
            self.environments.append(dict(trial.environment))
        return number


def declared_metrics(meta: Mapping[str, str]) -> tuple[CustomMetric, ...]:
    """Metrics that a store's suite declared; none where its view is damaged, which is refused later."""
    try:
        seen = json.loads(meta.get("view", '{"workloads": []}'))
        return tuple(CustomMetric(**m) for entry in seen["workloads"] for m in entry.get("metrics", ()))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()


def _roles(journal: Journal) -> dict[str, dict[str, Any]]:
    """Trials that are no evaluation, by id, with what a table of tuning says of them."""
    roles: dict[str, dict[str, Any]] = {key: {"role": "untuned"} for key in journal.untuned}
    for key, number, k, rung in journal.trials():
        study = journal.studies[number]
        setting = study.settings[k]
        score = setting.trainings[rung].score
        roles[key] = {
            "role": "tuning",
            "stage": study.stage,
            "setting": k,
            "setting_epochs": setting.trainings[rung].epochs,
            "score": -math.inf if score is None else score,
            **{f"hyper_{name}": value for name, value in setting.values.items()},
        }
    return roles


def seed_label(seeds: dict[str, int]) -> str:
    """Write the seeds of a trial: ``3`` where all streams share it, else ``init=1 order=2``."""
    values = {seeds[stream] for stream in STREAMS}
    if len(values) == 1:
        return str(values.pop())
    return " ".join(f"{stream}={seeds[stream]}" for stream in STREAMS if seeds[stream])


def _trial_row(trial: StoredTrial, place: Mapping[str, Any]) -> dict[str, Any]:
    """A row of ``Results.trials``; ``place`` has what its store says of it: suite, labels, environment."""
    spec = trial.spec
    optimizer = spec["optimizer"]
    dataset = spec["workload"]["dataset"]
    return {
        "trial_id": trial.trial_id,
        "block_id": trial.block_id,
        "suite": place["suite"],
        "store": place["store"],
        "workload": place["workload"],
        "dataset": dataset if isinstance(dataset, str) else dataset["name"],
        "model": spec["workload"]["model"]["name"],
        "optimizer": place["optimizer"],
        "family": optimizer["optimizer"],
        "lr": _learning_rate(optimizer),
        "seed": seed_label(spec["seeds"]),
        **{f"seed_{name}": spec["seeds"][name] for name in STREAMS},
        "backend": spec["backend"],
        "device": spec["device"],
        "precision": spec["precision"],
        "status": trial.status,
        "attempts": trial.attempts,
        "started": trial.started,
        "environment": place["environment"],
        "timed": _timed(trial),
        "steps_per_epoch": _steps_per_epoch(spec["workload"], trial.metrics),
        **trial.fingerprints,
        **trial.metrics,
        **{f"{name}_seconds": seconds for name, seconds in trial.timings.items()},
    }


def _learning_rate(optimizer: Mapping[str, Any]) -> float:
    """The rate of a config; of a custom class the argument of that name."""
    own = optimizer.get("arguments") or ()
    given = dict(own) if not isinstance(own, Mapping) else own
    found = optimizer.get("lr", given.get("lr", given.get("learning_rate", math.nan)))
    number = isinstance(found, int | float) and not isinstance(found, bool)
    return float(found) if number else math.nan


def _content_hashes(spec: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of workload and optimizer: what tells equal labels of several stores apart."""
    workload = dict(spec["workload"])
    workload["model"] = {**workload["model"], "name": ""}
    if isinstance(workload["dataset"], dict):
        workload["dataset"] = workload["dataset"]["digest"]
    return {"workload_id": content_hash(workload), "config_id": content_hash(spec["optimizer"])}


def _timed(trial: StoredTrial) -> bool:
    """Whether a trial had the machine to itself from its first step to its last."""
    side_by_side = trial.environment.get("concurrent") or 0
    alone = not (side_by_side is True or side_by_side > 1)
    return alone and trial.environment.get("checkpoint") != "resumed" and "step" in trial.timings


def _config(trial: StoredTrial, labels: tuple[str, str], known: dict[tuple[str, ...], str]) -> str:
    """Key of a trial's timing passes; within a store its labels tell configurations apart."""
    spec = trial.spec
    key = (*labels, *(spec[name] for name in ("backend", "device", "precision")))
    if key not in known:
        known[key] = step_times.config_id(spec)
    return known[key]


def _steps_per_epoch(workload: Mapping[str, Any], metrics: Mapping[str, float]) -> float:
    """Steps of one epoch: as counted, or where the registry knows the dataset's size; NaN elsewhere."""
    if metrics.get("epochs") and "steps" in metrics:
        return metrics["steps"] / metrics["epochs"]
    dataset, split, batch = workload["dataset"], workload["split"], workload["batch_size"]
    unknown = not isinstance(dataset, str) or dataset not in registry.ENTRIES
    if unknown or workload.get("smoke") or split.get("how") == "published":
        return math.nan
    train = registry.info(dataset).train
    if split["source"] == "train":
        share = split["validation"]
        train -= round(share * train) if share < 1 else int(share)
    if every := workload.get("evaluate_every"):
        return float(every)
    train //= workload.get("context", 1)
    return 1.0 if batch == "full" else float(-(-train // batch))
