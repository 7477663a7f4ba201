"""The words of what a trial is asked and measured by: tasks and metrics.

A :class:`Metric` is a declared quantity: nothing about it is guessed from its name. :func:`known` finds the
declaration of a name as records and other tools write it (``test_accuracy_best``, ``eval/loss``); what it
does not know must be declared (:func:`undeclared` says how). :class:`Metrics` adds what a suite declares. A
:class:`Task` is what a workload asks: its loss, its targets, its metrics.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal, cast

from optbench.errors import UserError

#: Metadata of a field that is left out of plain data, and so of the hash, where it has its default.
OMIT_DEFAULT = MappingProxyType({"omit_default": True})
#: Set as ``__pydantic_config__`` on the frozen dataclasses that a suite file can name: a misspelt key is an
#: error, and so is a number that is not finite.
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
        As recorded: ``accuracy`` in :data:`METRICS`, ``test_accuracy`` for a column.
    direction : "higher", "lower" or None
        What is better; None for a fact that is no merit (a count of epochs).
    unit : str
        See :data:`Unit`.
    title : str
        In a table or on an axis, without its unit.
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

    @property
    def sign(self) -> int:
        """1 where a larger value is better, else -1: times a value it is a gain."""
        return 1 if self.maximised else -1

    @property
    def factor(self) -> float:
        """From the recorded to the shown unit: shares are shown in percent."""
        return 100.0 if self.unit == "share" else 1.0

    @property
    def symbol(self) -> str:
        """Of the shown unit; empty for a metric without one."""
        return _SYMBOLS.get(self.unit, "")

    @property
    def heading(self) -> str:
        """Title and unit: ``test accuracy, %``."""
        return f"{self.title}, {self.symbol}" if self.symbol else self.title

    @property
    def better(self) -> Literal["larger", "smaller"]:
        """Which values are better, as a word."""
        return "larger" if self.maximised else "smaller"


TaskName = Literal["classification", "regression", "language_modelling"]
#: Kinds of an example's target.
TargetName = Literal["label", "value", "token"]
#: What may pick the best epoch or stop a training; each task says which of them are its own.
MonitorName = Literal[
    "val_accuracy", "val_loss", "val_rmse", "val_mae", "val_r2", "val_bits_per_byte", "val_perplexity"
]
LossName = Literal["cross_entropy", "mse", "mae", "huber", "token_cross_entropy"]

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
    losses : tuple of str
        Losses that a workload may train and evaluate, the first one if it names none; each backend has a
        function of that name.
    loss_options : tuple of str
        Fields of a workload that are arguments of the loss in training.
    targets : str
        Kind of an example's target and of its prediction: ``label``, a class counted from 0; ``value``, a
        number; ``token``, the token after each of a window.
    view : str
        How the errors of one model are shown: ``confusion`` or ``residuals``.
    splits : tuple of str
        Ways to take the validation part away, see :class:`optbench.trial.Split`; the first if none is named.
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
    losses: tuple[LossName, ...]
    loss_options: tuple[str, ...] = ()
    targets: TargetName
    view: Literal["confusion", "residuals"]
    splits: tuple[str, ...]
    metrics: tuple[str, ...]
    headline: tuple[str, ...]
    options: tuple[str, ...] = ()
    monitors: tuple[MonitorName, ...]
    primary: str
    monitor: MonitorName

    @property
    def loss(self) -> LossName:
        """The loss of a workload that names none."""
        return self.losses[0]

    @property
    def primaries(self) -> tuple[str, ...]:
        """Metrics of its trials that a report can test, beside custom ones."""
        first = self.headline[0]
        names = (f"test_{first}", "test_loss", f"val_{first}", "val_loss")
        others = (f"test_{name}" for name in self.metrics if name != first)
        return (*names, *others, "train_loss")

    @property
    def history(self) -> tuple[str, ...]:
        """Columns of a trial's history, in the order of the records."""
        return (*self.final, *COMMON_HISTORY)

    @property
    def final(self) -> tuple[str, ...]:
        """Columns of the history whose last values are among a trial's metrics."""
        train = (f"train_{name}" for name in ("loss", *self.headline))
        return (*train, *(f"val_{name}" for name in ("loss", *self.metrics)))


