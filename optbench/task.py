"""The words of what a trial is asked and measured by: tasks and metrics.

A :class:`Metric` is a declared quantity: nothing about it is guessed from its name. :func:`known` finds the
declaration of a name as records and other tools write it (``test_accuracy_best``, ``eval/loss``); what it
does not know must be declared. A :class:`Task` is what a workload asks: its loss, its targets, its metrics.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

#: Set as ``__pydantic_config__`` on the frozen dataclasses that a suite file can name: a misspelt key is an
#: error rather than ignored, and so is a number that is not finite.
FORBID_EXTRA = {"extra": "forbid", "allow_inf_nan": False}

#: ``share``: in [0, 1], shown in percent; ``number``: anything else without a unit.
Unit = Literal["share", "loss", "seconds", "count", "bytes", "number"]
Direction = Literal["higher", "lower"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A declared quantity.

    Attributes
    ----------
    name : str
        As recorded, without the part it was measured on: ``accuracy``, not ``test_accuracy``.
    direction : "higher", "lower" or None
        What is better; None for a fact that is no merit (a count of epochs).
    unit : str
        See :data:`Unit`.
    title : str
        In a table or on an axis, without its unit; capitalised where it begins a line.
    digits : int
        Decimals shown, in the unit that is shown (percent for a share).
    low, high : float
        Values that are possible.
    """

    name: str
    direction: Direction | None
    unit: Unit = "number"
    title: str = ""
    digits: int = 4
    low: float = -float("inf")
    high: float = float("inf")

    @property
    def maximised(self) -> bool:
        """Whether a larger value is better."""
        return self.direction == "higher"


TaskName = Literal["classification"]
#: What may pick the best epoch or stop a training; each task says which of them are its own.
MonitorName = Literal["val_accuracy", "val_loss"]

#: Columns of every history behind those of the task.
COMMON_HISTORY = ("batch_loss", "lr", "step_seconds", "eval_seconds")


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a workload asks of a model: the facts that engines, protocol and reports take from it.

    What a task needs code for is looked up by these names: the loss in each backend's ``LOSSES``, the kind of
    targets in ``PREDICTIONS`` there and in :data:`optbench.datasets.targets.TARGETS`, the task itself in
    :data:`optbench.execution.evaluation.MEASURES`.

    Attributes
    ----------
    name : str
        ``classification``.
    loss : str
        Name of the loss that is trained and evaluated; each backend has a function of that name.
    loss_options : tuple of str
        Fields of a workload that are arguments of the loss in training.
    targets : str
        Kind of an example's target and of its prediction: ``label``, a class counted from 0.
    view : str
        How the errors of one model are shown: ``confusion``.
    metrics : tuple of str
        Recorded for the validation and the test part beside the loss, in this order.
    headline : tuple of str
        Those of them that are recorded for the training subset too, and stand among a trial's final numbers.
    options : tuple of str
        Fields of a workload that only this task has a meaning for.
    monitors : tuple of str
        What a workload may watch on the validation part.
    primary, monitor : str
        Tested by a report, and watched on the validation part, unless a suite says otherwise.
    """

    name: TaskName
    loss: str
    loss_options: tuple[str, ...]
    targets: Literal["label"]
    view: Literal["confusion"]
    metrics: tuple[str, ...]
    headline: tuple[str, ...]
    options: tuple[str, ...]
    monitors: tuple[MonitorName, ...]
    primary: str
    monitor: MonitorName

    @property
    def history(self) -> tuple[str, ...]:
        """Columns of a trial's history, in the order of the records."""
        train = (f"train_{name}" for name in ("loss", *self.headline))
        validation = (f"val_{name}" for name in ("loss", *self.metrics))
        return (*train, *validation, *COMMON_HISTORY)

    @property
    def final(self) -> tuple[str, ...]:
        """Columns of the history whose last values are among a trial's metrics."""
        return tuple(f"{part}_{name}" for part in ("train", "val") for name in ("loss", *self.headline))


CLASSIFICATION = Task(
    name="classification",
    loss="cross_entropy",
    loss_options=("label_smoothing",),
    targets="label",
    view="confusion",
    metrics=("accuracy", "f1"),
    headline=("accuracy",),
    options=("label_smoothing", "top_k", "per_class"),
    monitors=("val_accuracy", "val_loss"),
    primary="test_accuracy",
    monitor="val_accuracy",
)
TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in (CLASSIFICATION,)})
#: The task of a workload that names none; it leaves no trace in a trial's identity.
DEFAULT_TASK = CLASSIFICATION


