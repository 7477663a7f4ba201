"""What the statistical modules share: the error type and the rules for turning values into differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optbench.errors import UserError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: Differences are rounded to this many significant places before they are ranked, so that 0.981 - 0.971 and
#: 0.954 - 0.944 are the tie that they look like.
SIGNIFICANT_PLACES = 9


class StatsError(UserError, ValueError):
    """Input that an analysis cannot use: what was found, what is allowed, what to do."""


def one_dimensional(values: ArrayLike, name: str = "d") -> FloatArray:
    """Return `values` as a 1-d float array without NaN.

    Parameters
    ----------
    values : array_like, shape (n,)
        Numbers; infinities stand for diverged trials and are kept.
    name : str
        The name used in messages.

    Returns
    -------
    ndarray of float64, shape (n,)

    Raises
    ------
    StatsError
        If the array is empty, has another dimension, or holds NaN.

    Examples
    --------
    >>> one_dimensional([1, 2])
    array([1., 2.])
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise StatsError(
            f"{name}: found shape {array.shape}, allowed is (n,) with n >= 1; pass one value per pair"
        )
    if np.isnan(array).any():
        raise StatsError(
            f"{name}: found {int(np.isnan(array).sum())} NaN among {array.size} values; drop missing "
            "pairs first and count them, and give a diverged trial as +inf or -inf"
        )
    return array


def round_significant(values: ArrayLike, places: int = SIGNIFICANT_PLACES) -> FloatArray:
    """Round to significant places; zeros and infinities stay as they are.

    Parameters
    ----------
    values : array_like
        Any shape.
    places : int
        Significant decimal places.

    Returns
    -------
    ndarray of float64, the shape of `values`

    Examples
    --------
    >>> bool(round_significant(0.981 - 0.971) == round_significant(0.954 - 0.944))
    True
    """
    x = np.asarray(values, dtype=np.float64)
    usable = np.isfinite(x) & (x != 0)
    magnitude = np.where(usable, np.floor(np.log10(np.abs(np.where(usable, x, 1.0)))), 0.0)
    # The mantissa is rounded, then scaled back: 10.0**exponent is exact for the exponents of ordinary
    # metrics.
    shift = np.clip(places - 1 - magnitude, -300, 300)
    scale = 10.0 ** np.abs(shift)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.where(shift >= 0, np.round(x * scale) / scale, np.round(x / scale) * scale)
    return np.where(usable & np.isfinite(rounded), rounded, x)


def stored_resolution(values: ArrayLike) -> float | None:
    """The step to which differences of values that were stored as 32-bit floats can be told apart.

    Parameters
    ----------
    values : array_like
        Any shape; what is not finite is left out.

    Returns
    -------
    float or None
        None if some value is no 32-bit float, or if all are exact in few binary places (integers, halves):
        they lost nothing. Otherwise the last decimal place, if up to 6 places write every value as it was
        stored; else the next power of ten above four roundings of the largest value.

    Examples
    --------
    >>> stored_resolution(np.array([0.981, 0.9712], dtype=np.float32)), stored_resolution([0.981, 0.9712])
    (0.0001, None)
    """
    x = np.asarray(values, dtype=np.float64).ravel()
    x = x[np.isfinite(x)]
    with np.errstate(over="ignore"):
        short = x.astype(np.float32)
    if not x.size or not (short == x).all() or (np.rint(x * 1024) == x * 1024).all():
        return None
    for places in range(7):
        if (np.round(x, places).astype(np.float32) == short).all():
            return float(10.0**-places)
    step = 4 * float(np.finfo(np.float32).eps) * float(np.abs(x).max())
    return float(10.0 ** math.ceil(math.log10(step)))


def count_resolution(values: ArrayLike, examples: int) -> float | None:
    """1 / examples, if the values are shares of that many test examples.

    Parameters
    ----------
    values : array_like
        Such as accuracies; what is not finite is left out.
    examples : int
        Size of the test part.

    Returns
    -------
    float or None
        None if some value is no multiple of 1 / examples, up to the rounding of 32-bit floats.

    Examples
    --------
    >>> count_resolution([0.25, 0.5], 4), count_resolution([0.3, 0.5], 4)
    (0.25, None)
    """
    x = np.asarray(values, dtype=np.float64)
    counts = x[np.isfinite(x)] * examples
    noise = max(1e-6, 4 * float(np.finfo(np.float32).eps) * examples)
    return 1 / examples if (np.abs(counts - np.rint(counts)) <= min(0.1, noise)).all() else None


