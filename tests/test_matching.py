from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optbench.matching import (
    epoch_order,
    fingerprint,
    initial_weights,
    short_digest,
    stream,
)
from optbench.models.layers import Conv2D, Dense, Initializer, Model, build
from optbench.trial import STREAMS


def test_streams_are_numpy_seed_sequences_by_name():
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence(7, spawn_key=(2, 3))))
    assert stream(7, "order", 3).integers(1 << 60) == expected.integers(1 << 60)


def test_streams_of_a_seed_differ_from_each_other():
    assert len({int(stream(0, name).integers(1 << 60)) for name in STREAMS}) == len(STREAMS)


@given(st.integers(0, 2**40), st.integers(1, 50), st.integers(1, 200))
def test_an_epoch_order_is_a_permutation_and_repeats(seed, epoch, n):
    order = epoch_order(seed, epoch, n)
    assert np.array_equal(np.sort(order), np.arange(n))
    assert np.array_equal(order, epoch_order(seed, epoch, n))


def test_orders_differ_between_epochs_and_seeds_and_not_when_unshuffled():
    assert not np.array_equal(epoch_order(0, 1, 100), epoch_order(0, 2, 100))
    assert not np.array_equal(epoch_order(0, 1, 100), epoch_order(1, 1, 100))
    assert np.array_equal(epoch_order(0, 1, 5, shuffle=False), np.arange(5))


NET = Model(name="net", layers=(Conv2D(filters=6, kernel=3), Dense(units=50), Dense()))


def test_initial_weights_have_the_canonical_layout_and_glorot_limits():
    weights = initial_weights(build(NET, (8, 8, 2), 10), 0, "float64")
    assert weights["conv2d_1/kernel"].shape == (3, 3, 2, 6)
    assert weights["dense_1/kernel"].shape == (6 * 6 * 6, 50)
    limit = np.sqrt(6 / (9 * 2 + 9 * 6))
    kernel = weights["conv2d_1/kernel"]
    assert np.abs(kernel).max() <= limit
    assert np.abs(kernel).max() > 0.9 * limit
    assert not weights["dense_2/bias"].any()


def test_float32_weights_are_the_float64_ones_rounded():
    built = build(NET, (8, 8, 2), 10)
    single, double = (initial_weights(built, 3, dtype) for dtype in ("float32", "float64"))
    for name, array in double.items():
        assert np.array_equal(single[name], array.astype("float32"))


@pytest.mark.parametrize(
    ("name", "mean", "sd"),
    [
        ("glorot_normal", 0, np.sqrt(2 / 500)),
        ("he_normal", 0, np.sqrt(2 / 200)),
        ("he_uniform", 0, np.sqrt(2 / 200)),
        ("normal", 10, 0.05),
        ("truncated_normal", 10, 0.05 * 0.8796),  # sd of a standard normal cut at two
        ("constant", 0.5, 0),
    ],
)
def test_initialisers_have_their_mean_and_spread(name, mean, sd):
    initializer = Initializer(name=name, mean=10, sd=0.05, value=0.5)
    layer = Dense(units=300, kernel_initializer=initializer)
    built = build(Model(name="m", layers=(layer, Dense())), (200,), 2)
    kernel = initial_weights(built, 0, "float64")["dense_1/kernel"]
    assert kernel.mean() == pytest.approx(mean, abs=0.002)
    assert kernel.std() == pytest.approx(sd, rel=0.02, abs=1e-12)
    if name == "truncated_normal":
        assert np.abs(kernel - 10).max() <= 0.1


def test_fingerprints_see_values_shapes_types_and_boundaries():
    a = np.arange(6)
    prints = {
        fingerprint(a),
        fingerprint(a.reshape(2, 3)),
        fingerprint(a.astype(np.int32)),
        fingerprint(a[:3], a[3:]),
        fingerprint("a", a),
        fingerprint(a, "a"),
        fingerprint(np.array([0, 1, 2, 3, 4, 6])),
    }
    assert len(prints) == 7
    assert fingerprint(a.astype(">i8")) == fingerprint(a)
    assert fingerprint(np.asfortranarray(a.reshape(2, 3))) == fingerprint(a.reshape(2, 3))


def test_short_digests_are_exact_in_float64():
    value = short_digest("f" * 64)
    assert value == 2**52 - 1 == int(float(value))
