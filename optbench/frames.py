"""Records as tidy pandas tables, and the proof that their pairs match."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from optbench.store import Store, StoredTrial
from optbench.trial import STREAMS


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
        One row a trial of the plan that has been run: ``trial_id``, ``block_id``, ``workload``, ``dataset``,
        ``model``, ``optimizer`` (the suite's label), ``seed`` (label), ``backend``, ``device``,
        ``precision``, ``status``, ``attempts``, fingerprints ``split``, ``init``, ``order``, every final
        metric under its name (accuracies in [0, 1]), ``setup_seconds``, ``warm_up_seconds``,
        ``step_seconds``, ``eval_seconds``, ``total_seconds``, and ``block``: the key of proved pairs (see
        :func:`prove_blocks`).
    epochs : DataFrame
        One row a (trial, epoch), epoch 0 before the first step: ``trial_id``, ``workload``, ``optimizer``,
        ``seed``, ``epoch``, the history's columns, and ``seconds``, the training time so far.
    refusals : tuple of Refusal
        Trials that match no other of their block.
    planned : int
        Trials in the suites' plans.
    meta : tuple of dict
        Facts of each store.
    environments : tuple of dict
        The different machines and versions.
    """

    trials: pd.DataFrame
    epochs: pd.DataFrame
    refusals: tuple[Refusal, ...]
    planned: int
    meta: tuple[dict[str, str], ...]
    environments: tuple[dict[str, Any], ...]


def load_results(*paths: str | Path) -> Results:
    """Read stores into tidy tables.

    Parameters
    ----------
    *paths : str or Path
        Store files or the folders that hold them.

    Returns
    -------
    Results
        See there for columns and units.

    Raises
    ------
    StoreError
        If one is missing, damaged or of a newer format.
    """
    rows: list[dict[str, Any]] = []
    epochs: list[pd.DataFrame] = []
    chains: dict[str, tuple[int, ...]] = {}
    metas: list[dict[str, str]] = []
    environments: dict[str, dict[str, Any]] = {}
    planned = 0
    for path in paths:
        with Store(path) as store:
            plan = {key: (workload, optimizer) for key, workload, optimizer in store.plan()}
            planned += len(plan)
            metas.append(store.meta())
            position = {key: number for number, key in enumerate(plan)}
            found = [trial for trial in store.trials() if trial.trial_id in plan]
            for trial in sorted(found, key=lambda t: position[t.trial_id]):
                labels = plan[trial.trial_id]
                row = _trial_row(trial, *labels)
                rows.append(row)
                environments.setdefault(str(sorted(trial.environment.items())), dict(trial.environment))
                chains[trial.trial_id] = trial.order_by_epoch
                if trial.history:
                    epochs.append(_epoch_rows(trial, row))
    frame = pd.DataFrame(rows)
    blocks, refusals = prove_blocks(rows, chains)
    frame["block"] = blocks
    return Results(
        trials=frame,
        epochs=pd.concat(epochs, ignore_index=True) if epochs else pd.DataFrame(),
        refusals=tuple(refusals),
        planned=planned,
        meta=tuple(metas),
        environments=tuple(environments.values()),
    )


def prove_blocks(
    rows: Sequence[dict[str, Any]], chains: dict[str, tuple[int, ...]]
) -> tuple[list[str], list[Refusal]]:
    """Give every trial the key under which it may be paired.

    Two trials of a block get the same key only if the fingerprints of split, initial weights and first
    epoch's order are equal and, over the epochs that both trained, every epoch's order digest is too. A
    trial without fingerprints (a crash) gets a key of its own.

    Parameters
    ----------
    rows : sequence of dict
        With ``trial_id``, ``block_id``, ``optimizer``, ``split``, ``init``, ``order``.
    chains : dict
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
                if all(_disagreement(row, other, chains) is None for other in group):
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


def _disagreement(a: dict[str, Any], b: dict[str, Any], chains: dict[str, tuple[int, ...]]) -> str | None:
    for name, words in (("split", "data or split"), ("init", "initial weights"), ("order", "batch order")):
        if a[name] != b[name]:
            return f"the fingerprints of the {words} differ"
    pairs = zip(chains[a["trial_id"]], chains[b["trial_id"]], strict=False)
    for epoch, (left, right) in enumerate(pairs, start=1):
        if left != right:
            return f"the batch orders differ in epoch {epoch}"
    return None


def _trial_row(trial: StoredTrial, workload: str, optimizer: str) -> dict[str, Any]:
    spec = trial.spec
    return {
        "trial_id": trial.trial_id,
        "block_id": trial.block_id,
        "workload": workload,
        "dataset": spec["workload"]["dataset"],
        "model": spec["workload"]["model"]["name"],
        "optimizer": optimizer,
        "seed": seed_label(spec["seeds"]),
        "backend": spec["backend"],
        "device": spec["device"],
        "precision": spec["precision"],
        "status": trial.status,
        "attempts": trial.attempts,
        "started": trial.started,
        **trial.fingerprints,
        **trial.metrics,
        **{f"{name}_seconds": seconds for name, seconds in trial.timings.items()},
    }


def _epoch_rows(trial: StoredTrial, row: dict[str, Any]) -> pd.DataFrame:
    count = len(next(iter(trial.history.values())))
    labels = {name: [row[name]] * count for name in ("trial_id", "workload", "optimizer", "seed", "backend")}
    seconds = np.nancumsum(trial.history["step_seconds"])
    return pd.DataFrame({**labels, "epoch": np.arange(count), **trial.history, "seconds": seconds})


def epochs_to_target(epochs: pd.DataFrame, targets: Iterable[tuple[str, float]]) -> pd.DataFrame:
    """First epoch and training seconds at which each trial reached a target.

    Parameters
    ----------
    epochs : DataFrame
        ``Results.epochs``, or some of its rows.
    targets : iterable of (str, float)
        History column and value; accuracies count from below, losses from above.

    Returns
    -------
    DataFrame
        One row a trial: ``trial_id``, ``target_epoch``, ``target_seconds``; NaN where never reached. A trial
        counts when it meets all targets in the same epoch.
    """
    met = np.ones(len(epochs), dtype=bool)
    for column, value in targets:
        met &= (epochs[column] <= value) if column.endswith("loss") else (epochs[column] >= value)
    first = epochs[met].groupby("trial_id", sort=False)[["epoch", "seconds"]].first()
    first = first.reindex(epochs["trial_id"].unique())
    return first.rename(columns={"epoch": "target_epoch", "seconds": "target_seconds"}).reset_index()
