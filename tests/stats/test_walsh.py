"""Order statistics of Walsh averages found without forming all of them."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optbench.stats.walsh import walsh_order


@settings(max_examples=60, deadline=None)
@given(st.integers(101, 220), st.integers(0, 10**6), st.sampled_from([0, 1, 12]), st.floats(0, 1))
def test_selected_order_statistics_equal_those_of_all_averages(n, seed, decimals, where):
    x = np.round(np.random.default_rng(seed).standard_cauchy(n), decimals)
    i, j = np.triu_indices(n)
    everything = np.sort((x[i] + x[j]) / 2)
    k = round(where * (everything.size - 1))
    assert walsh_order(x, [k, 0]) == pytest.approx([everything[k], everything[0]], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("decimals", [1, 12], ids=["few values", "many values"])
def test_many_averages_are_never_held_at_once(decimals):
    n = 3000
    x = np.round(np.random.default_rng(0).normal(size=n), decimals)
    middle = n * (n + 1) // 4
    tracemalloc.start()
    try:
        walsh_order(x, [middle])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < n * (n + 1) // 2 * x.itemsize / 10
