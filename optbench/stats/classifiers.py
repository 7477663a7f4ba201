"""Two trained models on one test set: McNemar's test."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from optbench.stats.common import StatsError


@dataclass(frozen=True)
class McNemarResult:
    """McNemar's test of b against c discordant examples: mid-p first, the exact conditional p beside it."""

    b: int
    c: int
    p_midp: float
    p_exact: float
    p_asymptotic: float
    smallest_attainable_p: float


def mcnemar(b: int, c: int) -> McNemarResult:
    """McNemar's test on discordant counts.

    Parameters
    ----------
    b, c : int
        Examples that only the first, and only the second, model got right; >= 0.

    Returns
    -------
    McNemarResult
        b + c = 0 gives p = 1 everywhere. `smallest_attainable_p` is that of the exact test.

    Notes
    -----
    It compares two trained models, not two optimizers: the variance of training is not in it. The continuity-
    corrected chi-square is not offered: it is more conservative than the exact test.

    References
    ----------
    Fagerland, Lydersen and Laake (2013), BMC Med. Res. Methodol. 13, 91.

    Examples
    --------
    >>> r = mcnemar(1, 7)
    >>> round(r.p_midp, 3), round(r.p_exact, 3)
    (0.039, 0.07)
    """
    if min(b, c) < 0 or int(b) != b or int(c) != c:
        raise StatsError(f"b, c: found {b} and {c}, allowed are counts >= 0")
    n = int(b + c)
    if n == 0:
        return McNemarResult(0, 0, 1.0, 1.0, 1.0, 1.0)
    low = min(b, c)
    exact = min(1.0, 2 * float(special.bdtr(low, n, 0.5)))
    log_ways = special.gammaln(n + 1) - special.gammaln(low + 1) - special.gammaln(n - low + 1)
    point = math.exp(float(log_ways) - n * math.log(2))
    mid = 1.0 - point / 2 if b == c else 2 * float(special.bdtr(low, n, 0.5)) - point
    z = abs(b - c) / math.sqrt(n)
    return McNemarResult(
        int(b), int(c), mid, exact, float(2 * special.ndtr(-z)), min(1.0, math.ldexp(2.0, -min(n, 1000)))
    )


def mcnemar_predictions(truth: ArrayLike, first: ArrayLike, second: ArrayLike) -> McNemarResult:
    """McNemar's test from predictions on the same examples.

    Parameters
    ----------
    truth, first, second : array_like, shape (n,)
        True labels and the predicted labels of both models.

    Returns
    -------
    McNemarResult
        `b` counts the examples that only the first model got right.

    Examples
    --------
    >>> mcnemar_predictions([1, 1, 0], [1, 1, 0], [0, 0, 0]).b
    2
    """
    y, p, q = (np.asarray(a) for a in (truth, first, second))
    if y.ndim != 1 or not y.shape == p.shape == q.shape or y.size == 0:
        raise StatsError(
            f"predictions: found shapes {y.shape}, {p.shape}, {q.shape}; allowed are three equal (n,)"
        )
    right, other = p == y, q == y
    return mcnemar(int((right & ~other).sum()), int((~right & other).sum()))
