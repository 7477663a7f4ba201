"""Corrections for several comparisons: adjusted p-values, so that `adjusted <= alpha` decides.

Adjusted p-values keep the order of the input. NaN p-values (a comparison that could not be made) stay NaN and are not
counted in the family.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from optbench.stats.common import FloatArray, StatsError


def _checked(pvalues: ArrayLike) -> tuple[FloatArray, FloatArray]:
    p = np.atleast_1d(np.asarray(pvalues, dtype=np.float64))
    known = p[~np.isnan(p)]
    if p.ndim != 1 or ((known < 0) | (known > 1)).any():
        raise StatsError(
            f"pvalues: found shape {p.shape} with values {known}; allowed is one row of numbers in [0, 1]"
        )
    return p, known


def _spread(p: FloatArray, adjusted: FloatArray) -> FloatArray:
    result = np.full(p.shape, np.nan)
    result[~np.isnan(p)] = np.minimum(adjusted, 1.0)
    return result


def holm(pvalues: ArrayLike) -> FloatArray:
    """Holm's step-down correction: controls the family-wise error under any dependence.

    Parameters
    ----------
    pvalues : array_like, shape (m,)

    Returns
    -------
    ndarray, shape (m,)

    References
    ----------
    Holm (1979), Scand. J. Statist. 6, 65-70.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    p, known = _checked(pvalues)
    m = known.size
    return _step_down(p, known, np.arange(m, 0, -1))


def _step_down(p: FloatArray, known: FloatArray, multipliers: ArrayLike) -> FloatArray:
    order = np.argsort(known, kind="stable")
    adjusted = np.empty_like(known)
    adjusted[order] = np.maximum.accumulate(known[order] * np.asarray(multipliers, dtype=np.float64))
    return _spread(p, adjusted)
