"""A custom network of Flax (linen, nnx) or Equinox in the place of a built model, as a pure function."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

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
from optbench.models.own import is_a
from optbench.trial import stored_precision

Array = jax.Array
Tree = Mapping[str, Array]

#: Arguments of a network's call that say whether it is trained, and their value in training.
MODES = {
    "train": True,
    "training": True,
    "is_training": True,
    "deterministic": False,
    "inference": False,
    "use_running_average": False,
}


class Network(Protocol):
    """A network of one library over flat dictionaries of arrays."""

    #: All arrays by name, those that are trained and those that are not.
    arrays: dict[str, Array]
    #: Names of those that are trained.
    trainable: list[str]

    def apply(self, arrays: Tree, x: Array, *, key: Array, training: bool) -> tuple[Any, dict[str, Array]]:
        """Outputs for a batch, and the arrays that are not trained as they are afterwards."""


class OwnModel:
    """See :class:`optbench.backends.jax.model.JaxModel`: the same for a custom network.

    Flax's get a batch of images as [n, height, width, channels], Equinox's an example at a time, its channels
    first; tables [n, features], texts as tokens [n, context]. In bfloat16 inputs and trained weights are
    rounded to it, and the network computes as it does with such.
    """

    def __init__(self, place: BuiltLayer, *, precision: str, tokens: bool) -> None:
        assert isinstance(place.layer, OwnNetwork)
        self._own, self._half = place.layer, precision == "bfloat16"
        self._stored = jnp.dtype(stored_precision(precision))
        self._example = jnp.zeros((2, *place.input_shape), jnp.int32 if tokens else self._stored)
        self._network = self._made(init_seed(0))
        arrays = self._network.arrays
        self.trainable = self._network.trainable
        outputs = self._checked(place.output_shape)[-1]
        # A tree's leaves are in the order of their names, which says nothing of the last layer.
        ends = [name for name in self.trainable if outputs in arrays[name].shape]
        roles = {name: role_of(name, arrays[name].ndim) for name in self.trainable}
        self.roles = with_head(roles, among=ends)
        self.kernels = kernels(self.roles)

    def initial(self, seed: int) -> Weights:
        """Weights, and other arrays, that the network makes for a seed; floats in the stored precision."""
        arrays = self._made(seed).arrays
        return {name: np.array(self._in(array, self._stored)) for name, array in arrays.items()}

    def __call__(
        self, weights: Tree, x: Array, *, key: Array, training: bool
    ) -> tuple[Array, dict[str, Array]]:
        """See :meth:`optbench.backends.jax.model.JaxModel.__call__`."""
        arrays = dict(weights)
        if self._half:
            arrays |= {name: self._in(weights[name], jnp.bfloat16) for name in self.trainable}
            x = self._in(x, jnp.bfloat16)
        out, moved = self._network.apply(arrays, x, key=key, training=training)
        if not isinstance(out, Array):
            raise OwnNetworkError(
                f"model {self._own.reference} gave {type(out).__name__} for a batch; it must give one array"
            )
        kept = {name: self._in(array, weights[name].dtype) for name, array in moved.items()}
        out = out[:, None] if out.ndim == 1 else out
        return out.astype(self._stored), (kept if training else {})

    def penalty(self, weights: Tree) -> float:
        """None: such a network declares no penalties."""
        return 0.0

    def _made(self, seed: int) -> Network:
        return _network(make(self._own, "jax", seed), self._own, self._example, seed)

    def _in(self, array: Array, dtype: Any) -> Array:
        return array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.inexact) else array

    def _checked(self, wanted: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the outputs; refuse wrong ones, and draws that a compiled program would make once."""

        def training(arrays: Tree, x: Array) -> Any:
            return self(arrays, x, key=jnp.zeros(2, jnp.uint32), training=True)[0]

        arrays = {name: self._in(a, self._stored) for name, a in self._network.arrays.items()}
        draws = GlobalDraws(0)
        before = draws.state()
        with draws.mine():
            out = jax.eval_shape(training, arrays, self._example)
        if any(
            not np.array_equal(value, before[name], equal_nan=True) for name, value in draws.state().items()
        ):
            raise OwnNetworkError(
                f"model {self._own.reference} draws from NumPy's or Python's generators when it is called; a "
                "compiled program would draw once and repeat it: draw with jax.random and the key it gets"
            )
        shape: tuple[int, ...] = out.shape[1:]
        check_outputs(self._own, shape, wanted)
        return shape


def _network(made: Any, own: OwnNetwork, example: Array, seed: int) -> Network:
    if is_a(made, "flax.linen", "Module"):
        return LinenNetwork(made, example, seed)
    if is_a(made, "flax.nnx", "Module"):
        return NnxNetwork(made)
    return EquinoxNetwork(made)


def _mode(call: Any, training: bool) -> dict[str, bool]:
    """The argument by which a network learns whether it is trained, if it has one."""
    known = signature(call).parameters
    return {name: value == training for name, value in MODES.items() if name in known}


