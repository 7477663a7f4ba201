"""What is recorded of an evaluation: the metrics that the task declares, by a table of its functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from numpy.typing import NDArray

from optbench.backends.base import Evaluation, PartName, Session
from optbench.datasets.base import DatasetInfo, Part, TrialData
from optbench.execution import classification, language_modelling, regression
from optbench.suite import custom_metrics
from optbench.task import TASKS, Task
from optbench.trial import Workload


@dataclass(frozen=True, kw_only=True)
class TaskMeasures:
    """Functions of one task.

    Attributes
    ----------
    metrics : mapping
        By the names of :attr:`optbench.task.Task.metrics`: ``metric(evaluation, part, info)``.
    needs_outputs : callable
        ``needs_outputs(workload)``: whether :attr:`from_outputs` computes something.
    from_outputs : callable
        ``from_outputs(evaluation, part, workload)``: metrics of the workload's options that need the model's
        outputs, by name.
    details : callable
        ``details(evaluation, part, info, workload)``: further metrics of the final model on the test part.
    scored : callable
        ``scored(evaluation)``: what a custom metric is called with.
    recorded : callable
        ``recorded(predictions)``: predictions of several evaluations in the type that records store.
    """

    metrics: Mapping[str, Callable[[Evaluation, Part, DatasetInfo], float]]
    needs_outputs: Callable[[Workload], bool]
    from_outputs: Callable[[Evaluation, Part, Workload], dict[str, float]]
    details: Callable[[Evaluation, Part, DatasetInfo, Workload], dict[str, float]]
    scored: Callable[[Evaluation], NDArray[Any]]
    recorded: Callable[[Iterable[NDArray[Any]]], list[NDArray[Any]]]


def _measures(module: Any) -> TaskMeasures:
    """Take the functions of a task's own module."""
    return TaskMeasures(
        metrics=module.METRICS,
        needs_outputs=module.needs_outputs,
        from_outputs=module.from_outputs,
        details=module.details,
        scored=module.scored,
        recorded=module.recorded,
    )


#: By the names of :data:`optbench.task.TASKS`.
MEASURES: Mapping[str, TaskMeasures] = MappingProxyType(
    {
        "classification": _measures(classification),
        "regression": _measures(regression),
        "language_modelling": _measures(language_modelling),
    }
)


def of_part(
    session: Session, name: PartName, data: TrialData, *, outputs: bool = False, averaged: bool = False
) -> Evaluation:
    """Evaluate a part of the data; predicted numbers come in the unit of the targets.

    ``averaged`` asks for the moving average of the weights in their place.
    """
    if averaged:
        found = session.evaluate(name, outputs=outputs, averaged=True)
    else:
        found = session.evaluate(name, outputs=outputs)
    if (standard := data.standard) is None:
        return found
    return replace(found, predictions=found.predictions.astype("float64") * standard.sd + standard.mean)


def declared(
    task: Task, evaluation: Evaluation, part: Part, info: DatasetInfo, *, names: Iterable[str]
) -> dict[str, float]:
    """Measure the loss and these metrics of a task, by name."""
    functions = MEASURES[task.name].metrics
    return {"loss": evaluation.loss, **{name: functions[name](evaluation, part, info) for name in names}}


def of_test(
    evaluation: Evaluation, part: Part, info: DatasetInfo, workload: Workload, *, final: bool
) -> dict[str, float]:
    """Measure everything that is recorded of the test part, by name; details of the ``final`` model alone."""
    task, measures = TASKS[workload.task], MEASURES[workload.task]
    found = declared(task, evaluation, part, info, names=task.metrics)
    found |= measures.from_outputs(evaluation, part, workload)
    found |= of_custom(evaluation, part, workload)
    return {**found, **(measures.details(evaluation, part, info, workload) if final else {})}


def of_custom(evaluation: Evaluation, part: Part, workload: Workload) -> dict[str, float]:
    """Measure the custom metrics, by name."""
    if not workload.metrics or evaluation.outputs is None:
        return {}
    scored = MEASURES[workload.task].scored(evaluation)
    return {metric.name: custom_metrics.score(metric, scored, part.targets) for metric in workload.metrics}


def needs_outputs(workload: Workload) -> bool:
    """Whether an evaluation must hand out the model's outputs."""
    return workload.metrics is not None or MEASURES[workload.task].needs_outputs(workload)
