"""Paired tests: golden values, brute-force enumeration, defined behaviour at the edges."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from optbench.stats.common import (
    StatsError,
    count_resolution,
    differences,
    midranks,
    round_significant,
    stored_resolution,
)
from optbench.stats.paired import hodges_lehmann, pair_correlation, paired_t, sign_flip, signed_rank, tost
from optbench.stats.signed_rank_null import _saddlepoint_upper, null_probabilities

# Darwin's maize, heights of crossed minus self-fertilised plants in eighths of an inch:
# Fisher (1935), The Design of Experiments, section 17, table 3.
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def brute_signed_rank(d):
    """Enumerate every sign pattern of the Pratt ranks."""
    d = np.asarray(d, float)
    ranks = stats.rankdata(np.abs(d))[d != 0]
    observed = ranks[d[d != 0] > 0].sum()
    sums = ((np.arange(2 ** len(ranks))[:, None] >> np.arange(len(ranks))) & 1) @ ranks
    lower, upper = (sums <= observed + 1e-9).mean(), (sums >= observed - 1e-9).mean()
    return min(1.0, 2 * min(lower, upper)), upper, lower


tied_differences = st.lists(
    st.one_of(st.integers(-3, 3), st.integers(-40, 40), st.sampled_from([math.inf, -math.inf])),
    min_size=1,
    max_size=12,
)


@settings(max_examples=2500, deadline=None)
@given(tied_differences)
def test_signed_rank_equals_enumeration_with_ties_zeros_and_diverged(d):
    two, greater, less = brute_signed_rank(d)
    assert signed_rank(d).pvalue == pytest.approx(two, abs=1e-12)
    assert signed_rank(d, alternative="greater").pvalue == pytest.approx(greater, abs=1e-12)
    assert signed_rank(d, alternative="less").pvalue == pytest.approx(less, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 45), st.integers(0, 10**6))
def test_signed_rank_equals_scipy_exact_without_ties(n, seed):
    d = np.random.default_rng(seed).normal(0.2, 1, n)
    theirs = stats.wilcoxon(d, method="exact")
    assert signed_rank(d).pvalue == pytest.approx(theirs.pvalue, rel=1e-10)


@pytest.mark.parametrize("n", [301, 500])
def test_saddlepoint_agrees_with_exact_beyond_the_exact_range(n):
    values = (
        np.abs(np.random.default_rng(0).normal(size=n).round(1)) + 0.1
    )  # heavy ties, about 30 distinct sizes
    weights = np.rint(2 * stats.rankdata(values)).astype(np.int64)
    total = int(weights.sum())
    exact = np.cumsum(null_probabilities(weights, total // 2))
    groups = np.unique(weights, return_counts=True)
    sd = math.sqrt(float((weights.astype(float) ** 2).sum())) / 2
    for z in (0.3, 1.0, 2.0, 4.0, 6.0):
        t = round(total / 2 + z * sd)
        assert _saddlepoint_upper(*groups, t - total / 2) == pytest.approx(exact[total - t], rel=1e-4)


def test_large_samples_are_exact_where_ties_are_coarse_and_sampled_only_as_a_last_resort():
    rng = np.random.default_rng(0)
    coarse = np.where(rng.random(1000) < 0.8, 1.0, 1.0 + rng.random(1000)) * rng.choice([-1, 1], 1000)
    assert signed_rank(coarse).method == "exact"
    assert signed_rank(rng.normal(size=1000).round(2)).method == "saddlepoint"
    many = np.where(rng.random(5000) < 0.9, 1.0, 1.0 + rng.random(5000)) * rng.choice([-1, 1], 5000)
    sampled = signed_rank(many)
    assert sampled.method == "Monte Carlo"
    assert sampled.pvalue == pytest.approx(stats.wilcoxon(many, method="approx").pvalue, abs=0.02)
    everything = signed_rank(np.arange(1.0, 2001.0))
    assert 0 < everything.pvalue < 1e-290
    assert everything.smallest_attainable_p > 0


def test_signed_rank_of_1000_pairs_without_ties_is_exact_and_symmetric():
    d = np.random.default_rng(1).normal(0.05, 1, 1000)
    here, mirrored = signed_rank(d), signed_rank(-d)
    assert here.method == "exact"
    assert here.pvalue == pytest.approx(mirrored.pvalue, rel=1e-9)
    assert here.pvalue == pytest.approx(stats.wilcoxon(d, method="approx").pvalue, rel=0.01)


def test_darwin_signed_rank_and_t():
    # t = 2.148 and P = 4.97 %: Fisher (1935), section 17. Signed ranks: W- = 24 of 120.
    t = paired_t(DARWIN)
    assert round(t.statistic, 3) == 2.148
    assert round(100 * t.pvalue, 2) == 4.97
    assert signed_rank(DARWIN).statistic == 96


def test_darwin_sign_flip_counts_863_arrangements_in_each_tail():
    # Fisher (1935), section 21: of the 2^15 = 32768 sums, 863 are as large as the observed one: P = 5.267 %.
    result = sign_flip(DARWIN)
    assert result.pvalue * 2**15 == 2 * 863
    assert round(100 * result.pvalue, 3) == 5.267
    assert result.method == "exact"


@settings(max_examples=500, deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=11))
def test_sign_flip_equals_enumeration(d):
    sums = [
        abs(sum(s * x for s, x in zip(signs, d, strict=True)))
        for signs in itertools.product([1, -1], repeat=len(d))
    ]
    assert sign_flip(d).pvalue == pytest.approx(np.mean(np.array(sums) >= abs(sum(d))), abs=1e-12)


def test_sign_flip_monte_carlo_is_close_to_t_and_never_zero():
    d = np.random.default_rng(3).normal(0.3, 1, 60)
    assert sign_flip(d).pvalue == pytest.approx(paired_t(d).pvalue, abs=0.02)
    assert sign_flip(np.arange(1.0, 61.0)).pvalue == pytest.approx(1e-4)


def test_smallest_attainable_p_and_counts_are_reported():
    result = signed_rank([0.0, 0.1, 0.1, -0.2, 0.3, 0.4])
    assert (result.n, result.n_zeros, result.n_ties, result.smallest_attainable_p) == (6, 1, 2, 0.0625)
    assert signed_rank([0.0, 0.0]).pvalue == 1.0
    assert signed_rank([0.0, 0.0]).smallest_attainable_p == 1.0


def test_rounding_makes_the_ties_that_a_reader_sees():
    d = np.array([0.981, 0.954, 0.5]) - np.array([0.971, 0.944, 0.4])
    assert signed_rank(d).n_ties == 2
    assert round_significant(123456789.4) == 123456789
    assert round_significant(1.23456789049e-7) == 1.23456789e-7


def test_diverged_outcomes_rank_worst_and_tie_with_each_other():
    inf = math.inf
    d = differences([0.9, -inf, -inf, 0.7], [-inf, 0.8, -inf, 0.6])
    assert d.tolist()[:3] == [inf, -inf, 0.0]
    assert differences([1.0, inf], [2.0, 3.0], maximise=False).tolist() == [1.0, -inf]
    assert signed_rank([inf] * 6).pvalue == 2 / 64
    assert "diverged" in sign_flip([inf, 1.0]).reason
    assert math.isnan(paired_t([inf, 1.0, 2.0]).pvalue)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=6, max_size=25), st.floats(0.8, 0.97))
def test_hodges_lehmann_interval_holds_exactly_the_shifts_that_the_test_keeps(d, confidence):
    d = np.array(d, float) + np.arange(len(d)) * 1e-3  # no ties
    hl = hodges_lehmann(d, confidence=confidence)
    walsh = [(a + b) / 2 for i, a in enumerate(d) for b in d[i:]]
    assert hl.estimate == pytest.approx(np.median(walsh))
    if math.isfinite(hl.low):
        inside = signed_rank(d - (hl.low + 1e-6)).pvalue, signed_rank(d - (hl.high - 1e-6)).pvalue
        outside = signed_rank(d - (hl.low - 1e-6)).pvalue, signed_rank(d - (hl.high + 1e-6)).pvalue
        assert min(inside) > 1 - confidence - 1e-9
        assert max(outside) <= 1 - confidence + 1e-9


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-4, 7), min_size=6, max_size=18), st.sampled_from([0.9, 0.95]))
def test_with_ties_and_zeros_the_interval_still_inverts_the_test_that_is_printed(d, confidence):
    d = np.array(d, float)
    hl = hodges_lehmann(d, confidence=confidence)
    p0 = signed_rank(d).pvalue
    if math.isinf(hl.low):
        return
    if 0 not in (hl.low, hl.high):
        assert (hl.low < 0 < hl.high) == (p0 > 1 - confidence)
    grid = np.arange(-10, 10.01, 0.125)  # Walsh averages are multiples of 0.5: every kind of shift is on it
    kept = grid[[signed_rank(d - g).pvalue > 1 - confidence + 1e-12 for g in grid]]
    assert hl.low <= kept.min() <= hl.low + 0.25 or p0 <= 1 - confidence
    assert hl.high - 0.25 <= kept.max() <= hl.high or p0 <= 1 - confidence


def test_a_table_stored_in_32_bits_keeps_its_ties():
    rng = np.random.default_rng(5)
    a = np.round(0.9 + 0.01 * rng.normal(size=14), 3)
    b = np.round(a - np.round(0.004 + 0.006 * rng.normal(size=14), 3), 3)
    exact = signed_rank(differences(a, b))
    short = a.astype(np.float32), b.astype(np.float32)
    assert signed_rank(differences(*short)).n_ties < exact.n_ties
    step = stored_resolution(np.concatenate(short))
    assert step == 0.001
    assert signed_rank(differences(*short, resolution=step)) == exact


def test_shares_of_a_test_part_are_counts():
    n = 20_800
    rng = np.random.default_rng(1)
    a, b = rng.integers(19_000, 19_020, 12), rng.integers(19_000, 19_020, 12)
    for kind in (np.float64, np.float32):
        shares = (a / n).astype(kind), (b / n).astype(kind)
        step = count_resolution(np.concatenate(shares), n)
        assert step == 1 / n
        found = differences(*shares, resolution=step)
        assert np.rint(found * n).tolist() == (a - b).tolist()
        assert signed_rank(found) == signed_rank(a - b)
    assert count_resolution([0.5, 0.1234567], 100) is None
    assert stored_resolution([1.0, 2.0, 300.5]) is None
    assert stored_resolution([0.1, 0.2]) is None


def test_hodges_lehmann_says_when_n_is_too_small_or_both_diverged():
    small = hodges_lehmann([1.0, 2.0, 3.0, 4.0, 5.0])
    assert math.isinf(small.low)
    assert "needs 6 pairs, found 5" in small.reason
    assert math.isfinite(hodges_lehmann(range(1, 7)).low)
    assert math.isnan(hodges_lehmann([math.inf, -math.inf, 1.0]).estimate)
    assert hodges_lehmann([math.inf, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).estimate == 4.0


def test_tost_equals_its_definition_and_refuses_zero_spread():
    d = np.random.default_rng(5).normal(0.001, 0.01, 12)
    lower = stats.ttest_1samp(d, -0.02, alternative="greater").pvalue
    upper = stats.ttest_1samp(d, 0.02, alternative="less").pvalue
    assert tost(d, margin=0.02).pvalue == pytest.approx(max(lower, upper), rel=1e-9)
    refused = tost([0.0, 0.0, 0.0], margin=0.1)
    assert math.isnan(refused.pvalue)
    assert "standard deviation is 0" in refused.reason
    assert math.isnan(tost([0.1] * 7, margin=0.2).pvalue)
    with pytest.raises(StatsError, match="margin: found 0"):
        tost(d, margin=0)


def test_pair_correlation_matches_numpy_and_reports_constants():
    rng = np.random.default_rng(7)
    common = rng.normal(size=30)
    a, b = common + rng.normal(size=30) * 0.3, common + rng.normal(size=30) * 0.3
    result = pair_correlation(a, b)
    assert result.pearson == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert result.variance_ratio == pytest.approx((a.var(ddof=1) + b.var(ddof=1)) / (a - b).var(ddof=1))
    assert "constant" in pair_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).reason


@pytest.mark.parametrize("bad", [[], [math.nan, 1.0], [[1.0, 2.0]]])
def test_unusable_differences_are_refused_with_what_was_found(bad):
    with pytest.raises(StatsError, match="found"):
        signed_rank(bad)


@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=1, max_dims=2, max_side=8),
        elements=st.sampled_from([-np.inf, -1, 0, 1, 2.5, np.inf]),
    )
)
def test_midranks_are_those_of_scipy(values):
    finite = np.clip(values, -9, 9)  # of -inf and inf together some versions of SciPy make nan
    assert (midranks(values) == stats.rankdata(finite, axis=-1)).all()


def test_a_margin_of_many_orders_more_than_the_spread_is_equivalence_without_a_warning():
    found = tost([1e-9, 2e-9, 3e-9], margin=1e308)
    assert found.pvalue == 0


@pytest.mark.parametrize(
    ("values", "df", "reason"),
    [
        ([0.1], 0, "undefined: a spread needs 2 pairs, found 1"),
        ([0.1, 0.1], 1, "standard deviation is 0"),
        ([0.1, 0.3], 1, None),
        ([0.1, 0.1, math.inf], 2, "diverged"),
    ],
)
def test_a_t_test_says_its_degrees_of_freedom_where_it_is_refused_too(values, df, reason):
    found = paired_t(values)
    assert found.df == df
    assert found.reason is None if reason is None else reason in found.reason
