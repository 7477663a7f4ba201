"""What a trained model gets wrong: from the stored predictions, and weights by training it again."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from optbench.datasets import registry
from optbench.datasets.base import DataError, Dataset, Part, trial_data
from optbench.environment import Context
from optbench.models import numpy_layers
from optbench.models.layers import BuiltLayer
from optbench.records.gathered import declared_metrics
from optbench.records.store import Store, StoredTrial, StoreError
from optbench.records.trust import check_trust
from optbench.stats.classifiers import McNemarResult, mcnemar_predictions
from optbench.suite.validation import parse
from optbench.task import Metrics
from optbench.trial import TrialSpec

IntArray = NDArray[np.int64]
EpochName = Literal["last", "best"]


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Errors of a trial on its test part, of its model at the ``last`` or the ``best`` epoch.

    ``confusion`` counts examples [true class, predicted class]; ``precision``, ``recall`` and ``f1`` are by
    class, NaN for a class without examples. ``truth`` and ``predicted`` are by test example; ``images`` are
    the test inputs as stored.
    """

    trial: StoredTrial
    epoch: EpochName
    classes: tuple[str, ...]
    confusion: IntArray
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    truth: IntArray
    predicted: IntArray
    images: NDArray[Any]
    sentences: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ModelPair:
    """McNemar's test of the best and the second best trained model of one workload and seed."""

    best: str
    second: str
    accuracies: tuple[float, float]
    n: int
    test: McNemarResult
    sentence: str


def diagnose(
    store: Store,
    trial: StoredTrial,
    *,
    epoch: EpochName | None = None,
    data_dir: Path | None = None,
    trust: bool = False,
) -> Diagnosis:
    """Count the errors of a trial.

    Parameters
    ----------
    store : Store
        Holds the trial's predictions.
    trial : StoredTrial
    epoch : {"last", "best"}, optional
        Whose predictions; by default those of the final model, which the leaderboard counts.
    data_dir : Path, optional
        Folder in which the data are looked for first.
    trust : bool
        Whether a function that the store names may be run for its data.

    Returns
    -------
    Diagnosis

    Raises
    ------
    StoreError
        If the trial has no predictions: it diverged, or crashed.
    DataError
        If the dataset is missing, or its test part is not the one that was predicted.
    UntrustedError
        If its data are made by code that is not trusted.
    """
    epoch = epoch or final_epoch(trial)
    predicted = predictions_of(store, trial, epoch).astype(np.int64)
    dataset, part = test_part(trial, data_dir, trust=trust)
    truth = part.targets.ravel()  # of a text, place by place
    if len(truth) != len(predicted):
        raise DataError(
            f"dataset {dataset.info.name}: {len(truth)} test examples here, {len(predicted)} were predicted; "
            "the data have changed since the trial ran"
        )
    outputs = max(len(dataset.info.classes), int(predicted.max()) + 1)
    names = output_names(dataset.info.classes, outputs)
    confusion = confusion_counts(truth, predicted, outputs)
    precision, recall, f1 = _scores(confusion)
    return Diagnosis(
        trial=trial,
        epoch=epoch,
        classes=names,
        confusion=confusion,
        precision=precision,
        recall=recall,
        f1=f1,
        truth=truth,
        predicted=predicted,
        images=part.x[part.rows],
        sentences=(*_sentences(confusion, recall, names), *_top_k(trial, epoch)),
    )


def best_two(
    store: Store,
    trial: StoredTrial,
    *,
    metric: str | None = None,
    data_dir: Path | None = None,
    trust: bool = False,
) -> ModelPair | None:
    """Compare the two best trained models of a trial's block on the same test examples.

    Parameters
    ----------
    store : Store
    trial : StoredTrial
        Names the block: workload, seed, backend and device.
    metric : str, optional
        What makes a model the best; the primary one of its task if not given.
    data_dir : Path, optional
        Folder in which the data are looked for first.
    trust : bool
        As for :func:`diagnose`.

    Returns
    -------
    ModelPair or None
        None where the block has fewer than two models with predictions, or where no example is right or wrong
        by itself: numbers, and the tokens of a text. It is about these two trained models,
        not about their optimizers: the variance of training is not in it.
    """
    task = trial.task
    if task.targets != "label":
        return None
    metric = metric or task.primary
    labels = {key: optimizer for key, _, optimizer in store.plan()}
    block = [
        other
        for other in store.trials(store.block(trial.block_id))
        if metric in other.metrics and final_epoch(other) in store.predictions(other.trial_id)
    ]
    sign = Metrics(declared_metrics(store.meta()))[metric].sign
    block.sort(key=lambda other: (-sign * other.metrics[metric], other.trial_id))
    if len(block) < 2:
        return None
    truth = test_part(trial, data_dir, trust=trust)[1].targets.ravel()
    first, second = (
        store.predictions(other.trial_id)[final_epoch(other)].astype(np.int64) for other in block[:2]
    )
    test = mcnemar_predictions(truth, first, second)
    names = [labels.get(other.trial_id, other.trial_id) for other in block[:2]]
    return ModelPair(
        best=names[0],
        second=names[1],
        accuracies=(float((first == truth).mean()), float((second == truth).mean())),
        n=len(truth),
        test=test,
        sentence=(
            f"Of {len(truth)} test examples {names[0]} alone has {test.b} right, {names[1]} alone {test.c}: "
            f"McNemar's mid-p {test.p_midp:.3g} (exact {test.p_exact:.3g}, smallest attainable "
            f"{test.smallest_attainable_p:.3g}). This is about two trained models; their optimizers are "
            "compared over seeds in the report."
        ),
    )


