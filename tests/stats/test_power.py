"""Power and plans: simulated power against the t test's, monotone answers, sentences."""

import math

import pytest
from statsmodels.stats.power import TTestPower

from optbench.stats.common import StatsError
from optbench.stats.power import (
    detectable_effect,
    pairs_needed,
    pairs_needed_to_reject,
    plan_pairs,
    signed_rank_power,
)


@pytest.mark.parametrize(("n", "effect"), [(11, 1.0), (20, 0.66), (50, 0.4), (200, 0.2)])
def test_power_is_a_little_below_that_of_the_t_test(n, effect):
    t = TTestPower().power(effect, n, 0.05)
    ours = signed_rank_power(n, effect)
    assert t - 0.08 < ours < t + 0.02


def test_power_under_the_null_is_at_most_alpha():
    for n in (6, 11, 30):
        assert signed_rank_power(n, 0.0) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 4000)
    assert signed_rank_power(5, 10.0) == 0.0
    assert signed_rank_power(6, 10.0) == 1.0
    assert signed_rank_power(6, 10.0, comparisons=2) == 0.0


def test_detectable_effect_has_the_power_and_pairs_needed_inverts_it():
    effect = detectable_effect(15, comparisons=3)
    assert signed_rank_power(15, effect, comparisons=3) == pytest.approx(0.8, abs=0.01)
    assert pairs_needed(effect * 1.01, comparisons=3) in (14, 15)
    assert detectable_effect(15) < effect
    assert detectable_effect(400) == pytest.approx(2.8016 / math.sqrt(400 * 3 / math.pi), rel=0.02)


def test_few_pairs_can_detect_nothing():
    assert detectable_effect(5) == math.inf
    assert pairs_needed(20.0) == pairs_needed_to_reject() == 6
    with pytest.raises(StatsError, match="d_z: found 0"):
        pairs_needed(0.0)


def test_plan_says_it_in_one_sentence():
    plan = plan_pairs(11, comparisons=3)
    assert (plan.pairs_to_reject, plan.smallest_adjusted_p) == (7, 3 * 2**-10)
    assert plan.detectable_effect < plan.detectable_effect_adjusted
    assert "0.00293 after Holm over 3" in plan.sentence
    assert f"80% power for a mean difference of {plan.detectable_effect_adjusted:.2f}" in plan.sentence
    assert "no test can reject" in plan_pairs(6, comparisons=3).sentence


def test_a_level_at_which_nothing_can_be_shown_has_an_answer():
    with pytest.raises(StatsError, match=r"more than 1,000,000 pairs"):
        pairs_needed(0.5, alpha=1e-320)
    assert detectable_effect(2000, alpha=1e-320) == math.inf
