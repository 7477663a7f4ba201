"""Sequential designs: the level over all looks, exactness of the spending, bets, and what a run is told."""

import itertools
import math

import numpy as np
import pytest

from optbench.stats.common import StatsError
from optbench.stats.paired import signed_rank
from optbench.stats.sequential import SequentialPlan, e_process

LOOKS = tuple(range(6, 31, 3))


def bound(runs, nominal=0.05):
    return nominal + 3 * math.sqrt(nominal * (1 - nominal) / runs)


@pytest.mark.parametrize("kind", ["group", "anytime"])
@pytest.mark.parametrize("tied", [False, True])
def test_looking_after_every_pair_keeps_the_level_where_plain_p_values_do_not(kind, tied):
    rng, runs, hits = np.random.default_rng(0), 150, np.zeros(2)
    plan = SequentialPlan(kind=kind, looks=LOOKS, spending="pocock")
    for _ in range(runs):
        d = rng.normal(size=30)
        d = np.round(d) if tied else d
        hits[0] += plan.look(d).decided if kind == "group" else (e_process(d) >= 20).any()
        if not tied and kind == "group":
            hits[1] += any(signed_rank(d[:n]).pvalue <= 0.05 for n in LOOKS)
    assert hits[0] / runs <= bound(runs)
    if not tied and kind == "group":
        assert hits[1] / runs > 0.1


def test_the_share_of_sign_patterns_that_is_rejected_is_what_may_be_spent():
    rng = np.random.default_rng(1)
    sizes = rng.permutation(np.array([1.0, 2, 2, 3, 4, 5, 5, 6]))
    plan = SequentialPlan(looks=(5, 6, 8), alpha=0.1, spending="pocock")
    found = [plan.look(sizes * np.array(s)) for s in itertools.product((1, -1), repeat=8)]
    share = np.mean([look.decided for look in found])
    assert 0.03 < share <= 0.1 + 0.01  # 9,999 sampled paths stand for the 256
    for n, may in ((5, 0.1 * math.log1p((math.e - 1) * 5 / 8)), (6, 0.1 * math.log1p((math.e - 1) * 6 / 8))):
        assert np.mean([look.decided and look.n <= n for look in found]) <= may + 0.01


def test_one_look_is_the_signed_rank_test():
    rng = np.random.default_rng(2)
    for shift in (0.2, 0.6):
        d = rng.normal(shift, 1, size=20)
        look = SequentialPlan(looks=(20,)).look(d)
        assert look.p == pytest.approx(signed_rank(d).pvalue, abs=0.01)
        assert look.decided == (signed_rank(d).pvalue <= 0.05)
        assert look.interval.confidence == pytest.approx(0.95, abs=0.006)


def test_more_pairs_than_the_budget_and_between_looks_change_nothing():
    d = np.random.default_rng(3).normal(0.4, 1, size=40)
    plan = SequentialPlan(looks=(10, 20, 30))
    assert repr(plan.look(d[:19])) == repr(plan.look(d[:10]))  # e is NaN: unequal from Python 3.13 on
    assert repr(plan.look(d)) == repr(plan.look(d[:30]))
    assert plan.look(d[:5]).word == "undecided"
    assert "first look is at 10" in plan.look(d[:5]).interval.reason


@pytest.mark.parametrize("kind", ["group", "anytime"])
def test_interval_and_word_say_the_same_and_mirror(kind):
    rng = np.random.default_rng(4)
    plan = SequentialPlan(kind=kind, looks=(8, 16, 24))
    words = set()
    for shift in (0.0, 0.5, 1.0, 2.0):
        for _ in range(10):
            d = rng.normal(shift, 1, size=24).round(1)
            look, mirror = plan.look(d), plan.look(-d)
            words.add(look.word)
            assert {look.word, mirror.word} in ({"better", "worse"}, {"undecided"})
            assert look.p == mirror.p
            if look.word == "better":
                assert look.interval.low >= 0
            if look.word == "undecided":
                assert look.interval.low <= 0 <= look.interval.high
    assert words >= {"better", "undecided"}


def test_bets_are_fair_over_all_sign_patterns_and_skip_zeros():
    sizes = np.array([1.0, 3.0, 2.0, 2.0, 5.0, 0.0, 4.0])
    for scores in ("signs", "ranks"):
        capital = [e_process(sizes * s, scores=scores) for s in itertools.product((1, -1), repeat=7)]
        assert np.mean(capital, axis=0) == pytest.approx(np.ones(7))
        assert (np.array(capital)[:, 5] == np.array(capital)[:, 4]).all()
    assert e_process([1.0] * 8, scores="signs")[-1] == pytest.approx(
        np.mean([(1 + s) ** 8 + (1 - s) ** 8 for s in (0.1, 0.25, 0.5, 0.75, 0.95)]) / 2
    )


def test_a_run_is_told_to_go_on_until_all_are_decided_or_the_budget_is_spent():
    rng = np.random.default_rng(5)
    plan = SequentialPlan(looks=(8, 16, 24), comparisons=2)
    clear, none = rng.normal(2, 1, 24), rng.normal(0, 1, 24)
    first = plan.state({"wame": clear[:4], "sgd": none[:4]})
    assert (first.stop, first.next_look) == (False, 8)
    middle = plan.state({"wame": clear[:16], "sgd": none[:16]})
    assert middle.looks["wame"].word == "better"
    assert middle.sentence == "16 pairs, next look at 24; undecided: sgd"
    end = plan.state({"wame": clear, "sgd": none})
    assert (end.stop, end.decided) == (True, False)
    assert "budget of 24 pairs is spent" in end.sentence
    assert plan.state({"wame": clear[:16]}).decided
    assert plan.level == 0.025
    with pytest.raises(StatsError, match="found 3 comparisons, 2 were declared"):
        plan.state(dict.fromkeys("abc", clear))


def test_diverged_trials_are_ranked_in_both_designs():
    d = np.r_[[math.inf] * 10, [1.0, 2.0] * 5]
    for kind in ("group", "anytime"):
        assert SequentialPlan(kind=kind, looks=(10, 20)).look(d).word == "better"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "peek"}, "kind: found 'peek'"),
        ({"looks": (6, 6)}, "looks: found"),
        ({"looks": ()}, "looks: found"),
        ({"spending": "late"}, "spending: found 'late'"),
        ({"alpha": 0}, "alpha: found 0"),
        ({"comparisons": 0}, "comparisons: found 0"),
    ],
)
def test_a_plan_that_makes_no_sense_names_the_choices(fields, message):
    with pytest.raises(StatsError, match=message):
        SequentialPlan(**fields)