def final_epoch(trial: StoredTrial) -> EpochName:
    """Epoch of the final model, which the leaderboard counts: the best where early stopping restores it."""
    return spec_of(trial).workload.kept


def model_name(trial: StoredTrial, epoch: EpochName) -> str:
    """Say which model of a trial this is: ``best epoch (12 of 37)``, and that the other is the final one."""
    number = trial.metrics.get("best_epoch" if epoch == "best" else "epochs")
    of = f" of {trial.metrics['epochs']:.0f}" if epoch == "best" and "epochs" in trial.metrics else ""
    where = f"{epoch} epoch" + (f" ({number:.0f}{of})" if number is not None else "")
    return where if epoch == final_epoch(trial) else f"{where}, not the final model"


def spec_of(trial: StoredTrial) -> TrialSpec:
    """Rebuild the spec of a stored trial."""
    return parse(TrialSpec, dict(trial.spec))


def predictions_of(store: Store, trial: StoredTrial, epoch: str) -> NDArray[Any]:
    """Predictions of the ``last`` or ``best`` epoch of a trial; raises ``StoreError`` where it has none."""
    found = store.predictions(trial.trial_id)
    if epoch not in found:
        have = f"it has those of {', '.join(found)}" if found else f"its status is {trial.status}"
        raise StoreError(
            f"trial {trial.trial_id}: no predictions of the {epoch} epoch ({have}); choose another trial"
        )
    return found[epoch]


def confusion_counts(truth: IntArray, predicted: IntArray, outputs: int) -> IntArray:
    """Count examples [true class, predicted class], both of ``outputs`` classes."""
    counts = np.zeros((outputs, outputs), dtype=np.int64)
    np.add.at(counts, (truth, predicted), 1)
    return counts


def output_names(classes: Sequence[str], outputs: int) -> tuple[str, ...]:
    """Names of a model's outputs: the classes, and what it has beyond them."""
    return (*classes, *(f"output {k}" for k in range(len(classes), outputs)))


def test_part(trial: StoredTrial, data_dir: Path | None, *, trust: bool) -> tuple[Dataset, Part]:
    """Read the dataset of a trial and cut its test part; see :func:`diagnose` for ``trust``."""
    check_trust(trial, folder=Path(), trust=trust, data_only=True)
    spec = spec_of(trial)
    dataset = registry.of_workload(spec.workload, data_dir=data_dir)
    data = trial_data(dataset, spec.workload, spec.seeds)
    return dataset, data.test


def _scores(confusion: IntArray) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    hits = confusion.diagonal().astype(np.float64)
    predicted, true = confusion.sum(axis=0), confusion.sum(axis=1)
    seen = predicted + true > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(predicted > 0, hits / predicted, np.where(seen, 0.0, np.nan))
        recall = np.where(true > 0, hits / true, np.where(seen, 0.0, np.nan))
        f1 = np.where(seen, 2 * hits / (predicted + true), np.nan)
    return precision, recall, f1


def _sentences(confusion: IntArray, recall: NDArray[np.float64], classes: tuple[str, ...]) -> tuple[str, ...]:
    n, right = int(confusion.sum()), int(confusion.trace())
    sentences = [f"{right} of {n} test examples are right ({right / n:.2%})."]
    true = confusion.sum(axis=1)
    ranked = np.where(true > 0, recall, math.inf)
    lowest = np.flatnonzero(ranked == ranked.min())
    sentences.append(
        "The lowest recall is that of "
        + _listed([f"{classes[k]} ({confusion[k, k]} of {true[k]})" for k in lowest])
        + f": {ranked.min():.1%}."
    )
    wrong = confusion - np.diag(confusion.diagonal())
    if wrong.any():
        pairs = [f"{classes[i]} taken for {classes[j]}" for i, j in np.argwhere(wrong == wrong.max())]
        times = "once" if wrong.max() == 1 else f"{wrong.max()} times"
        each = " each" if len(pairs) > 1 else ""
        sentences.append(f"The most common error{'s' if each else ''}: {_listed(pairs)}, {times}{each}.")
    return tuple(sentences)


