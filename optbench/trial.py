"""The words that every room shares: what a trial is, and what it leaves behind.

Facts only: frozen dataclasses, and the content hashes that name them. A field that may be ``None`` has it as
its default and means a feature that is off; it is left out of the hash, so that a new feature does not rename
the trials of yesterday.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Gt
from numpy.typing import NDArray

from optbench.config import FORBID_EXTRA
from optbench.models.layers import Model
from optbench.optimizers import OptimizerConfig

BackendName = Literal["torch", "tensorflow", "jax"]
DeviceName = Literal["cpu", "cuda", "mps", "tpu"]
Precision = Literal["float32", "float64"]
Status = Literal["completed", "diverged", "crashed"]
MonitorName = Literal["val_accuracy", "val_loss"]

STREAMS = ("split", "init", "order", "dropout", "augment")


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """The seed of each random stream; usually all the same number."""

    __pydantic_config__ = FORBID_EXTRA

    split: Annotated[int, Ge(0)] = 0
    init: Annotated[int, Ge(0)] = 0
    order: Annotated[int, Ge(0)] = 0
    dropout: Annotated[int, Ge(0)] = 0
    augment: Annotated[int, Ge(0)] = 0


@dataclass(frozen=True, kw_only=True)
class Split:
    """Where the validation examples come from.

    ``validation`` is a fraction (below 1) or a count (from 1); 0 means none. ``how`` picks them: ``random``
    and ``stratified`` from the split stream, ``tail`` the last ones as stored. ``source`` is the part they
    are taken away from. A dataset that brings a validation part of its own ignores all but ``validation: 0``
    only where it says so.
    """

    __pydantic_config__ = FORBID_EXTRA

    validation: Annotated[float, Ge(0)] = 0.1
    how: Literal["random", "stratified", "tail"] = "stratified"
    source: Literal["train", "test"] = "train"


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Stop after ``patience`` epochs in which the monitor did not improve by more than ``min_delta``.

    With ``restore_best`` the final model is the one of the best epoch.
    """

    __pydantic_config__ = FORBID_EXTRA

    monitor: MonitorName = "val_accuracy"
    patience: Annotated[int, Gt(0)] = 10
    min_delta: Annotated[float, Ge(0)] = 0.0
    restore_best: bool = True


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """When a training counts as diverged.

    A non-finite training loss always; or a mean batch loss above ``factor`` times the first batch's (its loss
    before the first step) in ``epochs`` epochs in a row, or in the last epoch.
    """

    __pydantic_config__ = FORBID_EXTRA

    factor: Annotated[float, Gt(1)] = 10.0
    epochs: Annotated[int, Gt(0)] = 3


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Dataset, model and training budget: everything of a trial but optimizer, seed and machine.

    ``train_eval`` examples of the training part, drawn once from the split stream, measure the training loss
    each epoch. ``monitor`` picks the best
    epoch.
    """

    dataset: str
    model: Model
    batch_size: Annotated[int, Gt(0)] | Literal["full"]
    epochs: Annotated[int, Gt(0)]
    split: Split = Split()
    shuffle: bool = True
    train_eval: Annotated[int, Gt(0)] | Literal["all"] = 1000
    monitor: MonitorName = "val_accuracy"
    early_stopping: EarlyStopping | None = None
    divergence: Divergence = Divergence()
    smoke: Literal[True] | None = None


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One fully resolved training."""

    workload: Workload
    optimizer: OptimizerConfig = field(metadata={"discriminator": "optimizer"})
    seeds: Seeds
    backend: BackendName
    device: DeviceName
    precision: Precision


@dataclass(frozen=True, kw_only=True)
class Fingerprints:
    """SHA-256 digests of what matched trials must share, taken from the arrays that were really used.

    ``split`` covers the data's bytes and the indices of each part, ``init`` the initial weights, ``order``
    the batches of the first epoch. ``order_by_epoch`` holds 52 bits of each epoch's digest, so that two
    trials of different length are compared over the epochs that both trained.
    """

    split: str
    init: str
    order: str
    order_by_epoch: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """What a trial leaves.

    Attributes
    ----------
    history : mapping of str to float64 array
        One value an epoch, epoch 0 (before the first step) included: ``train_loss``, ``train_accuracy`` (in
        evaluation mode on the fixed subset), ``val_loss``, ``val_accuracy``, ``batch_loss`` (mean over the
        epoch's batches in training mode), ``lr``, ``step_seconds``, ``eval_seconds``. NaN where there is no
        value.
    metrics : mapping of str to float
        Final numbers, accuracies in [0, 1]; ``test_accuracy`` and ``test_loss`` are those of the final model.
    timings : mapping of str to float
        Seconds: ``setup``, ``warm_up``, ``step``, ``eval``, ``total``.
    predictions : mapping of str to integer array
        Predicted class of every test example, by ``last`` and ``best`` epoch.
    environment : mapping
        Hardware, versions, threads, git state.
    error : str or None
        Traceback of a crash.
    """

    trial_id: str
    block_id: str
    spec: TrialSpec
    status: Status
    fingerprints: Fingerprints | None
    history: Mapping[str, NDArray[np.float64]]
    metrics: Mapping[str, float]
    timings: Mapping[str, float]
    predictions: Mapping[str, NDArray[np.integer[Any]]]
    environment: Mapping[str, Any]
    started: str
    error: str | None = None


def to_plain(value: Any) -> Any:
    """Turn a spec into JSON-ready mappings, lists and scalars, leaving out what is ``None``."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: to_plain(getattr(value, f.name))
            for f in fields(value)
            if getattr(value, f.name) is not None
        }
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return value


def content_hash(plain: Any) -> str:
    """Hash JSON-ready content: the same on every machine, whatever the order of the keys."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def trial_id(spec: TrialSpec) -> str:
    """Name a trial by its content (16 hex digits)."""
    return content_hash(_identity(spec))


def block_id(spec: TrialSpec) -> str:
    """Name the block of a trial: everything it is but the optimizer."""
    plain = _identity(spec)
    del plain["optimizer"]
    return content_hash(plain)


def _identity(spec: TrialSpec) -> dict[str, Any]:
    plain: dict[str, Any] = to_plain(spec)
    del plain["workload"]["model"]["name"]
    return plain
