"""Corrections for several comparisons, against published tables and against closed testing by brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from optbench.stats.common import StatsError
from optbench.stats.corrections import (
    adjust,
    benjamini_hochberg,
    bergmann_hommel,
    bonferroni,
    holm,
    partial_conjunction,
    possible_true_counts,
    shaffer,
)
from optbench.stats.ranks import rank_z_pvalues
from tests.stats.published_tables import BENJAMINI_HOCHBERG, GARCIA_P, GARCIA_RANKS

pvalues = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(pvalues)
def test_holm_bonferroni_and_bh_equal_statsmodels(p):
    for ours, name in ((holm, "holm"), (bonferroni, "bonferroni"), (benjamini_hochberg, "fdr_bh")):
        assert ours(p) == pytest.approx(np.minimum(multipletests(p, method=name)[1], 1), abs=1e-12)


def true_sets(k):
    """Sets of pairs that can be equal together: closed under transitivity."""
    pairs = list(itertools.combinations(range(k), 2))
    for size in range(1, len(pairs) + 1):
        for chosen in itertools.combinations(range(len(pairs)), size):
            equal = {pairs[c] for c in chosen}
            joined = [set(pair) for pair in equal]
            closed = all(
                tuple(sorted(a ^ b)) in equal for a, b in itertools.combinations(joined, 2) if len(a & b) == 1
            )
            if closed:
                yield chosen


@pytest.mark.parametrize("k", [3, 4, 5])
def test_possible_true_counts_are_those_of_brute_force(k):
    assert set(possible_true_counts(k)) - {0} == {len(s) for s in true_sets(k)}


@settings(max_examples=300, deadline=None)
@given(st.integers(3, 4), st.data())
def test_bergmann_hommel_equals_closed_testing_over_brute_force_sets(k, data):
    m = k * (k - 1) // 2
    p = data.draw(st.lists(st.floats(0, 1), min_size=m, max_size=m))
    expected = np.zeros(m)
    for chosen in true_sets(k):
        value = min(1.0, len(chosen) * min(p[c] for c in chosen))
        for c in chosen:
            expected[c] = max(expected[c], value)
    assert bergmann_hommel(p) == pytest.approx(expected)


@settings(max_examples=300, deadline=None)
@given(st.integers(2, 6), st.data())
def test_power_ordering_and_bounds(k, data):
    m = k * (k - 1) // 2
    p = data.draw(st.lists(st.floats(0, 1), min_size=m, max_size=m))
    bh, sh, ho, bo = bergmann_hommel(p), shaffer(p), holm(p), bonferroni(p)
    eps = 1e-12
    assert (np.array(p) <= bh + eps).all()
    assert (bh <= sh + eps).all()
    assert (sh <= ho + eps).all()
    assert (ho <= bo + eps).all()


def test_garcia_herrera_2008():
    p = rank_z_pvalues(GARCIA_RANKS, n=30)
    assert p == pytest.approx(GARCIA_P, rel=1e-6)
    # Bergmann-Hommel keeps C4.5 - NaiveBayes and 1-NN - CN2 and rejects the other eight.
    assert [i for i, adjusted in enumerate(bergmann_hommel(GARCIA_P)) if adjusted > 0.05] == [1, 6]
    # Step-down multipliers for 10 pairs of 5 algorithms: Holm 10, 9, 8 ...; Shaffer 10, 6, 6, 6, 6, 4 ...
    order = np.argsort(GARCIA_P)
    assert holm(GARCIA_P)[order][:3] == pytest.approx([4.486991e-7, 1.5625062e-6, 0.02304388], rel=1e-6)
    assert shaffer(GARCIA_P)[order][:6] == pytest.approx(
        np.maximum.accumulate(np.array(GARCIA_P)[order][:6] * [10, 6, 6, 6, 6, 4]), rel=1e-12
    )


def test_benjamini_hochberg_1995():
    # Section 4 of the paper: Bonferroni rejects 3 hypotheses, Hochberg's family-wise procedure 3, theirs 4.
    assert (bonferroni(BENJAMINI_HOCHBERG) <= 0.05).sum() == 3
    assert (benjamini_hochberg(BENJAMINI_HOCHBERG) <= 0.05).sum() == 4


def test_bergmann_hommel_reaches_nine_algorithms_and_no_more():
    p = np.random.default_rng(0).uniform(0, 0.02, 36)
    assert (bergmann_hommel(p) <= shaffer(p) + 1e-12).all()
    with pytest.raises(StatsError, match="found 10 algorithms, allowed are 2 to 9"):
        bergmann_hommel(np.full(45, 0.1))


@pytest.mark.parametrize("method", ["shaffer", "bergmann-hommel"])
def test_all_pairs_methods_refuse_other_families(method):
    with pytest.raises(StatsError, match="use holm"):
        adjust([0.1, 0.2], method=method)
    with pytest.raises(StatsError, match="use holm"):
        adjust([0.1, 0.2], method=method, all_pairs=True)
    with pytest.raises(StatsError, match="use holm"):
        adjust([0.1, 0.2, math.nan], method=method, all_pairs=True)


def test_unknown_correction_names_the_choices():
    with pytest.raises(StatsError, match="found 'sidak', allowed are holm"):
        adjust([0.1], method="sidak")
    with pytest.raises(StatsError, match="allowed is one row"):
        holm([1.2])


def test_partial_conjunction_counts_are_a_lower_bound_with_its_level():
    rng = np.random.default_rng(11)
    real, datasets, wrong = 3, 8, 0
    for _ in range(2000):
        p = rng.uniform(size=datasets)
        p[:real] = rng.beta(0.1, 4, size=real)
        wrong += (partial_conjunction(p) <= 0.05).sum() > real
    assert wrong / 2000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)
    assert (partial_conjunction([0.001, 0.002, 0.003, 0.9]) <= 0.05).sum() == 3


@pytest.mark.parametrize("method", ["shaffer", "bergmann-hommel"])
@pytest.mark.parametrize("pvalues", [[], [0.1, 0.2], [0.1, math.nan, 0.2]], ids=["none", "two", "missing"])
def test_corrections_of_all_pairs_refuse_what_is_not_all_pairs(method, pvalues):
    with pytest.raises(StatsError, match=f"found {len(pvalues)} p-values, .* otherwise use holm"):
        adjust(pvalues, method=method, all_pairs=True)
