"""An epoch and an evaluation as compiled TensorFlow programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from optbench.backends.base import Weights
from optbench.backends.functional import Configuration, Rate, State, accumulated
from optbench.backends.own_network import own_of
from optbench.backends.tensorflow.losses import evaluated_loss, prediction, training_loss
from optbench.backends.tensorflow.model import TensorFlowModel
from optbench.backends.tensorflow.own_network import OwnModel
from optbench.models.layers import Conv2D, MaxPool2D, OwnNetwork, Role, walk
from optbench.optimizers import CanonicalConfig, OptimizerConfig, family_of, groups, has_rule
from optbench.optimizers.base import ARRAY_FUNCTIONS, array_functions
from optbench.optimizers.groups import Assigned
from optbench.trial import stored_precision

#: Weights from which on one pass over them saves more than the call of an XLA program costs.
LARGE = 1_000_000

#: Seeds of the parts of a batch lie so far from each other: beyond those of any layers.
_PART = 10**7

Tensor = Any
Tree = dict[str, Tensor]

#: The array functions that the rules of :mod:`optbench.optimizers` ask for.
RULES = array_functions(
    tf,
    **{name: getattr(tf.math, name) for name in ARRAY_FUNCTIONS if hasattr(tf.math, name)},
    mean=tf.reduce_mean,
    sum=tf.reduce_sum,
)


class Solver(Protocol):
    """An optimizer as pure functions over dictionaries of tensors."""

    def init(self, weights: Mapping[str, Tensor]) -> Any:
        """State before the first step."""

    def update(
        self, gradients: Tree, state: Any, weights: Tree, *, lr: Tensor, t: Tensor, loss: Tensor
    ) -> tuple[Tree, Any]:
        """Weights and state after step t = 1, 2, ..."""


class RuleSolver:
    """A family's own rule on tensors."""

    def __init__(self, config: CanonicalConfig) -> None:
        self._config, self._family = config, family_of(config)

    def init(self, weights: Mapping[str, Tensor]) -> Any:
        """See :class:`Solver`."""
        return {name: self._family.init(self._config, w, RULES) for name, w in weights.items()}

    def update(
        self, gradients: Tree, state: Any, weights: Tree, *, lr: Tensor, t: Tensor, loss: Tensor
    ) -> tuple[Tree, Any]:
        """See :class:`Solver`."""
        moved, new = {}, {}
        for name, w in weights.items():
            delta, new[name] = self._family.update(
                *(self._config, w, gradients[name], state[name]),
                lr=lr,
                t=tf.cast(t, w.dtype),
                xp=RULES,
                **self._family.known_loss(self._config, loss),
            )
            moved[name] = w + delta
        return moved, new


class KerasSolver:
    """A custom Keras optimizer.

    Its variables and the weights are scratch memory: each step puts the state there, lets the optimizer
    update it and takes it away again, so that the program stays pure (Keras has no ``stateless_apply`` on
    TensorFlow).
    """

    def __init__(self, config: OptimizerConfig, roles: Mapping[str, Role]) -> None:
        self._config, self._roles = config, roles
        self._bench: tuple[Any, list[Any]] | None = None

    def init(self, weights: Mapping[str, Tensor]) -> Any:
        """See :class:`Solver`."""
        import keras

        from optbench.optimizers.keras import make_optimizer

        optimizer: Any = make_optimizer(self._config, roles=self._roles)
        variables = [
            keras.Variable(w, dtype=w.dtype.name, name=name.replace("/", "_")) for name, w in weights.items()
        ]
        optimizer.build(variables)
        self._bench = self._bench or (optimizer, variables)
        return [tf.identity(variable.value) for variable in optimizer.variables]

    def update(
        self, gradients: Tree, state: Any, weights: Tree, *, lr: Tensor, t: Tensor, loss: Tensor
    ) -> tuple[Tree, Any]:
        """See :class:`Solver`."""
        assert self._bench is not None, "init comes first"
        optimizer, variables = self._bench
        for variable, value in zip(
            [*optimizer.variables, *variables], [*state, *weights.values()], strict=True
        ):
            variable.value.assign(value)
        if self._config.lr is not None:
            optimizer.learning_rate.value.assign(tf.cast(lr, optimizer.learning_rate.dtype))
        optimizer.apply([gradients[name] for name in weights], variables)
        moved = {name: tf.identity(v.value) for name, v in zip(weights, variables, strict=True)}
        return moved, [tf.identity(variable.value) for variable in optimizer.variables]


