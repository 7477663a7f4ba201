"""Type-I error by simulation at small n, with ties and heavy tails (the long version is in benchmarks/)."""

import math

import numpy as np
import pandas as pd
import pytest

from optbench.stats.classifiers import mcnemar
from optbench.stats.compare import compare_table
from optbench.stats.curves import max_t
from optbench.stats.datasets import on_these_datasets
from optbench.stats.effects import mean_difference
from optbench.stats.families import Settings
from optbench.stats.paired import hodges_lehmann, paired_t, sign_flip, signed_rank, tost
from optbench.stats.ranks import friedman

SHAPES = {
    "normal": lambda rng, size: rng.normal(size=size),
    "heavy tails": lambda rng, size: rng.standard_t(2, size=size),
    "ties": lambda rng, size: np.round(rng.normal(size=size)),
}
SIZES = [5, 6, 11, 20]


def bound(runs, nominal=0.05):
    """Nominal plus three Monte Carlo standard errors."""
    return nominal + 3 * math.sqrt(nominal * (1 - nominal) / runs)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", SIZES)
def test_paired_tests_keep_their_level(shape, n):
    rng, runs = np.random.default_rng(n), 1200
    hits = np.zeros(3)
    for _ in range(runs):
        d = SHAPES[shape](rng, n)
        hits += [signed_rank(d).pvalue <= 0.05, sign_flip(d).pvalue <= 0.05, paired_t(d).pvalue <= 0.05]
    exact = hits[:2] / runs
    assert (exact <= bound(runs)).all()
    assert hits[2] / runs <= bound(runs) + (0.01 if shape == "ties" else 0)
    if n == 5:
        assert exact.tolist() == [0, 0]
    if n >= 11 and shape == "normal":
        assert (exact > 0.02).all()  # exact, not merely conservative


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [5, 6])
def test_friedman_and_max_t_keep_their_level(shape, n):
    rng, runs = np.random.default_rng(n), 250
    hits = np.zeros(2)
    for _ in range(runs):
        hits[0] += friedman(SHAPES[shape](rng, (n, 3))).pvalue <= 0.05
        hits[1] += max_t(SHAPES[shape](rng, (n, 8)).cumsum(axis=1)).pvalue <= 0.05
    assert (hits / runs <= bound(runs)).all()


@pytest.mark.parametrize("n", SIZES)
def test_stratified_test_keeps_its_level_and_mcnemar_is_below_it_when_exact(n):
    rng, runs = np.random.default_rng(n), 400
    hits = np.zeros(2)
    for _ in range(runs):
        tables = {str(i): np.column_stack([rng.standard_t(2, n) * 10**i, np.zeros(n)]) for i in range(3)}
        hits[0] += on_these_datasets(tables, ["a", "b"], settings=Settings("b", "baseline"))[0].pvalue <= 0.05
        b = int(rng.binomial(n, 0.5))
        hits[1] += mcnemar(b, n - b).p_exact <= 0.05
    assert (hits / runs <= bound(runs)).all()


@pytest.mark.parametrize("n", SIZES)
def test_tost_at_the_margin_and_intervals_keep_their_level(n):
    rng, runs = np.random.default_rng(n), 1200
    hits = np.zeros(3)
    for _ in range(runs):
        d = rng.normal(size=n)
        hits[0] += tost(d + 1.0, margin=1.0).pvalue <= 0.05
        m, hl = mean_difference(d), hodges_lehmann(d)
        hits[1] += not m.low <= 0 <= m.high
        hits[2] += not hl.low <= 0 <= hl.high
    assert (hits / runs <= bound(runs)).all()


def test_pooling_would_be_wrong_where_the_dataset_is_the_unit():
    rng, runs = np.random.default_rng(1), 300
    pooled = units = 0
    for _ in range(runs):
        d = rng.normal(size=(6, 1)) + rng.normal(size=(6, 20))
        pooled += signed_rank(d.ravel()).pvalue <= 0.05
        units += signed_rank(d.mean(axis=1)).pvalue <= 0.05
    assert units / runs <= bound(runs)
    assert pooled / runs > 0.4


def test_no_verdict_is_found_among_equal_optimizers_more_often_than_alpha():
    rng, runs = np.random.default_rng(2), 60
    hits = 0
    for _ in range(runs):
        value = np.round(rng.normal(size=(11, 1)) + rng.normal(size=(11, 3)), 1)
        s, o = np.indices(value.shape)
        frame = pd.DataFrame(
            {"dataset": "d", "optimizer": o.ravel(), "seed": s.ravel(), "acc": value.ravel()}
        )
        words = {c.verdict.word for c in compare_table(frame, metric="acc").within[0].comparisons}
        hits += bool(words & {"better", "worse"})
    assert hits / runs <= bound(runs)