CLASSIFICATION = Task(
    name="classification",
    losses=("cross_entropy",),
    loss_options=("label_smoothing",),
    targets="label",
    view="confusion",
    splits=("stratified", "random", "tail", "published", "folds"),
    metrics=("accuracy", "f1"),
    headline=("accuracy",),
    options=("label_smoothing", "top_k", "per_class"),
    monitors=("val_accuracy", "val_loss"),
    primary="test_accuracy",
    monitor="val_accuracy",
)
#: Targets are standardised on the training part, and the loss is of those; errors are in the target's units.
REGRESSION = Task(
    name="regression",
    losses=("mse", "mae", "huber"),
    targets="value",
    view="residuals",
    splits=("random", "tail", "published", "folds"),
    metrics=("rmse", "mae", "r2"),
    headline=("rmse",),
    monitors=("val_loss", "val_rmse", "val_mae", "val_r2"),
    primary="test_rmse",
    monitor="val_rmse",
)
#: An example is a window of tokens; the loss is the mean cross-entropy of the token after each, in nats.
LANGUAGE_MODELLING = Task(
    name="language_modelling",
    losses=("token_cross_entropy",),
    targets="token",
    view="confusion",
    splits=("tail",),
    metrics=("bits_per_byte", "perplexity"),
    headline=("bits_per_byte",),
    options=("context",),
    monitors=("val_loss", "val_bits_per_byte", "val_perplexity"),
    primary="test_bits_per_byte",
    monitor="val_bits_per_byte",
)
TASKS: Mapping[str, Task] = MappingProxyType(
    {task.name: task for task in (CLASSIFICATION, REGRESSION, LANGUAGE_MODELLING)}
)
#: The task that data with targets of a kind ask for.
TASK_OF_TARGETS: Mapping[str, Task] = MappingProxyType({task.targets: task for task in TASKS.values()})
#: The task of a workload that names none; it leaves no trace in a trial's identity.
DEFAULT_TASK = CLASSIFICATION


_SYMBOLS: Mapping[str, str] = MappingProxyType({"share": "%", "seconds": "s", "bytes": "B"})
_DIGITS: Mapping[str, int] = MappingProxyType(
    {"share": 2, "loss": 4, "seconds": 2, "count": 0, "bytes": 0, "number": 4}
)

_LINE = re.compile(r'(\S+) +(\S+) +([\w+]+)(?: "([^"]+)")?(?: (\S+)\.\.(\S+))?(?: : (.+))?')


def _declared(line: str) -> tuple[Metric, tuple[str, ...]]:
    """A metric of metrics.txt, and every whole name that means it."""
    found = _LINE.fullmatch(line)
    assert found is not None, line
    direction, unit, name, title, low, high, others = found.groups()
    metric = Metric(
        name=name,
        direction=None if direction == "-" else cast(Direction, direction),
        unit=cast(Unit, unit),
        title=title or name.replace("_", " "),
        digits=_DIGITS[unit],
        low=float(low or 0),
        high=float(high or (1 if unit == "share" else "inf")),
    )
    return metric, (name, *(others or "").split())


_LINES = re.sub(r"\\\n *", "", Path(__file__).with_name("metrics.txt").read_text("utf-8")).splitlines()
_DECLARED = [_declared(line) for line in _LINES if line and not line.startswith("#")]
#: Every quantity that optbench records or recognises in other tools' results, by its bare name.
METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric, _ in _DECLARED})
#: All whole names that mean a metric.
NAMES: Mapping[str, Metric] = MappingProxyType(
    {name: metric for metric, names in _DECLARED for name in names}
)