class GroupSolver:
    """Several optimizers, each for weights of its own."""

    def __init__(
        self, assigned: Sequence[Assigned], reference: float | None, roles: Mapping[str, Role]
    ) -> None:
        self._parts = [
            (part, solver_of(part.config, {name: roles[name] for name in part.names})) for part in assigned
        ]
        self._reference = reference

    def init(self, weights: Mapping[str, Tensor]) -> Any:
        """See :class:`Solver`."""
        return [solver.init({name: weights[name] for name in part.names}) for part, solver in self._parts]

    def update(
        self, gradients: Tree, state: Any, weights: Tree, *, lr: Tensor, t: Tensor, loss: Tensor
    ) -> tuple[Tree, Any]:
        """See :class:`Solver`."""
        moved: Tree = {}
        new = []
        for (part, solver), own in zip(self._parts, state, strict=True):
            given, held = ({name: tree[name] for name in part.names} for tree in (gradients, weights))
            rate = part.rate(lr, self._reference)
            if rate is None:
                rate = lr
            elif isinstance(rate, float):  # a cast would round it to float32 first
                rate = tf.constant(rate, lr.dtype)
            else:
                rate = tf.cast(rate, lr.dtype)
            found, after = solver.update(given, own, held, lr=rate, t=t, loss=loss)
            moved |= found
            new.append(after)
        return {name: moved[name] for name in weights}, new


def solver_of(config: Any, roles: Mapping[str, Role]) -> Solver:
    """Make the solver of a config that is not made of groups."""
    return RuleSolver(config) if has_rule(config) else KerasSolver(config, roles)


