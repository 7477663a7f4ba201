"""One comparison of a family: what the mean says beside the typical run, and the smallest p."""

import math
from dataclasses import replace

import numpy as np
import pytest

from optbench.stats.crossed import Crossing
from optbench.stats.flips import MeanTest
from optbench.stats.pairs import PairedComparison, Settings, compare_pair, decide, mean_says, with_crossing

UNTESTED = MeanTest(0.0, -math.inf, math.inf, 0.95, math.nan, math.nan, 4, 1, "none", "not tested")
BARE = PairedComparison(
    candidate="wame",
    baseline="adam",
    n=4,
    n_missing=0,
    n_diverged_candidate=0,
    n_diverged_baseline=0,
)


@pytest.mark.parametrize(("estimate", "sign"), [(0.25, 1), (-0.25, -1), (0.0, 0)])
def test_a_mean_that_could_not_be_tested_has_the_sign_of_what_was_seen(estimate, sign):
    said = mean_says(replace(BARE, average=replace(UNTESTED, estimate=estimate)), math.nan, 0.05)
    assert (said.estimate, said.sign, said.tested) == (estimate, sign, False)
    assert said.sentence == "collapsed runs: 0 of 4 of wame, 0 of 4 of adam"


@pytest.mark.parametrize(
    ("lost", "theirs", "estimate", "sign"), [(0, 2, math.inf, 1), (2, 1, -math.inf, -1), (1, 1, 0.0, 0)]
)
def test_a_mean_with_diverged_runs_favours_who_has_fewer(lost, theirs, estimate, sign):
    found = replace(
        BARE,
        n_diverged_candidate=lost,
        n_diverged_baseline=theirs,
        average=replace(UNTESTED, estimate=math.nan),
    )
    said = mean_says(found, math.nan, 0.05)
    assert (said.estimate, said.sign, said.tested) == (estimate, sign, False)
    assert said.sentence == f"diverged runs: {lost} of wame, {theirs} of adam"


@pytest.mark.parametrize(
    ("correction", "families", "factor"), [("holm", 1, 2), ("holm", 3, 6), ("none", 3, 1), ("bh", 3, 1)]
)
def test_the_smallest_p_is_multiplied_by_what_shares_the_error(correction, families, factor):
    settings = Settings("adam", "baseline", correction=correction, families=families)
    base, steps = np.full(8, 0.8), np.linspace(0.01, 0.08, 8)
    raw = [
        compare_pair(base + sign * steps, base, name, "adam", settings, 0.95, "d")
        for name, sign in (("wame", 1), ("sgd", -1))
    ]
    for found in decide(raw, settings):
        assert found.signed_rank.smallest_attainable_p == 2 / 2**8
        assert found.smallest_adjusted_p == factor * 2 / 2**8


def test_crossed_seeds_are_analysed_as_crossed_and_equivalence_is_left_out():
    init, order = np.divmod(np.arange(12), 3)
    a = 0.8 + 0.01 * init + 0.002 * order + 0.05
    b = np.full(12, 0.8)
    settings = Settings("adam", "baseline", margin=1.0)
    plain = compare_pair(a, b, "wame", "adam", settings, 0.95, "d")
    assert plain.equivalence is not None
    crossing = Crossing(names=("init", "order"), levels=(init, order))
    found = with_crossing(plain, a, b, 0.95, crossing)
    assert found.crossed.levels == (4, 3)
    assert found.equivalence is None
    assert with_crossing(plain, a, b, 0.95, None) is plain
