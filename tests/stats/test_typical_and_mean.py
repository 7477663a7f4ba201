"""The typical run against the mean, collapsed runs, and equivalence that rare collapses do not fool."""

import math

import numpy as np
import pytest

from optbench.records.tables import compare_file
from optbench.stats.collapses import collapse_counts, collapsed, unseen_rate
from optbench.stats.equivalence import equivalence
from optbench.stats.families import Settings, compare_family
from optbench.stats.paired import paired_t
from optbench.stats.skew import hall, hall_inverse, skewed_mean
from tests.conftest import SHARED

CASES = SHARED / "cases"
needs_cases = pytest.mark.skipif(not CASES.exists(), reason="the shared input files are not here")


def one(a, b, *, margin=None):
    family = compare_family(
        np.column_stack([b, a]),
        ["adam", "wame"],
        settings=Settings("adam", "baseline", margin=margin),
        scope="d",
    )
    return family.comparisons[0]


def runs(n, seed=0, lost=()):
    rng = np.random.default_rng(seed)
    b = 0.9 + 0.01 * rng.normal(size=n)
    a = b + 0.004 + 0.0005 * rng.normal(size=n)
    a[list(lost)] = 0.1
    return a, b


def test_collapsed_runs_are_counted_and_no_bare_better_is_said():
    c = one(*runs(20, lost=(3, 11)))
    assert c.p_adjusted <= 0.05
    assert c.mean.estimate < 0
    assert c.verdict.word == "mixed"
    assert "typical run of wame beats" in c.verdict.reason
    assert "2 of 20 of wame, 0 of 20 of adam" in c.verdict.reason
    found = one(*runs(20)).verdict
    assert found.word == "better"
    assert found.claim == "in the typical run"
    assert "wame beats adam in the typical run: " in found.reason
    assert found.reason.endswith(found.left_open + ".")
    assert found.left_open == "no run of 20 collapsed, which leaves a rate of up to 14% possible"


def test_better_is_about_the_typical_run_whose_level_holds_for_any_tail():
    """The typical run at 0: half of the means of two differences lie above it."""
    rng, typical = np.random.default_rng(4), 0.42616
    words = [one(math.exp(0.5) - typical - rng.lognormal(size=8), np.zeros(8)) for _ in range(400)]
    bare = sum(c.verdict.word in ("better", "worse") for c in words)
    assert bare / 400 <= 0.05 + 3 * 0.011


def test_what_a_comparison_could_reach_is_never_above_what_it_reached():
    """By Holm's last step 6 useful pairs reach 0.031, where the first would multiply them by 2."""
    grow = np.arange(1.0, 8.0)
    few = np.r_[grow[:6], 0.0]
    table = np.column_stack([np.zeros(7), grow, few])
    names = ["adam", "all", "few"]
    found = {
        c.candidate: c
        for c in compare_family(table, names, settings=Settings("adam", "baseline"), scope="d").comparisons
    }
    assert found["all"].smallest_adjusted_p == pytest.approx(2 * 2 / 2**7)
    assert found["few"].smallest_adjusted_p == found["few"].p_adjusted == pytest.approx(2 / 2**6)
    assert "no test can reject" not in found["few"].attainable
    table[:, 1] *= np.array([1, -1, 1, -1, 1, -1, 1])  # nothing is found there: both count again
    alone = compare_family(table, names, settings=Settings("adam", "baseline"), scope="d").comparisons[1]
    assert alone.smallest_adjusted_p == pytest.approx(4 / 2**6)
    assert "0.0625 after Holm over 2, no test can reject" in alone.attainable


def test_of_datasets_as_a_sample_no_collapsed_run_is_told():
    table = np.column_stack([np.arange(8.0), np.arange(8.0) + 1 + np.arange(8) / 10])
    found = compare_family(
        table, ["adam", "wame"], settings=Settings("adam", "baseline"), scope="new", blocks="datasets"
    ).comparisons[0]
    assert found.verdict.claim == "on the typical dataset"
    assert "collapsed" not in found.verdict.reason


