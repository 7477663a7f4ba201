"""What the trained models get wrong, over all trials of a report: confusions, and the two best models.

Both need the true classes of the test part, and so the dataset; it is never downloaded for a report,
nor made by code that a store names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from optbench.datasets import registry
from optbench.datasets.base import DataError
from optbench.matching import fingerprint
from optbench.records.frames import Results
from optbench.records.store import Store, StoredTrial, naming_damage
from optbench.records.trust import UntrustedError
from optbench.report import diagnostics
from optbench.report.diagnostics import IntArray
from optbench.stats.classifiers import McNemarResult, mcnemar_predictions
from optbench.task import Metrics
from optbench.trial import TrialSpec, Workload


@dataclass(frozen=True, kw_only=True)
class Confusions:
    """Examples [true class, predicted class], added up over the final models of one optimizer's trials."""

    classes: tuple[str, ...]
    counts: IntArray
    trials: int

    def commonest(self, most: int = 3) -> list[tuple[str, str, int]]:
        """List the commonest errors: true class, predicted class, count; and all that tie with the last."""
        wrong = self.counts - np.diag(self.counts.diagonal())
        found = np.sort(wrong[wrong > 0])[::-1]
        if not len(found):
            return []
        least = found[min(most, len(found)) - 1]
        places = sorted(np.argwhere(wrong >= least).tolist(), key=lambda place: -wrong[tuple(place)])
        return [(self.classes[i], self.classes[j], int(wrong[i, j])) for i, j in places]


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """The final model of a trial: where it comes from, by what it was chosen, and its test accuracy."""

    trial_id: str
    workload: str
    optimizer: str
    seed: str
    score: float
    accuracy: float

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.workload}, {self.optimizer}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class ModelTest:
    """McNemar's test of the two best trained models on one test part, whatever networks they are.

    ``chosen_by`` is the metric that made them the best: one of the validation part, unless there is none.
    """

    dataset: str
    best: TrainedModel
    second: TrainedModel
    chosen_by: str
    n: int
    test: McNemarResult


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What was found: confusions by (workload, optimizer), a test a dataset, and what could not be done."""

    confusions: Mapping[tuple[str, str], Confusions]
    tests: tuple[ModelTest, ...]
    notes: tuple[str, ...]


NOTHING = Trained(confusions={}, tests=(), notes=())


def trained_models(results: Results) -> Trained:
    """Compare stored predictions with the true classes.

    Parameters
    ----------
    results : Results
        Trials and the stores that hold their predictions; tables of other tools have none.

    Returns
    -------
    Trained
        Confusions of the workloads that ask for scores by class, and a test of the two best models of each
        dataset that has at least two.
    """
    trials = results.trials
    if trials.empty or not results.stores or all("imported" in meta for meta in results.meta):
        return NOTHING
    with naming_damage(results.stores):
        return _read(results)


def _read(results: Results) -> Trained:
    trials = results.trials
    completed = trials[trials["status"] == "completed"]
    with ExitStack() as stack:
        stores = [stack.enter_context(Store(path)) for path in results.stores]
        finder = _Finder(stores, predicted=bool(results.test_examples), data_dir=results.data_dir)
        confusions = {}
        for (workload, optimizer), part in completed.groupby(["workload", "optimizer"], sort=False):
            if by_class(part) and (found := finder.confusions(part)) is not None:
                confusions[str(workload), str(optimizer)] = found
        tests = [finder.best_two(part) for _, part in completed.groupby("dataset", sort=False)]
    return Trained(
        confusions=confusions,
        tests=tuple(test for test in tests if test is not None),
        notes=tuple(dict.fromkeys(finder.notes)),
    )


def by_class(trials: pd.DataFrame) -> list[str]:
    """Columns of scores by class that these trials have values in."""
    return [name for name in trials if "[" in str(name) and trials[name].notna().any()]


@dataclass(frozen=True, kw_only=True)
class _TestPart:
    """Test part of a trial: true classes by example; ``key`` is the same for the same examples."""

    dataset: str
    classes: tuple[str, ...]
    truth: IntArray
    key: str


class _Finder:
    """Reads predictions and test parts, and notes what is not to be had."""

    def __init__(self, stores: Sequence[Store], *, predicted: bool, data_dir: Path | None) -> None:
        self._stores = stores
        self._data_dir = data_dir
        self._predicted = predicted
        self._parts: dict[str, _TestPart | str] = {}
        self.notes: list[str] = []

    def confusions(self, trials: pd.DataFrame) -> Confusions | None:
        """Add up the errors of one optimizer on one workload."""
        counts: IntArray | None = None
        number = 0
        for trial in self._trials(trials):
            found = self._of(trial)
            if found is None:
                continue
            part, predicted = found
            size = max(len(part.classes), int(predicted.max()) + 1, 0 if counts is None else len(counts))
            grown = diagnostics.confusion_counts(part.truth, predicted, size)
            if counts is not None:
                grown[: len(counts), : len(counts)] += counts
            counts, classes, number = grown, diagnostics.output_names(part.classes, size), number + 1
        return None if counts is None else Confusions(classes=classes, counts=counts, trials=number)

    def best_two(self, trials: pd.DataFrame) -> ModelTest | None:
        """Test the two best models of a dataset, each the best of its workload and optimizer."""
        if not self._predicted:
            models = trials.groupby(["workload", "optimizer"]).ngroups
            if models > 1 and next(iter(self._trials(trials.head(1)))).task.targets == "label":
                self._without()
            return None
        best: list[tuple[TrainedModel, str]] = []
        for workload, part in trials.groupby("workload", sort=False):
            first = next(iter(self._trials(part.head(1))))
            if first.task.targets != "label":
                continue
            chosen_by = _chosen_by(first)
            metric = Metrics()[chosen_by]
            for optimizer, own in part.groupby("optimizer", sort=False):
                scores = metric.sign * own[chosen_by].astype(float)
                if scores.notna().any():
                    row = own.loc[scores.idxmax()]
                    model = TrainedModel(
                        trial_id=str(row["trial_id"]),
                        workload=str(workload),
                        optimizer=str(optimizer),
                        seed=str(row["seed"]),
                        score=float(scores.max()),
                        accuracy=float(row["test_accuracy"]),
                    )
                    best.append((model, chosen_by))
        best.sort(key=lambda found: (-found[0].score, found[0].name))
        return self._test(str(trials["dataset"].iloc[0]), trials, best[:2]) if len(best) > 1 else None

    def _test(
        self, dataset: str, trials: pd.DataFrame, two: Sequence[tuple[TrainedModel, str]]
    ) -> ModelTest | None:
        (best, chosen_by), (second, other) = two
        if chosen_by != other:
            self.notes.append(
                f"{dataset}: the best two models are not compared, as their workloads choose by {chosen_by} "
                f"and by {other}."
            )
            return None
        found = [
            self._of(trial)
            for model in (best, second)
            for trial in self._trials(trials[trials["trial_id"] == model.trial_id])
        ]
        first, last = found
        if first is None or last is None:
            return None
        if first[0].key != last[0].key:
            self.notes.append(
                f"{dataset}: the two best models ({best.name}; {second.name}) have different test parts, so "
                "they are not compared."
            )
            return None
        return ModelTest(
            dataset=dataset,
            best=best,
            second=second,
            chosen_by=chosen_by,
            n=len(first[0].truth),
            test=mcnemar_predictions(first[0].truth, first[1], last[1]),
        )

    def _trials(self, trials: pd.DataFrame) -> Iterable[StoredTrial]:
        for store, part in trials.groupby("store", sort=False):
            yield from self._stores[int(store)].trials(list(part["trial_id"]))

    def _of(self, trial: StoredTrial) -> tuple[_TestPart, IntArray] | None:
        """Test part and final predictions of a trial; None, with a note, where either is missing."""
        if trial.task.targets != "label":
            return None
        spec = diagnostics.spec_of(trial)
        for store in self._stores:
            predictions: Mapping[str, NDArray[Any]] = store.predictions(trial.trial_id)
            if predictions:
                break
        predicted = predictions.get(spec.workload.kept)
        if predicted is None:
            self._without()
            return None
        part = self._part(spec, trial)
        if isinstance(part, str):
            self.notes.append(part)
            return None
        if len(part.truth) != len(predicted):
            self.notes.append(f"{part.dataset}: the data have changed since; errors are not counted.")
            return None
        return part, predicted.astype(np.int64)

    def _without(self) -> None:
        self.notes.append("Some trials have no stored predictions; their errors are not counted.")

    def _part(self, spec: TrialSpec, trial: StoredTrial) -> _TestPart | str:
        """Test part of a trial, or why there is none; one for all seeds where they share it."""
        workload = spec.workload
        drawn = (workload.split, spec.seeds.split) if workload.split.source == "test" else None
        key = repr((workload.dataset, workload.smoke, drawn))
        if key not in self._parts:
            self._parts[key] = self._read_part(workload, trial)
        return self._parts[key]

    def _read_part(self, workload: Workload, trial: StoredTrial) -> _TestPart | str:
        name = registry.label(workload.dataset)
        if not workload.smoke and not registry.is_present(workload.dataset, data_dir=self._data_dir):
            return (
                f"{name} is not here, so errors are not counted by class, nor the two best models compared."
            )
        try:
            dataset, part = diagnostics.test_part(trial, self._data_dir, trust=False)
        except (DataError, UntrustedError) as error:
            return f"{name} cannot be read, so errors are not counted ({error})."
        return _TestPart(
            dataset=name,
            classes=dataset.info.classes,
            truth=part.targets.ravel(),
            key=fingerprint(part.pool, part.rows),
        )


def _chosen_by(trial: StoredTrial) -> str:
    """Metric that picks the best model of a workload: the monitored one, of the final model's epoch."""
    workload = diagnostics.spec_of(trial).workload
    name = f"{workload.monitor}_best" if workload.kept == "best" else workload.monitor
    return name if np.isfinite(trial.metrics.get(name, np.nan)) else "test_accuracy"


def listed(errors: Sequence[tuple[str, str, int]]) -> str:
    """Write errors as ``V for W 12, I for L 9``: the predicted class stands last."""
    return ", ".join(f"{true} as {predicted} {count}" for true, predicted, count in errors)
