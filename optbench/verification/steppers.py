"""One interface to the optimizers of every framework: gradients in, weights out, all as NumPy arrays."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from optbench.environment import set_framework_variables
from optbench.optimizers import OptimizerConfig, family_of
from optbench.verification.problems import Arrays

BACKENDS = ("torch", "tensorflow", "jax")
_MODULES = {"torch": ("torch",), "tensorflow": ("keras", "tensorflow"), "jax": ("jax", "optax")}


class Stepper(Protocol):
    """An optimizer at work on a list of weights."""

    #: Whether optbench wrote what runs; the frameworks' own classes have their own faults in half precision.
    ours: bool

    def describe(self) -> str:
        """Name the class, and how it computes where it has a choice."""

    def step(self, gradients: Arrays, loss: float | None = None) -> None:
        """Take one step; the loss is for rules that need it."""

    def weights(self) -> Arrays:
        """Return the weights, in float64."""

    def snapshot(self) -> Any:
        """Copy weights and state as the framework saves them."""

    def restore(self, saved: Any) -> None:
        """Go on from a snapshot of another stepper."""

    def state_bytes(self) -> int:
        """Bytes of the state's arrays of the weights' size."""

    def rule_state(self) -> list[dict[str, NDArray[np.float64]]]:
        """Return the state of each weight by the names that its rule has, where the class shows it."""


def missing(backend: str) -> str | None:
    """Say which package a backend lacks; None where it has all."""
    absent = [name for name in _MODULES[backend] if importlib.util.find_spec(name) is None]
    return f"{' and '.join(absent)} not installed" if absent else None


@contextmanager
def session(backend: str) -> Iterator[None]:
    """Set a framework up for float64, and put its settings back afterwards."""
    if backend == "tensorflow":
        set_framework_variables({"TF_CPP_MIN_LOG_LEVEL": "3"})
    if backend != "jax":
        yield
        return
    import jax

    settings: Any = jax.config
    before = settings.jax_enable_x64
    settings.update("jax_enable_x64", True)
    try:
        yield
    finally:
        settings.update("jax_enable_x64", before)


def make(backend: str, config: OptimizerConfig, start: Arrays, dtype: str) -> Stepper:
    """Build an optimizer of a backend; call it inside :func:`session`."""
    kinds: dict[str, Any] = {"torch": TorchStepper, "tensorflow": KerasStepper, "jax": OptaxStepper}
    stepper: Stepper = kinds[backend](config, start, dtype)
    return stepper


class TorchStepper:
    """A ``torch.optim.Optimizer``."""

    def __init__(self, config: OptimizerConfig, start: Arrays, dtype: str) -> None:
        import torch

        from optbench.backends.torch.optimizers import make_optimizer, parts_of, switch

        self._torch = torch
        self.params = [torch.tensor(w, dtype=getattr(torch, dtype), requires_grad=True) for w in start]
        self.optimizer: Any = make_optimizer(config, self.params)
        switch(self.optimizer, "train")
        self._parts: Any = parts_of(self.optimizer)
        self.ours = any(type(part).__module__.startswith("optbench.") for part in self._parts)

    def describe(self) -> str:
        """See :class:`Stepper`."""
        from optbench.backends.torch.optimizers import kernel_of

        return " and ".join(
            ", ".join(filter(None, (_name(part), kernel_of(part).replace("plain", ""))))
            for part in self._parts
        )

    def step(self, gradients: Arrays, loss: float | None = None) -> None:
        """See :class:`Stepper`."""
        for w, g in zip(self.params, gradients, strict=True):
            w.grad = self._torch.tensor(g, dtype=w.dtype)
        for part in self._parts:
            part.loss = loss
        self.optimizer.step()

    def weights(self) -> Arrays:
        """See :class:`Stepper`."""
        return [w.detach().double().numpy().copy() for w in self.params]

    def snapshot(self) -> Any:
        """See :class:`Stepper`."""
        return [w.detach().clone() for w in self.params], copy.deepcopy(self.optimizer.state_dict())

    def restore(self, saved: Any) -> None:
        """See :class:`Stepper`."""
        with self._torch.no_grad():
            for w, value in zip(self.params, saved[0], strict=True):
                w.copy_(value)
        self.optimizer.load_state_dict(saved[1])

    def state_bytes(self) -> int:
        """See :class:`Stepper`."""
        return sum(
            value.numel() * value.element_size()
            for w, state in self.optimizer.state.items()
            for value in state.values()
            if self._torch.is_tensor(value) and value.shape == w.shape
        )

    def rule_state(self) -> list[dict[str, NDArray[np.float64]]]:
        """See :class:`Stepper`."""
        unpacked = [self.optimizer.unpacked(w) for w in self.params]
        return [{name: x.double().numpy() for name, x in state.items()} for state in unpacked]


class KerasStepper:
    """A ``keras.optimizers.Optimizer``, on the backend that Keras is set to."""

    def __init__(self, config: OptimizerConfig, start: Arrays, dtype: str) -> None:
        import keras

        from optbench.optimizers.keras import make_optimizer

        self._ops, self._dtype, self._family = keras.ops, dtype, family_of(config)
        self.params = [keras.Variable(self._array(w), dtype=dtype) for w in start]
        self.optimizer = make_optimizer(config)
        self.optimizer.build(self.params)
        self.ours = type(self.optimizer).__module__.startswith("optbench.")

    def describe(self) -> str:
        """See :class:`Stepper`."""
        return _name(self.optimizer)

    def _array(self, x: NDArray[np.float64]) -> Any:
        return self._ops.cast(self._ops.convert_to_tensor(np.asarray(x, np.float64)), self._dtype)

    def step(self, gradients: Arrays, loss: float | None = None) -> None:
        """See :class:`Stepper`."""
        if hasattr(self.optimizer, "loss"):
            self.optimizer.loss = loss
        self.optimizer.apply([self._array(g) for g in gradients], self.params)

    def weights(self) -> Arrays:
        """See :class:`Stepper`."""
        return [self._numpy(w) for w in self.params]

    def _numpy(self, x: Any) -> NDArray[np.float64]:
        return np.array(self._ops.convert_to_numpy(self._ops.cast(x, "float64")))

    def snapshot(self) -> Any:
        """See :class:`Stepper`."""
        saved: dict[str, Any] = {}
        self.optimizer.save_own_variables(saved)
        return self.weights(), saved

    def restore(self, saved: Any) -> None:
        """See :class:`Stepper`."""
        for w, value in zip(self.params, saved[0], strict=True):
            w.assign(self._array(value))
        self.optimizer.load_own_variables(saved[1])

    def state_bytes(self) -> int:
        """See :class:`Stepper`."""
        return sum(self._ops.convert_to_numpy(v).nbytes for v in self.optimizer.variables if len(v.shape))

    def rule_state(self) -> list[dict[str, NDArray[np.float64]]]:
        """See :class:`Stepper`."""
        packed = [{name: self._numpy(x) for name, x in state.items()} for state in self.optimizer.states]
        return [self._family.expand(state, np) for state in packed]


class OptaxStepper:
    """An optax gradient transformation under ``jax.jit``."""

    def __init__(self, config: OptimizerConfig, start: Arrays, dtype: str) -> None:
        import jax
        import optax

        from optbench.optimizers.optax import RuleState, make_optimizer

        self._jax, self._optax, self._dtype, self._family = jax, optax, dtype, family_of(config)
        solver = make_optimizer(config)
        self.params = [jax.numpy.asarray(w, dtype) for w in start]
        self.state = solver.init(self.params)
        self.ours = isinstance(self.state, RuleState)
        native = self._family.native_for("optax", config) if self._family.has_rule else None
        self._name = native[0].target if native else getattr(config, "reference", "the rule")
        self._update = jax.jit(optax.with_extra_args_support(solver).update)

    def describe(self) -> str:
        """See :class:`Stepper`."""
        return self._name

    def step(self, gradients: Arrays, loss: float | None = None) -> None:
        """See :class:`Stepper`."""
        given = [self._jax.numpy.asarray(g, self._dtype) for g in gradients]
        known = {} if loss is None else {"value": self._jax.numpy.asarray(loss, self._dtype)}
        updates, self.state = self._update(given, self.state, self.params, **known)
        self.params = self._optax.apply_updates(self.params, updates)

    def weights(self) -> Arrays:
        """See :class:`Stepper`."""
        return [np.array(w, np.float64) for w in self.params]

    def snapshot(self) -> Any:
        """See :class:`Stepper`."""
        return self.params, self.state

    def restore(self, saved: Any) -> None:
        """See :class:`Stepper`."""
        self.params, self.state = saved

    def state_bytes(self) -> int:
        """See :class:`Stepper`."""
        return sum(leaf.nbytes for leaf in self._jax.tree.leaves(self.state) if leaf.ndim)

    def rule_state(self) -> list[dict[str, NDArray[np.float64]]]:
        """See :class:`Stepper`."""
        arrays = self.state.arrays
        return [
            self._family.expand({name: np.array(tree[k], np.float64) for name, tree in arrays.items()}, np)
            for k in range(len(self.params))
        ]


def _name(optimizer: object) -> str:
    return f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
