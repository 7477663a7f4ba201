from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optbench.datasets import registry
from optbench.datasets.base import DataError, cut
from optbench.trial import Seeds, Split


def parts(split: Split, seed: int = 0, name: str = "digits", train_eval=1000):
    seeds = Seeds(split=seed, init=seed, order=seed)
    return cut(registry.load(name), split, seeds, train_eval=train_eval)


@settings(deadline=None)  # the first example reads the data
@given(st.integers(0, 1000), st.sampled_from(["random", "stratified", "tail"]), st.floats(0, 0.9))
def test_parts_are_disjoint_and_lose_nothing(seed, how, fraction):
    data = parts(Split(validation=fraction, how=how), seed)
    rows = np.concatenate([data.train.rows, data.validation.rows])
    assert np.array_equal(np.sort(rows), np.arange(1437))
    assert len(data.validation) == round(fraction * 1437)
    assert np.isin(data.train_eval.rows, data.train.rows).all()


def test_stratified_validation_gives_every_class_its_share():
    data = parts(Split(validation=500, how="stratified"), name="mnist-mini")
    counts = np.bincount(data.validation.y[data.validation.rows])
    assert (counts == 50).all()


def test_the_tail_is_the_last_examples_and_the_test_part_can_be_the_source():
    assert np.array_equal(parts(Split(validation=7, how="tail")).validation.rows, np.arange(1430, 1437))
    data = parts(Split(validation=100, source="test"))
    assert len(data.train) == 1437
    assert len(data.test) == 260
    assert data.validation.x is data.test.x
    assert not np.isin(data.validation.rows, data.test.rows).any()


def test_the_fingerprint_sees_seed_split_and_data():
    base = parts(Split())
    assert base.fingerprint == parts(Split()).fingerprint
    others = [parts(Split(), seed=1), parts(Split(validation=0.2)), parts(Split(), name="mnist-mini")]
    assert len({base.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_a_split_that_leaves_nothing_is_an_error():
    with pytest.raises(DataError, match="leave at least one"):
        parts(Split(validation=1437))


def test_standardising_uses_the_training_rows_only():
    data = parts(Split(validation=4000, how="tail"), name="uci-letter")
    x = (data.train.x[data.train.rows] - data.shift) * data.scale
    assert np.abs(x.mean(axis=0)).max() < 1e-9
    assert np.allclose(x.std(axis=0), 1)


def test_a_workload_can_say_how_stored_numbers_become_inputs():
    dataset, seeds = registry.load("mnist-mini"), Seeds()
    by_default, as_stored, standardised = (
        cut(dataset, Split(), seeds, train_eval=10, scaling=how) for how in (None, "none", "standardize")
    )
    assert (by_default.scale, as_stored.scale) == (1 / 255, 1.0)
    inputs = (dataset.x_train[standardised.train.rows] - standardised.shift) * standardised.scale
    assert abs(inputs.mean()) < 1e-12
    assert by_default.fingerprint == as_stored.fingerprint, "the same examples in the same parts"


def test_folds_hold_every_example_once_and_labels_evenly():
    data = [parts(Split(how="folds", folds=4, fold=k), seed=3) for k in range(4)]
    rows = np.concatenate([found.validation.rows for found in data])
    assert np.array_equal(np.sort(rows), np.arange(1437))
    for found in data:
        counts = np.bincount(found.validation.targets, minlength=10)
        whole = np.bincount(found.validation.y, minlength=10)
        assert (abs(counts - whole / 4) < 1).all()
        assert not np.isin(found.train.rows, found.validation.rows).any()
