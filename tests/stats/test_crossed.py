"""Crossed seeds, and seeds x test examples: the level holds where counting the cells does not."""

import math

import numpy as np
import pandas as pd
import pytest

from optbench.stats.common import StatsError
from optbench.stats.compare import compare_table
from optbench.stats.crossed import (
    combine_means,
    complete_table,
    crossed_mean,
    crossed_power,
    find_crossing,
    mean_squares,
    two_way_examples,
)
from optbench.stats.paired import paired_t, signed_rank
from optbench.stats.variance import variance_shares


def draw(rng, a, b, parts):
    first, second, rest = parts
    return first * rng.normal(size=(a, 1)) + second * rng.normal(size=(1, b)) + rest * rng.normal(size=(a, b))


def bound(runs):
    return 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


@pytest.mark.parametrize("levels", [(2, 8), (3, 20), (5, 5)])
@pytest.mark.parametrize("parts", [(1, 0, 0.1), (0, 1, 0.1), (1, 1, 0.1), (0.5, 1, 0.3)])
def test_the_level_holds_whatever_the_shares_where_counting_cells_fails(levels, parts):
    rng, runs = np.random.default_rng(0), 700
    hits = np.zeros(2)
    for _ in range(runs):
        d = draw(rng, *levels, parts)
        hits[0] += crossed_mean(d).pvalue <= 0.05
        hits[1] += paired_t(d.ravel()).pvalue <= 0.05
    assert hits[0] / runs <= bound(runs)
    assert hits[1] / runs > 0.1


def test_p_and_interval_are_the_same_statement_and_mirror():
    rng = np.random.default_rng(1)
    for shift in (0.0, 0.5, 1.0, 2.0):
        for levels in ((2, 8), (4, 6)):
            d = draw(rng, *levels, (0.3, 0.3, 0.5)) + shift
            r = crossed_mean(d)
            assert (r.pvalue <= 0.05) == (r.low > 0 or r.high < 0)
            assert crossed_mean(-d.T).pvalue == pytest.approx(r.pvalue)
            assert (
                crossed_mean(d, confidence=1 - r.pvalue).low == pytest.approx(0, abs=1e-6) or r.estimate < 0
            )


def test_components_are_those_of_the_shares_of_variance():
    rng = np.random.default_rng(2)
    d = draw(rng, 4, 6, (1, 2, 0.5))
    frame = pd.DataFrame(
        [(i, j, d[i, j]) for i in range(4) for j in range(6)], columns=["init", "order", "acc"]
    )
    shares = variance_shares(frame, value="acc", streams=["init", "order"])
    found = crossed_mean(d).components
    assert found[:2] == pytest.approx(shares.components)
    assert found[2] == pytest.approx(shares.residual)
    row, column, rest = mean_squares(d)
    assert row * 3 + column * 5 + rest * 15 == pytest.approx(((d - d.mean()) ** 2).sum())


def test_holes_cost_whole_levels_and_are_counted():
    d = np.arange(12.0)
    d[5] = np.nan
    table, left_out = complete_table(d, [np.repeat(np.arange(3), 4), np.tile(np.arange(4), 3)])
    assert table.shape == (3, 3)
    assert left_out == 2
    assert "0" in crossed_mean(np.ones((3, 3))).reason
    assert "diverged" in crossed_mean([[1.0, -np.inf], [1.0, 2.0]]).reason
    with pytest.raises(StatsError, match="2 levels of each"):
        crossed_mean([[1.0, 2.0]])


def test_only_seeds_that_repeat_are_crossed():
    n = np.arange(5)
    assert find_crossing({"init": n, "order": n}) is None
    assert find_crossing({"init": 0 * n, "order": n}) is None
    found = find_crossing(
        {"init": [0, 0, 1, 1], "order": [4, 7, 4, 7], "dropout": [5, 5, 9, 9], "split": [0] * 4}
    )
    assert found.sentence == "2 init x 2 order"  # dropout changes with init, split not at all


