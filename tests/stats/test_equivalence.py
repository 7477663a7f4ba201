"""Equivalence of the typical run: what its numbers say beside the p-value."""

import math

import numpy as np
import pytest

from optbench.stats.equivalence import equivalence

SPREAD = np.array([0.1, -0.2, 0.3, 0.0, -0.1, 0.2, 0.1, -0.3])


@pytest.mark.parametrize("collapsed", [0, 1], ids=["tested", "refused"])
@pytest.mark.parametrize("n", [2, 8, 1500])
def test_the_smallest_p_is_that_of_n_signs(n, collapsed):
    found = equivalence(np.resize(SPREAD, n), margin=5.0, collapsed=collapsed)
    assert found.smallest_attainable_p == 2.0 ** -min(n, 1000)
    assert found.n == n


def test_one_pair_moves_the_mean_by_its_distance_from_the_median_over_n():
    far = np.r_[SPREAD, 4.05]  # 3.95 from the median 0.1, over 9 pairs
    assert equivalence(far, margin=0.9).reason is None
    refused = equivalence(far, margin=0.85)
    assert refused.reason == "refused: one pair moves the mean by 0.439, more than half of the margin 0.85"
    assert math.isnan(refused.pvalue)
