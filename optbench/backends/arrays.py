"""What every engine does with a trial's arrays before its framework sees them."""

from __future__ import annotations

import ctypes
import math
import platform
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optbench.datasets.base import Part, TrialData
from optbench.models.layers import BuiltLayer, Conv2D, MaxPool2D, siblings, walk

#: Values that one evaluation batch may hold in its widest layer; 2**22 float32 are 16 MB.
EVALUATION_VALUES = 2**22
#: Values that are scaled at once: in float64 they fit into a core's cache.
SCALED_AT_ONCE = 2**17
#: Pools that an engine keeps on its device.
POOLS = 8


def scaled(x: NDArray[Any], data: TrialData, dtype: str) -> NDArray[Any]:
    """Inputs of a pool in the trial's precision; the arithmetic is done in float64 once."""
    shift = 0.0 if data.shift is None else data.shift
    out = np.empty(x.shape, dtype)
    rows = max(1, SCALED_AT_ONCE // math.prod(x.shape[1:]))
    for start in range(0, len(x), rows):
        out[start : start + rows] = (x[start : start + rows] - shift) * data.scale
    return out


def evaluation_batch(built: tuple[BuiltLayer, ...]) -> int:
    """Most examples in one evaluation batch of a model."""
    widest = max(int(np.prod(layer.output_shape)) for layer in walk(built))
    return max(1, min(4096, EVALUATION_VALUES // widest))


def relu_after_pool(built: tuple[BuiltLayer, ...]) -> list[tuple[BuiltLayer, bool]]:
    """Move a convolution's ReLU behind the max pooling that follows it; True where a ReLU now comes last.

    The two commute exactly, in values and in gradients: the first of the largest is the same element, and
    where none is above zero the gradient is zero either way. A quarter of the values is left to go through.
    """
    out: list[tuple[BuiltLayer, bool]] = []
    late = False
    for place, following in zip(built, (*built[1:], None), strict=False):
        layer, pooled = place.layer, following is not None and isinstance(following.layer, MaxPool2D)
        moved = pooled and isinstance(layer, Conv2D) and layer.activation == "relu"
        if moved and isinstance(layer, Conv2D):
            place = replace(place, layer=replace(layer, activation="linear"))
        out.append((place, late))
        late = moved
    return out


def penalties(built: tuple[BuiltLayer, ...]) -> list[tuple[str, float, float]]:
    """Kernels with declared penalties: (name, l1, l2) for l1 * sum|w| + l2 * sum w^2, as in Keras."""
    rates = (
        (place.name, getattr(place.layer, "l1", 0.0), getattr(place.layer, "l2", 0.0))
        for place in walk(built)
    )
    return [(f"{name}/kernel", l1, l2) for name, l1, l2 in rates if l1 or l2]


def layout(built: tuple[BuiltLayer, ...]) -> dict[str, Any]:
    """How a model of images is computed, for the record; nothing for others."""
    if not any(isinstance(place.layer, Conv2D) for place in walk(built)):
        return {}
    moved = any(late for part in siblings(built) for _, late in relu_after_pool(part))
    return {"memory_format": "channels last", "relu_after_pool": moved}


@dataclass(frozen=True, kw_only=True)
class _Pool:
    """A pool that is wanted on a device: the same one where pool, device, dtype and scaling agree."""

    pool: str
    device: str
    dtype: str
    scaling: str
    part: Part = field(compare=False)
    data: TrialData = field(compare=False)
    put: Callable[[NDArray[Any]], Any] = field(compare=False)


class Resident:
    """Pools on a device, scaled, the last few of them kept: the trials of a suite share them."""

    def __init__(self) -> None:
        self._pool = lru_cache(POOLS)(_put_pool)

    def pool(
        self, part: Part, data: TrialData, *, device: str, dtype: str, put: Callable[[NDArray[Any]], Any]
    ) -> tuple[Any, Any]:
        """Inputs and targets of a part's whole pool; ``put`` copies an array to the device.

        Of a text, the tokens: those that windows begin with, and those that follow.
        """
        plain = data.shift is None and data.standard is None
        scaling = f"scale {data.scale}" if plain else data.fingerprint
        wanted = _Pool(
            pool=part.pool, device=device, dtype=dtype, scaling=scaling, part=part, data=data, put=put
        )
        return self._pool(wanted)


def _put_pool(wanted: _Pool) -> tuple[Any, Any]:
    if (tokens := wanted.part.tokens) is not None:
        wide = tokens.astype(np.int64)
        return wanted.put(wide[:-1]), wanted.put(wide[1:])
    inputs = scaled(wanted.part.x, wanted.data, wanted.dtype)
    return wanted.put(inputs), wanted.put(_targets(wanted))


def _targets(wanted: _Pool) -> NDArray[Any]:
    """Targets of a pool; numbers standardised, in the trial's precision."""
    y, standard = wanted.part.y, wanted.data.standard
    if standard is None:
        return np.array(y)
    return ((y - standard.mean) / standard.sd).astype(wanted.dtype)


def keep_pages() -> None:
    """Ask glibc to keep freed memory, as a training step frees and takes the same buffers again.

    By default each large buffer is a fresh mapping, and clearing its pages costs more than the convolution
    that fills them.
    """
    if platform.libc_ver()[0] == "glibc":
        m_trim_threshold, m_mmap_threshold, limit = -1, -3, 2**30
        libc = ctypes.CDLL(None)
        libc.mallopt(m_mmap_threshold, limit)
        libc.mallopt(m_trim_threshold, limit)
