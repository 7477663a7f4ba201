"""Shares of variance by random stream, when a suite gives the streams separate, crossed seed lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from optbench.stats.common import StatsError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class VarianceShares:
    """Variance components of the main effect of each stream, and the rest (interactions and unseeded noise).

    `shares` sum to 1 (NaN if nothing varies). A negative estimate is set to 0 and named in `truncated`.
    """

    streams: tuple[str, ...]
    levels: tuple[int, ...]
    components: tuple[float, ...]
    residual: float
    shares: tuple[float, ...]
    residual_share: float
    truncated: tuple[str, ...]


def variance_shares(frame: pd.DataFrame, *, value: str, streams: Sequence[str]) -> VarianceShares:
    """Split the variance of a metric (or of a paired difference) into the streams that cause it.

    Parameters
    ----------
    frame : DataFrame
        One row per trial; the seeds of the streams fully crossed, each combination once.
    value : str
        Column with the metric, finite.
    streams : sequence of str
        Two or more columns with the seeds of the streams, such as init and order.

    Returns
    -------
    VarianceShares
        In squared units of `value`.

    Raises
    ------
    StatsError
        If the design is not crossed and complete: what was found and which design is needed.

    Notes
    -----
    Method of moments for the crossed random-effects model without replication: component = (MS_stream -
    MS_rest) / (trials per level). Unbiased before truncation; needs many levels to be precise (with 5 levels
    a component's relative standard error is about 70 %).

    References
    ----------
    Searle, Casella and McCulloch (1992), Variance Components; Bouthillier et al. (2021),
    Accounting for Variance in Machine Learning Benchmarks, MLSys.

    Examples
    --------
    >>> import pandas as pd
    >>> f = pd.DataFrame({"init": [0, 0, 1, 1], "order": [0, 1, 0, 1], "acc": [1.0, 1.0, 3.0, 3.0]})
    >>> variance_shares(f, value="acc", streams=["init", "order"]).shares
    (1.0, 0.0)
    """
    if len(streams) < 2:
        raise StatsError(f"streams: found {', '.join(streams)}; 2 separate seed lists are needed at least")
    lacking = [c for c in (*streams, value) if c not in frame.columns]
    if lacking:
        raise StatsError(f"columns: {', '.join(lacking)} not found; found are {', '.join(frame.columns)}")
    levels = tuple(int(frame[s].nunique()) for s in streams)
    expected = int(np.prod(levels))
    if len(frame) != expected or frame.duplicated(list(streams)).any() or min(levels) < 2:
        design = " x ".join(f"{n} {s}" for n, s in zip(levels, streams, strict=True))
        raise StatsError(
            f"design: found {len(frame)} trials over {design} seeds; a crossed design has each "
            f"of the {expected} combinations once, with at least 2 seeds per stream"
        )
    table = frame.sort_values(list(streams))[value].to_numpy(dtype=np.float64).reshape(levels)
    if not np.isfinite(table).all():
        raise StatsError(f"{value}: found values that are not finite; leave out seeds with diverged trials")
    return _components(table, tuple(str(s) for s in streams))


def _components(
    table: np.ndarray[tuple[int, ...], np.dtype[np.float64]], streams: tuple[str, ...]
) -> VarianceShares:
    total = ((table - table.mean()) ** 2).sum()
    squares, rest_df = [], table.size - 1
    for axis, n in enumerate(table.shape):
        others = tuple(i for i in range(table.ndim) if i != axis)
        effect = table.mean(axis=others) - table.mean()
        squares.append(float((effect**2).sum()) * table.size / n)
        rest_df -= n - 1
    residual = max(0.0, float(total) - sum(squares)) / rest_df
    raw = [(ss / (n - 1) - residual) / (table.size / n) for ss, n in zip(squares, table.shape, strict=True)]
    truncated = tuple(s for s, c in zip(streams, raw, strict=True) if c < 0)
    components = [max(0.0, c) for c in raw]
    whole = sum(components) + residual
    shares = [c / whole if whole > 0 else float("nan") for c in (*components, residual)]
    return VarianceShares(
        streams, table.shape, tuple(components), residual, tuple(shares[:-1]), shares[-1], truncated
    )
