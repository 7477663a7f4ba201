"""Custom metrics: a function of predicted probabilities and true labels.

In a suite file::

    metrics: {brier: my_metric.py:brier_loss, doubt: {class: "calibra:doubt", minimise: true}}

A name that :func:`optbench.task.known` knows, such as ``brier``, has its direction by itself; any other says
``minimise``, or comes from a package that says it by its entry point (:data:`DIRECTIONS`).

The whole contract is one function::

    def brier_loss(probabilities, labels):
        "probabilities: float64 [n, classes], rows sum to 1; labels: int64 [n] from 0; gives a finite float"

It is called when a trial ends, on the test and on the validation part, and gives the final metrics
``test_<name>`` and ``val_<name>``, with ``_last`` and ``_best`` as the others have them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from optbench.errors import UserError
from optbench.suite import references
from optbench.suite.references import ImportProblem, Kind, plugins
from optbench.suite.validation import one_line, shown
from optbench.task import DEFAULT_TASK, CustomMetric, TargetName, known, undeclared

_OWN = ("loss", *DEFAULT_TASK.metrics)
_TAKEN = re.compile(rf"{'|'.join(_OWN)}|top\d+_accuracy|.*_(best|last)")
#: Entry-point groups by what they say of their metrics: nothing, for those with a known name, or a direction.
DIRECTIONS: Mapping[Kind, bool | None] = MappingProxyType(
    {"metrics": None, "metrics.maximise": False, "metrics.minimise": True}
)


class MetricFunction(Protocol):
    """What a metric must be."""

    def __call__(self, probabilities: NDArray[np.float64], labels: NDArray[np.int64], /) -> float:
        """Score predictions.

        Parameters
        ----------
        probabilities : float64 array, [n, classes]
            Softmax of the model's outputs, read-only. A model with more outputs than the data have classes
            gives further columns.
        labels : int64 array, [n]
            True classes from 0, read-only.

        Returns
        -------
        float
            One finite number, whatever the probabilities are.
        """


class MetricError(UserError, ValueError):
    """A metric that cannot be found, imported or used; the message names it and what to do."""


def declare(name: str, reference: str, *, folder: Path, minimise: bool | None = None) -> CustomMetric:
    """Make a metric from a suite's entry, without running custom code.

    Parameters
    ----------
    name : str
        As in ``test_<name>``.
    reference : str
        File or module and function, or what an installed package calls it.
    folder : Path
        Folder of the suite file.
    minimise : bool, optional
        Smaller is better; not needed for a known name, and where a package says it.

    Raises
    ------
    MetricError
        If the name is taken, its direction is neither known nor declared, or both and different, or there
        is no such function.
    """
    if not name.isidentifier() or _TAKEN.fullmatch(name):
        raise MetricError(
            f"found {name!r}; a metric's name has letters, digits and '_', does not end in _best or _last, "
            f"and is none of optbench's own ({', '.join(_OWN)}, top<k>_accuracy)"
        )
    offered = {
        n: (value, minimise_by_package)
        for kind, minimise_by_package in DIRECTIONS.items()
        for n, value in plugins(kind).items()
    }
    if ":" not in reference and reference not in offered:
        known = f", or one of the installed {', '.join(offered)}" if offered else ""
        raise MetricError(
            f"found {reference!r}; write `my_metric.py:function`, `package.module:function`{known}"
        )
    reference, minimise_by_package = offered.get(reference, (reference, None))
    try:
        code = references.identify(reference, folder)
    except ImportProblem as error:
        raise MetricError(str(error)) from None
    falls = _direction(name, reference, minimise_by_package if minimise is None else minimise)
    return CustomMetric(name=name, reference=reference, code=code, minimise=falls, directory=folder)


def _direction(name: str, reference: str, minimise: bool | None) -> bool:
    """Whether a metric is minimised: by its known name, or as declared."""
    like = known(name)
    if like is None or like.direction is None:
        if minimise is None:
            how = f"{name}: {{class: {reference}, minimise: true}} or `minimise: false`"
            raise MetricError(undeclared(name, how))
        return minimise
    if minimise is like.maximised:
        turned = "maximise" if minimise is False else "minimise"
        raise MetricError(
            f"{name!r} is {'maximised' if like.maximised else 'minimised'}, as its name says; call it "
            f"otherwise to {turned} it"
        )
    return not like.maximised


def load(metric: CustomMetric) -> MetricFunction:
    """Import the function; its code must be what the metric names.

    Raises
    ------
    MetricError
        If it is gone, has changed, fails to import, or cannot be called.
    """
    directory = getattr(metric, "_directory", None) or Path.cwd()
    try:
        function = references.load_identified(metric.reference, metric.code, directory)
    except ImportProblem as error:
        raise MetricError(f"metric {metric.name}: {error}") from error
    if not callable(function):
        raise MetricError(f"metric {metric.name}: {metric.reference} is no function but {function!r}")
    return cast(MetricFunction, function)


def score(metric: CustomMetric, probabilities: NDArray[np.float64], labels: NDArray[Any]) -> float:
    """Call a metric on a part of the data: probabilities and labels, or predicted and true numbers.

    Raises
    ------
    MetricError
        If it fails, or gives anything but a finite number.
    """
    function = load(metric)
    labels = labels.astype(np.int64 if labels.dtype.kind in "uib" else np.float64)
    for array in (probabilities, labels):
        array.flags.writeable = False
    try:
        value: Any = function(probabilities, labels)
    except (Exception, SystemExit) as error:  # the user's code may fail in any way
        raise MetricError(
            f"metric {metric.name}: {metric.reference} failed ({type(error).__name__}: {one_line(error)}) on "
            f"probabilities {probabilities.shape} and labels {labels.shape}"
        ) from error
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise MetricError(
            f"metric {metric.name}: {metric.reference} gave {shown(value)}; return one finite number, "
            "whatever the probabilities are"
        )
    like = known(metric.name)
    if like is not None and like.unit == "share" and not like.low - 1e-9 <= number <= like.high + 1e-9:
        raise MetricError(
            f"metric {metric.name}: {metric.reference} gave {shown(value)}; by its name it is a share in "
            f"[{like.low:g}, {like.high:g}]: return that, or call it otherwise"
        )
    return number


def check(metric: CustomMetric, targets: TargetName, outputs: int) -> None:
    """Call a metric on synthetic predictions, so that a mistake is found before anything is trained.

    ``targets`` is their kind, see :class:`optbench.task.Task`; ``outputs`` are those of a model.

    Raises
    ------
    MetricError
        See :func:`score`.
    """
    generator = np.random.default_rng(0)
    if targets == "value":
        true = generator.normal(size=20)
        score(metric, true + generator.normal(size=20), true)
        return
    shape = (4 * outputs,) if targets == "label" else (4, outputs)
    labels = np.broadcast_to(np.arange(shape[-1]) % outputs, shape)
    score(metric, generator.dirichlet(np.ones(outputs), shape), labels)
