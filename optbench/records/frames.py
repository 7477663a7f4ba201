"""Records as tidy pandas tables, and the proof that their pairs match."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from optbench.datasets import registry
from optbench.records import step_times
from optbench.records.step_times import PassTimes
from optbench.records.store import PlannedRow, Store, blaming, unpack_history
from optbench.suite.spec import metrics_of_view
from optbench.suite.validation import shown
from optbench.task import CustomMetric, Metrics, sign_of
from optbench.trial import STREAMS, content_hash
from optbench.tuning import journal as tuning_journal
from optbench.tuning.journal import Journal

#: Fingerprint of an imported trial: whoever imported it says that it matches, and nothing proves it.
DECLARED = "declared"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A trial that shares a block with others but not what they were trained on."""

    block_id: str
    trial_id: str
    optimizer: str
    reason: str


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


def load_results(*paths: str | Path) -> Results:
    """Read stores into tidy tables.

    Parameters
    ----------
    *paths : str or Path
        Store files or the folders that hold them.

    Returns
    -------
    Results
        See there for columns and units. A trial that several stores hold is read once; a crash gives way to
        a record that is none.

    Raises
    ------
    StoreError
        If one is missing, damaged or of a newer format.
    """
    found: dict[str, tuple[dict[str, Any], str, bytes]] = {}
    chains = _Chains()
    metas: list[dict[str, str]] = []
    environments: list[dict[str, Any]] = []
    numbers: dict[str, int] = {}
    planned: set[str] = set()
    in_plans: set[str] = set()
    recorded: set[str] = set()
    passes: dict[str, PassTimes] = {}
    roles: dict[str, dict[str, Any]] = {}
    journals: list[Journal] = []
    declared: list[CustomMetric] = []
    for position, path in enumerate(paths):
        with Store(path) as store:
            meta = store.meta()
            metas.append(meta)
            declared += declared_metrics(meta)
            mine = {entry.key: entry for entry in step_times.read(meta)}
            passes |= {
                key: e for key, e in mine.items() if key not in passes or e.measured > passes[key].measured
            }
            configs: dict[tuple[str, ...], str] | None = {} if mine else None
            if (found_journal := tuning_journal.read(meta)) is not None:
                journals.append(found_journal)
                roles |= _roles(found_journal)
            rows_of_plan = {key for key, _, _ in store.plan()}
            planned.update(rows_of_plan - roles.keys())
            in_plans |= rows_of_plan
            recorded |= store.statuses().keys()
            for trial in store.planned_rows():
                known = found.get(trial.trial_id)
                if known is not None and (known[0]["status"] != "crashed" or trial.status == "crashed"):
                    continue
                number = numbers.setdefault(trial.environment_id, len(numbers))
                if number == len(environments):
                    environments.append(dict(trial.environment))
                row = _trial_row(trial, suite=meta.get("suite", ""), store=position, environment=number)
                if len(paths) > 1:
                    row |= _contents(trial.spec)
                if trial.trial_id in roles:
                    row["resumed"] = trial.environment.get("checkpoint") == "resumed"
                if configs is not None:
                    row["config"] = _config(trial, configs)
                found[trial.trial_id] = (row, trial.history_columns, trial.history)
                chains.add(trial.trial_id, trial.order_by_epoch)
    rows = [row for row, _, _ in found.values()]
    frame = pd.DataFrame(rows)
    with blaming(paths):
        blocks, refusals = prove_blocks(rows, chains)
    frame["block"] = blocks
    _refuse_doubles(frame[[key not in roles for key in found]], paths)
    histories = [(columns, packed) for _, columns, packed in found.values()]
    parts: dict[str, pd.DataFrame] = {}
    if roles:
        role = pd.Series(
            [roles.get(key, {}).get("role", "") for key in found], index=frame.index, dtype=object
        )
        parts["untuned"] = frame[role == "untuned"].reset_index(drop=True)
        parts["tuning"] = _tuning_frame(frame[role == "tuning"], roles)
        mine = (role == "").to_numpy()
        histories = [history for history, keep in zip(histories, mine, strict=True) if keep]
        frame = frame[mine].reset_index(drop=True)
    with blaming(paths):
        epochs = _epoch_frame(frame, histories)
    return Results(
        trials=frame,
        epochs=epochs,
        refusals=tuple(refusals),
        planned=len(planned),
        meta=tuple(metas),
        environments=tuple(environments),
        passes=tuple(passes.values()),
        journals=tuple(journals),
        metrics=Metrics.of(declared),
        unplanned=len(recorded - in_plans),
        **parts,
    )