def _listed(names: Sequence[str], most: int = 4) -> str:
    """Join names that tie; how many more there are, where they are many."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def top_accuracies(trial: StoredTrial, epoch: EpochName) -> dict[int, float]:
    """Share of test examples whose true class is among the k likeliest, by k, as far as it was recorded."""
    found = {
        int(m[1] or 1): share
        for name, share in trial.metrics.items()
        if (m := re.fullmatch(rf"test_(?:top(\d+)_)?accuracy_{epoch}", name))
    }
    return dict(sorted(found.items()))


def _top_k(trial: StoredTrial, epoch: EpochName) -> list[str]:
    """Sentences about top-k accuracies, where the workload records them."""
    found = top_accuracies(trial, epoch)
    return [
        f"The true class is among the first {k} for {share:.2%} of them."
        for k, share in found.items()
        if k > 1
    ]


@dataclass(frozen=True, kw_only=True)
class Retrained:
    """Weights by parameter name, as initialised and after an epoch.

    ``example`` is the first test input, scaled as the model sees it.
    """

    before: dict[str, NDArray[Any]]
    after: dict[str, NDArray[Any]]
    example: NDArray[Any]
    built: tuple[BuiltLayer, ...]

    def convolutions(self) -> Iterator[tuple[str, NDArray[Any], NDArray[np.float64]]]:
        """Give every convolution's name, its kernel and its answer to the example, first to last."""
        kernels = {
            place.name: parameter.name
            for place in self.built
            for parameter in place.parameters
            if len(parameter.shape) == 4
        }
        for place, found in numpy_layers.outputs(self.built, self.after, self.example):
            if place.name in kernels:
                yield place.name, self.after[kernels.pop(place.name)], found
            if not kernels:
                return


def retrain(
    trial: StoredTrial, context: Context, *, epoch: EpochName | None = None, trust: bool = False
) -> Retrained:
    """Train a recorded trial again on its backend and keep the weights, which a store does not.

    Parameters
    ----------
    trial : StoredTrial
    context : Context
        Threads and data folder.
    epoch : {"last", "best"}, optional
        Whose weights; by default those of the final model.
    trust : bool
        Whether code that the store names may be run.

    Returns
    -------
    Retrained

    Raises
    ------
    BackendMissingError
        If the framework is not installed; the message says what brings it.
    UntrustedError
        If the trial has code of its own that is not trusted, or has changed.
    """
    check_trust(trial, folder=Path(), trust=trust)
    from optbench import backends
    from optbench.execution import protocol

    spec = spec_of(trial)
    engine = backends.engine(spec.backend, context)
    engine.resolve_device(spec.device)
    dataset = registry.of_workload(spec.workload, data_dir=context.data_dir)
    recorder = _WeightRecorder(engine)
    protocol.run_trial(spec, recorder, dataset, environment={}, on_epoch=recorder.note)
    data = recorder.data
    example = data.test.x[data.test.rows[0]] if data.test.tokens is not None else dataset.x_test[0]
    shift = 0.0 if data.shift is None else data.shift
    # The protocol leaves the session at the best epoch, whose test part it measures last.
    after = recorder.weights() if (epoch or final_epoch(trial)) == "best" else recorder.after
    return Retrained(
        before=recorder.before,
        after=after,
        example=np.asarray((example - shift) * data.scale),
        built=recorder.built,
    )


class _WeightRecorder:
    """An engine that records the weights of its session at the start and after each epoch."""

    def __init__(self, engine: Any) -> None:
        self._engine: Any = engine
        self._session: Any = None
        self.before: dict[str, NDArray[Any]] = {}
        self.after: dict[str, NDArray[Any]] = {}
        self.data: Any = None
        self.built: tuple[BuiltLayer, ...] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def open(self, spec: TrialSpec, built: Any, data: Any, weights: Mapping[str, NDArray[Any]]) -> Any:
        self.before = {name: np.array(value) for name, value in weights.items()}
        self.data, self.built = data, built
        self._session = self._engine.open(spec, built, data, weights)
        return self._session

    def note(self, epoch: int, row: Mapping[str, float]) -> None:
        self.after = self.weights()

    def weights(self) -> dict[str, NDArray[Any]]:
        return {name: np.array(value) for name, value in self._session.weights().items()}