def value_step(values: ArrayLike, examples: int | None) -> float | None:
    """The step of a metric's values: 1 / examples where they are such shares, else what 32-bit storage left.

    Examples
    --------
    >>> value_step([0.25, 0.5], 4), value_step([0.981, 0.9712], None)
    (0.25, None)
    """
    step = None if examples is None else count_resolution(values, examples)
    return stored_resolution(values) if step is None else step


def differences(
    candidate: ArrayLike, baseline: ArrayLike, *, maximise: bool = True, resolution: float | None = None
) -> FloatArray:
    """Return paired differences, positive where the candidate is better.

    Parameters
    ----------
    candidate, baseline : array_like, shape (n,)
        Values of the same blocks. A diverged trial is the worst infinity (``-inf`` if `maximise`, else
        ``inf``).
    maximise : bool
        True if a larger metric is better.
    resolution : float, optional
        The step of the values, such as 1 / test examples for an accuracy: differences are rounded to it.

    Returns
    -------
    ndarray, shape (n,)
        Rounded to `resolution` and to 9 significant places; ``+inf`` where only the baseline diverged,
        ``-inf`` where only the candidate did, 0 where both did. What is within a few units of rounding of the
        two values is 0.

    Examples
    --------
    >>> differences([0.9, -float("inf"), -float("inf")], [0.8, 0.7, -float("inf")])
    array([ 0.1, -inf,  0. ])
    """
    a = one_dimensional(candidate, "candidate")
    b = one_dimensional(baseline, "baseline")
    if a.shape != b.shape:
        raise StatsError(
            f"found {a.size} candidate and {b.size} baseline values; pairs need the same number of both"
        )
    if not maximise:
        a, b = -a, -b
    with np.errstate(invalid="ignore"):
        d = a - b
    d[a == b] = 0.0
    finite = np.isfinite(d)
    noise = 4 * np.finfo(np.float64).eps * np.maximum(np.abs(a), np.abs(b))
    d[finite] = np.where(np.abs(d[finite]) <= noise[finite], 0.0, d[finite])
    if resolution is not None:
        d[finite] = np.rint(d[finite] / resolution) * resolution
    return round_significant(d)


def midranks(values: ArrayLike) -> FloatArray:
    """Ranks along the last axis, 1 = smallest, ties share the mean rank.

    Parameters
    ----------
    values : array_like, shape (n,) or (m, n)
        Without NaN; infinities tie with their like.

    Returns
    -------
    ndarray, of the same shape

    Notes
    -----
    What ``scipy.stats.rankdata`` gives, without importing scipy.stats, which takes longer than pandas.

    Examples
    --------
    >>> midranks([0.2, 0.1, 0.2])
    array([2.5, 1. , 2.5])
    """
    x = np.atleast_2d(np.asarray(values, dtype=np.float64))
    order = np.argsort(x, axis=1, kind="stable")
    ordered = np.take_along_axis(x, order, axis=1)
    place = np.arange(x.shape[1])
    begins = np.ones(x.shape, dtype=bool)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(begins, place, 0), axis=1)
    ends = np.ones(x.shape, dtype=bool)
    ends[:, :-1] = begins[:, 1:]
    last = np.minimum.accumulate(np.where(ends, place, x.shape[1])[:, ::-1], axis=1)[:, ::-1]
    ranks = np.empty(x.shape)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=1)
    return ranks.reshape(np.shape(values))


def check_alternative(alternative: str, allowed: Sequence[str] = ("two-sided", "greater", "less")) -> None:
    """Raise StatsError unless `alternative` is one of `allowed`.

    Examples
    --------
    >>> check_alternative("greater")
    """
    if alternative not in allowed:
        raise StatsError(f"alternative: found {alternative!r}, allowed are {', '.join(allowed)}")


def check_fraction(value: float, name: str) -> None:
    """Raise StatsError unless 0 < value < 1.

    Examples
    --------
    >>> check_fraction(0.05, "alpha")
    """
    if not (math.isfinite(value) and 0 < value < 1):
        raise StatsError(f"{name}: found {value!r}, allowed is a number between 0 and 1, ends excluded")


def to_plain(value: Any) -> Any:
    """Turn results into what JSON can hold.

    Parameters
    ----------
    value : object
        Dataclasses, mappings, sequences, arrays and scalars, nested in any way.

    Returns
    -------
    object
        Dicts, lists, str, int, float, bool and None. NaN becomes None, infinities the strings "inf" and
        "-inf".

    Examples
    --------
    >>> to_plain({"p": float("nan"), "high": float("inf"), "n": np.int64(3)})
    {'p': None, 'high': 'inf', 'n': 3}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return to_plain(value.tolist())
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return value if math.isfinite(value) else ("inf" if value > 0 else "-inf")
    return value
