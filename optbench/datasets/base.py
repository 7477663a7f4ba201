"""What a dataset is: its facts, its arrays, and how it is cut into parts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from optbench import matching
from optbench.datasets import language_modelling
from optbench.datasets.targets import TARGETS
from optbench.errors import UserError
from optbench.matching import Indices
from optbench.models.layers import BuiltLayer, build
from optbench.task import TargetName
from optbench.trial import Scaling, Seeds, Split, Workload

#: Draws the test part of data that were published without one.
TEST_SEED = 20170427


class DataError(UserError):
    """Data that is missing, altered or unusable; the message says how to get it (exit code 3)."""

    exit_code = 3


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Facts about a dataset that need none of its bytes.

    Attributes
    ----------
    name, title : str
        Registry name; display name.
    shape : tuple of int
        One example: (features,) or (height, width, channels); () for a text, whose windows a workload sets.
    classes : tuple of str
        Class names in label order, or a text's tokens by number; empty where the targets are numbers.
    train, test : int
        Examples in each published part; tokens of a text.
    validation : int
        So many of the last training examples are the publisher's own validation part; 0 if there is none.
    scaling : str
        How the stored numbers become inputs: ``pixels`` divides by 255, ``standardize`` subtracts mean and
        divides by standard deviation of the training part, ``none`` leaves them.
    licence, source, citation : str
        For the NOTICE and for papers.
    targets : str
        Kind of the targets, see :attr:`optbench.task.Task.targets`.
    unit : str
        Of targets that are numbers, for display.
    bytes_per_token : float
        Of a text, in UTF-8, on average.
    """

    name: str
    title: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    train: int
    test: int
    scaling: Scaling
    licence: str
    source: str
    citation: str
    validation: int = 0
    targets: TargetName = "label"
    unit: str = ""
    bytes_per_token: float = 1.0

    @property
    def outputs(self) -> int:
        """How many outputs a model of these data needs."""
        return TARGETS[self.targets].outputs(self)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset in memory: inputs [n, *shape] as stored (uint8 or float), targets [n] of its kind.

    Of a text, inputs and targets are both its tokens [n].
    ``notes`` tells what was found odd in the files and corrected.
    """

    info: DatasetInfo
    x_train: NDArray[Any]
    y_train: NDArray[Any]
    x_test: NDArray[Any]
    y_test: NDArray[Any]
    notes: tuple[str, ...] = field(default=())

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all arrays."""
        return matching.fingerprint(self.x_train, self.y_train, self.x_test, self.y_test)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Examples of one part: a pool of inputs and targets, and the rows of it that belong to the part.

    ``pool`` names the two arrays by their content, so that parts of one pool share what is made of them. Of a
    text, the pool is views of all windows of ``tokens``, and a row is where a window starts.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    rows: Indices
    pool: str
    tokens: NDArray[Any] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def targets(self) -> NDArray[Any]:
        """Targets of the part's examples, in the order of its rows."""
        return self.y[self.rows]


class Standard(NamedTuple):
    """What numbers to predict are standardised by: mean and standard deviation of the training part."""

    mean: float
    sd: float