def test_a_collapse_of_the_baseline_is_seen_from_the_other_side():
    a, b = runs(20, lost=(3, 11))
    c = one(b, a)
    assert c.verdict.word == "mixed"
    assert (c.n_collapsed_candidate, c.n_collapsed_baseline) == (0, 2)


def test_a_diverged_run_of_the_candidate_takes_the_bare_word_away_and_one_of_the_baseline_does_not():
    a, b = runs(20)
    a[0] = -np.inf
    assert one(a, b).verdict.word == "mixed"
    assert "diverged runs: 1 of wame, 0 of adam" in one(a, b).verdict.reason
    assert one(b, a).verdict.word == "mixed"
    a, b = runs(20)
    b[0] = -np.inf
    assert one(a, b).verdict.word == "better"


def test_better_means_that_typical_run_and_mean_both_show_it():
    rng = np.random.default_rng(0)
    words = []
    for _ in range(300):
        skewed = math.exp(0.5) - rng.lognormal(size=20)  # mean 0, most values above it
        c = one(skewed, np.zeros(20))
        words.append(c.verdict.word)
        if c.verdict.word == "better":
            assert c.average.low > 0
            assert c.simultaneous.low >= 0
    assert words.count("mixed") > 30
    assert words.count("better") / len(words) <= 0.05 + 3 * 0.0126


def test_halls_t_is_monotone_with_an_interval_that_inverts_it():
    for skewness in (-1.0, -0.3, 0.0, 0.4):
        t = np.linspace(-30, 30, 401)
        t = t[skewness * t > -3]
        values = [hall(x, skewness) for x in t]
        assert (np.diff(values) > 0).all()
    assert hall(4.0, -1.0) == math.inf
    assert hall_inverse(4.0, -1.0) == 3.0  # no interval reaches further than three over the skewness
    for skewness in (-0.3, 0.0, 0.4):
        t = np.linspace(-5, 5, 401)
        values = [hall(x, skewness) for x in t]
        assert [hall_inverse(v, skewness) for v in values] == pytest.approx(t.tolist(), abs=1e-3)
    d = np.array([1.0, 0.9, 1.1, 1.2, 0.8, 0.4, 1.5, 0.1])
    found = skewed_mean([d])
    assert found.against(1)
    assert skewed_mean([d - found.low]).pvalue == pytest.approx(0.05)
    assert skewed_mean([d - found.high]).pvalue == pytest.approx(0.05)
    symmetric = np.array([-1.0, 0.0, 1.0]) + 2
    assert skewed_mean([symmetric]).pvalue == pytest.approx(paired_t(symmetric).pvalue)
    assert "standard deviation is 0" in skewed_mean([[1.0, 1.0, 1.0]]).reason
    assert "needs 3" in skewed_mean([[1.0, 2.0]]).reason


def test_a_difference_far_from_0_is_found_however_skewed():
    d = -4.2 + np.array([0.1, 0.0, -0.2, 0.3, 0.1, -0.1, 0.2, 0.0, -0.3, 0.2, 3.9])  # every pair negative
    c = one(d, np.zeros(11))
    assert skewed_mean([d]).against(-1)
    assert c.verdict.word == "worse"


@pytest.mark.parametrize("seed", range(40))
def test_a_word_never_stands_beside_an_interval_that_says_the_opposite(seed):
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(6, 15)), int(rng.integers(2, 6))
    draw = (rng.normal, rng.exponential, rng.lognormal)[seed % 3]
    table = np.column_stack([np.zeros(n), *(draw(size=n) - rng.normal() for _ in range(k))])
    names = [f"o{i}" for i in range(k + 1)]
    for settings in (Settings("o0", "baseline"), Settings(None, "all")):
        family = compare_family(table, names, settings=settings, scope="d")
        for c in family.comparisons:
            mean = c.average
            off_zero = 1 if mean.low >= 0 else -1 if mean.high <= 0 else 0
            assert (c.average_p_adjusted <= 0.05) == (off_zero != 0)
            if c.verdict.word in ("better", "worse"):
                assert off_zero == (1 if c.verdict.word == "better" else -1)
            if off_zero and c.verdict.word == "inconclusive":
                assert c.smallest_adjusted_p > 0.05  # refused for lack of pairs, and the sentence says so


