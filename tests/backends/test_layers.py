"""Every layer, activation, loss and prediction stands in every backend's tables, and is what it says."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import get_args

import numpy as np
import pytest

from optbench import backends
from optbench.models import layers as spec
from optbench.models import numpy_layers, shapes
from optbench.models.layers import Model, build
from optbench.optimizers import SGD
from optbench.task import TASKS
from tests.backends import reference
from tests.backends.contract import session
from tests.backends.contract import spec as trial_of

ACTIVATIONS = get_args(spec.Activation)
NORMS = (spec.LayerNorm(), spec.LayerNorm(bias=False), spec.RMSNorm())
#: Each kind of layer, with every activation where it has one: (layer, shape of an example).
CASES = [
    *((spec.Dense(units=4, activation=a), (5,)) for a in ACTIVATIONS),
    *((spec.Conv2D(filters=4, kernel=3, activation=a), (7, 6, 2)) for a in ACTIVATIONS),
    (spec.Conv2D(filters=3, kernel=2, padding="same"), (5, 4, 2)),
    (spec.Conv2D(filters=3, kernel=3, stride=2, padding="same"), (7, 6, 2)),
    *((spec.Activate(activation=a), shape) for a in ACTIVATIONS for shape in ((5,), (4, 3, 2))),
    (spec.MaxPool2D(), (7, 6, 2)),
    (spec.MaxPool2D(size=2, padding="same"), (7, 6, 2)),
    (spec.MaxPool2D(size=3, stride=2, padding="same"), (7, 6, 2)),
    (spec.MaxPool2D(size=3, stride=1), (7, 6, 2)),
    (spec.GlobalAveragePool2D(), (4, 3, 2)),
    (spec.BatchNorm(momentum=0.9), (5,)),
    (spec.BatchNorm(momentum=0.9), (4, 3, 2)),
    (spec.Dropout(rate=0.0), (5,)),
    (spec.Flatten(), (4, 3, 2)),
    (spec.Flatten(), (5,)),
    (spec.Dense(units=4, bias=False), (5,)),
    (spec.Dense(units=4), (6, 5)),
    (spec.Dense(units=4, bias=False), (6, 5)),
    (spec.Conv2D(filters=4, kernel=3, bias=False), (7, 6, 2)),
    *((spec.DepthwiseConv2D(kernel=3, activation=a), (7, 6, 2)) for a in ACTIVATIONS),
    (spec.DepthwiseConv2D(kernel=2, stride=2, padding="same", bias=False), (7, 6, 3)),
    (spec.AveragePool2D(), (7, 6, 2)),
    (spec.AveragePool2D(size=3, stride=2), (7, 6, 2)),
    (spec.Subsample(filters=5), (7, 6, 2)),
    (spec.GroupNorm(groups=2), (5, 4, 6)),
    *((norm, shape) for norm in NORMS for shape in ((5,), (6, 5), (4, 3, 5))),
    (spec.Embedding(width=4), (6,)),
    (spec.Embedding(width=4, vocabulary=2000), (6,)),
    (spec.Positions(), (6, 5)),
    (spec.Positions(length=9), (6, 5)),
    *((spec.Attention(heads=2, causal=c, rotary=r), (6, 8)) for c in (False, True) for r in (False, True)),
    (spec.Attention(heads=1, bias=False), (6, 5)),
    *((spec.GatedDense(units=4, activation=a), (6, 5)) for a in ACTIVATIONS),
    (spec.GatedDense(units=4, bias=True), (5,)),
    (spec.Unembedding(), (6, 5)),
    (spec.ToSequence(), (4, 3, 2)),
    (spec.ClassToken(), (6, 5)),
    (spec.PoolSequence(how="mean"), (6, 5)),
    (spec.PoolSequence(how="first"), (6, 5)),
    (spec.Residual(layers=(spec.LayerNorm(), spec.Dense(units=5, activation="tanh"))), (6, 5)),
    (
        spec.Residual(
            layers=(spec.Conv2D(filters=4, kernel=3, stride=2, padding="same"), spec.BatchNorm()),
            shortcut=(spec.Subsample(filters=4),),
        ),
        (7, 6, 2),
    ),
    (
        spec.Residual(
            layers=(spec.Residual(layers=(spec.Dense(units=5),)), spec.Activate(activation="relu")),
            shortcut=(spec.Dense(units=5, bias=False),),
        ),
        (5,),
    ),
]
NAMES = [
    f"{layer.kind} {getattr(layer, 'activation', '')} {getattr(layer, 'padding', '')} {len(shape)}d"
    for layer, shape in CASES
]


def tables(backend):
    backends.engine(backend)  # sets the threads of a framework, which must come before all else
    return import_module(f"optbench.backends.{backend}.layers")


class TorchLayers:
    """Outputs and moved averages of one layer, in PyTorch."""

    def __call__(self, built, weights, x, training):
        torch = import_module("torch")
        model = import_module("optbench.backends.torch.model")
        tensors = {name: torch.from_numpy(model.to_torch(w).copy()) for name, w in weights.items()}
        x = torch.from_numpy(x)
        x = x.permute(0, 3, 1, 2) if x.ndim == 4 else x
        out = tables("torch").forward(built)[0 if training else 1](tensors, x, None)
        out = out.permute(0, 2, 3, 1) if out.ndim == 4 else out
        return out.numpy(), {name: model.from_torch(tensor) for name, tensor in tensors.items()}

    def stacked(self, built, weights, xs):
        torch = import_module("torch")
        stacked = import_module("optbench.backends.torch.stacked_layers")
        model = import_module("optbench.backends.torch.model")
        tensors = {
            name: torch.stack([torch.from_numpy(model.to_torch(w[name]).copy()) for w in weights])
            for name in weights[0]
        }
        generators = [torch.Generator() for _ in xs]
        x = torch.from_numpy(np.stack(xs))
        if x.ndim == 5:
            trials, batch, height, width, channels = x.shape
            x = x.permute(1, 0, 4, 2, 3).reshape(batch, trials * channels, height, width)
        held = stacked.StackedWeights(weights=tensors, generators=generators)
        out = stacked.forward(built, held)(x)
        return list((held.by_trial(out) if len(built.output_shape) == 3 else out).numpy())


class TensorFlowLayers:
    def __call__(self, built, weights, x, training, xla=True):
        tf = import_module("tensorflow")
        tensors = {name: tf.constant(w) for name, w in weights.items()}
        function = tables("tensorflow").forward(built, tables("tensorflow").Compute(xla=xla))
        out, moved = function(tensors, tf.constant(x), tf.constant([1, 2]), training)
        return out.numpy(), {name: value.numpy() for name, value in moved.items()}


class JaxLayers:
    def function(self, built, cpu=True):
        jax = import_module("jax")
        compute = tables("jax").Compute(cpu=cpu, product=jax.lax.Precision.HIGHEST)
        return tables("jax").forward(built, compute)

    def __call__(self, built, weights, x, training, cpu=True):
        jax = import_module("jax")
        with jax.enable_x64(True):
            tensors = {name: jax.numpy.asarray(w) for name, w in weights.items()}
            key = jax.random.key(0)
            out, moved = self.function(built, cpu)(tensors, jax.numpy.asarray(x), key, training)
            return np.asarray(out), {name: np.asarray(value) for name, value in moved.items()}

    def stacked(self, built, weights, xs):
        jax = import_module("jax")
        with jax.enable_x64(True):
            tensors = {name: jax.numpy.stack([w[name] for w in weights]) for name in weights[0]}
            keys = jax.random.split(jax.random.key(0), len(xs))
            function = partial(self.function(built), training=True)
            return list(np.asarray(jax.vmap(function)(tensors, jax.numpy.stack(xs), keys)[0]))


ADAPTERS = {"torch": TorchLayers(), "tensorflow": TensorFlowLayers(), "jax": JaxLayers()}


def place_of(layer, shape):
    """The layer as it stands in a model, and random weights of it."""
    built = spec.place(layer, shape, 3, tokens=isinstance(layer, spec.Embedding))
    generator = np.random.default_rng(4)
    parameters = [p for part in spec.walk([built]) for p in part.parameters]
    weights = {p.name: generator.normal(size=p.shape) for p in parameters}
    if built.tied:
        weights[built.tied] = generator.normal(size=(3, shape[-1]))
    if isinstance(layer, spec.Embedding):
        return built, weights, generator.integers(0, 3, (6, *shape))
    for name in weights:
        if name.endswith("variance"):
            weights[name] = np.abs(weights[name]) + 0.5
    return built, weights, generator.normal(size=(6, *shape)) * 2


def expected(built, weights, x, training):
    return reference.forward(built, weights, x, training)


def test_the_cases_are_all_kinds_with_all_activations():
    kinds = {(layer.kind, getattr(layer, "activation", None)) for layer, _ in CASES}
    fields = {kind: "activation" in cls.__dataclass_fields__ for kind, cls in spec.LAYERS.items()}
    assert kinds == {(kind, a) for kind, has in fields.items() for a in (ACTIVATIONS if has else (None,))}


def test_every_kind_of_layer_has_a_shape_and_a_reference():
    assert set(spec.SHAPES) == set(spec.LAYERS) == set(numpy_layers.LAYERS)
    assert set(reference.ACTIVATIONS) == set(ACTIVATIONS)


def test_the_tables_of_a_backend_are_complete(backend):
    assert set(tables(backend).LAYERS) == set(spec.LAYERS)
    assert set(tables(backend).ACTIVATIONS) == set(ACTIVATIONS)
    losses = import_module(f"optbench.backends.{backend}.losses")
    assert set(losses.LOSSES) == {loss for task in TASKS.values() for loss in task.losses}
    assert set(losses.PREDICTIONS) == {task.targets for task in TASKS.values()}
    if backend == "torch":
        stacked = import_module("optbench.backends.torch.stacked_layers")
        assert set(stacked.LAYERS) == set(spec.LAYERS)


@pytest.mark.parametrize(("layer", "shape"), CASES, ids=NAMES)
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_a_layer_computes_what_its_definition_says(backend, layer, shape, training):
    built, weights, x = place_of(layer, shape)
    out, moved = ADAPTERS[backend](built, weights, x, training)
    assert out.shape == (len(x), *built.output_shape)
    np.testing.assert_allclose(out, expected(built, weights, x, training), rtol=1e-12, atol=1e-12)
    if layer.kind == "batch_norm" and training:
        mine = {name.rpartition("/")[2]: w for name, w in weights.items()}
        for name, value in reference.moved_averages(layer, mine, x).items():
            np.testing.assert_allclose(moved[f"{built.name}/{name}"], value, rtol=1e-10)


@pytest.mark.parametrize("name", ["torch", "jax"])
@pytest.mark.parametrize(("layer", "shape"), CASES, ids=NAMES)
def test_a_layer_of_several_trials_at_once_computes_each_of_them(name, layer, shape):
    if name not in backends.installed():
        pytest.skip(f"backend {name}: its framework is not installed")
    built, weights, x = place_of(layer, shape)
    other = {part: w[..., ::-1].copy() for part, w in weights.items()}
    outs = ADAPTERS[name].stacked(built, [weights, other], [x, x[::-1].copy()])
    for out, w, inputs in zip(outs, (weights, other), (x, x[::-1]), strict=True):
        np.testing.assert_allclose(out, expected(built, w, inputs, True), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "other"), [("tensorflow", {"xla": False}), ("jax", {"cpu": False})], ids=["kernels", "gpu"]
)
def test_the_other_way_of_a_layer_computes_the_same(name, other):
    """TensorFlow's own kernels, and JAX's convolutions for a GPU."""
    if name not in backends.installed():
        pytest.skip(f"backend {name}: its framework is not installed")
    for layer, shape in CASES:
        built, weights, x = place_of(layer, shape)
        out, _ = ADAPTERS[name](built, weights, x, True, **other)
        np.testing.assert_allclose(out, expected(built, weights, x, True), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(40,), (6, 10), (5, 4, 3)], ids=["flat", "sequence", "image"])
def test_dropout_of_several_trials_at_once_draws_each_mask_as_alone(shape):
    """A mask is 1 / keep or 0, from its trial's own generator, in the memory order of a trial alone."""
    torch = pytest.importorskip("torch")
    stacked = import_module("optbench.backends.torch.stacked_layers")
    built, _, x = place_of(spec.Dropout(rate=0.25), shape)
    seeds = (3, 4)
    held = stacked.StackedWeights(
        weights={}, generators=[torch.Generator().manual_seed(seed) for seed in seeds]
    )
    value = torch.from_numpy(np.stack([x, x + 1]))
    given = held.as_images(value) if len(shape) == 3 else value
    out = stacked.forward(built, held)(given)
    found = held.by_trial(out) if len(shape) == 3 else out
    for trial, seed in enumerate(seeds):
        drawn = torch.empty(x.shape, dtype=value.dtype)
        drawn.bernoulli_(0.75, generator=torch.Generator().manual_seed(seed))
        assert 0 < drawn.sum() < drawn.numel()
        torch.testing.assert_close(found[trial], value[trial] * (drawn / 0.75))
    still = stacked.StackedWeights(weights={}, generators=held.generators, training=False)
    assert stacked.forward(built, still)(given) is given


