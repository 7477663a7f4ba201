"""Targets that are classes: labels counted from 0, how they are split, checked and made up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class ClassFacts(Protocol):
    """What is asked of a dataset's facts here."""

    @property
    def shape(self) -> tuple[int, ...]:
        """One example."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""

    @property
    def scaling(self) -> str:
        """How the stored numbers become inputs."""


def outputs(facts: ClassFacts) -> int:
    """Count the outputs that a model needs: one a class."""
    return len(facts.classes)


def stratified(labels: NDArray[np.int64], count: int, generator: np.random.Generator) -> Indices:
    """Pick ``count`` examples, every class giving its share; their rows, sorted.

    The largest remainders give one more. A permutation picks within a class and breaks equal remainders.
    """
    n = len(labels)
    order = generator.permutation(n)
    classes, members = np.unique(labels, return_counts=True)
    share = members * (count / n)
    quota = np.floor(share).astype(np.int64)
    tiebreak = generator.permutation(len(classes))
    by_remainder = np.lexsort((tiebreak, -(share - quota)))
    quota[by_remainder[: count - int(quota.sum())]] += 1
    shuffled = labels[order]
    chosen = [order[np.flatnonzero(shuffled == c)[:q]] for c, q in zip(classes, quota, strict=True)]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def problem(labels: NDArray[np.int64], facts: ClassFacts) -> str | None:
    """Say what is wrong with labels; None if nothing is."""
    classes = len(facts.classes)
    if labels.min() >= 0 and labels.max() < classes:
        return None
    return f"found labels {labels.min()} to {labels.max()} where 0 to {classes - 1} are allowed"


def synthetic(
    facts: ClassFacts, counts: Sequence[int], generator: np.random.Generator
) -> list[tuple[NDArray[Any], NDArray[np.int64]]]:
    """Make up inputs and labels of several parts: noisy class prototypes, at least one example a class."""
    classes = len(facts.classes)
    prototypes = generator.uniform(0, 255, (classes, *facts.shape))

    def draw(count: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        y = np.arange(count, dtype=np.int64) % classes
        noisy = prototypes[y] * 0.7 + generator.uniform(0, 76, (count, *facts.shape))
        return noisy.astype(np.uint8 if facts.scaling == "pixels" else np.float32), y

    return [draw(max(count, classes)) for count in counts]
