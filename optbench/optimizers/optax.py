"""WAME and the canonical optimizers as optax gradient transformations."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pkgutil import resolve_name
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from optbench.models.layers import Role
from optbench.optimizers import (
    WAME,
    CanonicalConfig,
    OptimizerConfig,
    custom,
    family_of,
    groups,
    has_rule,
)
from optbench.optimizers.base import State, array_functions
from optbench.optimizers.groups import Assigned, is_plain
from optbench.optimizers.wame import EpsMode, Variant

#: ``xp`` of a rule; a GPU would round the factors of a product to 10 bits by itself.
FUNCTIONS = array_functions(jnp, einsum=partial(jnp.einsum, precision="highest"))


class RuleState(NamedTuple):
    """State of a canonical rule: steps taken, and each state array as a tree like the parameters."""

    steps: jax.Array
    arrays: dict[str, Any]


def wame(
    learning_rate: optax.ScalarOrSchedule = 0.05,
    *,
    alpha: float = 0.9,
    eta_plus: float = 1.2,
    eta_minus: float = 0.1,
    zeta_min: float = 0.01,
    zeta_max: float = 100.0,
    eps: float = 1e-11,
    variant: Variant = "adjusted",
    eps_mode: EpsMode | None = None,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    r"""Weight-wise adaptive learning rates with a moving average estimator.

    .. math::

        \zeta_t &= \operatorname{clip}(\{\eta_+, 1, \eta_-\} \zeta_{t-1}) \text{ as } g_t g_{t-1} >, =, < 0 \\
        Z_t &= \alpha Z_{t-1} + (1 - \alpha) \zeta_t, \quad
        \theta_t = \alpha \theta_{t-1} + (1 - \alpha) g_t^2 \\
        u_t &= -\eta Z_t g_t / \sqrt{\theta_t + \epsilon}

    Parameters
    ----------
    learning_rate : float, array or schedule
        A schedule is called with the number of steps taken before this one, as everywhere in optax.
    alpha : float
        Decay of Z and theta, in [0, 1).
    eta_plus, eta_minus : float
        Growth (above 1) and shrinkage (in (0, 1)) of zeta.
    zeta_min, zeta_max : float
        Bounds of zeta.
    eps : float
        Added under the root.
    variant, eps_mode, weight_decay
        See :mod:`optbench.optimizers.wame`.

    Returns
    -------
    optax.GradientTransformation
        Its update needs the parameters only for the variant ``author_shipped`` and for a decay. The state
        takes 12 bytes a float32 parameter, as zeta carries the sign of the last gradient; 13 with
        ``author_shipped`` and ``report1_shipped``, whose zeta cannot.

    References
    ----------
    Mosca & Magoulas, "Training convolutional networks with weight-wise adaptive learning rates", ESANN 2017.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, optax
    >>> from optbench.optimizers.optax import wame
    >>> solver, params = wame(0.1), jnp.array([1.0, -2.0])
    >>> state = solver.init(params)
    >>> updates, state = solver.update(jax.grad(lambda w: jnp.sum(w**2))(params), state, params)
    >>> [round(float(w), 4) for w in optax.apply_updates(params, updates)]
    [0.9684, -1.9684]
    """
    config = WAME(
        alpha=alpha,
        eta_plus=eta_plus,
        eta_minus=eta_minus,
        zeta_min=zeta_min,
        zeta_max=zeta_max,
        eps=eps,
        variant=variant,
        eps_mode=eps_mode,
        weight_decay=weight_decay,
    )
    return from_rule(config, learning_rate)


def make_optimizer(
    config: OptimizerConfig,
    *,
    learning_rate: optax.ScalarOrSchedule | None = None,
    roles: Mapping[str, Role] | None = None,
) -> optax.GradientTransformation:
    """Build the transformation that follows a config's canonical rule.

    Parameters
    ----------
    config : OptimizerConfig
        Family and hyperparameters, a custom function, or groups of these.
    learning_rate : float, array or schedule, optional
        In place of the config's ``lr``; an array may be traced, so that
        ``optax.inject_hyperparams(lambda learning_rate: make_optimizer(config,
        learning_rate=learning_rate))(learning_rate=config.lr)`` keeps it in the state, to be set later.
    roles : mapping, optional
        Role of every parameter by its name, if the parameters are a dictionary; guessed from their shapes if
        not given.

    Returns
    -------
    optax.GradientTransformation
        optax's own where the family names it, the rule itself elsewhere, ``optax.multi_transform`` of these
        for groups.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from optbench.optimizers import SGD
    >>> solver = make_optimizer(SGD(lr=0.5))
    >>> updates, _ = solver.update(jnp.array([2.0]), solver.init(jnp.array([1.0])))
    >>> float(updates[0])
    -1.0
    """
    if is_plain(config) or config.optimizer == custom.FAMILY.name:
        return _one(config, learning_rate, roles or {})
    if roles is None:
        return _of_shapes(config, learning_rate)
    return _grouped(groups.assign(config, roles), config.lr, learning_rate, roles)


def _one(
    config: Any, learning_rate: optax.ScalarOrSchedule | None, roles: Mapping[str, Role]
) -> optax.GradientTransformation:
    if not has_rule(config):
        return _custom(config, learning_rate, roles)
    rate = config.lr if learning_rate is None else learning_rate
    if (native := family_of(config).native_for("optax", config)) is not None:
        declared, arguments = native
        return resolve_name(declared.target)(rate, **arguments)
    return from_rule(config, rate)


def _grouped(
    assigned: tuple[Assigned, ...],
    reference: float | None,
    learning_rate: optax.ScalarOrSchedule | None,
    roles: Mapping[str, Role],
) -> optax.GradientTransformation:
    """Join the transformations of groups; the parameters are a dictionary by name."""
    labels = {name: str(k) for k, part in enumerate(assigned) for name in part.names}

    def rate(part: Assigned) -> Any:
        if learning_rate is None or part.config.lr is None:
            return None
        if callable(learning_rate):
            return lambda step: part.rate(learning_rate(step), reference)
        return part.rate(learning_rate, reference)

    solvers = {
        str(k): _one(part.config, rate(part), {name: roles[name] for name in part.names})
        for k, part in enumerate(assigned)
    }
    return optax.multi_transform(solvers, lambda params: {name: labels[name] for name in params})


def _of_shapes(
    config: OptimizerConfig, learning_rate: optax.ScalarOrSchedule | None
) -> optax.GradientTransformation:
    """Join the transformations of groups for a tree of unnamed parameters."""

    def named(tree: Any) -> dict[str, Any]:
        return {str(k): leaf for k, leaf in enumerate(jax.tree.leaves(tree))}

    def solver(params: Any) -> optax.GradientTransformationExtraArgs:
        roles = groups.roles_by_shape([jnp.shape(leaf) for leaf in jax.tree.leaves(params)])
        made = _grouped(groups.assign(config, roles), config.lr, learning_rate, roles)
        return optax.with_extra_args_support(made)

    def init(params: Any) -> Any:
        return solver(params).init(named(params))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, Any]:
        own = None if params is None else named(params)
        found, new = solver(updates).update(named(updates), state, own, **extra)
        tree: Any = jax.tree.structure(updates)
        return tree.unflatten([found[str(k)] for k in range(len(found))]), new

    return optax.GradientTransformationExtraArgs(init, update)


def _custom(
    config: Any, learning_rate: optax.ScalarOrSchedule | None, roles: Mapping[str, Role]
) -> optax.GradientTransformation:
    made = custom.make(config, roles=roles, lr=learning_rate)
    if not hasattr(made, "init") or not hasattr(made, "update"):
        raise TypeError(
            f"{config.reference} makes a {type(made).__name__}; the jax backend needs an optax "
            "GradientTransformation"
        )
    return made


def from_rule(
    config: CanonicalConfig, learning_rate: optax.ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
    """Run a family's rule on JAX arrays; a rule that needs the loss is given it as ``value``.

    Half-precision parameters keep their state, and do their arithmetic, in float32. Its update needs the
    parameters unless the family says that its rule does not read them; it is given NaN in their place then.
    """
    family = family_of(config)
    needs_weights = family.needs_weights(config)

    def start(w: jax.Array) -> State:
        return _stored(family.compact(config, family.init(config, _widened(w), FUNCTIONS), FUNCTIONS))

    def init(params: Any) -> RuleState:
        leaves = jax.tree.leaves(params)
        tree: Any = jax.tree.structure(params)
        return RuleState(jnp.zeros([], jnp.int32), _gathered([start(w) for w in leaves], tree))

    def update(
        updates: Any, state: RuleState, params: Any = None, *, value: Any = None, **unused: Any
    ) -> tuple[Any, RuleState]:
        if params is None and needs_weights:
            raise ValueError(f"{config.optimizer} needs the parameters: call update(grads, state, params)")
        gradients = jax.tree.leaves(updates)
        tree: Any = jax.tree.structure(updates)
        absent = params is None
        weights = [jnp.full_like(g, jnp.nan) for g in gradients] if absent else jax.tree.leaves(params)
        states = [jax.tree.leaves(array) for array in state.arrays.values()]
        rate = learning_rate(state.steps) if callable(learning_rate) else learning_rate
        deltas, new = [], []
        for k, (g, w) in enumerate(zip(gradients, weights, strict=True)):
            wide = _widened(g)
            before = {name: column[k] for name, column in zip(state.arrays, states, strict=True)}
            delta, after = family.update(
                *(config, _widened(w), wide, before),
                lr=rate if isinstance(rate, float | int) else jnp.asarray(rate, wide.dtype),
                t=(state.steps + 1).astype(wide.dtype),
                xp=FUNCTIONS,
                **family.known_loss(config, value),
            )
            deltas.append(delta.astype(g.dtype))
            new.append(_stored(after))
        return tree.unflatten(deltas), RuleState(state.steps + 1, _gathered(new, tree))

    return optax.GradientTransformationExtraArgs(init, update)


def _widened(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _stored(state: State) -> State:
    return {name: a.astype(jnp.int8) if name == "sign" else a for name, a in state.items()}


def _gathered(states: list[State], tree: Any) -> dict[str, Any]:
    names = states[0] if states else ()
    return {name: tree.unflatten([state[name] for state in states]) for name in names}