class TensorFlowPrograms:
    """See :class:`optbench.backends.functional.Programs`. One ``tf.function`` holds the whole loop.

    XLA compiles models of dense layers, where it takes a third off the step on a CPU. Models of images run
    on TensorFlow's own kernels (oneDNN, cuDNN), which are several times faster than XLA's in a loop on a CPU;
    the update of many weights is XLA's there too, as one pass over them. A TPU knows XLA alone.
    """

    def __init__(self, configuration: Configuration, device: str, *, xla: bool | None = None) -> None:
        self._configuration = configuration
        self._device = device
        if xla is None:
            places = walk(configuration.built)
            kernels = any(isinstance(place.layer, Conv2D | MaxPool2D | OwnNetwork) for place in places)
            xla = configuration.device == "tpu" or not kernels
        self.step = f"epoch as one function{', XLA' if xla else ''}"
        with self.scope():
            self._model = _model_of(configuration, xla=xla)
        self._training_loss = training_loss(configuration.loss)
        self._evaluated_loss = evaluated_loss(configuration.loss)
        self._predict = prediction(configuration.targets)
        config: Any = configuration.optimizer
        self.roles: Mapping[str, Role] = self._model.roles
        named = self.roles
        assigned = groups.assign(config, named)
        alone = len(assigned) == 1 and assigned[0].scheduled
        self._solver: Solver = (
            solver_of(assigned[0].config, named) if alone else GroupSolver(assigned, config.lr, named)
        )
        self._update = self._solver.update
        if has_rule(config) and not xla and self._model.size >= LARGE:
            self._update = tf.function(self._solver.update, jit_compile=True, autograph=False)
        options: dict[str, Any] = {"jit_compile": xla, "autograph": False}
        self._epoch = tf.function(self._run_epoch, **options)
        self._evaluate = tf.function(self._run_evaluation, **options)

    @property
    def compiled(self) -> int:
        """Number of programs compiled so far."""
        return sum(f.experimental_get_tracing_count() for f in (self._epoch, self._evaluate))

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Device, and TF32 where the trial asks for it; TensorFlow's own switch is for the whole process."""
        tf.config.experimental.enable_tensor_float_32_execution(self._configuration.precision == "tf32")
        with tf.device(self._device):
            yield

    def put(self, array: NDArray[Any]) -> Tensor:
        """See :class:`optbench.backends.functional.Programs`."""
        return tf.identity(tf.convert_to_tensor(array.astype(np.int32) if array.dtype == np.int64 else array))

    def own_weights(self, seed: int) -> Weights:
        """See :class:`optbench.backends.functional.Programs`."""
        assert isinstance(self._model, OwnModel)
        return self._model.initial(seed)

    def start(self, weights: Weights, key: NDArray[np.uint32]) -> State:
        """See :class:`optbench.backends.functional.Programs`."""
        model = {name: self.put(value) for name, value in weights.items()}
        return {
            "model": model,
            "optimizer": self._solver.init(self._trained(model)),
            **({"ema": self._trained(model)} if self._configuration.ema else {}),
            "step": self.put(np.zeros((), np.int32)),
            "key": self.put(key.view(np.int32)),
        }

    def epoch(
        self, state: State, lr: Rate, x: Tensor, y: Tensor, places: Tensor, rows: Tensor
    ) -> tuple[State, Tensor]:
        """See :class:`optbench.backends.functional.Programs`."""
        return self._steps(state, lr, x, y, places, rows, steps=rows.shape[0])

    def evaluate(self, model: Any, x: Tensor, y: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`optbench.backends.functional.Programs`."""
        return self._evaluate(model, x, y, rows, self.put(np.array(rows.shape[0], np.int32)))

    def leaves(self, tree: Any) -> list[NDArray[Any]]:
        """See :class:`optbench.backends.functional.Programs`."""
        return [np.array(leaf) for leaf in tf.nest.flatten(tree)]

    def filled(self, tree: Any, leaves: list[NDArray[Any]]) -> Any:
        """See :class:`optbench.backends.functional.Programs`."""
        return tf.nest.pack_sequence_as(tree, [tf.identity(tf.convert_to_tensor(leaf)) for leaf in leaves])

    def prepare_epoch(
        self, state: State, x: Tensor, y: Tensor, batches: int, batch: int, *, stepwise: bool = False
    ) -> None:
        """See :class:`optbench.backends.functional.Programs`. The compiled loop is called to take no step."""
        rows = self.put(np.zeros((batches, batch), np.int32))
        self._steps(state, np.zeros(batches) if stepwise else 0.0, x, y, rows, rows, steps=0)

    def prepare_evaluation(self, state: State, x: Tensor, y: Tensor, rows: Tensor) -> None:
        """See :class:`optbench.backends.functional.Programs`."""
        self._evaluate(state["model"], x, y, rows, self.put(np.array(0, np.int32)))

    def _steps(self, state: State, lr: Rate, *arrays: Tensor, steps: int) -> tuple[State, Tensor]:
        rate = self.put(np.asarray(lr, stored_precision(self._configuration.precision)))
        return self._epoch(state, rate, *arrays, self.put(np.array(steps, np.int32)))

    def _trained(self, model: Tree) -> Tree:
        return {name: model[name] for name in self._model.trainable}

    def _run_epoch(
        self, state: State, lr: Tensor, x: Tensor, y: Tensor, places: Tensor, rows: Tensor, steps: Tensor
    ) -> tuple[State, Tensor]:
        def step(k: Tensor, state: State, losses: Tensor) -> tuple[Tensor, State, Tensor]:
            rate = lr[k] if lr.shape.rank else lr
            state, loss = self._step(state, rate, self._taken(x, places[k]), self._taken(y, rows[k]))
            return k + 1, state, losses.write(k, loss)

        losses = tf.TensorArray(lr.dtype, rows.shape[0], element_shape=())
        start = (tf.constant(0), state, losses)
        _, state, losses = tf.while_loop(lambda k, *_: k < steps, step, start, parallel_iterations=1)
        return state, losses.stack()

    def _taken(self, pool: Tensor, rows: Tensor) -> Tensor:
        """Examples of a pool: its rows, or the windows that start there."""
        if (context := self._configuration.context) is None:
            return tf.gather(pool, rows)
        return tf.gather(pool, rows[:, tf.newaxis] + tf.range(context))

    def _step(self, state: State, lr: Tensor, x: Tensor, y: Tensor) -> tuple[State, Tensor]:
        model, t = state["model"], state["step"] + 1
        trained = self._trained(model)
        seed = state["key"] + tf.stack([0, t])

        def passes(model: Tree, x: Tensor, y: Tensor, seed: Tensor) -> tuple[Tensor, Tree, Tree]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(trained)
                weights = {**model, **trained}
                outputs, moved = self._model(weights, x, seed=seed, training=True)
                losses = self._training_loss(outputs, y)
                loss = tf.reduce_mean(losses) + self._model.penalty(weights)
            # The gradient of a gather is given as the rows that it met.
            gradients = {n: tf.convert_to_tensor(g) for n, g in tape.gradient(loss, trained).items()}
            return loss, moved, gradients

        if self._configuration.accumulate is None:
            loss, moved, gradients = passes(model, x, y, seed)
        else:
            loss, moved, gradients = accumulated(
                lambda model, part, number: passes(
                    model, x[part], y[part], seed + tf.constant([_PART * number, 0])
                ),
                model,
                n=x.shape[0],
                parts=self._configuration.accumulate,
            )
        gradients = self._clip(gradients)
        decay = self._configuration.weight_decay
        if decay is not None:
            trained = {n: w * (1 - lr * decay) if n in self._model.kernels else w for n, w in trained.items()}
        trained, optimizer = self._update(gradients, state["optimizer"], trained, lr=lr, t=t, loss=loss)
        new = {"model": {**model, **trained, **moved}, "optimizer": optimizer, "step": t}
        if (kept := self._configuration.ema) is not None:
            before = state["ema"]
            new["ema"] = {name: kept * before[name] + (1 - kept) * w for name, w in trained.items()}
        return {**new, "key": state["key"]}, loss

    def _clip(self, gradients: Tree) -> Tree:
        value, norm = self._configuration.clip_value, self._configuration.clip_norm
        if value is not None:
            gradients = {name: tf.clip_by_value(g, -value, value) for name, g in gradients.items()}
        if norm is not None:
            total = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(g)) for g in gradients.values()]))
            factor = tf.minimum(norm / total, 1)
            gradients = {name: g * factor for name, g in gradients.items()}
        return gradients

    def _run_evaluation(
        self, model: Tree, x: Tensor, y: Tensor, rows: Tensor, steps: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        batches, batch = rows.shape
        shape = self._model.output_shape
        dtype = stored_precision(self._configuration.precision)

        def step(k: Tensor, losses: Tensor, outputs: Tensor) -> tuple[Tensor, ...]:
            x_batch, y_batch = self._taken(x, rows[k]), self._taken(y, rows[k])
            values, _ = self._model(model, x_batch, seed=tf.zeros(2, tf.int32), training=False)
            return k + 1, losses.write(k, self._evaluated_loss(values, y_batch)), outputs.write(k, values)

        arrays = [tf.TensorArray(dtype, batches, element_shape=size) for size in ([batch], [batch, *shape])]
        loop = tf.while_loop(lambda k, *_: k < steps, step, (tf.constant(0), *arrays), parallel_iterations=1)
        losses, outputs = (array.stack() for array in loop[1:])
        return losses, self._predict(outputs), outputs


def _model_of(configuration: Configuration, *, xla: bool) -> TensorFlowModel | OwnModel:
    if own_of(configuration.built) is not None:
        tokens = configuration.context is not None
        return OwnModel(configuration.built[0], precision=configuration.precision, tokens=tokens)
    return TensorFlowModel(configuration.built, xla=xla, half=configuration.precision == "bfloat16")
