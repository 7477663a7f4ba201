"""Targets that are numbers: how they are checked and made up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class ValueFacts(Protocol):
    """What is asked of a dataset's facts here."""

    @property
    def shape(self) -> tuple[int, ...]:
        """One example."""

    @property
    def scaling(self) -> str:
        """How the stored numbers become inputs."""


def outputs(facts: ValueFacts) -> int:
    """Count the outputs that a model needs: one."""
    return 1


def stratified(values: NDArray[Any], count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Numbers have no classes to keep the shares of; a task refuses this split before."""
    raise ValueError("split.how: numbers have no classes; use random or tail")


def problem(values: NDArray[Any], facts: ValueFacts) -> str | None:
    """Say what is wrong with numbers to predict; None if nothing is."""
    bad = np.flatnonzero(~np.isfinite(values))
    return f"found {values[bad[0]]} as target {bad[0]} where finite numbers are needed" if len(bad) else None


def synthetic(
    facts: ValueFacts, counts: Sequence[int], generator: np.random.Generator
) -> list[tuple[NDArray[Any], NDArray[np.float64]]]:
    """Make up inputs and targets of several parts: a random plane with noise."""
    high = 255 if facts.scaling == "pixels" else 1
    plane = generator.normal(size=facts.shape)

    def draw(count: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
        x = generator.uniform(0, high, (count, *facts.shape))
        y = np.tensordot(x, plane, len(facts.shape)) + generator.normal(0, 0.1, count)
        return x.astype(np.uint8 if facts.scaling == "pixels" else np.float32), y

    return [draw(count) for count in counts]