def declared_metrics(meta: Mapping[str, str]) -> tuple[CustomMetric, ...]:
    """Metrics that a store's suite declared; none where its view is damaged, which who needs it refuses."""
    try:
        return metrics_of_view(json.loads(meta.get("view", '{"workloads": []}'))).custom
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()


def _refuse_doubles(trials: pd.DataFrame, paths: Sequence[str | Path]) -> None:
    """Refuse a store in which one optimizer has two trials in a block: no plan gives it two."""
    if trials.empty:
        return
    double = trials[trials.duplicated(["store", "workload", "optimizer", "block"], keep=False)]
    if len(double):
        _, pair = next(iter(double.groupby(["store", "workload", "optimizer", "block"], sort=False)))
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


class _Chains(Mapping[str, tuple[int, ...]]):
    """Order digests by epoch, by trial id; text that repeats (a block's) is parsed once, when asked for."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._parsed: dict[str, tuple[int, ...]] = {}

    def add(self, trial_id: str, text: str) -> None:
        self._texts[trial_id] = text

    def __getitem__(self, trial_id: str) -> tuple[int, ...]:
        text = self._texts[trial_id]
        if text not in self._parsed:
            self._parsed[text] = tuple(json.loads(text))
        return self._parsed[text]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


def prove_blocks(
    rows: Sequence[dict[str, Any]], chains: Mapping[str, tuple[int, ...]]
) -> tuple[list[str], list[Refusal]]:
    """Give every trial the key under which it may be paired.

    Two trials of a block get the same key only if the fingerprints of split, initial weights and first
    epoch's order are equal and, over the epochs that both trained, every epoch's order digest is too. A
    trial without fingerprints (a crash) gets a key of its own.

    Parameters
    ----------
    rows : sequence of dict
        With ``trial_id``, ``block_id``, ``optimizer``, ``split``, ``init``, ``order``.
    chains : mapping
        Order digests by epoch, by trial id.

    Returns
    -------
    keys : list of str
        Parallel to the rows.
    refusals : list of Refusal
        One for each trial that disagrees with the largest agreeing group of its block.
    """
    by_block: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_block.setdefault(row["block_id"], []).append(row)
    keys: dict[str, str] = {}
    refusals: list[Refusal] = []
    for block, members in by_block.items():
        groups: list[list[dict[str, Any]]] = []
        for row in members:
            if row["split"] is None:
                keys[row["trial_id"]] = f"{block}/{row['trial_id']}"
                continue
            for group in groups:
                if _agrees(row, group, chains):
                    group.append(row)
                    break
            else:
                groups.append([row])
        groups.sort(key=len, reverse=True)
        for number, group in enumerate(groups):
            for row in group:
                keys[row["trial_id"]] = f"{block}/{number}" if number else block
                if number:
                    refusals.append(
                        Refusal(
                            block_id=block,
                            trial_id=row["trial_id"],
                            optimizer=row["optimizer"],
                            reason=_disagreement(row, groups[0][0], chains) or "disagrees with its block",
                        )
                    )
    return [keys[row["trial_id"]] for row in rows], refusals


def seed_label(seeds: dict[str, int]) -> str:
    """Write the seeds of a trial: ``3`` where all streams share it, else ``init=1 order=2``."""
    values = {seeds[stream] for stream in STREAMS}
    if len(values) == 1:
        return str(values.pop())
    return " ".join(f"{stream}={seeds[stream]}" for stream in STREAMS if seeds[stream])


def _agrees(
    row: dict[str, Any], group: Sequence[dict[str, Any]], chains: Mapping[str, tuple[int, ...]]
) -> bool:
    if all(
        row["split"] == other["split"]
        and row["init"] == other["init"]
        and row["order"] == other["order"]
        and chains[row["trial_id"]] is chains[other["trial_id"]]
        for other in group
    ):
        return True
    return all(_disagreement(row, other, chains) is None for other in group)


def _disagreement(a: dict[str, Any], b: dict[str, Any], chains: Mapping[str, tuple[int, ...]]) -> str | None:
    for name, words in (("split", "data or split"), ("init", "initial weights"), ("order", "batch order")):
        if a[name] != b[name]:
            return f"the fingerprints of the {words} differ"
    pairs = zip(chains[a["trial_id"]], chains[b["trial_id"]], strict=False)
    for epoch, (left, right) in enumerate(pairs, start=1):
        if left != right:
            return f"the batch orders differ in epoch {epoch}"
    return None


def _trial_row(trial: PlannedRow, *, suite: str, store: int, environment: int) -> dict[str, Any]:
    spec = trial.spec
    optimizer = spec["optimizer"]
    dataset = spec["workload"]["dataset"]
    return {
        "trial_id": trial.trial_id,
        "block_id": trial.block_id,
        "suite": suite,
        "store": store,
        "workload": trial.workload,
        "dataset": dataset if isinstance(dataset, str) else dataset["name"],
        "model": spec["workload"]["model"]["name"],
        "optimizer": trial.optimizer,
        "family": optimizer["optimizer"],
        "lr": optimizer.get("lr", math.nan),
        "seed": seed_label(spec["seeds"]),
        **{f"seed_{name}": spec["seeds"][name] for name in STREAMS},
        "backend": spec["backend"],
        "device": spec["device"],
        "precision": spec["precision"],
        "status": trial.status,
        "attempts": trial.attempts,
        "started": trial.started,
        "environment": environment,
        "timed": _timed(trial),
        "steps_per_epoch": _steps_per_epoch(spec["workload"], trial.metrics),
        **trial.fingerprints,
        **trial.metrics,
        **{f"{name}_seconds": seconds for name, seconds in trial.timings.items()},
    }


def _contents(spec: Mapping[str, Any]) -> dict[str, str]:
    """What tells equal labels of several stores apart."""
    workload = dict(spec["workload"])
    workload["model"] = {**workload["model"], "name": ""}
    if isinstance(workload["dataset"], dict):
        workload["dataset"] = workload["dataset"]["digest"]
    return {"workload_id": content_hash(workload), "config_id": content_hash(spec["optimizer"])}


def _timed(trial: PlannedRow) -> bool:
    """Whether a trial had the machine to itself from its first step to its last."""
    side_by_side = trial.environment.get("concurrent") or 0
    alone = not (side_by_side is True or side_by_side > 1)
    return alone and trial.environment.get("checkpoint") != "resumed" and "step" in trial.timings


def _config(trial: PlannedRow, known: dict[tuple[str, ...], str]) -> str:
    """Key of a trial's timing passes; within a store its labels tell configurations apart."""
    spec = trial.spec
    labels = (trial.workload, trial.optimizer, *(spec[name] for name in ("backend", "device", "precision")))
    if labels not in known:
        known[labels] = step_times.config_id(spec)
    return known[labels]


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
    return 1.0 if batch == "full" else float(-(-train // batch))


def _epoch_frame(trials: pd.DataFrame, histories: Sequence[tuple[str, bytes]]) -> pd.DataFrame:
    """One row a (trial, epoch); labels are categories, so that millions of rows stay small."""
    parts: dict[str, list[NDArray[np.float64]]] = {}
    owners: dict[str, list[int]] = {}
    for number, (columns, packed) in enumerate(histories):
        matrix = unpack_history(packed, columns.count(",") + 1 if columns != "[]" else 0)
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
