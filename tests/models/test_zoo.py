"""Parameter counts against the published ones, layer by layer where they were printed."""

import numpy as np
import pytest

from optbench import matching
from optbench.models.layers import BatchNorm, Dense, Dropout, Model, build, count_parameters
from optbench.models.zoo import ZOO

GREY, COLOUR = (28, 28, 1), (32, 32, 3)


def built(name, shape=GREY, classes=10, **parameters):
    return build(Model(name=name, layers=ZOO[name](**parameters)), shape, classes)


def per_layer(layers):
    counts = [count_parameters((layer,)) for layer in layers]
    return [count for count in counts if count]


@pytest.mark.parametrize(
    ("name", "shape", "classes", "parameters", "count"),
    [
        ("cnn_1c2d", GREY, 24, {}, 543_644),
        ("cnn_bn", GREY, 24, {}, 719_552),
        ("mlp", GREY, 24, {"hidden": [1024, 512], "batch_norm": "ends"}, 1_346_136),
        ("deepobs_2c2d", GREY, 10, {}, 3_274_634),
        ("deepobs_mlp", GREY, 10, {}, 1_336_610),
        ("mosca_cifar_cnn", COLOUR, 10, {}, 1_369_738),
        ("mosca_cnn", GREY, 10, {}, 1664 + 4160 + 204_928 + 16_512 + 2_098_176 + 10_250),
        ("mlp", GREY, 10, {"hidden": [128, 256]}, 784 * 128 + 128 + 128 * 256 + 256 + 2570),
    ],
)
def test_parameter_counts_are_the_published_ones(name, shape, classes, parameters, count):
    assert count_parameters(built(name, shape, classes, **parameters)) == count


def test_cnn_2c2d_bn_matches_the_printed_table():
    assert per_layer(built("cnn_2c2d_bn")) == [832, 128, 51_264, 256, 803_072, 2_570]


@pytest.mark.parametrize("name", ZOO)
def test_every_model_fits_its_images_and_ends_in_the_classes(name):
    shape = COLOUR if "cifar" in name else GREY
    for classes in (10, 26):
        assert built(name, shape, classes)[-1].output_shape == (classes,)


def test_the_head_of_cnn_2c1d_may_exceed_the_classes():
    assert built("cnn_2c1d", head=512, dropout=0.8)[-1].output_shape == (512,)


def test_a_dense_stack_takes_its_dropout_layer_by_layer():
    layers = ZOO["mosca_cnn"](dense=[512, 768, 768], dropout=[0.4, 0.5, 0.6])
    tail = [(x.units if isinstance(x, Dense) else x.rate) for x in layers if isinstance(x, Dense | Dropout)]
    assert tail == [512, 0.4, 768, 0.5, 768, 0.6, None]
    with pytest.raises(ValueError, match="2 rates for 3 layers"):
        ZOO["mosca_cnn"](dense=[512, 768, 768], dropout=[0.4, 0.5])


def test_batch_norm_stands_where_it_is_asked_for():
    def kinds(where):
        return [layer.kind for layer in ZOO["mlp"](hidden=[8, 8], batch_norm=where)]

    assert kinds("ends") == ["flatten", "batch_norm", "dense", "dense", "batch_norm", "dense"]
    assert kinds("hidden") == ["dense", "batch_norm", "dense", "batch_norm", "dense"]
    assert BatchNorm().kind not in kinds(None)


def test_deepobs_starts_within_two_sigma_and_with_its_bias():
    weights = matching.initial_weights(built("deepobs_2c2d"), 42, "float64")
    kernel = weights["dense_1/kernel"]
    assert 0.0995 < np.abs(kernel).max() <= 0.1
    assert kernel.std() == pytest.approx(0.05 * 0.8796, rel=5e-3)  # sd of a normal cut at two sigma
    for name, value in weights.items():
        if name.endswith("/bias"):
            assert (value == 0.05).all()


def test_the_torch_engine_trains_every_model():
    torch = pytest.importorskip("torch")
    from optbench.backends.torch.model import TorchModel

    for name in ZOO:
        shape = COLOUR if "cifar" in name else GREY
        layers = built(name, shape)
        weights = matching.initial_weights(layers, 0, "float32")
        model = TorchModel(layers, weights, device=torch.device("cpu"), dropout_seed=0)
        outputs = model.network.outputs(model.weights, torch.rand(2, *shape), training=True, draw=model.draw)
        assert outputs.shape == (2, 10)
        outputs.sum().backward()
        assert all(w.grad is not None for w in model.parameters())
