"""Records as tidy pandas tables."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from optbench.datasets import registry
from optbench.datasets.bounds import LIMIT_VARIABLE
from optbench.environment import limit, memory_gb
from optbench.records import step_times
from optbench.records.format import unpack_history
from optbench.records.integrity import NAMED, Integrity
from optbench.records.pairing import Refusal, prove_blocks, refuse_unfit
from optbench.records.signatures import Signature, signature
from optbench.records.step_times import PassTimes
from optbench.records.store import DamageError, History, Store, StoredTrial, StoreError, naming_damage
from optbench.suite.validation import shown
from optbench.task import CustomMetric, Metrics, sign_of
from optbench.trial import STREAMS, content_hash
from optbench.tuning import journal as tuning_journal
from optbench.tuning.journal import Journal

#: Memory of a machine that does not say how much it has.
_UNKNOWN_GB = 16.0


@dataclass(frozen=True, kw_only=True)
class Results:
    """The records of one or more stores.

    Attributes
    ----------
    trials : DataFrame
        One row a trial of the plan that has been run: ``trial_id``, ``block_id``, ``suite``, ``store``
        (position among those read), ``workload``, ``dataset``, ``model``, ``optimizer`` (the suite's label),
        ``family`` and ``lr`` of its config, ``seed`` (label), ``seed_<stream>``, ``backend``, ``device``,
        ``precision``, ``status``, ``attempts``, ``started``, ``environment`` (position in
        ``environments``), ``timed`` (False for a trial that ran side by side with others, was resumed from a
        checkpoint or has no times: it carries no wall-time claim), ``steps_per_epoch`` (NaN where neither the
        trial nor the dataset's size tells), fingerprints ``split``, ``init``, ``order``, every final metric
        under its name (accuracies in [0, 1]), ``setup_seconds``, ``warm_up_seconds``, ``step_seconds``,
        ``eval_seconds``, ``total_seconds``, and ``block``: the key of proved pairs (see
        :func:`prove_blocks`). Of several stores also ``workload_id`` and ``config_id``, hashes of what the
        labels stand for.
    epochs : DataFrame
        One row a (trial, epoch), epoch 0 before the first step: ``trial_id``, ``workload``, ``optimizer``,
        ``seed``, ``backend``, ``device``, ``precision`` (categories), ``epoch``, the history's columns, and
        ``seconds``, the training time so far.
    refusals : tuple of Refusal
        Trials that match no other of their block.
    planned : int
        Trials in the suites' plans.
    meta : tuple of dict
        Facts of each store.
    environments : tuple of dict
        The different machines and versions.
    passes : tuple of PassTimes
        Timing passes. Where there are some, ``trials`` has the key of its own: ``config``.
    tuning : DataFrame
        Trials that tuning spent, which are no evaluation and never in ``trials``: its columns, and
        ``stage`` ("network" or "optimizer"), ``setting`` (number within its study), ``setting_epochs`` (how
        far this rung trained it), ``score`` (of the setting; larger is better) and ``hyper_<name>``.
    untuned : DataFrame
        Evaluation of the declared numbers where the tuned ones differ; columns of ``trials``.
    journals : tuple of Journal
        What each store that was tuned keeps of it.
    metrics : Metrics
        What the names of its columns mean: the known metrics, and those that the stores' suites declared.
    unplanned : int
        Records that no store's plan has: of an earlier state of the suite file, say. They are in no table.
    stores : tuple of Path
        Where they were read, by the numbers of the column ``store``; none for tables of other tools.
    integrity : tuple of Integrity
        Of each store, whether it holds what was written. Records that do not are refused, and in no table.
    signatures : tuple of Signature
        Of the stores that carry one.
    test_examples : mapping of str to int
        Size of the test part of each workload whose predictions are stored, by the id of one of its trials.
    """

    trials: pd.DataFrame
    epochs: pd.DataFrame
    refusals: tuple[Refusal, ...]
    planned: int
    meta: tuple[dict[str, str], ...]
    environments: tuple[dict[str, Any], ...]
    passes: tuple[PassTimes, ...] = ()
    tuning: pd.DataFrame = field(default_factory=pd.DataFrame)
    untuned: pd.DataFrame = field(default_factory=pd.DataFrame)
    journals: tuple[Journal, ...] = ()
    metrics: Metrics = field(default_factory=Metrics)
    unplanned: int = 0
    stores: tuple[Path, ...] = ()
    integrity: tuple[Integrity, ...] = ()
    signatures: tuple[Signature, ...] = ()
    test_examples: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Say what is in it; the frames are fields."""
        counts = [f"{self.trials[n].nunique()} {n}s" for n in ("optimizer", "workload") if len(self.trials)]
        where = ", ".join(map(str, self.stores)) or "no store"
        return f"<Results of {where}: {', '.join([f'{len(self.trials)} of {self.planned} trials', *counts])}>"

    def _repr_html_(self) -> str:
        """Show the answer and the leaderboards in a notebook."""
        from optbench.report.notebook import results_html  # here, as only a notebook needs the report

        return results_html(self)

    def examples_of(self, trials: pd.DataFrame) -> int | None:
        """Size of the test part that some trials of one workload were scored on; None if it is not known."""
        known = {self.test_examples[key] for key in trials["trial_id"] if key in self.test_examples}
        return known.pop() if len(known) == 1 else None


def load_results(*paths: str | Path) -> Results:
    """Read stores into tidy tables.

    Parameters
    ----------
    *paths : str or Path
        Store files or the folders that hold them.

    Returns
    -------
    Results
        See there for columns and units. A trial that several stores hold is read once; its crash in
        one is replaced by its outcome in another.

    Raises
    ------
    StoreError
        If one is missing, damaged or of a newer format, or its plan or facts are not those that were written.
    """
    gathered = _Gathered()
    for position, path in enumerate(paths):
        with Store(path) as store:
            gathered.read(store, position, several=len(paths) > 1)
    rows = list(gathered.rows.values())
    frame = pd.DataFrame(rows)
    with naming_damage(paths):
        frame["block"], refusals = prove_blocks(rows, gathered.orders)
        refusals += refuse_unfit(list(gathered.unfit.values()), rows, gathered.orders)
    roles = gathered.roles
    role = np.array([roles[key]["role"] if key in roles else "" for key in gathered.rows], dtype=object)
    evaluated = role == ""
    _refuse_duplicates(frame[evaluated], paths)
    for path, found in zip(paths, gathered.integrity, strict=True):
        if found.parts:
            with Store(path) as store:
                raise store.damaged("; ".join(misfit.what for misfit in found.parts[:NAMED]))
    histories = [h for h, keep in zip(gathered.histories.values(), evaluated, strict=True) if keep]
    trials = frame[evaluated].reset_index(drop=True) if roles else frame
    with naming_damage(paths):
        epochs = _epoch_frame(trials, histories, ", ".join(map(str, paths)))
    searched = {}
    if roles:
        searched["untuned"] = frame[role == "untuned"].reset_index(drop=True)
        searched["tuning"] = _tuning_frame(frame[role == "tuning"], roles)
    return Results(
        trials=trials,
        epochs=epochs,
        refusals=tuple(refusals),
        planned=len(gathered.planned),
        meta=tuple(gathered.metas),
        environments=tuple(gathered.environments),
        passes=tuple(gathered.passes.values()),
        journals=tuple(gathered.journals),
        metrics=Metrics.of(gathered.metrics),
        unplanned=len(gathered.recorded - gathered.in_plans),
        stores=tuple(Path(path) for path in paths),
        integrity=tuple(gathered.integrity),
        signatures=tuple(gathered.signatures),
        test_examples=gathered.test_examples,
        **searched,
    )


def declared_metrics(meta: Mapping[str, str]) -> tuple[CustomMetric, ...]:
    """Metrics that a store's suite declared; none where its view is damaged, which is refused later."""
    try:
        seen = json.loads(meta.get("view", '{"workloads": []}'))
        return tuple(CustomMetric(**m) for entry in seen["workloads"] for m in entry.get("metrics", ()))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()


@dataclass
class _Gathered:
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

    def read(self, store: Store, position: int, *, several: bool) -> None:
        """Take in one store; ``several`` asks for what tells equal labels of different stores apart."""
        meta = store.meta()
        self.metas.append(meta)
        self.metrics += declared_metrics(meta)
        passes = step_times.read(meta)
        for entry in passes:
            if entry.key not in self.passes or entry.measured > self.passes[entry.key].measured:
                self.passes[entry.key] = entry
        if (journal := tuning_journal.read(meta)) is not None:
            self.journals.append(journal)
            self.roles |= _roles(journal)
        in_plan = {key for key, _, _ in store.plan()}
        self.planned.update(in_plan - self.roles.keys())
        self.in_plans |= in_plan
        self.recorded |= store.statuses().keys()
        self.integrity.append(found := store.verify())
        if (signed := signature(store)) is not None:
            self.signatures.append(signed)
        if damaged := next((m for m in found.misfits if m.field is not None), None):
            raise DamageError(f"{damaged.field} of trial {shown(damaged.trial_id)}")
        self.test_examples |= store.test_examples()
        configs: dict[tuple[str, ...], str] = {}
        for workload, optimizer, trial in store.planned():
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


def _refuse_duplicates(trials: pd.DataFrame, paths: Sequence[str | Path]) -> None:
    """Refuse a store in which one optimizer has two trials in a block: no plan gives it two."""
    if trials.empty:
        return
    duplicates = trials[trials.duplicated(["store", "workload", "optimizer", "block"], keep=False)]
    if len(duplicates):
        _, pair = next(iter(duplicates.groupby(["store", "workload", "optimizer", "block"], sort=False)))
        one, two = pair["trial_id"].iloc[:2]
        with Store(paths[int(pair["store"].iloc[0])]) as store:
            raise store.damaged(
                f"trials {one} and {two} are both optimizer {shown(pair['optimizer'].iloc[0])} of one block"
            )


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


def _tuning_frame(trials: pd.DataFrame, roles: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    trials = trials.reset_index(drop=True)
    facts = pd.DataFrame([roles[key] for key in trials["trial_id"]] if len(trials) else [])
    return trials.join(facts.drop(columns="role", errors="ignore"))


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


def _epoch_frame(trials: pd.DataFrame, histories: Sequence[History], place: str) -> pd.DataFrame:
    """One row a (trial, epoch); labels are categories, so that millions of rows stay small.

    Raises
    ------
    StoreError
        If the histories of the stores at ``place`` unpack to more than is allowed.
    """
    parts: dict[str, list[NDArray[np.float64]]] = {}
    most, held = limit(LIMIT_VARIABLE, (memory_gb() or _UNKNOWN_GB) / 2) * 2**30, 0
    owners: dict[str, list[int]] = {}
    for number, history in enumerate(histories):
        columns = history.columns
        matrix = unpack_history(history.packed, columns.count(",") + 1 if columns != "[]" else 0)
        held += matrix.nbytes
        if held > most:
            raise StoreError(
                f"{place}: the histories unpack to more than {most / 2**30:.3g} GB, half of this machine's "
                f"memory or what {LIMIT_VARIABLE} allows; report on a machine with more, or on fewer seeds"
            )
        if matrix.size:
            parts.setdefault(columns, []).append(matrix)
            owners.setdefault(columns, []).append(number)
    frames = []
    for columns, matrices in parts.items():
        names = json.loads(columns)
        counts = [matrix.shape[1] for matrix in matrices]
        step = names.index("step_seconds")
        seconds = [np.cumsum(np.nan_to_num(matrix[step])) for matrix in matrices]
        owner = np.repeat(owners[columns], counts)
        starts = np.repeat(np.cumsum(counts) - counts, counts)
        labels = {
            name: _category(trials[name]).take(owner)
            for name in ("trial_id", "workload", "optimizer", "seed", "backend", "device", "precision")
        }
        numbers = np.concatenate(matrices, axis=1)
        matrices.clear()
        frames.append(
            pd.DataFrame(
                {
                    **labels,
                    "epoch": np.arange(len(owner)) - starts,
                    **dict(zip(names, numbers, strict=True)),
                    "seconds": np.concatenate(seconds),
                },
                copy=False,
            )
        )
    if not frames:
        return pd.DataFrame()
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)


def _category(labels: pd.Series) -> pd.Categorical:
    return pd.Categorical(labels, categories=labels.unique())


def epochs_to_target(epochs: pd.DataFrame, targets: Iterable[tuple[str, float]]) -> pd.DataFrame:
    """First epoch and training seconds at which each trial reached a target.

    Parameters
    ----------
    epochs : DataFrame
        ``Results.epochs``, or some of its rows.
    targets : iterable of (str, float)
        History column and value; what is better larger counts from below, the others from above.

    Returns
    -------
    DataFrame
        One row a trial: ``trial_id``, ``target_epoch``, ``target_seconds``; NaN where never reached. A trial
        counts when it meets all targets in the same epoch.
    """
    met = np.ones(len(epochs), dtype=bool)
    for column, value in targets:
        sign = sign_of(column)
        met &= sign * epochs[column] >= sign * value
    # Labels are compared as plain values: an index of categories has codes as wide as its own labels need,
    # and pandas does not look up those of one width in those of another.
    trials = pd.DataFrame({"trial_id": _labels(epochs["trial_id"].drop_duplicates())})
    first = epochs.loc[met, ["trial_id", "epoch", "seconds"]].drop_duplicates("trial_id")
    first = first.assign(trial_id=_labels(first["trial_id"])).astype({"epoch": float, "seconds": float})
    first = first.rename(columns={"epoch": "target_epoch", "seconds": "target_seconds"})
    return trials.merge(first, on="trial_id", how="left")


def _labels(column: pd.Series) -> NDArray[np.object_]:
    return np.asarray(column, dtype=object)
