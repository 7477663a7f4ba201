"""Order statistics of Walsh averages found without forming all of them."""

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
