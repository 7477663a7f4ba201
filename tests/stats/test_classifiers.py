"""McNemar against published tables and brute force."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar as their_mcnemar

from optbench.stats.classifiers import mcnemar, mcnemar_predictions
from optbench.stats.common import StatsError


def test_published_mcnemar_tables():
    # Bentur et al. (2009) in Fagerland, Lydersen and Laake (2013), BMC Med. Res. Methodol. 13:91.
    r = mcnemar(1, 7)
    assert (round(r.p_exact, 3), round(r.p_midp, 3), round(r.p_asymptotic, 3)) == (0.070, 0.039, 0.034)
    # Vignette of R's exact2x2 (Fay), matrix(c(21, 9, 2, 12)): mcnemar.exact p = 0.06543, uncorrected 0.03481.
    r = mcnemar(9, 2)
    assert (round(r.p_exact, 5), round(r.p_asymptotic, 5)) == (0.06543, 0.03481)
    # Freireich et al. (1963): 18 of 21 pairs in favour of 6-MP; two-sided sign test 0.0015.
    assert round(mcnemar(18, 3).p_exact, 4) == 0.0015


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_equals_statsmodels_and_the_definition_of_mid_p(b, c):
    r = mcnemar(b, c)
    if b + c == 0:
        assert (r.p_midp, r.p_exact, r.p_asymptotic) == (1.0, 1.0, 1.0)
        return
    assert r.p_exact == pytest.approx(their_mcnemar([[0, b], [c, 0]], exact=True).pvalue)
    n, low = b + c, min(b, c)
    weights = [math.comb(n, i) / 2**n for i in range(n + 1)]
    one_sided = sum(weights[:low]) + weights[low] / 2
    assert r.p_midp == pytest.approx(min(1.0, 2 * one_sided) if b != c else 1 - weights[low] / 2)
    assert r.p_midp <= r.p_exact + 1e-12


def test_predictions_count_discordant_examples():
    truth = ["cat", "dog", "cat", "dog"]
    r = mcnemar_predictions(truth, ["cat", "dog", "dog", "cat"], ["cat", "cat", "cat", "cat"])
    assert (r.b, r.c) == (1, 1)
    with pytest.raises(StatsError, match="found shapes"):
        mcnemar_predictions([1, 2], [1], [1])
    with pytest.raises(StatsError, match="found -1 and 2"):
        mcnemar(-1, 2)
