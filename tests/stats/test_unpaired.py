"""Independent runs: Welch, permutations, a fixed target, duplicates, and a published list of records."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from optbench.stats.common import StatsError
from optbench.stats.relative import relative_effect
from optbench.stats.targets import against_target, fewest, records
from optbench.stats.unpaired import (
    compare_unpaired,
    duplicates,
    permutation_test,
    welch,
)
from tests.conftest import SHARED

RUNS = SHARED / "data" / "nanogpt-track3" / "runs.csv"


def test_welch_is_scipys():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, 7), rng.normal(0.5, 3, 12)
    found, theirs = welch(x, y), stats.ttest_ind(x, y, equal_var=False)
    low, high = theirs.confidence_interval()
    assert found.pvalue == pytest.approx(theirs.pvalue)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert "2 runs" in welch([1.0], [1.0, 2.0]).reason
    assert "all equal" in welch([1.0, 1.0], [2.0, 2.0]).reason


@pytest.mark.parametrize("sizes", [(3, 3), (3, 5), (1, 6)])
def test_permutations_are_all_divisions(sizes):
    rng = np.random.default_rng(1)
    n, m = sizes
    for _ in range(5):
        pooled = rng.integers(0, 9, n + m).astype(float)

        def t(index, pooled=pooled):
            a, b = pooled[list(index)], np.delete(pooled, list(index))
            spread = a.var() / max(1, n - 1) + b.var() / max(1, m - 1)
            gap = abs(a.mean() - b.mean())
            return (gap / math.sqrt(spread)) if spread > 1e-12 else (math.inf if gap > 1e-12 else 0.0)

        values = np.array([t(c) for c in itertools.combinations(range(n + m), n)])
        found = permutation_test(pooled[:n], pooled[n:])
        assert found.method == "exact"
        assert found.pvalue == pytest.approx((values >= values[0] * (1 - 1e-9)).mean())


def test_sampled_permutations_agree_with_welch_in_large_groups_and_keep_their_level():
    rng = np.random.default_rng(2)
    x, y = rng.normal(0, 1, 40), rng.normal(0.4, 1, 40)
    found = permutation_test(x, y)
    assert found.method.startswith("Monte Carlo")
    assert found.pvalue == pytest.approx(welch(x, y).pvalue, abs=0.015)
    runs = 400
    hits = [permutation_test(rng.normal(0, 1, 5), rng.normal(0, 1, 6)).pvalue <= 0.05 for _ in range(runs)]
    assert np.mean(hits) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_diverged_runs_are_ranked():
    found = compare_unpaired({"a": [1.0, 2.0, 3.0, 4.0, 5.0], "b": [-math.inf] * 5}, baseline="a")[0]
    assert found.permutation.pvalue == pytest.approx(2 / 252)
    assert found.verdict.word == "worse"
    assert "diverged" in found.welch.reason


def test_words_agree_with_intervals_and_follow_the_direction():
    rng = np.random.default_rng(3)
    groups = {name: rng.normal(shift, 1, 9) for name, shift in (("a", 0), ("b", 0.5), ("c", 3))}
    found = {(r.candidate, r.baseline): r for r in compare_unpaired(groups)}
    assert found["a", "c"].verdict.word == "worse"
    assert found["a", "b"].verdict.word == "inconclusive"
    turned = {(r.candidate, r.baseline): r for r in compare_unpaired(groups, maximise=False)}
    assert turned["a", "c"].verdict.word == "better"
    assert turned["a", "c"].welch.low > 0
    assert found["a", "c"].welch.confidence == pytest.approx(1 - 0.05 / 3)
    few = compare_unpaired({"a": [1.0, 2.0, 3.0], "b": [7.0, 8.0, 9.0]})[0]
    assert "smallest attainable adjusted p is 0.1" in few.verdict.reason
    with pytest.raises(StatsError, match="baseline: found 'z', allowed are a, b, c"):
        compare_unpaired(groups, baseline="z")


def test_a_fixed_target_by_z_where_the_sd_is_known():
    x = np.array([3.279, 3.278, 3.2775, 3.2801])
    z = against_target(x, target=3.28, sd=0.0013, alpha=0.01)
    assert z.pvalue == pytest.approx(stats.norm.cdf((x.mean() - 3.28) / (0.0013 / 2)))
    assert z.bound == pytest.approx(x.mean() + stats.norm.ppf(0.99) * 0.0013 / 2)
    assert (z.bound < 3.28) == z.reached
    assert z.p_mean == z.pvalue
    assert not against_target([1.0, math.inf], target=2, sd=1.0).reached


def test_without_a_known_sd_the_typical_run_is_tested_exactly_and_the_mean_must_agree():
    rng = np.random.default_rng(8)
    for n in (5, 8, 13):
        for alpha in (0.1, 0.05):
            x = 3.279 + 0.001 * rng.standard_t(2, size=n)
            found = against_target(x, target=3.28, alpha=alpha)
            below = int((x < 3.28).sum())
            assert found.pvalue == pytest.approx(stats.binomtest(below, n, alternative="greater").pvalue)
            assert (found.bound < 3.28) == (found.pvalue < alpha)
            assert found.reached == (found.pvalue < alpha and found.p_mean < alpha)
            other = against_target(-x, target=-3.28, side="above", alpha=alpha)
            assert (other.pvalue, other.p_mean, other.bound) == pytest.approx(
                (found.pvalue, found.p_mean, -found.bound)
            )
    plain = stats.ttest_1samp(x, 3.28, alternative="less").pvalue
    assert against_target(x, target=3.28).p_mean >= plain * (1 - 1e-9)
    lost = np.r_[np.full(19, 3.27) + 1e-5 * np.arange(19), 3.9]  # 19 of 20 below, the mean above
    assert against_target(lost, target=3.28).mixed
    assert not against_target(lost, target=3.28).reached


def test_a_target_is_refused_to_runs_that_cannot_reach_the_level():
    assert (
        "4 runs cannot reach p < 0.05: 5 are needed, or a known sd"
        in against_target([1.0, 1.1, 1.2, 1.3], target=2).reason
    )
    assert against_target([1.0, 1.1, 1.2, 1.3, 1.4], target=2).reached
    assert (
        "9 runs cannot reach p < 0.001: 10" in against_target(np.arange(9.0), target=20, alpha=0.001).reason
    )
    assert not against_target([1.0, 1.1, 1.2, 1.3, math.inf], target=2).reached
    assert fewest(0.0625) == 5  # p must be below alpha


@pytest.mark.parametrize("side", ["below", "above"])
def test_a_target_at_the_median_is_reached_by_chance_alone_whatever_the_shape(side):
    rng, hits = np.random.default_rng(3), 0
    for _ in range(1500):
        hits += against_target(1 - rng.lognormal(size=5), target=0.0, side=side).reached
    assert hits / 1500 <= 1 / 32 + 3 * 0.0045


def test_the_chance_of_a_better_run_is_brunner_and_munzels_and_its_test_all_divisions():
    rng = np.random.default_rng(5)
    x, y = np.round(rng.normal(0.8, 1, 5), 1), np.round(rng.normal(0, 2, 6), 1)
    found = relative_effect(x, y)
    pooled = np.r_[x, y]

    def statistic(chosen):
        a, b = pooled[list(chosen)], np.delete(pooled, list(chosen))
        with np.errstate(divide="ignore", invalid="ignore"):
            return abs(stats.brunnermunzel(a, b, distribution="normal").statistic)

    observed = statistic(range(5))
    values = [statistic(c) for c in itertools.combinations(range(11), 5)]
    assert found.pvalue == pytest.approx(np.mean(np.array(values) >= observed * (1 - 1e-9)))
    wins = np.sign(x[:, None] - y[None, :])
    assert found.effect == pytest.approx(0.5 + wins.mean() / 2)
    large = rng.normal(0.5, 1, 40), rng.normal(0, 2, 30)
    sampled = relative_effect(*large)
    assert sampled.method.startswith("Monte Carlo")
    assert sampled.pvalue == pytest.approx(stats.brunnermunzel(*large).pvalue, abs=0.02)
    assert math.isnan(relative_effect([1.0], [2.0, 3.0]).pvalue)


def test_no_step_of_the_correction_gives_a_word_that_the_mean_does_not_show():
    """4 runs of each reach 0.029 in the last of Holm's steps, and 0.086 in the first of three."""
    groups = {
        "base": [0.0, 0.1, 0.2, 0.3],
        "tail": [0.31, 0.33, 0.35, 90.0],
        "far": [60.0, 60.1, 60.2, 60.3, 60.4, 60.5],
        "near": [50.0, 50.1, 50.2, 50.3, 50.4, 50.5],
    }
    found = {c.candidate: c for c in compare_unpaired(groups, baseline="base")}
    assert found["tail"].p_adjusted <= 0.05
    assert found["tail"].welch_p_adjusted > 0.05
    assert found["tail"].verdict.word == "mixed"


