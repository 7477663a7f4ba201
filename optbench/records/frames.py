"""Records as tidy pandas tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from optbench.datasets.bounds import LIMIT_VARIABLE
from optbench.environment import data_folder, limit, memory_gb
from optbench.records.format import unpack_history
from optbench.records.gathered import Gathered
from optbench.records.integrity import NAMED, Integrity
from optbench.records.pairing import Refusal, prove_blocks, refuse_unfit
from optbench.records.signatures import Signature
from optbench.records.step_times import PassTimes
from optbench.records.store import History, Store, StoreError, naming_damage
from optbench.suite.validation import shown
from optbench.task import Metrics, sign_of
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
    left_out : tuple of str
        Workloads of the suites that were not read, as only others were asked for.
    data_dir : Path or None
        Where a report looks first for the true classes: ``OPTBENCH_DATA`` when they were read.
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
    left_out: tuple[str, ...] = ()
    data_dir: Path | None = None

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


def load_results(*paths: str | Path, workloads: Sequence[str] | None = None) -> Results:
    """Read stores into tidy tables.

    Parameters
    ----------
    *paths : str or Path
        Store files or the folders that hold them.
    workloads : sequence of str, optional
        Read only the trials of these, by their labels, and check only their digests; of all if not given.

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
    gathered = Gathered()
    for position, path in enumerate(paths):
        with Store(path) as store:
            gathered.read(store, position, several=len(paths) > 1, part=workloads)
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
        data_dir=data_folder(),
        **searched,
    )


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


def _tuning_frame(trials: pd.DataFrame, roles: Mapping[str, dict[str, Any]]) -> pd.DataFrame:
    trials = trials.reset_index(drop=True)
    facts = pd.DataFrame([roles[key] for key in trials["trial_id"]] if len(trials) else [])
    return trials.join(facts.drop(columns="role", errors="ignore"))


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
                f"memory or what {LIMIT_VARIABLE} allows; report on a machine with more, or on some workloads"
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