def _metric(name: str, direction: Direction | None, unit: Unit, title: str = "", **more: float) -> Metric:
    digits = {"share": 2, "loss": 4, "seconds": 2, "count": 0, "bytes": 0, "number": 4}[unit]
    low = more.pop("low", 0.0)
    high = more.pop("high", 1.0 if unit == "share" else float("inf"))
    title = title or name.replace("_", " ")
    return Metric(name=name, direction=direction, unit=unit, title=title, digits=digits, low=low, high=high)


#: Every quantity that optbench records or recognises in other tools' results, by its bare name.
METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            _metric("accuracy", "higher", "share"),
            _metric("f1", "higher", "share", "macro F1"),
            _metric("precision", "higher", "share"),
            _metric("recall", "higher", "share"),
            _metric("loss", "lower", "loss"),
            _metric("batch_loss", "lower", "loss", "mean batch loss"),
            _metric("epochs", None, "count"),
            _metric("steps", None, "count"),
            _metric("best_epoch", None, "count"),
            _metric("state_bytes", "lower", "bytes", "optimizer state"),
            _metric("lr", None, "number", "learning rate"),
            _metric("step_seconds", "lower", "seconds", "training time"),
            _metric("eval_seconds", "lower", "seconds", "evaluation time"),
        )
    }
)
_TOP = re.compile(r"top(\d+)_accuracy")


_PART = re.compile(r"(train|training|val|valid|validation|dev|test|eval|evaluation)[_/]")
_POINT = re.compile(r"_(best|last)$")


def known(name: str) -> Metric | None:
    """Find the declared metric that a name means; None for a name that is not declared.

    A part in front (``val_``, ``test/``, ``eval/`` ..) and ``_best`` or ``_last`` behind are taken off; the
    rest must be a whole known name.

    Examples
    --------
    >>> known("test_accuracy_best").direction, known("eval/loss").direction, known("brier_score")
    ('higher', 'lower', None)
    """
    bare = _POINT.sub("", _PART.sub("", name, count=1) if _PART.match(name) else name)
    if _TOP.fullmatch(bare):
        return replace(METRICS["accuracy"], name=bare, title=bare.replace("_", "-", 1).replace("top", "top-"))
    return METRICS.get(bare)


#: What every trial has; a metric of one's own takes none of these names.
BUILT_IN = ("test_accuracy", "test_loss", "val_accuracy", "val_loss", "train_loss")


@dataclass(frozen=True, kw_only=True)
class CustomMetric:
    """A metric of the user's own; its name and code are part of a trial's identity, its direction is not.

    Attributes
    ----------
    name : str
        As in ``test_<name>``.
    reference : str
        ``file.py:function`` or ``package.module:function``.
    code : str
        What identifies the code: ``sha256:...`` of the file, or ``name==version`` of the package.
    minimise : bool
        Smaller is better.
    directory : Path, optional
        Where a file is looked for; the working directory otherwise.
    """

    __pydantic_config__ = FORBID_EXTRA

    name: str
    reference: str
    code: str
    minimise: bool = field(default=False, compare=False)
    directory: InitVar[Path | None] = None

    def __post_init__(self, directory: Path | None) -> None:
        object.__setattr__(self, "_directory", directory)


def increasing(name: str, value: float) -> float:
    """Turn the value of a declared metric so that larger is better.

    Raises
    ------
    KeyError
        If the metric is not declared or has no direction.

    Examples
    --------
    >>> increasing("val_accuracy", 0.9), increasing("val_loss", 0.3)
    (0.9, -0.3)
    """
    metric = known(name)
    if metric is None or metric.direction is None:
        raise KeyError(f"metric {name!r} is not declared with a direction")
    return value if metric.direction == "higher" else -value


def maximised(metric: str, own: Iterable[CustomMetric] = ()) -> bool:
    """Tell whether larger is better: not for a name in ``loss`` or ``error``, nor one declared so.

    Examples
    --------
    >>> maximised("test_accuracy"), maximised("val_loss"), maximised("test_calibration_error_best")
    (True, False, False)
    """
    name = re.sub(r"_(best|last)$", "", metric)
    bare = re.sub(r"^(test|val)_", "", name)
    return not name.endswith(("loss", "error")) and not any(m.minimise and m.name == bare for m in own)
