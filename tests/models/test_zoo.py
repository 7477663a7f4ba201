"""Parameter counts against the published ones, layer by layer where they were printed."""

import numpy as np
import pytest

from optbench import matching
from optbench.models import zoo
from optbench.models.layers import (
    Attention,
    BatchNorm,
    Dense,
    Dropout,
    Embedding,
    Model,
    ModelError,
    Positions,
    Residual,
    Unembedding,
    build,
    count_parameters,
    roles,
)
from optbench.models.zoo import ZOO

GREY, COLOUR = (28, 28, 1), (32, 32, 3)


def built(name, shape=GREY, classes=10, **parameters):
    tokens = name == "gpt"
    return build(Model(name=name, layers=ZOO[name](**parameters)), shape, classes, tokens=tokens)


def shape_for(name):
    return (16,) if name == "gpt" else COLOUR if "cifar" in name else GREY


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
    for classes in (10, 26):
        assert built(name, shape_for(name), classes)[-1].output_shape[-1] == classes


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
        shape = shape_for(name)
        layers = built(name, shape)
        weights = matching.initial_weights(layers, 0, "float32")
        model = TorchModel(layers, weights, device=torch.device("cpu"), dropout_seed=0)
        x = torch.randint(10, (2, *shape)) if name == "gpt" else torch.rand(2, *shape)
        outputs = model.network.outputs(model.weights, x, training=True, draw=model.draw)
        assert outputs.shape == (2, *shape[:1], 10) if name == "gpt" else (2, 10)
        outputs.sum().backward()
        assert all(w.grad is not None for w in model.parameters())


def trainable(layers, shape, outputs, **more):
    found = build(Model(name="m", layers=layers), shape, outputs, **more)
    return count_parameters(found, trainable_only=True)


@pytest.mark.parametrize(
    ("layers", "shape", "outputs", "published"),
    [
        (zoo.resnet(depth=20), (32, 32, 3), 10, 269_722),
        (zoo.resnet(depth=32), (32, 32, 3), 10, 464_154),
        (zoo.resnet(depth=56), (32, 32, 3), 10, 853_018),
        (zoo.resnet(depth=20, shortcut="project"), (32, 32, 3), 10, 272_474),
        (zoo.vit(patch=16, depth=12, width=768, heads=12), (224, 224, 3), 1000, 86_567_656),
        (zoo.vit(patch=16, depth=12, width=192, heads=3), (224, 224, 3), 1000, 5_717_416),
        (zoo.vit(patch=16, depth=12, width=384, heads=6), (224, 224, 3), 1000, 22_050_664),
    ],
)
def test_counts_of_papers_and_of_their_authors_code(layers, shape, outputs, published):
    assert trainable(layers, shape, outputs) == published


@pytest.mark.parametrize(
    ("depth", "width", "heads", "published"), [(12, 768, 12, 124_439_808), (24, 1024, 16, 354_823_168)]
)
def test_gpt_has_the_weights_of_gpt_2(depth, width, heads, published):
    layers = zoo.gpt(depth=depth, width=width, heads=heads)
    assert trainable(layers, (1024,), 50_257, tokens=True) == published


def test_a_gpt_without_tied_weights_has_a_head_and_one_with_them_has_none():
    tied, free = (
        build(Model(name="m", layers=zoo.gpt(tied=tied)), (16,), 76, tokens=True) for tied in (True, False)
    )
    assert "head" not in roles(tied).values()
    assert [name for name, role in roles(free).items() if role == "head"] == ["dense_9/kernel"]
    assert set(roles(tied).values()) == {"embedding", "matrix", "bias", "norm"}


def test_swiglu_has_about_as_many_weights_as_gelu():
    counts = [trainable(zoo.gpt(feed_forward=f), (16,), 76, tokens=True) for f in ("gelu", "swiglu")]
    assert counts[1] == pytest.approx(counts[0], rel=0.01)


def test_a_residual_mlp_adds_what_is_as_wide_as_its_input():
    layers = zoo.mlp(hidden=(8, 8, 4), norm="layer", residual=True)
    found = build(Model(name="m", layers=layers), (5,), 1)
    kinds = [place.layer.kind for place in found]
    assert kinds == ["dense", "residual", "layer_norm", "dense", "layer_norm", "dense"]
    assert [place.layer.kind for place in found[1].inner[0]] == ["layer_norm", "dense"]


def test_layers_that_do_not_fit_say_what_to_do():
    def refusal(*layers, shape=(6, 8), **more):
        with pytest.raises(ModelError) as caught:
            build(Model(name="m", layers=layers), shape, 3, **more)
        return str(caught.value)

    assert "cannot cut 8 features into 3 equal heads" in refusal(Attention(heads=3))
    assert "a head has 1 features; use more" in refusal(Attention(heads=8, rotary=True))
    assert "takes the tokens of a text" in refusal(Embedding(width=4), shape=(6,))
    assert "needs an embedding at the model's beginning" in refusal(Unembedding())
    assert "has 4 places, but its input has 6" in refusal(Positions(length=4))
    assert "adds shapes (6, 4) and (6, 8)" in refusal(Residual(layers=(Dense(units=4),)))
    assert "put an embedding in front" in refusal(Attention(heads=1), shape=(6,))
    assert "asks for 3 outputs at each place" in refusal(Dense(units=9), shape=(6,), tokens=True)
    assert "8 features, but the embedding 4" in refusal(
        *(Embedding(width=4), Dense(units=8), Unembedding()), shape=(6,), tokens=True
    )
    with pytest.raises(ValueError, match="give 6 n"):
        zoo.resnet(depth=18)
