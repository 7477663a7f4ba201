"""Curves, performance profiles, tuning curves, variance shares and posteriors."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from optbench.stats.bayes import bayesian_signed_rank, correlated_t
from optbench.stats.common import StatsError
from optbench.stats.curves import log_loss_area, max_t
from optbench.stats.paired import paired_t, sign_flip
from optbench.stats.profiles import (
    performance_profile,
    performance_ratios,
    profile_score,
    with_held_out,
)
from optbench.stats.tuning_curves import edge_warnings, expected_best, tuning_curve
from optbench.stats.variance import variance_shares
from tests.stats.published_tables import ALGOPERF

# ---------------------------------------------------------------- curves


def test_log_loss_area_is_the_mean_log_loss():
    steps = np.array([0, 10, 40])
    assert log_loss_area(steps, np.exp([1.0, 1.0, 1.0])) == pytest.approx(1.0)
    assert log_loss_area(steps, np.exp([0.0, 2.0, 2.0])) == pytest.approx((10 * 1 + 30 * 2) / 40)
    assert log_loss_area(steps, [1.0, np.nan, 2.0]) == math.inf
    with pytest.raises(StatsError, match="allowed are values > 0"):
        log_loss_area(steps, [1.0, 0.0, 1.0])
    with pytest.raises(StatsError, match="increasing steps"):
        log_loss_area([0, 0, 1], [1.0, 1.0, 1.0])


def brute_max_t(d):
    n = len(d)
    observed = np.abs(stats.ttest_1samp(d, 0).statistic)
    largest = [
        np.abs(stats.ttest_1samp(d * np.array(s)[:, None], 0).statistic).max()
        for s in itertools.product([1, -1], repeat=n)
    ]
    return np.mean(np.array(largest)[:, None] >= observed * (1 - 1e-9), axis=0)


def test_max_t_equals_enumeration():
    d = np.random.default_rng(0).normal(0.4, 1, size=(6, 3))
    assert max_t(d).adjusted_p == pytest.approx(brute_max_t(d))


def test_max_t_on_one_point_is_the_sign_flip_test():
    d = np.random.default_rng(1).normal(0.5, 1, size=11)
    result = max_t(d[:, None])
    assert result.pvalue == pytest.approx(sign_flip(d).pvalue)
    assert result.smallest_attainable_p == 2.0**-10


def test_max_t_controls_the_family_wise_error_of_correlated_curves():
    rng = np.random.default_rng(2)
    false = pointwise = 0
    runs = 300
    for _ in range(runs):
        d = np.cumsum(rng.standard_t(3, size=(6, 25)), axis=1)
        result = max_t(d)
        false += result.pvalue <= 0.05
        pointwise += ((result.pointwise_low > 0) | (result.pointwise_high < 0)).any()
    assert false / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert pointwise / runs > 0.1  # what looking at pointwise bands would have done


def test_max_t_handles_flat_points_and_refuses_diverged_curves():
    d = np.column_stack([np.zeros(6), np.ones(6), [1.0, 2, 3, 4, 5, 6]])
    result = max_t(d)
    assert result.adjusted_p.tolist() == [1.0, 2 / 2**6, 2 / 2**6]
    with pytest.raises(StatsError, match="1 not finite"):
        max_t([[1.0, np.inf], [1.0, 2.0]])


# ---------------------------------------------------------------- profiles

times = st.lists(
    st.lists(st.one_of(st.floats(0.1, 50), st.just(math.inf)), min_size=3, max_size=3), min_size=1, max_size=6
)


@settings(max_examples=300, deadline=None)
@given(times, st.floats(1.5, 8))
def test_exact_profile_score_equals_numerical_integration(t, r_max):
    score = profile_score(t, r_max=r_max)
    for k in range(3):
        jumps = sorted({float(r) for r in performance_ratios(t)[:, k] if 1 <= r < r_max})
        edges = [1.0, *jumps, r_max]
        area = sum(
            integrate.quad(lambda tau, k=k: performance_profile(t, [tau])[0, k], a, b)[0]
            for a, b in itertools.pairwise(edges)
            if b > a
        )
        assert score[k] == pytest.approx(area / (r_max - 1), abs=1e-6)


def test_algoperf_published_scores():
    # The published scores are the trapezoid over 100 points between 1 and 4; the exact integral is within
    # a grid step of them.
    t = ALGOPERF.drop(columns="score").to_numpy().T
    published = ALGOPERF["score"].to_numpy()
    assert profile_score(t, grid=100) == pytest.approx(published, abs=1e-12)
    assert profile_score(t) == pytest.approx(published, abs=1 / 99)
    assert np.abs(profile_score(t) - published).max() > 1e-4


def test_a_workload_counts_for_nothing_where_its_held_out_variant_is_failed():
    inf = math.inf
    held = with_held_out([[10.0, 20.0], [1.0, 2.0]], [[50.0, 10.0], [math.nan, math.nan]])
    assert held.tolist() == [[inf, 20.0], [1.0, 2.0]]


def test_profiles_refuse_nan_and_negative_times():
    for bad in ([[math.nan, 1.0]], [[-1.0, 1.0]], [1.0]):
        with pytest.raises(StatsError, match="positive times"):
            performance_ratios(bad)
    assert profile_score([[math.inf, math.inf]]).tolist() == [0.0, 0.0]


# ---------------------------------------------------------------- tuning curves


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(-20, 20), min_size=1, max_size=7), st.data())
def test_expected_best_equals_enumeration(values, data):
    n = len(values)
    k = data.draw(st.integers(1, n))
    subsets = [max(c) for c in itertools.combinations(values, k)]
    assert expected_best(values, k) == pytest.approx(np.mean(subsets), abs=1e-9)
    if n**k <= 3000:
        draws = [max(c) for c in itertools.product(values, repeat=k)]
        assert expected_best(values, k, unbiased=False) == pytest.approx(np.mean(draws), abs=1e-9)
    assert expected_best(values, k, unbiased=False) <= expected_best(values, k) + 1e-9


def test_unbiased_estimator_is_unbiased_and_the_other_is_not():
    rng = np.random.default_rng(0)
    sample = rng.uniform(size=(4000, 8))
    truth = 6 / 7  # E max of 6 uniforms
    unbiased = np.array([expected_best(row, 6) for row in sample])
    biased = np.array([expected_best(row, 6, unbiased=False) for row in sample])
    error = 4 * unbiased.std() / math.sqrt(len(sample))
    assert abs(unbiased.mean() - truth) < error
    assert biased.mean() < truth - 5 * error


def test_tuning_band_covers_the_median_of_the_best_for_all_budgets():
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(200):
        curve = tuning_curve(rng.uniform(size=30))
        truth = 0.5 ** (1 / np.array(curve.k))
        covered += ((np.array(curve.median_low) <= truth) & (truth <= np.array(curve.median_high))).all()
    assert covered / 200 >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 200)


def test_diverged_tuning_trials_and_too_large_budgets():
    curve = tuning_curve([-math.inf, 0.5, 0.7])
    assert curve.n_diverged == 1
    assert curve.unbiased[0] == -math.inf
    assert curve.unbiased[-1] == 0.7
    with pytest.raises(StatsError, match="found 4, allowed are 1 to 3"):
        expected_best([1.0, 2.0, 3.0], 4)


def test_edges_of_the_grid_are_reported():
    grid = {"lr": [1e-4, 1e-3, 1e-2, 1e-1], "momentum": [0.0, 0.9], "fixed": [1.0]}
    assert edge_warnings({"lr": 1e-2, "fixed": 1.0}, grid) == ()
    (warning,) = edge_warnings({"lr": 1e-4}, grid)
    assert "lower edge of the searched range 0.0001 to 0.1" in warning
    assert len(edge_warnings({"momentum": 0.9}, grid)) == 1


# ---------------------------------------------------------------- variance


def test_variance_shares_recover_the_components():
    rng = np.random.default_rng(5)
    estimates = []
    for _ in range(300):
        a, b = rng.normal(0, 2, size=(8, 1)), rng.normal(0, 1, size=(1, 6))
        table = a + b + rng.normal(0, 0.5, size=(8, 6))
        i, j = np.indices(table.shape)
        frame = pd.DataFrame({"init": i.ravel(), "order": j.ravel(), "acc": table.ravel()})
        v = variance_shares(frame, value="acc", streams=["init", "order"])
        estimates.append((*v.components, v.residual))
        assert sum(v.shares) + v.residual_share == pytest.approx(1.0)
    assert np.mean(estimates, axis=0) == pytest.approx([4.0, 1.0, 0.25], rel=0.15)


def test_variance_shares_of_three_streams_and_of_incomplete_designs():
    i, j, k = (x.ravel() for x in np.indices((3, 4, 2)))
    frame = pd.DataFrame({"init": i, "order": j, "drop": k, "acc": 1.0 * j})
    v = variance_shares(frame, value="acc", streams=["init", "order", "drop"])
    assert v.shares == pytest.approx((0, 1, 0), abs=1e-12)
    with pytest.raises(StatsError, match="found 23 trials over 3 init x 4 order x 2 drop"):
        variance_shares(frame.iloc[1:], value="acc", streams=["init", "order", "drop"])
    with pytest.raises(StatsError, match="2 separate seed lists"):
        variance_shares(frame, value="acc", streams=["init"])
    with pytest.raises(StatsError, match="columns: lr not found"):
        variance_shares(frame, value="acc", streams=["init", "lr"])


# ---------------------------------------------------------------- posteriors


def test_correlated_t_without_correlation_and_rope_is_the_t_test():
    d = np.random.default_rng(6).normal(0.3, 1, 12)
    p = correlated_t(d, rope=0.0)
    assert 2 * min(p.worse, p.better) == pytest.approx(paired_t(d).pvalue)
    wider = correlated_t(d, rope=0.0, correlation=0.1)
    assert abs(wider.better - 0.5) < abs(p.better - 0.5)
    assert "standard deviation is 0" in correlated_t([1.0, 1.0], rope=0.1).reason


def test_bayesian_signed_rank_is_symmetric_and_sums_to_one():
    d = np.random.default_rng(7).normal(0.02, 0.02, 14)
    p, q = bayesian_signed_rank(d, rope=0.01), bayesian_signed_rank(-d, rope=0.01)
    assert p.worse + p.equivalent + p.better == pytest.approx(1.0)
    assert p.better == pytest.approx(q.worse, abs=0.02)
    assert bayesian_signed_rank(np.zeros(10), rope=0.01).equivalent == pytest.approx(1.0)
    assert bayesian_signed_rank([math.inf] * 10, rope=0.01).better > 0.95
    with pytest.raises(StatsError, match="rope: found -1"):
        bayesian_signed_rank(d, rope=-1)
