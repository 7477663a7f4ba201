"""What makes trials matched: everything random that is not the optimizer, drawn by NumPy from named streams.

Two trials with equal seeds get equal splits, initial weights and batch orders in every framework, and the
fingerprints taken here from the arrays in use prove it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from optbench.models.layers import BuiltLayer, Initializer, walk
from optbench.trial import STREAMS, stored_precision

Indices = NDArray[np.int64]


def stream(seed: int, name: str, *children: int) -> np.random.Generator:
    """Open a named random stream of a seed.

    Parameters
    ----------
    seed : int
        The stream's seed, 0 or more.
    name : str
        One of ``split``, ``init``, ``order``, ``dropout``, ``augment``. Streams are independent, and a stream
        added later never changes another.
    *children : int
        Sub-streams, an epoch for example: reaching epoch 100 needs no draw of the 99 before it.

    Returns
    -------
    numpy.random.Generator
        PCG64 on ``SeedSequence(seed, spawn_key=(stream, *children))``.

    Examples
    --------
    >>> int(stream(0, "order").integers(1000)) == int(stream(0, "order").integers(1000))
    True
    """
    key = (STREAMS.index(name), *children)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def epoch_order(seed: int, epoch: int, n: int, *, shuffle: bool = True) -> Indices:
    """Order of the n training examples in an epoch (1, 2, ...): a permutation, or 0..n-1 unshuffled."""
    if not shuffle:
        return np.arange(n, dtype=np.int64)
    return stream(seed, "order", epoch).permutation(n)


def window_order(seed: int, epoch: int, n: int, count: int) -> Indices:
    """Draw the windows of a text for an epoch (1, 2, ...): ``count`` of n starts, independently."""
    return stream(seed, "order", epoch).integers(n, size=count, dtype=np.int64)


def initial_weights(built: Iterable[BuiltLayer], seed: int, dtype: str) -> dict[str, NDArray[np.floating]]:
    """Draw the initial value of every parameter of a model.

    Values are drawn in float64 and rounded once, so that a float32 and a float64 trial start alike.

    Parameters
    ----------
    built : iterable of BuiltLayer
        The model with its shapes inferred.
    seed : int
        Seed of the init stream.
    dtype : str
        A trial's precision, or ``float32`` or ``float64``.

    Returns
    -------
    dict of str to array
        By parameter name, in the layers' order; convolution kernels [height, width, in, out], dense kernels
        [in, out].
    """
    generator = stream(seed, "init")
    return {
        parameter.name: _draw(parameter.initializer, parameter.shape, generator).astype(
            stored_precision(dtype)
        )
        for layer in walk(built)
        for parameter in layer.parameters
    }


def fingerprint(*parts: str | NDArray) -> str:  # type: ignore[type-arg]
    """SHA-256 of names and arrays: dtype, shape and little-endian bytes of each array, in order."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(b"s%d:" % len(part.encode()) + part.encode())
        else:
            array = np.ascontiguousarray(part)
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            digest.update(f"a{little.dtype.str}{little.shape}:".encode())
            digest.update(little.data)
    return digest.hexdigest()


def short_digest(fingerprint_hex: str) -> int:
    """Keep the first 52 bits of a fingerprint: a whole number that float64 holds exactly."""
    return int(fingerprint_hex[:13], 16)


def _draw(
    initializer: Initializer, shape: tuple[int, ...], generator: np.random.Generator
) -> NDArray[np.float64]:
    if initializer.name not in INITIALIZERS:
        raise NotImplementedError(f"no initialiser {initializer.name!r}, only {', '.join(INITIALIZERS)}")
    return INITIALIZERS[initializer.name](initializer, shape, generator)


Draw = Callable[[Initializer, tuple[int, ...], np.random.Generator], NDArray[np.float64]]


def _scaled_uniform(variance: Callable[[int, int], float]) -> Draw:
    def draw(
        initializer: Initializer, shape: tuple[int, ...], generator: np.random.Generator
    ) -> NDArray[np.float64]:
        limit = math.sqrt(3 * variance(*_fans(shape)))
        return generator.uniform(-limit, limit, shape)

    return draw


def _scaled_normal(variance: Callable[[int, int], float]) -> Draw:
    def draw(
        initializer: Initializer, shape: tuple[int, ...], generator: np.random.Generator
    ) -> NDArray[np.float64]:
        return generator.normal(0, math.sqrt(variance(*_fans(shape))), shape)

    return draw


def _glorot(fan_in: int, fan_out: int) -> float:
    return 2 / (fan_in + fan_out)


def _he(fan_in: int, fan_out: int) -> float:
    return 2 / fan_in


#: How each initialiser of :class:`optbench.models.layers.Initializer` draws.
INITIALIZERS: Mapping[str, Draw] = MappingProxyType(
    {
        "glorot_uniform": _scaled_uniform(_glorot),
        "glorot_normal": _scaled_normal(_glorot),
        "he_uniform": _scaled_uniform(_he),
        "he_normal": _scaled_normal(_he),
        "normal": lambda start, shape, generator: generator.normal(start.mean, start.sd, shape),
        "truncated_normal": lambda start, shape, generator: (
            start.mean + start.sd * _truncated_standard_normal(shape, generator)
        ),
        "constant": lambda start, shape, generator: np.full(shape, start.value),
        "zeros": lambda start, shape, generator: np.zeros(shape),
    }
)


def _truncated_standard_normal(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float64]:
    values = generator.standard_normal(shape)
    while (outside := np.abs(values) > 2).any():
        values[outside] = generator.standard_normal(int(outside.sum()))
    return values


def _fans(shape: tuple[int, ...]) -> tuple[int, int]:
    field = math.prod(shape[:-2])
    return shape[-2] * field, shape[-1] * field
