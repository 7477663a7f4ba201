"""A custom network, a Keras model, in the place of a built model, as a pure function."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from optbench.backends.base import Weights
from optbench.backends.global_draws import GlobalDraws
from optbench.backends.own_network import (
    OwnNetworkError,
    check_outputs,
    init_seed,
    kernels,
    make,
    role_of,
    with_head,
)
from optbench.models.layers import BuiltLayer, OwnNetwork
from optbench.trial import stored_precision

Tensor = Any
Tree = Mapping[str, Tensor]

#: Keras' policy of each precision in which a trial computes.
POLICIES = {"float64": "float64", "bfloat16": "mixed_bfloat16"}
#: How TensorFlow's operations begin that draw from a generator of its own.
DRAWING = re.compile(
    "Random|TruncatedNormal|Multinomial|ParameterizedTrunc|Stateful(Random|Uniform|.*Normal)|Rng"
)


class OwnModel:
    """See :class:`optbench.backends.tensorflow.model.TensorFlowModel`: the same for a Keras model.

    It gets a batch of images as [n, height, width, channels], of a table as [n, features], of a text as
    tokens [n, context]. Its variables are places only: each call is given their values and gives new ones
    back. The seeds of its random layers (``keras.random.SeedGenerator``) are derived from the step's.
    """

    def __init__(self, place: BuiltLayer, *, precision: str, tokens: bool) -> None:
        if keras.backend.backend() != "tensorflow":
            raise OwnNetworkError(
                f"Keras computes with {keras.backend.backend()} here; set KERAS_BACKEND=tensorflow"
            )
        assert isinstance(place.layer, OwnNetwork)
        self._own, self._precision = place.layer, precision
        self._stored = tf.as_dtype(stored_precision(precision))
        self._example = tf.zeros((2, *place.input_shape), tf.int32 if tokens else self._stored)
        self._network = self._made(init_seed(0))
        variables = _named(self._network)
        self._variables = {name: v for name, v in variables.items() if not _is_seed(v)}
        self._seeds = [v for v in variables.values() if _is_seed(v)]
        self.trainable = [name for name, v in self._variables.items() if v.trainable]
        shapes = {name: self._variables[name].shape for name in self.trainable}
        self.roles = with_head({name: role_of(name, len(shape)) for name, shape in shapes.items()})
        self.kernels = kernels(self.roles)
        self.size = sum(int(np.prod(v.shape)) for v in self._variables.values())
        self._losses: list[Tensor] = []
        self.output_shape = self._checked(place.output_shape)

    def initial(self, seed: int) -> Weights:
        """Weights, and other variables, that the model makes for a seed."""
        made = _named(self._made(seed))
        return {name: v.value.numpy() for name, v in made.items() if not _is_seed(v)}

    def __call__(
        self, weights: Tree, x: Tensor, *, seed: Tensor, training: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See :meth:`optbench.backends.tensorflow.model.TensorFlowModel.__call__`."""
        values = [(v, weights[name]) for name, v in self._variables.items()]
        for number, v in enumerate(self._seeds if training else ()):
            values.append((v, tf.cast(tf.random.fold_in(seed, number), v.dtype)))
        if not training:
            values += [(v, tf.zeros(v.shape, v.dtype)) for v in self._seeds]
        known = {id(v) for v, _ in values}
        with _policy(self._precision), keras.StatelessScope(values, collect_losses=True) as scope:
            out = self._network(x, training=training)
            self._losses = list(self._network.losses) if training else []
        if set(scope.state_mapping) - known:
            raise OwnNetworkError(
                f"model {self._own.reference} changes a variable that is not one of its own, as random "
                "functions of Keras without a seed do; give each a `seed=keras.random.SeedGenerator()` that "
                "is an attribute of the model or of its layer"
            )
        if not tf.is_tensor(out):
            raise OwnNetworkError(
                f"model {self._own.reference} gave {type(out).__name__} for a batch; it must give one tensor"
            )
        moved = {
            name: scope.get_current_value(v)
            for name, v in self._variables.items()
            if training and not v.trainable
        }
        return tf.cast(out[:, tf.newaxis] if out.shape.rank == 1 else out, self._stored), moved

    def penalty(self, weights: Tree) -> Tensor | float:
        """Regularisers and ``add_loss`` of the call before, which is of the same program."""
        return tf.add_n([tf.cast(loss, self._stored) for loss in self._losses]) if self._losses else 0.0

    def _made(self, seed: int) -> Any:
        before = GlobalDraws(0)  # Keras sets the global generators itself
        with before.mine(), _policy(self._precision):
            # TensorFlow's and Keras' own are set for what draws from them; nothing of optbench does.
            keras.utils.set_random_seed(seed % 2**31)
            model = make(self._own, "tensorflow", seed)
            model(self._example, training=False)  # makes the variables
        return model

    def _checked(self, wanted: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the outputs, and refuse draws that a compiled program would make once, or not repeat."""
        weights = {name: tf.convert_to_tensor(v.value) for name, v in self._variables.items()}

        def training(weights: Tree, x: Tensor) -> Tensor:
            return self(weights, x, seed=tf.zeros(2, tf.int32), training=True)[0]

        draws = GlobalDraws(0)
        before = draws.state()
        with draws.mine():
            traced = tf.function(training, autograph=False).get_concrete_function(weights, self._example)
        self._losses = []
        frozen = any(
            not np.array_equal(value, before[name], equal_nan=True) for name, value in draws.state().items()
        )
        drawing = sorted({kind for kind in _operations(traced.graph) if DRAWING.match(kind)})
        if frozen or drawing:
            whose = (
                f"a generator of TensorFlow's ({drawing[0]})" if drawing else "NumPy's or Python's generators"
            )
            raise OwnNetworkError(
                f"model {self._own.reference} draws from {whose} when it is called, which a compiled program "
                "cannot repeat; draw with keras.random and a `seed=keras.random.SeedGenerator()` of the layer"
            )
        shape = tuple(traced.structured_outputs.shape[1:])
        check_outputs(self._own, shape, wanted)
        return shape


@contextmanager
def _policy(precision: str) -> Iterator[None]:
    """Have Keras compute in a trial's precision; its switches are for the whole process."""
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx(stored_precision(precision))
    keras.config.set_dtype_policy(POLICIES.get(precision, "float32"))
    try:
        yield
    finally:
        keras.config.set_floatx(before[1])
        keras.config.set_dtype_policy(before[0])


def _is_seed(variable: Any) -> bool:
    return bool(variable.name == "seed_generator_state" and not variable.trainable)


def _named(model: Any) -> dict[str, Any]:
    """Variables by path. Keras numbers the layers of a whole process; here each model's begin with none."""
    found: dict[str, Any] = {}
    numbers: dict[tuple[str, str], dict[str, int]] = {}
    for variable in model.variables:
        path = ""
        for part in variable.path.split("/"):
            base = re.sub(r"_\d+$", "", part)
            seen = numbers.setdefault((path, base), {})
            number = seen.setdefault(part, len(seen))
            path += f"/{base}" + (f"_{number}" if number else "")
        while path in found:  # shared paths are possible with names of the user's own
            path += "_"
        found[path.removeprefix("/")] = variable
    return found


def _operations(graph: Any) -> Iterable[str]:
    """Kinds of all operations of a graph and of the functions that it calls."""
    definition = graph.as_graph_def()
    yield from (node.op for node in definition.node)
    for function in definition.library.function:
        yield from (node.op for node in function.node_def)