#: Names with a number or a class in them, and the metric that they are one of.
_FORMS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"top_?(\d+)(_acc|_accuracy|_categorical_accuracy)?|(acc|accuracy|prec)_?(top_?)?\d+", "accuracy"),
        (r"(err|error)_?(top_?)?\d+|top_?\d+_(err|error)(_rate)?", "error_rate"),
        (r"(auc|auroc)_\d+", "auc"),
        (r"precision_?(at_?)?\d+", "precision"),
        (r"recall_?(at_?)?\d+|top_?\d+_recall", "recall"),
        (r"map_?(at_?)?\d+", "map"),
        (r"(hits|hit_rate|success_rate|pass)_?(at_?)?\d+", "hit_rate"),
        (r"ndcg_?(at_?)?\d+", "ndcg"),
        (r"mrr_?(at_?)?\d+", "mrr"),
        (r"bleu_?\d+", "bleu"),
        (r"rouge_?(\d|l|lsum|w|s|su)(_(f|f1|fmeasure|p|precision|r|recall))?", "rouge"),
    )
)
_PER_CLASS = re.compile(r"(^|_)(precision|(top\d+_)?recall|f1)$")
#: What may stand before a name, and how a title says it.
_PARTS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("train", "training"), "train"),
        **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
        **dict.fromkeys(("test", "testing"), "test"),
        **dict.fromkeys(("eval", "evaluation"), "eval"),
        **dict.fromkeys(("metrics", "metric", "epoch"), ""),
        **dict.fromkeys(("mean", "avg", "average"), "mean"),
        **{word: word for word in ("best", "last", "final")},
    }
)
_POINTS = ("best", "last", "final", "ema")
_NEGATED = ("neg", "negative")


@lru_cache(maxsize=1024)
def known(name: str) -> Metric | None:
    """Find the declared metric that a name means; None for a name that is not declared.

    Whole names only, in any case, ``-``, ``/``, ``.``, ``@`` and spaces as good as ``_``. What stands before
    one may say the part of the data or which mean (``val_``, ``test/``, ``eval/``, ``metrics/``, ``best_``
    ..), what stands behind it the epoch (``_best``, ``_last``, ``_final``). ``neg_`` turns a metric round, as
    scikit-learn writes losses as scores.

    Parameters
    ----------
    name : str
        As a record, a table or a log has it.

    Returns
    -------
    Metric or None
        Its ``name`` is the name given, its title says the part too.

    Examples
    --------
    >>> known("test_accuracy_best").direction, known("eval/loss").direction, known("Brier-Score").direction
    ('higher', 'lower', 'lower')
    >>> known("neg_mean_squared_error").direction, known("accuracy_drop"), known("my_score")
    ('higher', None, None)
    """
    head, bracket, rest = name.partition("[")
    plain = re.sub(r"[\s\-/.:@]+", "_", head.strip().lower()).strip("_")
    metric = _parsed(plain)
    if metric is None or not bracket:
        return None if metric is None else replace(metric, name=name)
    of_class = rest.endswith("]") and _PER_CLASS.search(plain)
    if not of_class:
        return None
    return replace(metric, name=name, title=f"{metric.title.replace('macro ', '')} of {rest[:-1]}")


def _parsed(plain: str) -> Metric | None:
    """The metric of a normalised name: whole, negated, or with a part before or a point behind it."""
    if (whole := NAMES.get(plain)) is not None:
        return whole
    for form, name in _FORMS:
        if form.fullmatch(plain):
            return replace(METRICS[name], title=_form_title(plain, METRICS[name]))
    first, _, rest = plain.partition("_")
    if rest and first in _NEGATED and (metric := _parsed(rest)) is not None:
        return _negated(metric)
    if rest and first in _PARTS and (metric := _parsed(rest)) is not None:
        return replace(metric, title=f"{_PARTS[first]} {metric.title}".strip())
    rest, _, last = plain.rpartition("_")
    if rest and last in _POINTS and (metric := _parsed(rest)) is not None:
        return replace(metric, title=f"{metric.title} {last}")
    return None


