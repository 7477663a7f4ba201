"""The verdict under a sequential design: where it was decided, at which level, and what the mean says."""

import math

import numpy as np
import pytest

from optbench.stats.sequential import SequentialPlan
from optbench.stats.sequential_verdict import decide_sequentially, decide_together

PLAN = SequentialPlan(looks=(6, 12, 18, 24, 30))


def decide(d, plan=PLAN, **options):
    d = np.asarray(d, dtype=float)
    return decide_sequentially(d, np.zeros(d.size), plan, candidate="wame", baseline="adam", **options)


def test_a_decision_stays_at_its_look_whatever_comes_later():
    rng = np.random.default_rng(0)
    d = rng.normal(1.5, 1, size=30)
    first = decide(d[:12])
    assert (first.verdict.word, first.number, first.of, first.look.n) == ("better", 2, 5, 12)
    assert "decided at look 2 of 5 (12 pairs)" in first.verdict.reason
    assert repr(decide(np.r_[d[:12], -d])) == repr(first)  # e is NaN: unequal from Python 3.13 on
    assert decide(-d).verdict.word == "worse"


def test_no_p_value_is_due_before_a_decision_and_the_next_look_is_named():
    rng = np.random.default_rng(1)
    d = rng.normal(0, 1, size=30)
    early = decide(d[:8])
    assert math.isnan(early.p_adjusted)
    assert not early.decided
    assert "undecided at look 1 of 5 (6 pairs); the next look is at 12 pairs" in early.verdict.reason
    assert "before the first look (3 pairs)" in decide(d[:3]).verdict.reason
    end = decide(d)
    assert end.p_adjusted > 0.05
    assert "all 30 pairs are spent" in end.verdict.reason


def test_crashed_runs_leave_no_alpha_unspent():
    d = np.r_[np.linspace(-0.4, 1, 20), 0.5, 0.6, 0.7]
    assert not decide(d).decided
    final = decide(d, final=True)
    assert (final.verdict.word, final.look.n) == ("better", 23)
    assert final.p_adjusted <= 0.05


@pytest.mark.parametrize("kind", ["group", "anytime"])
def test_the_share_of_found_differences_between_equals_keeps_the_level_with_an_early_end(kind):
    rng, hits, runs = np.random.default_rng(2), 0, 120
    plan = SequentialPlan(kind=kind, looks=(5, 10, 20), spending="pocock")
    for _ in range(runs):
        d = rng.normal(size=20)[: rng.integers(11, 21)]
        hits += plan.look(d, final=True).decided
    assert hits / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_alpha_is_shared_and_p_is_told_over_all_comparisons():
    d = np.random.default_rng(3).normal(1.0, 1, size=30)
    alone, shared = decide(d), decide(d, SequentialPlan(looks=PLAN.looks, comparisons=4))
    assert shared.look.n >= alone.look.n
    assert shared.p_adjusted == pytest.approx(min(1.0, 4 * shared.look.p))
    assert shared.p_adjusted <= 0.05


def test_within_the_margin_at_a_look_is_equivalent_unless_a_run_collapsed():
    rng = np.random.default_rng(4)
    a, b = 0.9 + rng.normal(0, 0.001, size=(2, 30))
    options = {"candidate": "wame", "baseline": "adam", "margin": 0.01}
    found = decide_sequentially(a, b, PLAN, **options)
    assert found.verdict.word == "equivalent"
    assert found.look.n < 30
    assert "which holds at all looks" in found.verdict.reason
    a[2] = 0.3
    assert decide_sequentially(a, b, PLAN, **options).verdict.word != "equivalent"


def test_a_typical_run_that_the_mean_contradicts_is_mixed():
    d = np.r_[np.full(11, 1.0) + np.arange(11) / 100, -200.0] * 1.0
    found = decide(np.r_[d, d])
    assert found.decided
    assert found.verdict.word == "mixed"


def test_boundaries_are_what_the_looks_use():
    rows = SequentialPlan(looks=(6, 12, 18)).boundaries()
    assert [n for n, _, _ in rows] == [6, 12, 18]
    assert [spent for _, spent, _ in rows] == sorted(spent for _, spent, _ in rows)
    assert rows[-1][1] == pytest.approx(0.05)
    assert rows[0][2] == 0
    assert rows[1][2] <= rows[1][1]
    assert SequentialPlan(kind="anytime").boundaries() == ()


def together(samples, plan, **options):
    pairs = [(name, "adam", np.asarray(d, float), np.zeros(len(d))) for name, d in samples.items()]
    return dict(zip(samples, decide_together(pairs, plan, **options), strict=True))


def test_what_a_decided_comparison_had_of_alpha_goes_to_the_open_ones():
    plan = SequentialPlan(looks=(12,), comparisons=2)
    sizes = np.arange(1.0, 13)
    clear, near = sizes, np.where((sizes == 6) | (sizes == 7), -sizes, sizes)  # p = 0.034
    alone = together({"near": near, "none": near * (-1) ** sizes}, plan, declared=2)
    assert not alone["near"].decided
    found = together({"near": near, "clear": clear}, plan, declared=2)
    assert found["clear"].verdict.word == "better"
    assert found["near"].decided
    assert found["clear"].p_adjusted < found["near"].p_adjusted == pytest.approx(found["near"].look.p)
    assert found["near"].look.interval.low == 0  # an interval for both together holds 0, and is cut there
    assert "with the alpha that the decisions of others left" in found["near"].verdict.reason
    turned = together({"clear": clear, "near": near}, plan, declared=2)
    assert repr(found["near"]) == repr(turned["near"])
    assert not together({"near": near, "clear": clear}, plan, declared=2, holm=False)["near"].decided


def test_alpha_of_other_families_and_of_crashed_comparisons_stays_theirs():
    sizes = np.arange(1.0, 13)
    clear, near = sizes, np.where((sizes == 6) | (sizes == 7), -sizes, sizes)
    both = {"near": near, "clear": clear}
    assert not together(both, SequentialPlan(looks=(12,), comparisons=4), declared=2)["near"].decided
    assert not together(both, SequentialPlan(looks=(12,), comparisons=3), declared=3)["near"].decided
    # Without a correction each comparison has all of alpha, and there is nothing to hand on.
    plan = SequentialPlan(looks=(12,), comparisons=1)
    assert together(both, plan, declared=2)["near"].p_adjusted == pytest.approx(decide(near, plan).p_adjusted)