def test_better_means_that_a_run_of_one_beats_a_run_of_the_other_too():
    rng = np.random.default_rng(0)
    x = np.r_[0.1 * rng.normal(size=24), 4 + rng.normal(size=16)]
    y = np.r_[0.1 * rng.normal(size=40)] + 0.05
    (c,) = compare_unpaired({"x": x, "y": y}, baseline="y")
    assert c.welch.low > 0
    assert c.p_adjusted <= 0.05
    assert c.typical_p_adjusted > 0.05
    assert c.verdict.word == "mixed"
    assert "the typical run (one of x beats one of y in" in c.verdict.reason
    (c,) = compare_unpaired({"x": rng.normal(2, 1, 9), "y": rng.normal(0, 1, 9)}, baseline="y")
    assert c.verdict.word == "better"
    assert "in the typical run" in c.verdict.reason
    assert "no run of 9 collapsed, which leaves a rate of up to 28% possible" in c.verdict.reason


def test_equal_values_are_named_with_what_chance_would_give():
    rng = np.random.default_rng(4)
    assert duplicates([1.0, 2.0, math.inf, math.inf]) is None
    found = duplicates([0.123, 0.124, 0.123, 0.125], group="g", runs="abcd")
    assert found.sentence.startswith("g: probable duplicates, equal to all digits: runs a, c (0.123)")
    # The formula of the expected number, against draws.
    pairs, expected = [], []
    for _ in range(300):
        x = np.round(rng.normal(0, 0.01, 20), 3)
        _, counts = np.unique(x, return_counts=True)
        pairs.append((counts * (counts - 1) / 2).sum())
        if (d := duplicates(x)) is not None:
            expected.append(d.expected)
    assert np.mean(expected) == pytest.approx(np.mean(pairs), rel=0.15)


@pytest.mark.skipif(not RUNS.exists(), reason="the shared data are not here")
def test_published_records_by_their_own_rule():
    frame = pd.read_csv(RUNS)
    groups = {
        name: (float(part["steps"].iloc[0]), part["val_loss"].to_numpy())
        for name, part in frame.groupby("group", sort=False)
    }
    found = {r.group: r for r in records(groups, target=3.28, sd=0.0013, loss_per_step=0.0045 / 100)}
    for name, (_, losses) in groups.items():
        p = stats.norm.cdf((losses.mean() - 3.28) / (0.0013 / math.sqrt(len(losses))))
        assert found[name].target.pvalue == pytest.approx(p)
        assert found[name].target.reached == (p < 0.001)
    named = [d.group for n, (_, x) in groups.items() if (d := duplicates(x, group=n)) is not None]
    assert named == ["g06", "g09", "g13", "g19", "g22", "g33"]
    for name in ("g19", "g33"):  # far more than chance gives: the same runs twice
        d = duplicates(groups[name][1])
        assert d.extra > 5 * d.expected
