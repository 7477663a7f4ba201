"""Rank methods: Demsar's worked example, enumeration, letters and intervals."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from optbench.stats.common import StatsError
from optbench.stats.paired import signed_rank
from optbench.stats.ranks import (
    bonferroni_dunn_cd,
    compact_letters,
    friedman,
    mean_rank_bootstrap,
    mean_rank_intervals,
    nemenyi_cd,
    rank_intervals,
    rank_table,
    rank_z_pvalues,
)
from tests.stats.published_tables import DEMSAR_METHODS, DEMSAR_UNROUNDED

AUC = DEMSAR_UNROUNDED[DEMSAR_METHODS].to_numpy()


def test_demsar_friedman_and_iman_davenport():
    # The worked example: average ranks 3.143, 2.000, 2.893, 1.964; chi2_F = 9.28; F_F = 3.69 with (3, 39) df.
    result = friedman(AUC)
    assert [round(r, 3) for r in result.mean_ranks] == [3.143, 2.000, 2.893, 1.964]
    assert round(result.statistic_uncorrected, 2) == 9.28
    assert round(result.iman_davenport_uncorrected, 2) == 3.69
    assert result.statistic == pytest.approx(stats.friedmanchisquare(*AUC.T).statistic)


def test_iman_davenport_follows_from_the_chi_square_that_is_corrected_for_ties():
    result = friedman(AUC)
    n, k = AUC.shape
    f = (n - 1) * result.statistic / (n * (k - 1) - result.statistic)
    assert result.statistic > result.statistic_uncorrected
    assert result.iman_davenport == pytest.approx(f)
    assert result.p_iman_davenport == pytest.approx(stats.f.sf(f, k - 1, (k - 1) * (n - 1)))
    assert result.p_chi2_uncorrected == pytest.approx(stats.chi2.sf(result.statistic_uncorrected, k - 1))
    assert result.p_iman_davenport_uncorrected > result.p_iman_davenport


def test_mean_rank_intervals_cover_where_the_bootstrap_does_not():
    rng, runs, effect = np.random.default_rng(0), 400, np.array([0, 0.5, 1.0])
    true = rank_table(rng.normal(size=(40_000, 3)) + effect).mean(axis=0)
    hits = np.zeros(2)
    for i in range(runs):
        x = rng.normal(size=(6, 3)) + effect
        for j, (low, high) in enumerate((mean_rank_intervals(x), mean_rank_bootstrap(x, draws=300, seed=i))):
            hits[j] += ((low <= true) & (true <= high)).mean()
    assert hits[0] / runs >= 0.95
    assert hits[1] / runs < 0.93
    low, high = mean_rank_intervals(AUC)
    assert (low >= 1).all()
    assert (high <= 4).all()


def test_demsar_critical_differences():
    # The worked example: Nemenyi 2.569 sqrt(20 / 84) = 1.25 at 0.05 and 2.291 sqrt(20 / 84) = 1.12 at 0.10;
    # Bonferroni-Dunn 2.394 sqrt(20 / 84), printed as 1.16.
    assert round(nemenyi_cd(4, 14), 2) == 1.25
    assert round(nemenyi_cd(4, 14, alpha=0.1), 2) == 1.12
    assert bonferroni_dunn_cd(4, 14) == pytest.approx(2.394 * math.sqrt(20 / 84), abs=5e-4)


def test_demsar_table_5_critical_values():
    # Table 5(a): q_0.05 for 2..10 classifiers; table 5(b) for the Bonferroni-Dunn test.
    nemenyi = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
    dunn = [1.960, 2.241, 2.394, 2.498, 2.576, 2.638, 2.690, 2.724, 2.773]
    for k, q, b in zip(range(2, 11), nemenyi, dunn, strict=True):
        unit = math.sqrt(k * (k + 1) / 6)
        assert nemenyi_cd(k, 1) / unit == pytest.approx(q, abs=1.1e-3)
        if k != 9:  # the paper prints 2.724 for 9 classifiers; 2.734 is the normal quantile
            assert bonferroni_dunn_cd(k, 1) / unit == pytest.approx(b, abs=1.1e-3)


@pytest.mark.parametrize("k", [2, 4, 20])
@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.001])
def test_the_critical_difference_is_that_of_scipys_studentized_range(k, alpha):
    expected = stats.studentized_range.ppf(1 - alpha, k, np.inf) / np.sqrt(2) * np.sqrt(k * (k + 1) / 6)
    assert nemenyi_cd(k, 1, alpha=alpha) == pytest.approx(expected, rel=1e-10)


def test_demsar_posthoc_pvalues():
    # The worked example: against C4.5, p = 0.016 (C4.5+m+cf) and 0.019 (C4.5+m).
    p = rank_z_pvalues(friedman(AUC).mean_ranks, n=14)
    assert [round(x, 3) for x in (p[2], p[0])] == [0.016, 0.019]


def test_demsar_wilcoxon_rank_sums():
    # Table 2, C4.5 against C4.5+m: R+ = 93 and R- = 12 with the two zeros (ranks 1.5, 1.5) split evenly;
    # Pratt's ranks are the same without the zeros' share: 93 - 1.5 and 12 - 1.5.
    d = AUC[:, 1] - AUC[:, 0]
    result = signed_rank(d)
    assert result.n_zeros == 2
    assert result.statistic == 93 - 1.5
    assert signed_rank(-d).statistic == 12 - 1.5
    assert result.pvalue < 0.05


def brute_friedman(values):
    ranks = np.rint(2 * rank_table(values)).astype(int)
    observed = (ranks.sum(0) ** 2).sum()
    rows = [list(itertools.permutations(r)) for r in ranks.tolist()]
    return np.mean([(np.sum(choice, axis=0) ** 2).sum() >= observed for choice in itertools.product(*rows)])


@settings(max_examples=300, deadline=None)
@given(st.integers(2, 4), st.data())
def test_friedman_exact_p_equals_enumeration_with_ties(n, data):
    k = data.draw(st.integers(2, 3 if n == 4 else 4 if n == 2 else 3))
    cell = st.one_of(st.integers(0, 3), st.just(-math.inf))
    values = data.draw(st.lists(st.lists(cell, min_size=k, max_size=k), min_size=n, max_size=n))
    result = friedman(values)
    assert result.method == "exact"
    assert result.pvalue == pytest.approx(brute_friedman(values), abs=1e-12)


def test_friedman_monte_carlo_is_close_to_exact_and_to_the_approximations():
    values = np.random.default_rng(2).normal(size=(12, 5)) + np.array([0, 0, 0.3, 0.4, 0.6])
    result = friedman(values)
    assert result.method.startswith("Monte Carlo")
    assert result.pvalue == pytest.approx(result.p_iman_davenport, abs=0.03)
    big = friedman(np.random.default_rng(2).normal(size=(200, 5)))
    assert big.method == "F approximation"
    assert big.pvalue == pytest.approx(big.p_iman_davenport)


def test_friedman_of_fully_tied_or_unanimous_tables():
    tied = friedman(np.ones((4, 3)))
    assert (tied.pvalue, tied.kendall_w) == (1.0, 0.0)
    unanimous = friedman([[3, 2, 1]] * 9)
    assert unanimous.kendall_w == pytest.approx(1.0)
    assert unanimous.pvalue == pytest.approx(6.0**-8)
    with pytest.raises(StatsError, match="at least 2 of both"):
        friedman([[1, 2, 3]])
    with pytest.raises(StatsError, match="1 NaN"):
        friedman([[1, math.nan], [1, 2]])


@settings(max_examples=500, deadline=None)
@given(st.integers(2, 7), st.data())
def test_letters_are_shared_exactly_where_no_difference_was_found(k, data):
    different = np.zeros((k, k), bool)
    for i, j in itertools.combinations(range(k), 2):
        different[i, j] = different[j, i] = data.draw(st.booleans())
    letters = compact_letters(different)
    for i, j in itertools.combinations(range(k), 2):
        assert bool(set(letters[i]) & set(letters[j])) != different[i, j]
    assert all(letters)


def test_letters_follow_the_order_of_merit():
    different = np.array([[0, 0, 1], [0, 0, 1], [1, 1, 0]], bool)
    assert compact_letters(different, order=[2, 1, 0]) == ["b", "b", "a"]


def test_rank_intervals_cover_the_true_ranks():
    assert rank_intervals(np.zeros((3, 3), int)) == [(1, 3)] * 3
    assert rank_intervals([[0, 1, 1], [-1, 0, 1], [-1, -1, 0]]) == [(1, 1), (2, 2), (3, 3)]


def test_mean_rank_bootstrap_holds_the_mean_and_refuses_few_blocks():
    low, high = mean_rank_bootstrap(AUC)
    mean = np.array(friedman(AUC).mean_ranks)
    assert (low <= mean).all()
    assert (mean <= high).all()
    assert np.isnan(mean_rank_bootstrap(AUC[:5])[0]).all()


@pytest.mark.parametrize("n", [40, 400], ids=["resampled", "normal"])
def test_bootstrap_intervals_of_two_mirror_each_other_around_the_mean(n):
    values = np.random.default_rng(3).normal([0.3, 0.0], 1.0, (n, 2))
    low, high = mean_rank_bootstrap(values, confidence=0.9)
    np.testing.assert_allclose(low + high[::-1], 3.0, atol=1e-12)  # two ranks sum to 3
    ranks = rank_table(values)
    half = 1.6449 * ranks.std(axis=0) / np.sqrt(n)
    np.testing.assert_allclose((high - low) / 2, half, rtol=1e-4 if n > 200 else 0.15)
    np.testing.assert_allclose((high + low) / 2, ranks.mean(axis=0), atol=0.02)


@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (3,)])
def test_letters_need_a_square_table(shape):
    with pytest.raises(StatsError, match=r"different: found .* allowed is a symmetric"):
        compact_letters(np.zeros(shape, dtype=bool))
