from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optbench.models.layers import (
    BatchNorm,
    Conv2D,
    Dense,
    GlobalAveragePool2D,
    MaxPool2D,
    Model,
    ModelError,
    build,
    count_parameters,
    roles,
    same_padding,
)


def shapes(*layers, input_shape=(28, 28, 1), classes=10):
    return [b.output_shape for b in build(Model(name="m", layers=layers), input_shape, classes)]


def test_shapes_of_a_small_cnn_with_the_flatten_put_in():
    assert shapes(Conv2D(filters=8, kernel=5), MaxPool2D(), Dense()) == [
        (24, 24, 8),
        (12, 12, 8),
        (12 * 12 * 8,),
        (10,),
    ]


def test_same_padding_keeps_the_size_and_strides_round_up():
    layers = (Conv2D(filters=3, kernel=3, padding="same", stride=2), GlobalAveragePool2D(), Dense())
    assert shapes(*layers)[:2] == [(14, 14, 3), (3,)]


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 4))
def test_same_padding_makes_room_for_ceil_windows(size, kernel, stride):
    before, after = same_padding(size, kernel, stride)
    assert 0 <= after - before <= 1
    padded = size + before + after
    if before + after:
        assert (padded - kernel) // stride + 1 == -(-size // stride)


def test_parameter_counts_with_and_without_running_averages():
    built = build(
        Model(name="m", layers=(Conv2D(filters=32, kernel=5), BatchNorm(), Dense())), (28, 28, 1), 10
    )
    dense = 24 * 24 * 32 * 10 + 10
    assert count_parameters(built) == 832 + 128 + dense
    assert count_parameters(built, trainable_only=True) == 832 + 64 + dense


@pytest.mark.parametrize(
    ("layers", "input_shape", "words"),
    [
        ((Conv2D(filters=2, kernel=3), Dense()), (16,), "needs images"),
        ((Conv2D(filters=2, kernel=9), Dense()), (8, 8, 1), "nothing is left"),
        ((Dense(units=3),), (16,), "10 outputs"),
        ((Conv2D(filters=20, kernel=3),), (8, 8, 1), "ends in shape"),
    ],
)
def test_layers_that_do_not_fit_are_named(layers, input_shape, words):
    with pytest.raises(ModelError, match=words):
        shapes(*layers, input_shape=input_shape)


def test_every_weight_has_the_role_of_its_layer_and_the_last_kernel_is_the_head():
    model = Model(name="m", layers=(Conv2D(filters=2, kernel=3), BatchNorm(), Dense(units=4), Dense()))
    assert roles(build(model, (8, 8, 1), 10)) == {
        "conv2d_1/kernel": "conv",
        "conv2d_1/bias": "bias",
        "batch_norm_1/gamma": "norm",
        "batch_norm_1/beta": "norm",
        "dense_1/kernel": "matrix",
        "dense_1/bias": "bias",
        "dense_2/kernel": "head",
        "dense_2/bias": "bias",
    }


def test_a_convolution_that_gives_the_outputs_is_the_head():
    model = Model(name="m", layers=(Conv2D(filters=2, kernel=3), Conv2D(kernel=1), GlobalAveragePool2D()))
    assert roles(build(model, (8, 8, 1), 10))["conv2d_2/kernel"] == "head"