GELU = Model(name="m", layers=(spec.Dense(units=4), spec.Activate(activation="gelu"), spec.Dense()))
LACKING = [("ACTIVATIONS", "gelu"), ("LAYERS", "activation")]


def module_of(backend, table):
    """Where a backend looks up an activation or a layer."""
    apart = table == "ACTIVATIONS" and backend != "torch"
    return import_module(f"optbench.backends.{backend}.functions") if apart else tables(backend)


def without(monkeypatch, module, table, name):
    kept = {key: value for key, value in getattr(module, table).items() if key != name}
    monkeypatch.setattr(module, table, kept)


@pytest.mark.parametrize(("table", "name"), LACKING)
def test_what_a_table_lacks_is_named_when_a_trial_is_opened(backend, table, name, monkeypatch):
    """Nothing is put in the place of an activation or a layer that is missing."""
    without(monkeypatch, module_of(backend, table), table, name)
    with pytest.raises(NotImplementedError, match=f"{backend}.* there is none for '{name}'"):
        # A configuration that no other test has compiled.
        session(trial_of(backend, SGD(lr=0.1), GELU, precision="bfloat16", clip_norm=1.25))


@pytest.mark.parametrize(("table", "name"), LACKING)
def test_what_the_table_for_stacks_lacks_is_named_too(table, name, monkeypatch):
    pytest.importorskip("torch")
    module = import_module("optbench.backends.torch.stacked_layers")
    without(monkeypatch, module if table == "LAYERS" else tables("torch"), table, name)
    with pytest.raises(NotImplementedError, match=f"torch .* there is none for '{name}'"):
        module.forward(build(GELU, (5,), 3)[1], module.StackedWeights(weights={}, generators=[]))


