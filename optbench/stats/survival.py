"""Time to target under a fixed budget: paired tests on min(T, B), Kaplan-Meier, log-rank, PAR-2, ERT.

A trial that never reaches the target has T = inf and is censored at the budget B; so is a diverged one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from optbench.stats.classifiers import McNemarResult, mcnemar
from optbench.stats.common import FloatArray, StatsError, one_dimensional
from optbench.stats.crossed import Crossing
from optbench.stats.families import FamilyResult, Settings, compare_family
from optbench.stats.paired import sign_flip


@dataclass(frozen=True)
class KaplanMeier:
    """Product-limit estimate: after `times[i]`, the share `survival[i]` has not reached the target yet."""

    times: tuple[float, ...]
    survival: tuple[float, ...]
    at_risk: tuple[int, ...]
    events: tuple[int, ...]
    standard_error: tuple[float, ...]


@dataclass(frozen=True)
class LogRank:
    """Log-rank test; `observed` and `expected` are the events of the candidate.

    `p_exact` swaps the two members of each pair; NaN unless every stratum is one pair.
    """

    statistic: float
    pvalue: float
    p_exact: float
    observed: float
    expected: float
    strata: int


@dataclass(frozen=True)
class TimeSummary:
    """One optimizer's times to target.

    `rmst` is the mean of min(T, B); `par2` counts a failure as 2 B; `ert` is the total time spent per
    success, infinite without one.
    """

    optimizer: str
    n: int
    successes: int
    rmst: float
    par2: float
    ert: float
    median: float


@dataclass(frozen=True)
class TimeToTarget:
    """One dataset: the paired family on min(T, B), summaries, and tests of reaching the target at all.

    `success_tests` and `log_rank` follow the order of ``family.comparisons`` and are not corrected.
    """

    dataset: str
    budget: float
    family: FamilyResult
    summaries: tuple[TimeSummary, ...]
    success_tests: tuple[McNemarResult, ...]
    log_rank: tuple[LogRank, ...]


def kaplan_meier(time: ArrayLike, event: ArrayLike) -> KaplanMeier:
    """Kaplan-Meier estimate with Greenwood's standard error.

    Parameters
    ----------
    time : array_like, shape (n,)
        Positive finite times of the event or of censoring.
    event : array_like of bool, shape (n,)
        True if the target was reached, False if censored. Censoring at the time of an event counts as after
        it.

    Returns
    -------
    KaplanMeier
        At the distinct times of events, ascending.

    References
    ----------
    Kaplan and Meier (1958), JASA 53, 457-481; Greenwood (1926), on the variance.

    Examples
    --------
    >>> kaplan_meier([1.0, 2.0, 3.0], [True, False, True]).survival
    (0.6666666666666667, 0.0)
    """
    t, e = _survival_input(time, event)
    times = np.unique(t[e])
    at_risk = np.array([(t >= x).sum() for x in times])
    events = np.array([(t[e] == x).sum() for x in times])
    survival = np.cumprod(1 - events / at_risk) if times.size else np.empty(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = survival**2 * np.cumsum(events / (at_risk * (at_risk - events)))
    error = np.sqrt(np.where(survival > 0, variance, 0.0))
    return KaplanMeier(
        tuple(times.tolist()),
        tuple(survival.tolist()),
        tuple(at_risk.tolist()),
        tuple(events.tolist()),
        tuple(error.tolist()),
    )


def _survival_input(
    time: ArrayLike, event: ArrayLike
) -> tuple[FloatArray, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    t = one_dimensional(time, "time")
    e = np.asarray(event, dtype=bool)
    if e.shape != t.shape or not np.isfinite(t).all() or (t < 0).any():
        raise StatsError(
            "time: allowed are finite times >= 0, one event flag each; give censored trials their budget"
        )
    return t, e


def log_rank(
    time: ArrayLike, event: ArrayLike, group: ArrayLike, *, strata: ArrayLike | None = None
) -> LogRank:
    """Two-sample log-rank test, optionally stratified (by pair: the strata are the blocks).

    Parameters
    ----------
    time, event : array_like, shape (n,)
        As in `kaplan_meier`.
    group : array_like of bool, shape (n,)
        True for the candidate.
    strata : array_like, shape (n,), optional
        Labels of the strata; risk sets never cross them.

    Returns
    -------
    LogRank
        Chi-square with 1 degree of freedom. Without any informative event: statistic 0, p = 1.

    Notes
    -----
    `pvalue` is asymptotic, and too small for few pairs; `p_exact` is the sign-flip test of the pairs' scores.
    Stratified by pair with distinct times, the two are McNemar's tests of who came first.

    References
    ----------
    Mantel (1966), Cancer Chemother. Rep. 50, 163-170; Andersen, Borgan, Gill and Keiding (1993), chapter V.

    Examples
    --------
    >>> round(log_rank([1, 2, 3, 4], [1, 1, 1, 1], [1, 1, 0, 0]).statistic, 4)
    2.8824
    """
    t, e = _survival_input(time, event)
    g = np.asarray(group, dtype=bool)
    s = (
        np.zeros(t.size, dtype=np.int64)
        if strata is None
        else np.unique(np.asarray(strata), return_inverse=True)[1]
    )
    if g.shape != t.shape or s.shape != t.shape:
        raise StatsError(
            f"group, strata: found {g.shape} and {s.shape}, allowed is the shape of time, {t.shape}"
        )
    observed = expected = variance = 0.0
    scores, paired = [], True
    for label in np.unique(s):
        part = s == label
        ts, es, gs = t[part], e[part], g[part]
        before = observed - expected
        for x in np.unique(ts[es]):
            risk = ts >= x
            n, n1 = int(risk.sum()), int((risk & gs).sum())
            d, d1 = int((es & (ts == x)).sum()), int((es & (ts == x) & gs).sum())
            observed += d1
            expected += d * n1 / n
            if n > 1:
                variance += d * (n1 / n) * (1 - n1 / n) * (n - d) / (n - 1)
        scores.append(observed - expected - before)
        paired = paired and gs.size == 2 and int(gs.sum()) == 1
    statistic = (observed - expected) ** 2 / variance if variance > 0 else 0.0
    exact = sign_flip(scores).pvalue if paired else math.nan
    return LogRank(statistic, float(special.chdtrc(1, statistic)), exact, observed, expected, len(scores))


def summarise_times(time: ArrayLike, *, budget: float, optimizer: str = "") -> TimeSummary:
    """Success count, RMST, PAR-2, ERT and median of times to target under a budget.

    Parameters
    ----------
    time : array_like, shape (n,)
        ``inf`` where the target was never reached; times beyond the budget count as not reached.
    budget : float
        B > 0, in the units of `time`.
    optimizer : str

    Returns
    -------
    TimeSummary

    References
    ----------
    PAR-k: Hutter et al. (2009), JAIR 36, 267-306; ERT: Hansen et al. (2010), GECCO companion, 1689-1696.

    Examples
    --------
    >>> s = summarise_times([2.0, 4.0, float("inf")], budget=10.0)
    >>> s.successes, s.rmst, s.par2, s.ert
    (2, 5.333333333333333, 8.666666666666666, 8.0)
    """
    t = one_dimensional(time, "time")
    if not (math.isfinite(budget) and budget > 0):
        raise StatsError(f"budget: found {budget!r}, allowed is a positive number in the units of time")
    reached = t <= budget
    spent = np.minimum(t, budget)
    wins = int(reached.sum())
    ordered = np.sort(np.where(reached, t, np.inf))
    middle = ordered[(t.size - 1) // 2], ordered[t.size // 2]
    return TimeSummary(
        optimizer=optimizer,
        n=int(t.size),
        successes=wins,
        rmst=float(spent.mean()),
        par2=float(np.where(reached, t, 2 * budget).mean()),
        ert=float(spent.sum()) / wins if wins else math.inf,
        median=float(middle[0]) if middle[0] == middle[1] else float(sum(middle) / 2),
    )


def budgeted(times: FloatArray, *, budget: float | FloatArray) -> FloatArray:
    """Times under a budget for tests by rank: what was not reached ranks behind every time.

    Parameters
    ----------
    times : ndarray
        ``inf`` or beyond the budget where the target was not reached, NaN missing.
    budget : float or ndarray
        B > 0.

    Returns
    -------
    ndarray, of the same shape
        The time, or a ten-millionth more than the budget: not reached ties with itself and with nothing else,
        while means keep their digits.

    Examples
    --------
    >>> budgeted(np.array([5.0, 8.0, np.inf]), budget=8.0).round(7).tolist()
    [5.0, 8.0, 8.0000008]
    """
    behind = np.asarray(budget) * (1 + 1e-7)
    return np.asarray(np.where(np.isnan(times) | (times <= budget), times, behind), dtype=np.float64)


def time_to_target(
    times: FloatArray,
    names: Sequence[str],
    *,
    dataset: str,
    budget: float,
    settings: Settings,
    crossing: Crossing | None = None,
) -> list[TimeToTarget]:
    """Analyse the times to target of one dataset.

    Parameters
    ----------
    times : ndarray, shape (n, k)
        Blocks x optimizers; ``inf`` where the target was not reached (or the trial diverged), NaN missing.
    names : sequence of str, length k
    dataset : str
    budget : float
        Fixed budget B; the paired test is on min(T, B), where not reached ranks behind reached at B.
    settings : Settings
        The margin does not apply to times.
    crossing : Crossing, optional
        The streams whose seeds repeat over blocks.

    Returns
    -------
    list of TimeToTarget
        One entry.

    Examples
    --------
    >>> times = np.array([[5.0, 3.0]] * 6)
    >>> settings = Settings("adam", "baseline")
    >>> result = time_to_target(times, ["adam", "wame"], dataset="toy", budget=9.0, settings=settings)
    >>> result[0].family.comparisons[0].verdict.word
    'better'
    """
    plain = Settings(settings.baseline, settings.family, settings.alpha, settings.correction, None)
    oriented = -budgeted(times, budget=budget)
    family = compare_family(
        oriented,
        names,
        settings=plain,
        scope=dataset,
        maximise=False,
        blocks="seeds",
        crossing=crossing,
    )
    summaries = tuple(
        summarise_times(column[~np.isnan(column)], budget=budget, optimizer=str(name))
        for name, column in zip(names, times.T, strict=True)
        if not np.isnan(column).all()
    )
    successes, ranks = [], []
    for c, b in plain.pairs(names):
        keep = ~np.isnan(times[:, [c, b]]).any(axis=1)
        pair = times[keep][:, [c, b]]
        done = pair <= budget
        successes.append(
            mcnemar(int((done[:, 0] & ~done[:, 1]).sum()), int((~done[:, 0] & done[:, 1]).sum()))
        )
        ranks.append(
            log_rank(
                np.minimum(pair, budget).ravel(),
                done.ravel(),
                np.tile([True, False], len(pair)),
                strata=np.repeat(np.arange(len(pair)), 2),
            )
            if len(pair)
            else LogRank(0.0, math.nan, math.nan, 0.0, 0.0, 0)
        )
    return [TimeToTarget(dataset, budget, family, summaries, tuple(successes), tuple(ranks))]