@dataclass(frozen=True, kw_only=True)
class TrialData:
    """The data of one trial.

    ``x`` of every part is as stored; an input is ``(x - shift) * scale``, computed in the trial's precision.
    A target that is a number is trained on as ``(y - mean) / sd``. ``train_eval`` is the fixed subset that
    measures the training loss. ``examples`` is how many an epoch takes.
    """

    info: DatasetInfo
    train: Part
    train_eval: Part
    validation: Part
    test: Part
    shift: NDArray[np.float64] | None
    scale: NDArray[np.float64] | float
    fingerprint: str
    examples: int
    standard: Standard | None = None
    #: Rows between two evaluations, where a budget is in steps.
    round: int | None = None

    @property
    def rows_each(self) -> int:
        """Rows of a training between two evaluations."""
        return self.round or self.examples

    def rows_of(self, workload: Workload, seed: int, epoch: int) -> Indices:
        """Rows of the training between two evaluations: an epoch, or a number of steps."""
        if workload.steps is None or self.round is None:
            return self.epoch_rows(seed, epoch, shuffle=workload.shuffle)
        batch = self.examples if workload.batch_size == "full" else workload.batch_size
        first = (epoch - 1) * self.round
        left = workload.steps * batch - first
        count = min(self.round, left) if left > 0 else self.round  # a timing may go on beyond the end
        if self.train.tokens is not None and workload.shuffle:
            return self.train.rows[matching.window_order(seed, epoch, len(self.train), count)]
        n = self.examples
        passes = range(first // n, (first + count - 1) // n + 1)
        drawn = [self.epoch_rows(seed, number + 1, shuffle=workload.shuffle) for number in passes]
        start = first - passes[0] * n
        return np.concatenate(drawn)[start : start + count]

    def epoch_rows(self, seed: int, epoch: int, *, shuffle: bool) -> Indices:
        """Rows of the training pool in the order of an epoch: a permutation, or windows drawn at random.

        Unshuffled, a text is read from its start, window after window.
        """
        if self.train.tokens is None:
            return self.train.rows[matching.epoch_order(seed, epoch, len(self.train), shuffle=shuffle)]
        if not shuffle:
            return self.train.rows[:: self.train.x.shape[1]][: self.examples]
        return self.train.rows[matching.window_order(seed, epoch, len(self.train), self.examples)]


def network(workload: Workload, info: DatasetInfo) -> tuple[BuiltLayer, ...]:
    """Build the model of a workload for the shape and outputs of its data; raises ``ModelError``."""
    tokens = info.targets == "token"
    return build(workload.model, example_shape(workload, info), info.outputs, tokens=tokens)


def example_shape(workload: Workload, info: DatasetInfo) -> tuple[int, ...]:
    """Shape of one example: a window of the workload's context where the data are a text."""
    return (workload.context or 0,) if info.targets == "token" else info.shape


def trial_data(dataset: Dataset, workload: Workload, seeds: Seeds, **other: Any) -> TrialData:
    """Cut a dataset into the parts of a workload's trial, see :func:`cut`."""
    options = {
        "train_eval": workload.train_eval,
        "context": workload.context,
        "scaling": workload.scale,
        **other,
    }
    data = cut(dataset, workload.split, seeds, **options)
    if workload.steps is None or workload.evaluate_every is None:
        return data
    batch = data.examples if workload.batch_size == "full" else workload.batch_size
    return replace(data, round=workload.evaluate_every * batch)


def cut(
    dataset: Dataset,
    split: Split,
    seeds: Seeds,
    *,
    train_eval: int | Literal["all"],
    context: int | None = None,
    scaling: Scaling | None = None,
) -> TrialData:
    """Cut a dataset into the parts of a trial.

    Parameters
    ----------
    dataset : Dataset
        The data in memory.
    split : Split
        How many validation examples, which, and from which part.
    seeds : Seeds
        The split stream decides.
    train_eval : int or "all"
        Size of the training subset that measures the training loss each epoch.
    context : int, optional
        Tokens of a window, where the data are a text.
    scaling : str, optional
        How stored numbers become inputs; by default as the dataset says.

    Returns
    -------
    TrialData
        Views of the dataset's arrays with the rows of each part.

    Raises
    ------
    DataError
        If the split leaves a part empty.
    """
    generator = matching.stream(seeds.split, "split")
    if dataset.info.targets == "token":
        return _cut_text(dataset, split, generator, train_eval=train_eval, context=context or 1)
    source = dataset.y_train if split.source == "train" else dataset.y_test
    if split.how == "published":
        if not dataset.info.validation or split.source != "train":
            raise DataError(
                f"dataset {dataset.info.name}: split.how is published, but its publisher set no validation "
                f"part aside in the {split.source} part; use random, stratified or tail"
            )
        count = dataset.info.validation
    else:
        count = validation_count(split, len(source))
    if count >= len(source):
        raise DataError(
            f"dataset {dataset.info.name}: split.validation asks for {count} of the {len(source)} "
            f"{split.source} examples; leave at least one"
        )
    if split.how == "folds":
        chosen = fold_rows(source, split, generator, targets=dataset.info.targets)
    else:
        chosen = choose(source, count, split.how, generator, targets=dataset.info.targets)
    kept = np.delete(np.arange(len(source), dtype=np.int64), chosen)
    everything = np.arange(len(dataset.y_train), dtype=np.int64)
    train_rows = kept if split.source == "train" else everything
    test_rows = kept if split.source == "test" else np.arange(len(dataset.y_test), dtype=np.int64)
    size = len(train_rows) if train_eval == "all" else min(train_eval, len(train_rows))
    subset = np.sort(generator.choice(train_rows, size, replace=False))
    shift, scale = _scaling(dataset, train_rows, scaling or dataset.info.scaling)

    def part(source: str, rows: Indices) -> Part:
        pool = f"{dataset.digest}/{source}"
        if source == "train":
            return Part(x=dataset.x_train, y=dataset.y_train, rows=rows, pool=pool)
        return Part(x=dataset.x_test, y=dataset.y_test, rows=rows, pool=pool)

    return TrialData(
        info=dataset.info,
        train=part("train", train_rows),
        train_eval=part("train", subset),
        validation=part(split.source, chosen),
        test=part("test", test_rows),
        shift=shift,
        scale=scale,
        fingerprint=matching.fingerprint(
            dataset.digest, "train", train_rows, "train_eval", subset, "validation", chosen, "test", test_rows
        ),
        examples=len(train_rows),
        standard=_standard(dataset.y_train[train_rows]) if dataset.info.targets == "value" else None,
    )


def _cut_text(
    dataset: Dataset,
    split: Split,
    generator: np.random.Generator,
    *,
    train_eval: int | Literal["all"],
    context: int,
) -> TrialData:
    """Cut a text at its end: training windows start anywhere, those that are evaluated do not overlap."""
    info = dataset.info
    count = validation_count(split, len(dataset.x_train if split.source == "train" else dataset.x_test))
    spans = {
        "train": ("train", 0, len(dataset.x_train) - (count if split.source == "train" else 0)),
        "test": ("test", 0, len(dataset.x_test) - (count if split.source == "test" else 0)),
    }
    low = spans[split.source][2]
    spans["validation"] = (split.source, low, low + count)
    for name, (_, first, end) in spans.items():
        if end - first <= context and (name != "validation" or count):
            raise DataError(
                f"dataset {info.name}: its {name} part has {end - first} tokens, too few for one window of "
                f"{context} and the token after it; set a smaller context"
            )
    pools = {}
    for source in ("train", "test"):
        tokens = getattr(dataset, f"x_{source}")
        x, y = language_modelling.windows(tokens, context)
        pool = f"{dataset.digest}/{source}/windows of {context}"
        pools[source] = {"x": x, "y": y, "tokens": tokens, "pool": pool}

    def fixed(name: str) -> Part:
        source, first, end = spans[name]
        return Part(**pools[source], rows=language_modelling.starts(first, end, context, every=context))

    train = Part(**pools["train"], rows=language_modelling.starts(0, spans["train"][2], context))
    windows = (spans["train"][2] - 1) // context
    size = windows if train_eval == "all" else min(train_eval, windows)
    subset = np.sort(generator.choice(train.rows, size, replace=False))
    validation, test = fixed("validation"), fixed("test")
    return TrialData(
        info=info,
        train=train,
        train_eval=Part(**pools["train"], rows=subset),
        validation=validation,
        test=test,
        shift=None,
        scale=1.0,
        fingerprint=matching.fingerprint(
            dataset.digest,
            f"windows of {context}, training up to {spans['train'][2]}",
            *("train_eval", subset, "validation", validation.rows, "test", test.rows),
        ),
        examples=windows,
    )


def _standard(values: NDArray[Any]) -> Standard:
    """Mean and standard deviation of the training targets; targets that are all alike keep their unit."""
    sd = float(np.std(values, dtype=np.float64))
    return Standard(mean=float(np.mean(values, dtype=np.float64)), sd=sd if sd > 0 else 1.0)


def validation_count(split: Split, source: int) -> int:
    """How many of ``source`` examples a split that draws them takes for validation."""
    if split.how == "folds":
        return source // (split.folds or 2)
    return round(split.validation * source) if split.validation < 1 else int(split.validation)


def choose(y: NDArray[Any], count: int, how: str, generator: np.random.Generator, *, targets: str) -> Indices:
    """Pick ``count`` examples ``random``, ``stratified``, or from the ``tail``; their rows, sorted.

    ``targets`` is the kind of the targets y.
    """
    n = len(y)
    if how in ("tail", "published"):
        return np.arange(n - count, n, dtype=np.int64)
    if how == "random":
        return np.sort(generator.permutation(n)[:count])
    if how == "stratified":
        chosen: Indices = TARGETS[targets].stratified(y, count, generator)
        return chosen
    raise ValueError(f"split.how: found {how!r}")


def fold_rows(y: NDArray[Any], split: Split, generator: np.random.Generator, *, targets: str) -> Indices:
    """Rows of one of a split's folds, sorted: every example is in one of them, labels shared out evenly."""
    order = generator.permutation(len(y))
    if targets == "label":
        order = order[np.argsort(y[order], kind="stable")]
    return np.sort(order[split.fold or 0 :: split.folds or 2]).astype(np.int64)


def hold_out(targets: NDArray[Any], count: int, *, how: str = "stratified") -> tuple[Indices, Indices]:
    """Rows for training and for testing of data without a test part, the same in every trial.

    ``stratified`` by labels, or ``random``.
    """
    generator = np.random.Generator(np.random.PCG64(TEST_SEED))
    test = choose(targets, count, how, generator, targets="label")
    return np.delete(np.arange(len(targets), dtype=np.int64), test), test


def _scaling(
    dataset: Dataset, rows: Indices, how: Scaling
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | float]:
    if how == "pixels":
        return None, 1 / 255
    if how == "none":
        return None, 1.0
    x = dataset.x_train[rows].astype(np.float64)
    spread = x.std(axis=0)
    return x.mean(axis=0), np.where(spread > 0, 1 / np.where(spread > 0, spread, 1), 1.0)
