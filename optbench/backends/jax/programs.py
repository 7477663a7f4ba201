"""An epoch and an evaluation as compiled JAX programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from numpy.typing import NDArray

from optbench.backends.base import Weights
from optbench.backends.functional import Configuration, Rate, State, accumulated
from optbench.backends.jax.losses import evaluated_loss, prediction, training_loss
from optbench.backends.jax.model import JaxModel
from optbench.backends.jax.own_network import OwnModel
from optbench.backends.own_network import own_of
from optbench.models.layers import Role
from optbench.optimizers import has_rule
from optbench.optimizers.optax import make_optimizer
from optbench.trial import stored_precision

Array = jax.Array
Tree = dict[str, Array]


class JaxPrograms:
    """See :class:`optbench.backends.functional.Programs`. Compiled ahead of time, once a set of shapes."""

    step = "epoch as one scan, jit"
    #: Steps of a scan's round on a GPU, between which nothing is decided.
    UNROLL = 1

    def __init__(
        self,
        configuration: Configuration,
        device: jax.Device,
        evaluations: dict[tuple[Any, ...], Callable[..., Any]] | None = None,
    ) -> None:
        self._configuration = configuration
        self._device = device
        with self.scope():
            self._model = _model_of(configuration)
        self._training_loss = training_loss(configuration.loss)
        self._evaluated_loss = evaluated_loss(configuration.loss)
        self._predict = prediction(configuration.targets)
        self._compiled: dict[tuple[Any, ...], Callable[..., Any]] = {}
        #: Compiled evaluations, which the optimizers of a workload share.
        self._evaluations = {} if evaluations is None else evaluations
        self._fixed_lr = False
        self.roles: Mapping[str, Role] = self._model.roles

    @property
    def compiled(self) -> int:
        """Number of programs compiled so far."""
        return len(self._compiled) + len(self._evaluations)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Device, and 64 bits where the trial asks for them; JAX's own switch is for the whole process."""
        with _enable_x64(self._configuration.precision == "float64"), jax.default_device(self._device):
            yield

    def put(self, array: NDArray[Any]) -> Array:
        """See :class:`optbench.backends.functional.Programs`."""
        return jax.device_put(array.astype(np.int32) if array.dtype == np.int64 else array, self._device)

    def own_weights(self, seed: int) -> Weights:
        """See :class:`optbench.backends.functional.Programs`."""
        assert isinstance(self._model, OwnModel)
        return self._model.initial(seed)

    def start(self, weights: Weights, key: NDArray[np.uint32]) -> State:
        """See :class:`optbench.backends.functional.Programs`."""
        model = {name: self.put(value) for name, value in weights.items()}
        self._fixed_lr = self._asks_for_a_number(self._trained(model))
        init = self._solver(None).init
        if self._configuration.device != "cpu":  # one program in place of a launch for each array
            init = self._compile_init(init, self._trained(model))
        return {
            "model": model,
            "optimizer": init(self._trained(model)),
            **({"ema": self._trained(model)} if self._configuration.ema else {}),
            "step": self.put(np.zeros((), np.int32)),
            "key": self.put(key),
        }

    def epoch(
        self, state: State, lr: Rate, x: Array, y: Array, places: Array, rows: Array
    ) -> tuple[State, Array]:
        """See :class:`optbench.backends.functional.Programs`."""
        config = self._configuration.optimizer
        if self._fixed_lr and np.any(np.asarray(lr) != config.lr):
            raise TypeError(
                f"{getattr(config, 'reference', config)} asks for the value of its learning rate, so a "
                "schedule cannot move it in a compiled program; take out the `if` or `float()` on it"
            )
        return self._call(self._run_epoch, state, self.rate(lr), x, y, places, rows)

    def epochs(
        self, states: State, lrs: Array, x: Array, y: Array, places: Array, rows: Array, *, pool_each: bool
    ) -> tuple[State, Array]:
        """:meth:`epoch` of several trials side by side, with a pool for each or one for all."""
        program = self._run_epochs_pool_each if pool_each else self._run_epochs
        return self._call(program, states, lrs, x, y, places, rows)

    def evaluate(self, model: Tree, x: Array, y: Array, rows: Array) -> tuple[Array, Array, Array]:
        """See :class:`optbench.backends.functional.Programs`."""
        return self._call(self._run_evaluation, model, x, y, rows, kept=self._evaluations)

    def evaluations(
        self, models: Tree, x: Array, y: Array, rows: Array, *, pool_each: bool
    ) -> tuple[Array, Array, Array]:
        """:meth:`evaluate` of several trials, with a pool for each or one for all."""
        program = self._run_evaluations_pool_each if pool_each else self._run_evaluations
        return self._call(program, models, x, y, rows, kept=self._evaluations)

    def chosen(self, mask: NDArray[np.bool_], models: Tree, others: Tree) -> Tree:
        """Weights of several trials: the first where the mask has it, the others elsewhere."""
        return self._call(_chosen, self.put(mask), models, others)

    def leaves(self, tree: Any) -> list[NDArray[Any]]:
        """See :class:`optbench.backends.functional.Programs`."""
        leaves = [jax.random.key_data(leaf) if _is_key(leaf) else leaf for leaf in jax.tree.leaves(tree)]
        return [np.array(leaf) for leaf in jax.device_get(leaves)]  # all copies run at once

    def filled(self, tree: Any, leaves: list[NDArray[Any]]) -> Any:
        """See :class:`optbench.backends.functional.Programs`."""
        old, structure = jax.tree.flatten(tree)
        new = [jax.device_put(leaf, self._device) for leaf in leaves]
        keyed = [
            jax.random.wrap_key_data(n, impl=jax.random.key_impl(o)) if _is_key(o) else n
            for o, n in zip(old, new, strict=True)
        ]
        return jax.tree.unflatten(structure, keyed)

    def prepare_epoch(
        self, state: State, x: Array, y: Array, batches: int, batch: int, *, stepwise: bool = False
    ) -> None:
        """See :class:`optbench.backends.functional.Programs`."""
        rows = self.put(np.zeros((batches, batch), np.int32))
        rate = self.rate(np.zeros(batches) if stepwise else 0.0)
        self._compile(self._run_epoch, state, rate, x, y, rows, rows)

    def prepare_evaluation(self, state: State, x: Array, y: Array, rows: Array) -> None:
        """See :class:`optbench.backends.functional.Programs`."""
        self._compile(self._run_evaluation, state["model"], x, y, rows, kept=self._evaluations)

    def _call(self, program: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return self._compile(program, *arguments, **options)(*arguments)

    def _compile(
        self,
        program: Callable[..., Any],
        *arguments: Any,
        kept: dict[tuple[Any, ...], Callable[..., Any]] | None = None,
    ) -> Callable[..., Any]:
        kept = self._compiled if kept is None else kept
        # The state's shapes follow from the configuration; those of the data are the call's own.
        shapes = tuple(argument.shape for argument in arguments if isinstance(argument, Array))
        signature = (program.__name__, *shapes)
        if signature not in kept:
            kept[signature] = jax.jit(program).lower(*arguments).compile()
        return kept[signature]

    def _compile_init(self, init: Callable[[Tree], Any], trained: Tree) -> Callable[[Tree], Any]:
        if ("init",) not in self._compiled:
            self._compiled[("init",)] = jax.jit(init).lower(trained).compile()
        return self._compiled[("init",)]

    def rate(self, lr: Rate | list[float]) -> Array:
        """Bring a learning rate, or those of several trials, to the device."""
        return self.put(np.asarray(lr, stored_precision(self._configuration.precision)))

    def _trained(self, model: Tree) -> Tree:
        return {name: model[name] for name in self._model.trainable}

    def _solver(self, lr: Array | None) -> optax.GradientTransformationExtraArgs:
        rate = None if self._fixed_lr else lr
        made = make_optimizer(self._configuration.optimizer, learning_rate=rate, roles=self.roles)
        return optax.with_extra_args_support(made)

    def _asks_for_a_number(self, trained: Tree) -> bool:
        """Tell whether a custom optimizer cannot take its learning rate as an array."""
        config = self._configuration.optimizer
        if has_rule(config):
            return False

        def update(lr: Array) -> Any:
            solver = optax.with_extra_args_support(make_optimizer(config, learning_rate=lr, roles=self.roles))
            return solver.update(trained, state, trained, value=lr)

        state = make_optimizer(config, roles=self.roles).init(trained)
        try:
            jax.eval_shape(update, self.rate(1.0))
        except TypeError:  # what JAX raises where Python asks for the value of an array in a program
            return True
        return False

    def _run_epoch(
        self, state: State, lr: Array, x: Array, y: Array, places: Array, rows: Array
    ) -> tuple[State, Array]:
        def step(state: State, batch: tuple[Array, Array, Array | None]) -> tuple[State, Array]:
            place, row, own = batch
            rate = lr if own is None else own
            return self._step(state, rate, self._taken(x, place), self._taken(y, row))

        unroll = 1 if self._configuration.device == "cpu" else self.UNROLL
        return lax.scan(step, state, (places, rows, lr if lr.ndim else None), unroll=unroll)

    def _taken(self, pool: Array, rows: Array) -> Array:
        """Examples of a pool: its rows, or the windows that start there."""
        if (context := self._configuration.context) is None:
            return pool[rows]
        return pool[rows[:, None] + jnp.arange(context)]

    def _run_epochs(self, *arguments: Any) -> Any:
        return jax.vmap(self._run_epoch, in_axes=(0, 0, None, None, 0, 0))(*arguments)

    def _run_epochs_pool_each(self, *arguments: Any) -> Any:
        return jax.vmap(self._run_epoch)(*arguments)

    def _step(self, state: State, lr: Array, x: Array, y: Array) -> tuple[State, Array]:
        model = state["model"]
        trained = self._trained(model)
        key = jax.random.fold_in(state["key"], state["step"])

        def passes(model: Tree, x: Array, y: Array, key: Array) -> tuple[Array, Tree, Tree]:
            def objective(trained: Tree) -> tuple[Array, Tree]:
                weights = {**model, **trained}
                outputs, moved = self._model(weights, x, key=key, training=True)
                losses = self._training_loss(outputs, y)
                return losses.mean() + self._model.penalty(weights), moved

            (loss, moved), gradients = jax.value_and_grad(objective, has_aux=True)(trained)
            return loss, moved, gradients

        if self._configuration.accumulate is None:
            loss, moved, gradients = passes(model, x, y, key)
        else:
            loss, moved, gradients = accumulated(
                lambda model, part, number: passes(model, x[part], y[part], jax.random.fold_in(key, number)),
                model,
                n=len(x),
                parts=self._configuration.accumulate,
            )
        gradients = self._clip(gradients)
        decay = self._configuration.weight_decay
        if decay is not None:
            trained = {n: w * (1 - lr * decay) if n in self._model.kernels else w for n, w in trained.items()}
        updates, optimizer = self._solver(lr).update(gradients, state["optimizer"], trained, value=loss)
        trained = optax.apply_updates(trained, updates)
        new = {"model": {**model, **trained, **moved}, "optimizer": optimizer, "step": state["step"] + 1}
        if (kept := self._configuration.ema) is not None:
            before = state["ema"]
            new["ema"] = {name: kept * before[name] + (1 - kept) * w for name, w in trained.items()}
        return {**new, "key": state["key"]}, loss

    def _clip(self, gradients: Tree) -> Tree:
        value, norm = self._configuration.clip_value, self._configuration.clip_norm
        if value is not None:
            gradients = {name: jnp.clip(g, -value, value) for name, g in gradients.items()}
        if norm is not None:
            total = jnp.sqrt(sum(jnp.square(g).sum() for g in gradients.values()))
            factor = jnp.minimum(norm / total, 1.0)
            gradients = {name: g * factor for name, g in gradients.items()}
        return gradients

    def _run_evaluation(self, model: Tree, x: Array, y: Array, rows: Array) -> tuple[Array, Array, Array]:
        def batch(row: Array) -> tuple[Array, Array, Array]:
            unused = jnp.zeros(2, jnp.uint32)
            outputs, _ = self._model(model, self._taken(x, row), key=unused, training=False)
            return self._evaluated_loss(outputs, self._taken(y, row)), self._predict(outputs), outputs

        return lax.map(batch, rows)

    def _run_evaluations(self, models: Tree, x: Array, y: Array, rows: Array) -> Any:
        return self._each(lambda own: self._run_evaluation(own[0], x, y, own[1]), (models, rows))

    def _run_evaluations_pool_each(self, *arguments: Any) -> Any:
        return self._each(lambda own: self._run_evaluation(*own), arguments)

    def _each(self, function: Callable[[Any], Any], arguments: Any) -> Any:
        """Map a function over trials: side by side, on a CPU one after the other, as convolutions want it."""
        if self._configuration.device == "cpu":
            return lax.map(function, arguments)
        return jax.vmap(function)(arguments)


def _model_of(configuration: Configuration) -> JaxModel | OwnModel:
    if own_of(configuration.built) is not None:
        tokens = configuration.context is not None
        return OwnModel(configuration.built[0], precision=configuration.precision, tokens=tokens)
    cpu = configuration.device == "cpu"
    return JaxModel(configuration.built, cpu=cpu, precision=configuration.precision)


def _chosen(mask: Array, models: Tree, others: Tree) -> Tree:
    def choose(one: Array, other: Array) -> Array:
        return jnp.where(mask.reshape(-1, *[1] * (one.ndim - 1)), one, other)

    return jax.tree.map(choose, models, others)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _enable_x64(enabled: bool) -> Any:
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(enabled)
    from jax.experimental import enable_x64  # type: ignore[attr-defined]  # its place before jax 0.8

    return enable_x64(enabled)
