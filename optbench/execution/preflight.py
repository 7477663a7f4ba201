"""Checks before anything is trained: whether custom code works, whether memory suffices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from optbench.datasets.base import Dataset, DatasetInfo, network, validation_count
from optbench.environment import available_bytes
from optbench.errors import UserError
from optbench.execution.jobs import ProcessEndedError
from optbench.models.layers import BatchNorm, count_parameters, walk
from optbench.suite import custom_metrics
from optbench.suite.spec import PlannedTrial
from optbench.trial import OwnData, TrialSpec


class MemoryNeedError(UserError):
    """A model or a batch that this machine has no memory for."""


class BatchError(UserError):
    """Batches that a model cannot be trained with."""


def check(
    planned: Iterable[PlannedTrial],
    data: Mapping[str | OwnData, Dataset],
    *,
    local: bool = True,
    call: Callable[..., Any] | None = None,
) -> None:
    """Call every metric once on synthetic predictions, and count the bytes of every model trained here.

    Parameters
    ----------
    planned : iterable of PlannedTrial
        What is to be trained.
    data : mapping
        Their datasets.
    local : bool
        Whether they are trained on this machine.
    call : callable, optional
        ``call(function, *arguments)`` calls a function where trials run; in this process if not given.

    Raises
    ------
    MetricError
        If one fails, or ends the process that calls it.
    MemoryNeedError
        If a model does not fit into this machine's memory.
    BatchError
        If a batch normalisation gets single examples.
    """
    specs = {(id(trial.spec.workload), trial.spec.device): trial.spec for trial in planned}
    for spec in specs.values():
        facts = data[spec.workload.dataset].info
        for metric in spec.workload.metrics or ():
            try:
                (call or _here)(custom_metrics.check, metric, facts.targets, facts.outputs)
            except ProcessEndedError as error:
                raise custom_metrics.MetricError(
                    f"metric {metric.name}: {metric.reference}, called on synthetic predictions: {error}"
                ) from None
        if local:
            check_memory(spec, facts)
        check_batches(spec, facts)


def _here(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def check_memory(spec: TrialSpec, facts: DatasetInfo) -> None:
    """Refuse a training whose weights and activations alone exceed the free memory.

    Counted are what no engine does without: the drawn weights, their copy that is trained and its gradient,
    and on the CPU the activations of one batch. A training needs more than that.

    Raises
    ------
    MemoryNeedError
        If it does not fit.
    """
    workload = spec.workload
    built = network(workload, facts)
    parameters = count_parameters(built)
    examples = facts.train // (workload.context or 1)
    batch = examples if workload.batch_size == "full" else min(workload.batch_size, examples)
    needed = 12 * parameters
    if spec.device == "cpu":
        needed += 4 * batch * sum(math.prod(layer.output_shape) for layer in walk(built))
    available = available_bytes()
    if available is not None and needed > available:
        raise MemoryNeedError(
            f"model {workload.model.name!r} on {facts.name}: {parameters:.3g} parameters and batches of "
            f"{batch} need at least {needed / 2**30:.3g} GB, and {available / 2**30:.3g} GB are free; make "
            "the model or the batch smaller"
        )


def check_batches(spec: TrialSpec, facts: DatasetInfo) -> None:
    """Refuse a batch of one example before a batch normalisation, which has no variance then.

    Raises
    ------
    BatchError
        If the batch size is 1, or the last batch of an epoch has one example.
    """
    workload = spec.workload
    built = network(workload, facts)
    norms = (b for b in walk(built) if isinstance(b.layer, BatchNorm))
    if not any(math.prod(b.input_shape[:-1]) == 1 for b in norms):
        return
    size = facts.train if workload.batch_size == "full" else workload.batch_size
    split = workload.split
    taken = facts.validation if split.how == "published" else validation_count(split, facts.train)
    rows = facts.train - (taken if split.source == "train" else 0)
    if min(size, rows) == 1 or rows % size == 1:
        raise BatchError(
            f"batch_size: found {workload.batch_size}, which makes a batch of one of the {rows} training "
            f"examples of {facts.name}; batch normalisation needs two at least: choose another size"
        )
