"""Tell whose network an object is, and make one, without importing a framework."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any, Literal

Framework = Literal["torch", "tensorflow", "jax"]

#: Classes of networks by the backend that trains them: module and name.
NETWORKS: Mapping[Framework, tuple[tuple[str, str], ...]] = {
    "torch": (("torch.nn", "Module"),),
    "tensorflow": (("keras", "Model"),),
    "jax": (("flax.linen", "Module"), ("flax.nnx", "Module"), ("equinox", "Module")),
}
#: What to call them in messages.
TITLES: Mapping[Framework, str] = {
    "torch": "a torch.nn.Module",
    "tensorflow": "a Keras model",
    "jax": "a Flax or Equinox module",
}


def framework_of(made: Any) -> Framework | None:
    """Backend that trains such a network, None of anything else; Equinox's may come with its state."""
    if isinstance(made, tuple) and len(made) == 2 and is_a(made[0], "equinox", "Module"):
        made = made[0]
    for framework, classes in NETWORKS.items():
        if any(is_a(made, module, name) for module, name in classes):
            return framework
    return None


def is_a(value: Any, module: str, name: str) -> bool:
    """Whether a value is of a class, which is not imported: else it could be of none."""
    cls = getattr(sys.modules.get(module), name, None)
    return isinstance(cls, type) and isinstance(value, cls)


def called(make: Callable[..., Any], given: Mapping[str, Any], seed: int) -> Any:
    """Call a class or function that makes a network.

    Parameters
    ----------
    make : callable
    given : mapping
        Arguments of the suite.
    seed : int
        Of the initial weights: ``rngs`` gets Flax's ``nnx.Rngs``, ``key`` a key of JAX, where they are asked
        for and the suite does not give them. Others draw from the global generators.
    """
    # A class by its constructor: what stands before that, nnx's, tells nothing.
    told: Any = getattr(make, "__init__", make) if isinstance(make, type) else make
    try:
        asked = signature(told).parameters
    except (TypeError, ValueError):  # a class that does not tell
        return make(**given)
    more: dict[str, Any] = {}
    for name, module, draws in (("rngs", "flax.nnx", _rngs), ("key", "jax", _key)):
        needed = name in asked and asked[name].default is Parameter.empty and name not in given
        if needed and module in sys.modules:
            more[name] = draws(seed)
    return make(**given, **more)


def _rngs(seed: int) -> Any:
    return sys.modules["flax.nnx"].Rngs(seed % 2**32)


def _key(seed: int) -> Any:
    return sys.modules["jax"].random.PRNGKey(seed % 2**32)
