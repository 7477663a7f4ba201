"""Time to target: Freireich's trial, agreement with statsmodels, budgets and censoring."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.duration.survfunc import SurvfuncRight, survdiff

from optbench.stats.classifiers import mcnemar
from optbench.stats.common import StatsError
from optbench.stats.families import Settings
from optbench.stats.survival import kaplan_meier, log_rank, summarise_times, time_to_target
from tests.stats.published_tables import FREIREICH

PLACEBO, TREATED, RELAPSED = FREIREICH.T


def test_freireich_kaplan_meier():
    # The standard table of the 6-MP arm, e.g. Klein and Moeschberger (2003), chapter 4.
    km = kaplan_meier(TREATED, RELAPSED)
    assert km.times == (6, 7, 10, 13, 16, 22, 23)
    assert [round(s, 3) for s in km.survival] == [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448]
    assert [round(s, 4) for s in km.standard_error] == [
        0.0764,
        0.0869,
        0.0963,
        0.1068,
        0.1141,
        0.1282,
        0.1346,
    ]
    assert km.at_risk == (21, 17, 15, 12, 11, 7, 6)


def test_freireich_log_rank_ignoring_the_pairs():
    # Chi-square 16.79; 9 observed and 19.25 expected relapses on 6-MP (survival::survdiff, MASS::gehan).
    result = log_rank(np.r_[PLACEBO, TREATED], np.r_[np.ones(21), RELAPSED], np.repeat([0, 1], 21))
    assert round(result.statistic, 2) == 16.79
    assert result.observed == 9
    assert math.isnan(result.p_exact)
    assert round(result.expected, 2) == 19.25


def test_freireich_pairs():
    # 18 of the 21 pairs favour 6-MP (Freireich et al. 1963): stratified by pair, each pair is one coin.
    result = log_rank(
        np.r_[PLACEBO, TREATED],
        np.r_[np.ones(21), RELAPSED],
        np.repeat([0, 1], 21),
        strata=np.tile(range(21), 2),
    )
    sign = mcnemar(18, 3)
    assert result.statistic == pytest.approx((18 - 3) ** 2 / 21)
    assert result.pvalue == pytest.approx(sign.p_asymptotic)
    assert result.p_exact == pytest.approx(sign.p_exact)


@settings(max_examples=200, deadline=None)
@given(st.integers(4, 30), st.integers(0, 10**6))
def test_estimates_equal_statsmodels_with_ties_and_strata(n, seed):
    rng = np.random.default_rng(seed)
    time, event = rng.integers(1, 9, n).astype(float), rng.random(n) < 0.7
    group, strata = rng.integers(0, 2, n), rng.integers(0, 2, n)
    if event.any():
        theirs = SurvfuncRight(time, event.astype(int))
        ours = kaplan_meier(time, event)
        assert ours.survival == pytest.approx(theirs.surv_prob)
        keep = theirs.surv_prob > 0
        assert np.array(ours.standard_error)[keep] == pytest.approx(theirs.surv_prob_se[keep])
    if event.any() and len(set(group)) == 2:
        ours = log_rank(time, event, group)
        if 0 < ours.expected < event.sum() and ours.statistic > 0:
            assert ours.statistic == pytest.approx(survdiff(time, event.astype(int), group)[0], rel=1e-6)
    parts = [log_rank(time[strata == s], event[strata == s], group[strata == s]) for s in set(strata)]
    whole = log_rank(time, event, group, strata=strata)
    assert whole.observed == sum(p.observed for p in parts)
    assert whole.expected == pytest.approx(sum(p.expected for p in parts))


def test_summaries_count_failures_at_the_budget():
    s = summarise_times([2.0, 4.0, math.inf, 12.0], budget=10.0)
    assert (s.successes, s.n) == (2, 4)
    assert s.rmst == (2 + 4 + 10 + 10) / 4
    assert s.par2 == (2 + 4 + 20 + 20) / 4
    assert s.ert == 26 / 2
    assert s.median == math.inf
    assert summarise_times([math.inf], budget=1.0).ert == math.inf
    with pytest.raises(StatsError, match="budget: found 0"):
        summarise_times([1.0], budget=0)


def test_paired_times_tie_at_the_budget_and_rank_the_rest():
    times = np.array([[9.0, 5.0], [math.inf, 6.0], [math.inf, math.inf], [8.0, math.nan]] + [[7.0, 3.0]] * 4)
    (result,) = time_to_target(
        times, ["slow", "fast"], dataset="d", budget=10.0, settings=Settings("slow", "baseline")
    )
    c = result.family.comparisons[0]
    assert (c.n, c.n_missing, c.signed_rank.n_zeros) == (7, 1, 1)
    assert c.verdict.word == "better"
    assert c.mean.estimate == pytest.approx((4 + 4 + 0 + 4 * 4) / 7)
    assert (result.success_tests[0].b, result.success_tests[0].c) == (1, 0)
    assert [s.successes for s in result.summaries] == [6, 6]


def test_reached_in_the_last_epoch_ranks_before_not_reached():
    times = np.array([[np.inf, 10.0]] * 6)
    found = time_to_target(
        times, ["adam", "wame"], dataset="d", budget=10.0, settings=Settings("adam", "baseline")
    )[0]
    c = found.family.comparisons[0]
    assert (c.signed_rank.n_zeros, c.signed_rank.pvalue) == (0, 2 / 64)
    assert c.verdict.word == "better"
    assert [s.rmst for s in found.summaries] == [10.0, 10.0]


def test_two_that_do_not_reach_tie():
    times = np.array([[np.inf, 11.0]] * 6)
    settings_ = Settings("adam", "baseline")
    found = time_to_target(times, ["adam", "wame"], dataset="d", budget=10.0, settings=settings_)[0]
    assert "identical in all 6 pairs" in found.family.comparisons[0].verdict.reason


@pytest.mark.parametrize(
    ("times", "median"),
    [
        ([5.0], 5.0),
        ([7.0, 1.0], 4.0),
        ([9.0, 1.0, 2.0, 8.0, 4.0], 4.0),
        ([9.0, 1.0, 2.0, 8.0, 4.0, 7.0], 5.5),
        ([9.0, math.inf, 2.0, 12.0, 4.0, 7.0, 8.0], 8.0),
        ([1.0, math.inf, 12.0], math.inf),
        ([1.0, 12.0], math.inf),
    ],
)
def test_the_median_time_counts_what_was_not_reached_as_never(times, median):
    assert summarise_times(times, budget=10.0).median == median
