"""Thousands of pairs at once: the same numbers as one by one, within what the approximation promises."""

import numpy as np
import pytest

from optbench.stats.brief import compare_pairs, differences_of, means_over_datasets, signed_rank_pvalues
from optbench.stats.datasets import on_these_datasets
from optbench.stats.families import BRIEF, Settings, compare_family
from optbench.stats.heterogeneity import heterogeneity
from optbench.stats.paired import pratt_weights, signed_rank
from optbench.stats.pairs import compare_pair
from optbench.stats.skew import skewed_mean


@pytest.mark.parametrize(("n", "decimals"), [(12, None), (25, 2), (100, None), (100, 2), (60, 1)])
def test_many_pairs_are_each_what_one_pair_is(n, decimals):
    rng = np.random.default_rng(n)
    table = rng.gamma(2, size=(n, 8)) + 0.3 * np.arange(8)
    if decimals is not None:
        table = table.round(decimals)
    settings = Settings(None, "all")
    pairs = settings.pairs(list("abcdefgh"))
    d = differences_of(table, pairs, None)
    found = compare_pairs(d, [(str(c), str(b)) for c, b in pairs], confidence=0.99, alpha=0.05)
    for c, (i, j) in zip(found, pairs, strict=True):
        one = compare_pair(table[:, i], table[:, j], str(i), str(j), settings, 0.99, "d", brief=True)
        assert c.signed_rank.pvalue == pytest.approx(one.signed_rank.pvalue, rel=1e-9 if n <= 30 else 0.02)
        assert (c.signed_rank.statistic, c.signed_rank.n_zeros, c.signed_rank.n_ties) == (
            one.signed_rank.statistic,
            one.signed_rank.n_zeros,
            one.signed_rank.n_ties,
        )
        assert c.signed_rank.smallest_attainable_p == one.signed_rank.smallest_attainable_p
        assert (c.t.pvalue, c.mean.low) == pytest.approx((one.t.pvalue, one.mean.low))
        for name in ("estimate", "low", "high", "pvalue"):
            assert getattr(c.average, name) == pytest.approx(getattr(one.average, name)), name
        for name in ("rank_biserial", "superiority", "wins", "ties", "losses"):
            assert getattr(c.rank, name) == pytest.approx(getattr(one.rank, name)), name


def test_the_approximation_is_near_in_both_tails_and_at_the_middle():
    rng = np.random.default_rng(0)
    d = rng.normal(0.2, 1, size=(300, 100)).round(1)
    weights, plus = np.zeros(d.shape, dtype=np.int64), np.zeros(300, dtype=np.int64)
    for i, x in enumerate(d):
        w, signs = pratt_weights(x)
        weights[i, x != 0], plus[i] = w, w[signs > 0].sum()
    p, method = signed_rank_pvalues(weights, plus)
    exact = np.array([signed_rank(x).pvalue for x in d])
    assert method == "saddlepoint"
    assert exact.min() < 1e-4
    assert np.abs(p / exact - 1).max() < 0.02


def test_averages_over_datasets_are_each_what_one_is():
    rng = np.random.default_rng(1)
    parts = {str(k): rng.gamma(2, size=(6, 10 + k)) - 1.8 for k in range(4)}
    tests, agreement = means_over_datasets(parts, confidence=0.98)
    for i in range(6):
        mine = [d[i] for d in parts.values()]
        plain = skewed_mean(mine, confidence=0.98)
        side = tests[i].low if plain.skewness < 0 else tests[i].high
        assert side == pytest.approx(plain.low if plain.skewness < 0 else plain.high)
        one = heterogeneity(mine)
        for name in ("q", "q_pvalue", "i2", "opposite", "opposite_pvalue", "n_used"):
            assert getattr(agreement[i], name) == pytest.approx(getattr(one, name)), name


@pytest.mark.slow
def test_a_very_large_family_says_that_it_is_in_brief_and_holes_are_still_compared():
    rng = np.random.default_rng(2)
    k = 33
    assert k * (k - 1) // 2 > BRIEF
    table, names = rng.normal(size=(40, k)), [str(i) for i in range(k)]
    whole = compare_family(table, names, settings=Settings(None, "all"), scope="d")
    assert any("in brief" in note for note in whole.notes)
    table[3, 5] = np.nan
    holed = compare_family(table, names, settings=Settings(None, "all"), scope="d")
    assert holed.comparisons[0].signed_rank.pvalue == pytest.approx(
        whole.comparisons[0].signed_rank.pvalue, rel=0.02
    )
    assert holed.comparisons[4].n == 39
    found = on_these_datasets({"a": table[:20], "b": table[20:]}, names, settings=Settings(None, "all"))
    assert len(found) == k * (k - 1) // 2
    assert not np.isnan([c.p_adjusted for c in found]).any()