def test_a_kind_without_a_shape_is_named_when_the_model_is_built(monkeypatch):
    monkeypatch.setattr(shapes, "SHAPES", {"dense": spec.SHAPES["dense"]})
    with pytest.raises(NotImplementedError, match="layer flatten_1: no shape is declared"):
        build(Model(name="m", layers=(spec.Dense(),)), (2, 2, 1), 3)


@pytest.mark.parametrize("name", ["jax", "tensorflow"])
def test_the_gradient_of_a_maximum_goes_to_the_first_of_equals(name):
    if name not in backends.installed():
        pytest.skip(f"backend {name}: its framework is not installed")
    windows = np.array([[[1.0, 3.0], [2.0, 3.0], [2.0, 0.0]]])  # [1, places, channels]
    given = np.array([[10.0, 20.0]])
    if name == "jax":
        jax = import_module("jax")
        out, backward = jax.vjp(tables(name)._first_max, jax.numpy.asarray(windows))
        (found,) = backward(jax.numpy.asarray(given, out.dtype))
    else:
        tf = import_module("tensorflow")
        x = tf.constant(windows)
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = tables(name).first_max(x)
        found = tape.gradient(out, x, output_gradients=tf.constant(given))
    assert np.asarray(out).tolist() == [[2.0, 3.0]]
    assert np.asarray(found).tolist() == [[[0.0, 20.0], [10.0, 0.0], [0.0, 0.0]]]