def test_three_crossed_streams_hold_their_level_with_interactions():
    rng, runs, hits = np.random.default_rng(7), 600, np.zeros(2)
    for _ in range(runs):
        d = rng.normal(size=(3, 1, 1)) + rng.normal(size=(1, 4, 1)) + 0.3 * rng.normal(size=(3, 4, 5))
        d = d + 0.5 * rng.normal(size=(1, 1, 5)) + rng.normal(size=(3, 4, 1))
        r = crossed_mean(d, names=["init", "order", "dropout"])
        hits += [r.pvalue <= 0.05, paired_t(d.ravel()).pvalue <= 0.05]
        assert (r.pvalue <= 0.05) == (r.low > 0 or r.high < 0)
    assert hits[0] / runs <= bound(runs)
    assert hits[1] / runs > 0.2
    assert sum(r.shares) == pytest.approx(1)


def crossed_frame(rng, *, datasets=1, effect=0.0, parts=(0.01, 0.002, 0.001), levels=(2, 8)):
    rows = []
    for number in range(datasets):
        d = effect + draw(rng, *levels, parts)
        for i in range(levels[0]):
            for j in range(levels[1]):
                base = 0.9 + 0.01 * rng.normal()
                rows += [
                    (f"d{number}", o, f"{i}/{j}", i, j, v) for o, v in (("a", base), ("b", base + d[i, j]))
                ]
    return pd.DataFrame(rows, columns=["dataset", "optimizer", "seed", "init", "order", "accuracy"])


def test_crossed_seeds_in_a_table_are_not_sixteen_pairs():
    rng, hits, runs = np.random.default_rng(3), np.zeros(2), 120
    for _ in range(runs):
        frame = crossed_frame(rng)
        for i, streams in enumerate((("init", "order"), None)):
            c = (
                compare_table(frame, metric="accuracy", baseline="a", streams=streams)
                .within[0]
                .comparisons[0]
            )
            hits[i] += c.p_adjusted <= 0.05
    assert hits[0] / runs <= bound(runs)
    assert hits[1] / runs > 0.3
    assert c.crossed is None


def test_a_crossed_table_says_so_and_the_words_agree_with_the_interval():
    frame = crossed_frame(
        np.random.default_rng(4), datasets=2, effect=0.05, parts=(0.002, 0.002, 0.001), levels=(4, 6)
    )
    result = compare_table(frame, metric="accuracy", baseline="a", streams=("init", "order"))
    c = result.within[0].comparisons[0]
    assert c.verdict.word == "better"
    assert "4 init x 6 order, not 24 independent pairs" in c.verdict.reason
    assert c.attainable.startswith("crossed seeds")
    assert c.p_adjusted == c.crossed.pvalue
    (these,) = result.these_datasets
    assert these.method == "crossed means"
    assert these.low > 0
    assert these.verdict.word == "better"
    assert any("are not independent" in note for note in result.notes)
    with pytest.raises(StatsError, match="streams: dropout not found"):
        compare_table(frame, metric="accuracy", streams=("init", "dropout"))


def test_averages_of_crossed_means_hold_their_level():
    rng, runs = np.random.default_rng(5), 500
    hits = 0
    for _ in range(runs):
        hits += combine_means([crossed_mean(draw(rng, 3, 6, (1, 1, 0.3))) for _ in range(3)])[3] <= 0.05
    assert hits / runs <= bound(runs)


def test_new_seeds_and_new_examples_against_fixed_test_examples():
    rng, runs, hits = np.random.default_rng(6), 200, np.zeros(2)
    for _ in range(runs):
        # Each example favours one optimizer or the other, on average neither: on these examples a difference.
        lean = 0.6 * rng.choice([-1, 1], size=60)
        right = [(rng.random((8, 60)) < 0.5 + s * lean / 2).astype(float) for s in (1, -1)]
        hits[0] += two_way_examples(*right).pvalue <= 0.05
        hits[1] += signed_rank(right[0].mean(axis=1) - right[1].mean(axis=1)).pvalue <= 0.05
    assert hits[0] / runs <= bound(runs)
    assert hits[1] / runs > 0.15
    shares = two_way_examples(*right).shares
    assert sum(shares) == pytest.approx(1)
    assert shares[1] > 0.5
    with pytest.raises(StatsError, match="two equal"):
        two_way_examples(np.ones((2, 3)), np.ones((2, 4)))


def test_power_grows_with_the_levels_of_the_factor_that_matters():
    few = crossed_power((3, 9), 1.5, shares=(0.8, 0.1, 0.1), draws=300)
    many = crossed_power((9, 3), 1.5, shares=(0.8, 0.1, 0.1), draws=300)
    assert few < many - 0.2
