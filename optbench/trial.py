"""The words that every room shares: what a trial is, and what it leaves behind.

Facts only: frozen dataclasses, and the content hashes that name them. A field that may be ``None`` has it as
its default and means a feature that is off; it is left out of the hash, so that a new feature does not rename
the trials of yesterday. So is a field marked :data:`OMIT_DEFAULT` where it has its default.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, Union

import numpy as np
from annotated_types import Ge, Gt, Le, Lt, MinLen
from numpy.typing import NDArray

from optbench.models.layers import Model
from optbench.optimizers import OptimizerConfig, leaves
from optbench.optimizers.schedules import Stepwise
from optbench.task import (
    DEFAULT_TASK,
    FORBID_EXTRA,
    OMIT_DEFAULT,
    CustomMetric,
    LossName,
    MonitorName,
    TargetName,
    TaskName,
)

BackendName = Literal["torch", "tensorflow", "jax"]
DeviceName = Literal["cpu", "cuda", "mps", "tpu"]
Precision = Literal["float32", "float64", "bfloat16", "tf32"]
Status = Literal["completed", "diverged", "crashed"]
#: How stored numbers become inputs: divided by 255; standardised by the training part; or left as they are.
Scaling = Literal["pixels", "standardize", "none"]

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
    and ``stratified`` from the split stream, ``tail`` the last ones as stored, ``published`` the part that
    the dataset's publisher set aside (``validation`` is not read then), ``folds`` the one numbered ``fold``,
    from 0, of ``folds`` equal shares from the split stream, by class where targets are labels. ``source`` is
    the part they are taken away from.
    """

    __pydantic_config__ = FORBID_EXTRA

    validation: Annotated[float, Ge(0)] = 0.1
    how: Literal["random", "stratified", "tail", "published", "folds"] = "stratified"
    source: Literal["train", "test"] = "train"
    folds: Annotated[int, Gt(1)] | None = None
    fold: Annotated[int, Ge(0)] | None = None


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Stop after ``patience`` epochs in which the monitor did not improve by more than ``min_delta``.

    With ``restore_best`` the final model is the one of the best epoch.
    """

    __pydantic_config__ = FORBID_EXTRA

    monitor: MonitorName = DEFAULT_TASK.monitor
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
class OwnData:
    """A custom dataset: what it holds is identity, where it lies is not.

    Attributes
    ----------
    kind : str
        ``npz``, ``csv``, ``text``, or ``class`` for a function that returns arrays.
    name, location, test_location : str
        For people; path of the file or ``module:function``; path of a CSV file of the test part.
    digest : str
        SHA-256 of the files, or of the arrays that the function returned.
    label : str, optional
        Column of the classes, or of the numbers to predict, in a CSV file.
    targets : str, optional
        Kind of the targets, see :attr:`optbench.task.Task.targets`; classes if not given.
    tokens : str, optional
        What a text is cut into: bytes if not given, or the characters that occur in its training part.
    test : float, optional
        Share of the examples that becomes the test part, where the data have none of their own.
    shape : tuple of int, optional
        Shape of one example, where columns are pixels.
    scaling : str, optional
        As in ``DatasetInfo``; by default ``pixels`` for 8-bit images, ``standardize`` for all else.
    code : str, optional
        The package, as ``name==version``, whose function returned the arrays by the name of an entry point.
    encode, drop : tuple of str, optional
        Columns of a CSV file that are one-hot encoded, and that are left out.
    file_digest : str, optional
        What identifies the file or package of a ``class``: for those who rerun a trial of another's. No
        identity, since the arrays are.
    """

    __pydantic_config__ = FORBID_EXTRA
    #: Fields that are not part of the identity: display names and folders.
    LABELS: ClassVar[tuple[str, ...]] = ("name", "location", "test_location", "file_digest")

    kind: Literal["npz", "csv", "text", "class"]
    name: str = field(compare=False)
    location: str = field(compare=False)
    test_location: str | None = field(default=None, compare=False)
    digest: str
    label: str | None = None
    test: Annotated[float, Gt(0), Lt(1)] | None = None
    shape: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)] | None = None
    scaling: Scaling | None = None
    code: str | None = None
    targets: TargetName | None = None
    tokens: Literal["character"] | None = None
    encode: tuple[str, ...] | None = None
    drop: tuple[str, ...] | None = None
    file_digest: str | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class StepSchedule:
    """Multiply the learning rate by ``factor`` after each of the epochs ``at``."""

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["step"] = "step"
    at: Annotated[tuple[Annotated[int, Gt(0)], ...], MinLen(1)]
    factor: Annotated[float, Gt(0)] = 0.1


@dataclass(frozen=True, kw_only=True)
class CosineSchedule:
    r"""Half a cosine from the optimizer's learning rate to ``floor`` times it (Loshchilov & Hutter 2017).

    Epoch e of E trains at :math:`\eta (f + (1 - f) (1 + \cos(\pi (e - 1) / E)) / 2)`.
    """

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["cosine"] = "cosine"
    floor: Annotated[float, Ge(0), Lt(1)] = 0.0


@dataclass(frozen=True, kw_only=True)
class ReduceOnPlateau:
    """Multiply the learning rate by ``factor`` when the monitor has not improved for ``patience`` epochs.

    Improved means by more than ``min_delta``. After a reduction ``cooldown`` epochs are not counted, and the
    rate never falls below ``min_lr``. Semantics and defaults of Keras's callback.
    """

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["reduce_on_plateau"] = "reduce_on_plateau"
    monitor: MonitorName = "val_loss"
    factor: Annotated[float, Gt(0), Lt(1)] = 0.1
    patience: Annotated[int, Gt(0)] = 10
    min_delta: Annotated[float, Ge(0)] = 1e-4
    cooldown: Annotated[int, Ge(0)] = 0
    min_lr: Annotated[float, Ge(0)] = 0.0


Schedule = Union[StepSchedule, CosineSchedule, ReduceOnPlateau, Stepwise]  # noqa: UP007


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random affine changes of the training images, drawn anew for every image and epoch.

    Each is uniform: ``rotation`` and ``shear`` within +- this many degrees, ``shift`` within +- that share of
    height and of width, ``zoom`` on 1 +- that much for each axis on its own. Pixels from outside the image
    follow ``fill``: the nearest pixel, the image mirrored or repeated, or the constant ``value``.
    """

    __pydantic_config__ = FORBID_EXTRA

    rotation: Annotated[float, Ge(0), Le(180)] = 0.0
    shift: Annotated[float, Ge(0), Lt(1)] = 0.0
    zoom: Annotated[float, Ge(0), Lt(1)] = 0.0
    shear: Annotated[float, Ge(0), Lt(90)] = 0.0
    fill: Literal["nearest", "reflect", "wrap", "constant"] = "nearest"
    value: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Dataset, model and training budget: everything of a trial but optimizer, seed and machine.

    Attributes
    ----------
    dataset : str or OwnData
        A registered name, or custom data.
    task : str
        What is asked of the model; its loss, metrics and columns are those of :data:`optbench.task.TASKS`.
    model : Model
        A named architecture with its parameters, layers, or a custom function.
    batch_size : int or "full"
        Examples of a step; the last short batch is kept.
    epochs : int
        Passes over the training part, at most.
    split : Split
        Where the validation examples come from.
    scale : str, optional
        How stored numbers become inputs, in place of what the dataset says: ``pixels`` divides by 255,
        ``standardize`` subtracts the mean and divides by the standard deviation of the training part,
        ``none`` leaves them, so that pixels are 0 to 255.
    shuffle : bool
        Draw a new permutation each epoch.
    train_eval : int or "all"
        So many training examples, drawn once from the split stream, measure the training loss each epoch.
    monitor : str
        Picks the best epoch.
    early_stopping : EarlyStopping, optional
        When to stop before the last epoch.
    divergence : Divergence
        When a training counts as diverged.
    schedule : Schedule, optional
        How the optimizer's learning rate changes from epoch to epoch, or from step to step (see
        :mod:`optbench.optimizers.schedules`); constant without one.
    label_smoothing : float, optional
        Share s of the target that is spread evenly over all K outputs: 1 - s + s / K for the true class, in
        the training loss only.
    clip_norm : float, optional
        Gradients of a step are scaled down together where their global L2 norm exceeds this.
    clip_value : float, optional
        Every element of a gradient is cut to +- this, before ``clip_norm``.
    weight_decay : float, optional
        Decoupled decay (Loshchilov & Hutter 2019): before each step every kernel is multiplied by
        1 - lr * weight_decay, whatever the optimizer. Penalties in the loss are the model's ``l1``, ``l2``.
    augment : Augment, optional
        Random changes of the training images.
    top_k : tuple of int, optional
        Record how often the true class is among the k likeliest of the test part, for each k.
    per_class : True, optional
        Record precision, recall and F1 of every class on the test part.
    loss : str, optional
        One of the task's losses; the first of them if not given. ``huber`` turns from square to straight at
        one standard deviation of the training targets.
    steps, evaluate_every : int, optional
        A budget in steps, and how many of them lie between two evaluations. ``epochs`` is then the number of
        evaluations after the first, and whatever counts epochs counts those. Batches go on over the ends of
        passes over the training part, and each is full.
    ema : float, optional
        Keep a moving average of the weights, ``ema * average + (1 - ema) * weights`` after each step, and
        evaluate it beside them: ``val_.._ema`` in the history, ``test_.._ema``.
    accumulate : int, optional
        Compute the gradient of a batch in this many equal parts, one after the other.
    context : int, optional
        Tokens of a window, for text. Always set there: the model's own if not given, or 128.
    metrics : tuple of CustomMetric, optional
        Custom metrics, by name: record ``test_<name>`` and ``val_<name>``.
    stop : int, optional
        End after this many epochs, for a later trial that goes on from there; schedules span ``epochs``.
    """

    dataset: str | OwnData
    task: TaskName = field(default=DEFAULT_TASK.name, metadata=OMIT_DEFAULT)
    model: Model
    batch_size: Annotated[int, Gt(0)] | Literal["full"]
    epochs: Annotated[int, Gt(0)]
    split: Split = Split()
    scale: Scaling | None = None
    shuffle: bool = True
    train_eval: Annotated[int, Gt(0)] | Literal["all"] = 1000
    monitor: MonitorName = DEFAULT_TASK.monitor
    early_stopping: EarlyStopping | None = None
    divergence: Divergence = Divergence()
    schedule: Schedule | None = None
    label_smoothing: Annotated[float, Gt(0), Lt(1)] | None = None
    clip_norm: Annotated[float, Gt(0)] | None = None
    clip_value: Annotated[float, Gt(0)] | None = None
    weight_decay: Annotated[float, Gt(0)] | None = None
    augment: Augment | None = None
    top_k: Annotated[tuple[Annotated[int, Gt(1)], ...], MinLen(1)] | None = None
    per_class: Literal[True] | None = None
    loss: LossName | None = None
    context: Annotated[int, Gt(0)] | None = None
    steps: Annotated[int, Gt(0)] | None = None
    evaluate_every: Annotated[int, Gt(0)] | None = None
    ema: Annotated[float, Gt(0), Lt(1)] | None = None
    accumulate: Annotated[int, Gt(1)] | None = None
    metrics: tuple[CustomMetric, ...] | None = None
    stop: Annotated[int, Gt(0)] | None = None
    smoke: Literal[True] | None = None

    def lasting(self, epochs: int) -> Workload:
        """Train for so many epochs, or evaluations of a budget in steps; a schedule spans them."""
        steps = self.steps and (self.steps if epochs == self.epochs else epochs * (self.evaluate_every or 1))
        return replace(self, epochs=epochs, steps=steps)

    @property
    def kept(self) -> Literal["last", "best"]:
        """Epoch of the final model, the one that ``test_<metric>`` is measured on."""
        return "best" if self.early_stopping is not None and self.early_stopping.restore_best else "last"


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One fully resolved training.

    ``precision`` is that of matrix products and convolutions. ``bfloat16`` runs the model in bfloat16,
    ``tf32`` rounds the factors of products on a GPU; weights, losses and optimizer state stay
    in float32 in both.
    """

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
        One value an epoch, epoch 0 (before the first step) included; the columns are the task's
        (:attr:`optbench.task.Task.history`): ``train_...`` in evaluation mode on the fixed subset,
        ``val_...`` on the validation part, ``batch_loss`` (mean over the epoch's batches in training mode),
        ``lr``, ``step_seconds``, ``eval_seconds``. NaN where there is no value.
    metrics : mapping of str to float
        Final numbers, shares in [0, 1]; ``test_<metric>`` for the loss and each metric of the task are those
        of the final model, and where the workload asks for them those of its options, by class as
        ``test_<metric>[<class>]``, and the custom metrics' ``test_<name>`` and ``val_<name>``.
    timings : mapping of str to float
        Seconds: ``setup``, ``warm_up``, ``augment``, ``step``, ``eval``, ``total``.
    predictions : mapping of str to integer array
        Prediction for every test example, by ``last`` and ``best`` epoch.
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
    predictions: Mapping[str, NDArray[Any]]
    environment: Mapping[str, Any]
    started: str
    error: str | None = None


def stored_precision(precision: str) -> str:
    """Type of weights, losses and optimizer state: ``float32`` unless the trial computes in float64."""
    return "float64" if precision == "float64" else "float32"


def to_plain(value: Any) -> Any:
    """Turn a spec into JSON-ready mappings, lists and scalars, leaving out ``None`` and omitted defaults."""
    if is_dataclass(value) and not isinstance(value, type):
        parts = ((f, getattr(value, f.name)) for f in fields(value))
        return {
            f.name: to_plain(part)
            for f, part in parts
            if part is not None and not (f.metadata.get("omit_default") and part == f.default)
        }
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return value


def content_hash(plain: Any) -> str:
    """Hash JSON-ready content: the same on every machine, whatever the order of the keys."""
    return short_hash(canonical(plain))


def trial_id(spec: TrialSpec) -> str:
    """Name a trial by its content (16 hex digits)."""
    return short_hash(_identity(spec))


def block_id(spec: TrialSpec) -> str:
    """Name the block of a trial: everything it is but the optimizer."""
    return short_hash(_identity(spec, leave_out="optimizer"))


def canonical(plain: Any) -> str:
    """Write JSON-ready content in the one form that is hashed."""
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def short_hash(text: str) -> str:
    """Hash a canonical text to 16 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def custom_code(spec: TrialSpec) -> tuple[str, ...]:
    """Name the code that a training runs and that is not optbench's own, with its version or digest."""
    workload = spec.workload
    parts: tuple[Any, ...] = (*leaves(spec.optimizer), *(workload.metrics or ()), workload.model.own)
    owned = [part for part in parts if hasattr(part, "reference")]
    return tuple(f"{part.reference} ({short_code(part.code)})" for part in owned)


def short_code(code: str) -> str:
    """Shorten the digest of a file for readers; a package's version stays whole."""
    return code[:19] if code.startswith("sha256:") else code


def _identity(spec: TrialSpec, leave_out: str | None = None) -> str:
    """Canonical JSON of what a trial is, without the labels."""
    parts = [f'"{name}":{_part(getattr(spec, name))}' for name in _SPEC if name != leave_out]
    return f"{{{','.join(parts)}}}"


_SPEC = sorted(f.name for f in fields(TrialSpec))
#: Attribute in which a part of a spec keeps its canonical JSON: the trials of a suite share their parts, and
#: equal parts (1 and 1.0) may differ in it.
_JSON = "_canonical_json"


def without_labels(workload: dict[str, Any]) -> dict[str, Any]:
    """Take out of a workload's plain data, in place, what people read and what is no identity."""
    workload["model"].pop("name", None)
    if isinstance(workload["dataset"], dict):
        for label in OwnData.LABELS:
            workload["dataset"].pop(label, None)
    for metric in workload.get("metrics", ()):
        metric.pop("minimise", None)
    return workload


def _part(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if _JSON not in vars(value):
        plain = to_plain(value)
        if isinstance(value, Workload):
            plain = without_labels(plain)
        object.__setattr__(value, _JSON, canonical(plain))
    text: str = vars(value)[_JSON]
    return text
