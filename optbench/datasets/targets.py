"""What depends on the kind of targets: one entry a kind, see :attr:`optbench.task.Task.targets`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from optbench.datasets import classification, language_modelling, regression


@dataclass(frozen=True, kw_only=True)
class TargetKind:
    """Functions of one kind of target.

    Attributes
    ----------
    outputs : callable
        ``outputs(facts)``: how many outputs a model needs.
    stratified : callable
        ``stratified(targets, count, generator)``: rows of a sample that keeps the targets' distribution.
    problem : callable
        ``problem(targets, facts)``: what is wrong with the targets of a part, or None.
    synthetic : callable
        ``synthetic(facts, counts, generator)``: inputs and targets of a dry run, a pair for each count.
    """

    outputs: Callable[..., int]
    stratified: Callable[..., Any]
    problem: Callable[..., str | None]
    synthetic: Callable[..., list[tuple[Any, Any]]]


TARGETS: Mapping[str, TargetKind] = MappingProxyType(
    {
        "label": TargetKind(
            outputs=classification.outputs,
            stratified=classification.stratified,
            problem=classification.problem,
            synthetic=classification.synthetic,
        ),
        "value": TargetKind(
            outputs=regression.outputs,
            stratified=regression.stratified,
            problem=regression.problem,
            synthetic=regression.synthetic,
        ),
        "token": TargetKind(
            outputs=language_modelling.outputs,
            stratified=language_modelling.stratified,
            problem=language_modelling.problem,
            synthetic=language_modelling.synthetic,
        ),
    }
)