def test_a_mean_that_shows_more_than_the_typical_run_is_mixed_and_both_are_said():
    rng = np.random.default_rng(5)
    d = np.r_[0.01 * rng.normal(size=14), 1 + 0.05 * rng.normal(size=6)]
    d = d - 0.004
    c = one(d, np.zeros(20))
    assert c.average.low > 0
    assert c.p_adjusted > 0.05
    assert c.verdict.word == "mixed"
    assert "the mean of wame beats that of adam" in c.verdict.reason
    assert "the typical run does not show it" in c.verdict.reason


def test_identical_pairs_are_called_identical():
    c = one(np.full(8, 0.9), np.full(8, 0.9))
    assert c.verdict.reason == "wame and adam are identical in all 8 pairs."
    assert "needed" not in c.attainable


def test_normal_runs_hardly_ever_collapse_and_far_ones_always_do():
    rng = np.random.default_rng(0)
    assert sum(collapsed(rng.normal(0.9, 0.01, 10)).sum() for _ in range(2000)) < 20
    assert collapsed(np.array([0.9, 0.9, 0.9, 0.9, 0.5, -np.inf])).tolist() == [False] * 4 + [True] * 2
    assert not collapsed(np.array([1.0, 1.0, 1.0, 1.0, 0.999])).any()
    assert collapse_counts(np.array([0.9, 0.1]), np.array([0.9, 0.9])) == (0, 0)  # two runs show no spread


def test_unseen_rate_is_the_rule_of_three():
    assert unseen_rate(100) == pytest.approx(3 / 100, rel=0.02)


def test_equivalence_is_the_sign_test_of_the_median_and_refuses_what_carries_the_mean():
    d = np.array([0.1, -0.2, 0.3, 0.0, -0.1, 0.2, 0.1, -0.3])
    assert equivalence(d, margin=0.5).p_median == 2.0**-8
    assert equivalence(d, margin=0.3).p_median == pytest.approx(9 / 2**8)
    assert "collapsed" in equivalence(d, margin=0.5, collapsed=1).reason
    assert "one pair moves the mean" in equivalence(np.r_[d, 8.0], margin=1.0).reason
    assert math.isnan(equivalence([0.1, math.inf], margin=1).pvalue)


def test_equivalence_keeps_its_level_at_the_margin_for_any_shape():
    rng, runs_ = np.random.default_rng(0), 800
    shapes = {
        "normal": lambda: rng.normal(size=20),
        "skew": lambda: rng.exponential(size=20) - math.log(2),
        "heavy": lambda: rng.standard_t(2, size=20),
        "mixture": lambda: np.where(rng.random(20) < 0.1, -20, 0) + rng.normal(size=20) - 0.14,
    }
    for name, draw in shapes.items():
        for sign in (1, -1):
            hits = sum(equivalence(sign * draw() + 3.0, margin=3.0).pvalue <= 0.05 for _ in range(runs_))
            assert hits / runs_ <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs_), name


def test_equivalent_says_what_it_is_about():
    rng = np.random.default_rng(1)
    b = 0.9 + 0.01 * rng.normal(size=11)
    c = one(b + 0.001 * rng.normal(size=11), b, margin=0.01)
    assert c.verdict.word == "equivalent"
    assert "in the typical run" in c.verdict.reason
    assert "a rate of up to 24% possible" in c.verdict.reason


@needs_cases
def test_real_files_that_turned_a_verdict_around():
    (these,) = compare_file(CASES / "dir4.csv", baseline="adam").these_datasets
    assert these.verdict.word == "mixed"
    assert "better on d0, d1, d2; worse on d3" in these.verdict.reason
    assert these.high < 0
    for margin in (None, 0.001, 0.05, 0.0763, 1.0):
        c = compare_file(CASES / "collapse.csv", baseline="adam", margin=margin).within[0].comparisons[0]
        assert c.verdict.word == "mixed"
        assert "2 of 20 of wame" in c.verdict.reason
    c = compare_file(CASES / "ident.csv").within[0].comparisons[0]
    assert "identical in all 8 pairs" in c.verdict.reason