def _form_title(plain: str, metric: Metric) -> str:
    top = re.match(r"top_?(\d+)", plain)
    return f"top-{top[1]}" if top and metric.name == "accuracy" else plain.replace("_", " ")


def _negated(metric: Metric) -> Metric:
    turned: Mapping[Direction, Direction] = {"higher": "lower", "lower": "higher"}
    direction = None if metric.direction is None else turned[metric.direction]
    unit: Unit = "number" if metric.unit == "share" else metric.unit
    return replace(
        metric,
        direction=direction,
        unit=unit,
        digits=_DIGITS[unit],
        title=f"negative {metric.title}",
        low=-metric.high,
        high=-metric.low,
    )


def undeclared(name: str, how: str) -> str:
    """Say that a name tells no direction, and how to declare one.

    Examples
    --------
    >>> undeclared("my_score", "--maximise or --minimise")
    "metric 'my_score' is not known; say which is better: --maximise or --minimise"
    """
    metric = known(name)
    why = "is not known" if metric is None else f"({metric.title}) is neither better large nor better small"
    return f"metric {name!r} {why}; say which is better: {how}"


def sign_of(name: str) -> int:
    """1 where a larger value of a known metric is better, else -1: times a value it is a gain.

    Examples
    --------
    >>> sign_of("val_accuracy"), sign_of("val_loss")
    (1, -1)
    """
    return Metrics()[name].sign


def is_time(name: str) -> bool:
    """Whether a recorded column is a time, which no repetition reproduces."""
    metric = known(name)
    return metric is not None and metric.unit == "seconds"


#: What every trial of the default task has; a custom metric takes none of these names.
BUILT_IN = DEFAULT_TASK.primaries


@dataclass(frozen=True, kw_only=True)
class CustomMetric:
    """A custom metric; its name and code are part of a trial's identity, its direction is not.

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
        object.__setattr__(self, "_directory", directory and directory.absolute())

    def column(self, name: str) -> Metric:
        """The metric of one of its columns, such as ``test_<name>_best``.

        A known name gives unit, digits and range; what the suite or its record says gives the direction.
        """
        like = known(self.name) or Metric(name=self.name, direction=None)
        direction: Direction = "lower" if self.minimise else "higher"
        return replace(like, name=name, direction=direction, title=name.replace("_", " "))

    def columns(self) -> tuple[str, ...]:
        """Its final columns: of the test and of the validation part."""
        return tuple(f"{part}_{self.name}" for part in ("test", "val"))


class UndeclaredError(UserError, ValueError):
    """A metric whose direction is neither known nor declared; the message says how to declare it."""


@dataclass(frozen=True)
class Metrics:
    """What the names in some results mean: the known metrics, and those that their suites declare.

    Attributes
    ----------
    custom : tuple of CustomMetric
        Those of the suites. What a store recorded of one holds even where its name has become known.
    """

    custom: tuple[CustomMetric, ...] = ()

    @classmethod
    def of(cls, metrics: Iterable[CustomMetric]) -> Metrics:
        """Collect metrics by name, each once.

        Raises
        ------
        UndeclaredError
            If two of one name have two directions.
        """
        found: dict[str, CustomMetric] = {}
        for metric in metrics:
            if found.setdefault(metric.name, metric).minimise is not metric.minimise:
                raise UndeclaredError(
                    f"metric {metric.name!r} is minimised in one place and maximised in another; name one "
                    "otherwise"
                )
        return cls(tuple(found[name] for name in sorted(found)))

    def __getitem__(self, name: str) -> Metric:
        """The metric of a column.

        Raises
        ------
        UndeclaredError
            If its direction is neither known nor declared.
        """
        bare = re.sub(r"_(best|last)$", "", name)
        for metric in self.custom:
            if bare in metric.columns():
                return metric.column(name)
        found = known(name)
        if found is None or found.direction is None:
            raise UndeclaredError(
                undeclared(name, "declare it in the suite with `minimise: true` or `false`")
            )
        return found
