"""Independent runs: Welch, permutations, a fixed target, duplicates, and a published list of records."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from optbench.stats.common import StatsError
from optbench.stats.targets import against_target, records
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


def test_a_fixed_target_by_z_and_by_t():
    x = np.array([3.279, 3.278, 3.2775, 3.2801])
    z = against_target(x, target=3.28, sd=0.0013, alpha=0.01)
    assert z.pvalue == pytest.approx(stats.norm.cdf((x.mean() - 3.28) / (0.0013 / 2)))
    assert z.bound == pytest.approx(x.mean() + stats.norm.ppf(0.99) * 0.0013 / 2)
    assert (z.bound < 3.28) == z.reached
    assert against_target(x, target=3.28).pvalue > stats.ttest_1samp(x, 3.28, alternative="less").pvalue
    x = 6.556 - x
    t = against_target(x, target=3.28)
    plain = stats.ttest_1samp(x, 3.28, alternative="less").pvalue
    assert t.pvalue == pytest.approx(plain)  # the longer tail lies away from the target
    for alpha in (0.3, 0.1, 0.01):  # the bound is the test's, whatever the tail
        for values in (x, 6.556 - x, np.r_[x, 3.2776, 3.2801]):
            found = against_target(values, target=3.28, alpha=alpha)
            assert (found.bound < 3.28) == found.reached
    assert against_target(-x, target=-3.28, side="above").pvalue == pytest.approx(t.pvalue)
    assert "known sd" in against_target([1.0], target=2).reason
    assert not against_target([1.0, math.inf], target=2).reached


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
