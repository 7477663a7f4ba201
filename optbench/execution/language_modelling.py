"""What language modelling measures: bits a byte and perplexity, both of the mean cross-entropy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optbench.backends.base import Evaluation
from optbench.datasets.base import DatasetInfo, Part
from optbench.trial import Workload

#: Perplexities above this are no numbers that anyone reads, and would overflow soon.
MOST_NATS = 100.0


def bits_per_byte(evaluation: Evaluation, part: Part, info: DatasetInfo) -> float:
    """Cross-entropy in bits, a byte of the text in UTF-8."""
    return evaluation.loss / math.log(2) / info.bytes_per_token


def perplexity(evaluation: Evaluation, part: Part, info: DatasetInfo) -> float:
    """Exponential of the cross-entropy a token; infinite above 100 nats."""
    return math.exp(evaluation.loss) if evaluation.loss < MOST_NATS else math.inf


#: Functions of the task's metrics by name.
METRICS: Mapping[str, Callable[[Evaluation, Part, DatasetInfo], float]] = MappingProxyType(
    {"bits_per_byte": bits_per_byte, "perplexity": perplexity}
)


def needs_outputs(workload: Workload) -> bool:
    """Whether the options of a workload are computed from the model's outputs: none is."""
    return False


def from_outputs(evaluation: Evaluation, part: Part, workload: Workload) -> dict[str, float]:
    """Metrics of a workload's options: there are none."""
    return {}


def details(evaluation: Evaluation, part: Part, info: DatasetInfo, workload: Workload) -> dict[str, float]:
    """Further metrics of the final model: there are none."""
    return {}


def scored(evaluation: Evaluation) -> NDArray[np.float64]:
    """What a custom metric is called with: probabilities of the next token, [n, context, tokens]."""
    assert evaluation.outputs is not None
    shifted = evaluation.outputs.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=-1, keepdims=True)
    return shifted


def recorded(predictions: Iterable[NDArray[Any]]) -> list[NDArray[Any]]:
    """Bring predicted tokens into the smallest type that holds them all, as records store them."""
    arrays = list(predictions)
    small = np.uint8 if max(array.max() for array in arrays) < 256 else np.uint16
    return [array.astype(small) for array in arrays]
