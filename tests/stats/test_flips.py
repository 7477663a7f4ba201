"""The average over workloads: test and interval against enumeration, and words that never contradict it."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optbench.stats import flips
from optbench.stats.datasets import on_these_datasets
from optbench.stats.families import Settings
from optbench.stats.flips import mean_of_means
from optbench.stats.heterogeneity import gail_simon, heterogeneity
from optbench.stats.paired import signed_rank


def enumerated(parts, theta=0.0):
    """Two-sided p at theta over all sign patterns."""
    y = np.concatenate([(p - theta) / len(p) / len(parts) for p in parts])
    sums = np.array([np.dot(s, y) for s in itertools.product((1, -1), repeat=y.size)])
    tolerance = 1e-9 * np.abs(y).sum()
    upper, lower = (sums >= y.sum() - tolerance).mean(), (sums <= y.sum() + tolerance).mean()
    return min(1.0, 2 * min(upper, lower))


SMALL = st.lists(st.lists(st.integers(-4, 6), min_size=1, max_size=5), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(SMALL, st.sampled_from([0.8, 0.95]))
def test_p_is_that_of_enumeration_and_the_interval_holds_exactly_what_the_test_keeps(values, confidence):
    parts = [np.array(v, dtype=float) for v in values]
    result = mean_of_means(parts, confidence=confidence)
    assert result.pvalue == pytest.approx(enumerated(parts))
    alpha = 1 - confidence
    if math.isinf(result.low):
        assert 2 * 2.0**-result.n > alpha or "unbounded" in result.reason
        return
    assert (result.low <= 0 <= result.high) == (result.pvalue > alpha)
    step = 1e-6
    for inside in (result.low + step, result.high - step, result.estimate):
        if result.low < inside < result.high:
            assert enumerated(parts, inside) > alpha
    for outside in (result.low - step, result.high + step):
        assert enumerated(parts, outside) <= alpha or abs(outside) <= 2 * step


def test_bisection_finds_the_ends_that_sorting_finds(monkeypatch):
    x = np.random.default_rng(3).normal(0.5, 1, size=12)
    sorted_ends = mean_of_means([x[:5], x[5:]])
    monkeypatch.setattr(flips, "_FORMED", 0)
    bisected = mean_of_means([x[:5], x[5:]])
    assert bisected.low == pytest.approx(sorted_ends.low, abs=1e-6)
    assert bisected.high == pytest.approx(sorted_ends.high, abs=1e-6)
    assert bisected.pvalue == sorted_ends.pvalue


def test_sampled_and_exact_agree_and_the_grid_never_falls_below_the_exact_tail(monkeypatch):
    rng = np.random.default_rng(0)
    parts = [rng.normal(0.3, 1, size=9), rng.normal(0.3, 1, size=10)]
    exact = mean_of_means(parts)
    monkeypatch.setattr(flips, "EXACT_PAIRS", 5)
    sampled = mean_of_means(parts)
    assert sampled.method.startswith("Monte Carlo")
    assert sampled.pvalue == pytest.approx(exact.pvalue, abs=0.02)
    assert sampled.low == pytest.approx(exact.low, abs=0.05)
    y = np.abs(rng.normal(size=20))
    y[3] *= -1
    tail = flips._count(y) / 2.0**20
    assert tail <= flips._grid_tail(y) <= 1.05 * tail
    assert flips._grid_tail(np.arange(1.0, 16)) == 2.0**-15


def test_many_pairs_use_the_normal_limit_and_one_dominant_pair_never_does():
    rng = np.random.default_rng(1)
    x = rng.normal(0.1, 1, size=1000)
    assert mean_of_means([x]).method == "normal limit of the flips"
    assert (mean_of_means([x]).low > 0) == (mean_of_means([x]).pvalue < 0.05)
    x[0] = -1000
    assert mean_of_means([x]).method.startswith("Monte Carlo")


def test_a_workload_weighs_the_same_however_many_seeds_it_has():
    result = mean_of_means([np.full(2, 1.0), np.full(10, -1.0)])
    assert result.estimate == 0.0


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 5), st.integers(2, 12), st.integers(0, 10**6), st.floats(-1.5, 1.5))
def test_a_verdict_on_these_datasets_never_stands_beside_an_interval_that_says_otherwise(k, n, seed, shift):
    rng = np.random.default_rng(seed)
    tables = {
        f"d{i}": np.column_stack([rng.normal(rng.normal(shift), 1, n), np.zeros(n)]).round(1)
        for i in range(k)
    }
    r = on_these_datasets(tables, ["x", "y"], settings=Settings("y", "baseline"))[0]
    if r.verdict.word == "better":
        assert r.low > 0
        assert not r.worse_on
    if r.verdict.word == "worse":
        assert r.high < 0
    if r.low > 0 or r.high < 0:
        assert r.verdict.word in ("better", "worse", "mixed")
    if r.better_on and r.worse_on:
        assert r.verdict.word == "mixed"


def test_workloads_of_opposite_sign_are_named():
    d = np.linspace(0.9, 1.1, 10)
    tables = {name: np.column_stack([s * d, 0 * d]) for name, s in (("a", 1), ("b", 1), ("c", -50))}
    r = on_these_datasets(tables, ["x", "y"], settings=Settings("y", "baseline"))[0]
    assert r.verdict.word == "mixed"
    assert "better on a, b; worse on c; effects of opposite sign" in r.verdict.reason


def test_a_mean_over_workloads_that_the_typical_run_does_not_show_is_mixed():
    rng = np.random.default_rng(2)
    tables = {}
    for name in "ab":
        d = np.r_[0.01 * rng.normal(size=14) - 0.05, 1 + 0.05 * rng.normal(size=6)]
        tables[name] = np.column_stack([d, np.zeros(20)])
    r = on_these_datasets(tables, ["x", "y"], settings=Settings("y", "baseline"))[0]
    assert r.low > 0
    assert r.typical_p_adjusted > 0.05
    assert r.verdict.word == "mixed"
    assert "the average of x beats that of y" in r.verdict.reason
    assert "the typical run does not show it" in r.verdict.reason


def test_better_on_these_workloads_says_of_what_and_what_it_leaves_open():
    rng = np.random.default_rng(2)
    tables = {name: np.column_stack([rng.normal(9, 1, 10), rng.normal(7, 1, 10)]) for name in "ab"}
    r = on_these_datasets(tables, ["x", "y"], settings=Settings("y", "baseline"))[0]
    pooled = np.concatenate([t[:, 0] - t[:, 1] for t in tables.values()])
    assert r.typical_p == pytest.approx(signed_rank(pooled).pvalue)
    assert r.verdict.reason.startswith("x beats y in the typical run: adjusted p =")
    assert r.verdict.left_open == "no run of 20 collapsed, which leaves a rate of up to 14% possible"
    tables["a"][3] = 9.0, -40.0
    r = on_these_datasets(tables, ["x", "y"], settings=Settings("y", "baseline"))[0]
    assert (r.n_collapsed_candidate, r.n_collapsed_baseline) == (0, 1)


def test_gail_simon_critical_values():
    # Gail and Simon (1985), table 1: the 5 % points for 2 to 10 groups.
    published = [2.71, 4.23, 5.43, 6.50, 7.48, 8.41, 9.29, 10.15, 10.99]
    for k, critical in zip(range(2, 11), published, strict=True):
        z = [math.sqrt(critical), -math.sqrt(critical), *[1e-9] * (k - 2)]
        assert gail_simon(z)[1] == pytest.approx(0.05, abs=2e-4)


def test_welch_and_i2_by_their_definitions():
    rng = np.random.default_rng(0)
    parts = [rng.normal(m, 1, size=8) for m in (0, 0.5, 3)]
    h = heterogeneity(parts)
    w = np.array([8 / p.var(ddof=1) for p in parts])
    m = np.array([p.mean() for p in parts])
    q = (w * (m - (w * m).sum() / w.sum()) ** 2).sum()
    assert h.q == pytest.approx(q)
    assert h.i2 == pytest.approx((q - 2) / q)
    assert h.q_pvalue < 0.01
    alike = [heterogeneity([rng.normal(0, 1, 5) for _ in range(4)]).q_pvalue <= 0.05 for _ in range(400)]
    assert np.mean(alike) < 0.05 + 3 * 0.011


@pytest.mark.parametrize("sizes", [(1000,), (800, 900)])
def test_the_interval_of_the_normal_limit_inverts_its_test(sizes):
    rng = np.random.default_rng(3)
    parts = [rng.normal(0.2, 1 + k, size=n) for k, n in enumerate(sizes)]
    found = mean_of_means(parts)
    assert found.method == "normal limit of the flips"
    assert found.low < found.estimate < found.high
    for end in (found.low, found.high):
        assert mean_of_means([x - end for x in parts]).pvalue == pytest.approx(0.05, rel=1e-6)
    narrow = mean_of_means(parts, confidence=0.8)
    assert found.low < narrow.low < narrow.high < found.high


def test_the_upper_bound_of_a_tail_lies_above_it_by_little():
    rng = np.random.default_rng(5)
    for n in (14, 18):
        y = np.abs(rng.normal(size=n))
        y[:3] *= -1
        tail = flips._count(y) / 2.0**n
        assert tail <= flips._grid_tail(y) <= 1.05 * tail
