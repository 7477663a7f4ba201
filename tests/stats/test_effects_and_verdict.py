"""Effect sizes, attainable p-values and the words of a verdict."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from optbench.stats.corrections import holm
from optbench.stats.effects import mean_difference, rank_effect, standardized_difference
from optbench.stats.paired import signed_rank
from optbench.stats.power import attainability, pairs_needed_to_reject, smallest_attainable_p
from optbench.stats.verdict import MeanSays, verdict


def test_mean_difference_is_students_interval():
    d = np.random.default_rng(0).normal(1, 2, 9)
    theirs = stats.ttest_1samp(d, 0).confidence_interval(0.9)
    ours = mean_difference(d, confidence=0.9)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_mean_difference_says_what_is_undefined():
    assert math.isnan(mean_difference([math.inf, 1.0]).estimate)
    assert "diverged" in mean_difference([math.inf, 1.0]).reason
    constant = mean_difference([0.5, 0.5, 0.5])
    assert constant.estimate == 0.5
    assert math.isnan(constant.low)
    assert "2 pairs, found 1" in mean_difference([0.5]).reason


def test_hedges_correction_matches_the_published_approximation():
    # Hedges (1981), eq. 6e is the gamma form; 1 - 3 / (4 df - 1) is its printed approximation.
    d = np.random.default_rng(1).normal(1, 1, 20)
    s = standardized_difference(d)
    assert s.g_z / s.d_z == pytest.approx(1 - 3 / (4 * 19 - 1), abs=2e-4)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=30))
def test_rank_effects_mirror_and_agree_with_the_test_statistic(d):
    here, there = rank_effect(d), rank_effect([-x for x in d])
    assert here.rank_biserial == pytest.approx(-there.rank_biserial)
    assert here.superiority == pytest.approx(1 - there.superiority)
    assert here.wins + here.ties + here.losses == len(d)
    plus, minus = signed_rank(d).statistic, signed_rank([-x for x in d]).statistic
    if plus + minus:
        assert here.rank_biserial == pytest.approx((plus - minus) / (plus + minus))


@pytest.mark.parametrize(("n", "k", "p"), [(5, 1, 0.0625), (6, 1, 0.03125), (7, 3, 0.046875), (0, 4, 1.0)])
def test_smallest_attainable_p(n, k, p):
    assert smallest_attainable_p(n, comparisons=k) == p


def test_the_smallest_attainable_p_is_attained():
    for n in range(1, 15):
        assert signed_rank(np.arange(1.0, n + 1)).pvalue == smallest_attainable_p(n)


def test_pairs_needed_is_the_first_n_that_can_reject():
    for k in (1, 2, 3, 9, 45):
        n = pairs_needed_to_reject(comparisons=k)
        assert smallest_attainable_p(n, comparisons=k) <= 0.05 < smallest_attainable_p(n - 1, comparisons=k)


def test_attainability_sentence():
    assert attainability(5, comparisons=3).endswith("6 pairs are needed, 7 with Holm over 3")
    assert attainability(11, comparisons=3) == (
        "n=11: smallest attainable two-sided p is 0.000977, 0.00293 after Holm over 3"
    )


def test_verdict_words():
    assert verdict(pvalue=0.2, direction=1).word == "inconclusive"
    assert verdict(pvalue=0.01, direction=-1).word == "worse"
    assert verdict(pvalue=0.01, direction=1).word == "better"
    both = verdict(pvalue=0.01, direction=1, margin=0.1, equivalence_pvalue=0.001)
    assert both.word == "equivalent"
    assert "smaller than the margin" in both.reason
    assert verdict(pvalue=0.5, direction=1, margin=0.1, equivalence_pvalue=math.nan).word == "inconclusive"
    assert "more pairs are needed" in verdict(pvalue=0.0625, direction=1, smallest_p=0.0625).reason
    assert "could not be compared" in verdict(pvalue=math.nan, direction=0).reason


def test_holm_keeps_nan_outside_the_family():
    assert holm([0.01, math.nan, 0.04])[[0, 2]].tolist() == [0.02, 0.04]
    assert math.isnan(holm([0.01, math.nan])[1])


@pytest.mark.parametrize(
    ("direction", "estimate", "sign", "word", "words"),
    [
        (1.0, 0.1, 1, "better", "a beats b"),
        (-1.0, -0.1, -1, "worse", "a loses to b"),
        (1.0, 0.1, 0, "mixed", "beats that of b (adjusted p = 0.01 <= 0.05), but the mean does not show it"),
        (1.0, 0.0, 0, "mixed", "but the mean does not show it"),
        (1.0, -0.1, 0, "mixed", "but the mean points the other way"),
        (1.0, -0.1, -1, "mixed", "but the mean shows the opposite"),
        (
            -1.0,
            -0.1,
            0,
            "mixed",
            "loses to that of b (adjusted p = 0.01 <= 0.05), but the mean does not",
        ),
        (-1.0, 0.1, 0, "mixed", "but the mean points the other way"),
        (-1.0, 0.1, 1, "mixed", "but the mean shows the opposite"),
    ],
)
def test_the_mean_agrees_or_is_said_to_disagree(direction, estimate, sign, word, words):
    found = verdict(
        pvalue=0.01,
        direction=direction,
        mean=MeanSays(estimate, sign, "the mean"),
        candidate="a",
        baseline="b",
    )
    assert found.word == word
    assert words in found.reason