def _flat(tree: Any) -> dict[str, Array]:
    """Leaves of a tree by the names on their way, without the ``value`` that nnx ends each with."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(map(_word, path)).removesuffix("/value"): leaf for path, leaf in leaves}


def _word(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _filled(tree: Any, arrays: Tree, prefix: str = "") -> Any:
    """The same tree with other leaves."""
    names = [prefix + name for name in _flat(tree)]
    return jax.tree.unflatten(jax.tree.structure(tree), [arrays[name] for name in names])


class LinenNetwork:
    """A module of ``flax.linen``: the collection ``params`` is trained, the others are its state."""

    def __init__(self, module: Any, example: Array, seed: int) -> None:
        self._module = module
        key = jax.random.PRNGKey(seed % 2**32)
        keys = {"params": key, "dropout": jax.random.fold_in(key, 1)}
        made = module.init(keys, example, **_mode(type(module).__call__, False))
        params, self._rest = made.get("params", {}), {k: v for k, v in made.items() if k != "params"}
        self._params = params
        self.arrays = {**_flat(params), **_flat(self._rest)}
        self.trainable = list(_flat(params))

    def apply(self, arrays: Tree, x: Array, *, key: Array, training: bool) -> tuple[Any, dict[str, Array]]:
        """See :class:`Network`."""
        given = {"params": _filled(self._params, arrays), **_filled(self._rest, arrays)}
        keys = {"params": key, "dropout": jax.random.fold_in(key, 1)}
        mode = _mode(type(self._module).__call__, training)
        if not training:
            return self._module.apply(given, x, rngs=keys, **mode), {}
        out, moved = self._module.apply(given, x, rngs=keys, mutable=list(self._rest), **mode)
        return out, _flat(moved)


class NnxNetwork:
    """A module of ``flax.nnx``: its ``Param`` are trained; its random streams begin anew at each step."""

    def __init__(self, module: Any) -> None:
        from flax import nnx

        self._nnx = nnx
        self._filters = (nnx.Param, nnx.RngKey, nnx.RngCount, ...)
        self._graphs = {}
        for training in (False, True):
            module.train() if training else module.eval()
            self._graphs[training], *parts = nnx.split(module, *self._filters)
        self._params, self._keys, self._counts, self._rest = parts
        self._call = type(module).__call__
        params = _flat(self._params)
        self.arrays = {**params, **_flat(self._rest)}
        self.trainable = list(params)

    def apply(self, arrays: Tree, x: Array, *, key: Array, training: bool) -> tuple[Any, dict[str, Array]]:
        """See :class:`Network`."""
        leaves, structure = jax.tree.flatten(self._keys)
        keys = [_key_like(leaf, jax.random.fold_in(key, n)) for n, leaf in enumerate(leaves)]
        module = self._nnx.merge(
            self._graphs[training],
            _filled(self._params, arrays),
            jax.tree.unflatten(structure, keys),
            jax.tree.map(jnp.zeros_like, self._counts),
            _filled(self._rest, arrays),
        )
        out = module(x, **_mode(self._call, training))
        rest = _flat(self._nnx.split(module, *self._filters)[-1])
        return out, {name: array for name, array in rest.items() if name in self.arrays}


def _key_like(leaf: Array, key: Array) -> Array:
    typed = jax.random.wrap_key_data(key, impl="threefry2x32")
    return jax.random.split(typed, leaf.shape) if leaf.shape else typed


class EquinoxNetwork:
    """A module of Equinox, called for each example: its floating-point arrays are trained.

    Layers with a state (batch norm over the axis ``batch``) get it where the call asks for ``state``.
    """

    def __init__(self, made: Any) -> None:
        import equinox as eqx

        self._eqx = eqx
        module, state = made if isinstance(made, tuple) else (made, None)
        if state is None:
            state = eqx.nn.State(module)
            module = eqx.nn.delete_init_state(module)
        self._state = state
        arrays, self._static = eqx.partition(module, eqx.is_array)
        self._params, self._fixed = eqx.partition(arrays, eqx.is_inexact_array)
        params = _flat(self._params)
        self.arrays = {
            **params,
            **{f"fixed/{name}": leaf for name, leaf in _flat(self._fixed).items()},
            **{f"state/{name}": leaf for name, leaf in _flat(self._state).items()},
        }
        self.trainable = list(params)
        self._asks = set(signature(module.__call__).parameters) & {"key", "state"}

    def apply(self, arrays: Tree, x: Array, *, key: Array, training: bool) -> tuple[Any, dict[str, Array]]:
        """See :class:`Network`."""
        eqx = self._eqx
        fixed = _filled(self._fixed, arrays, "fixed/")
        module = eqx.combine(_filled(self._params, arrays), fixed, self._static)
        module = eqx.nn.inference_mode(module, value=not training)
        state = _filled(self._state, arrays, "state/")
        x = x.transpose(0, 3, 1, 2) if x.ndim == 4 else x
        stateful = "state" in self._asks

        def one(x: Array, key: Array, state: Any) -> Any:
            more = {"key": key} if "key" in self._asks else {}
            return module(x, state=state, **more) if stateful else (module(x, **more), state)

        each = jax.vmap(one, in_axes=(0, 0, None), out_axes=(0, None), axis_name="batch")
        out, state = each(x, jax.random.split(key, len(x)), state)
        return out, {f"state/{name}": leaf for name, leaf in _flat(state).items()} if stateful else {}
