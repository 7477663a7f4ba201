"""WAME and the canonical optimizers for Keras 3, on any of its backends.

They run the rules of :mod:`optbench.optimizers` on Keras's arrays: Keras's own classes put epsilon and the
learning rate elsewhere, and round the learning rate and the betas to float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pkgutil import resolve_name
from typing import Any

import keras
import numpy as np
from keras import ops

from optbench.models.layers import Role
from optbench.optimizers import (
    FAMILIES,
    CanonicalConfig,
    OptimizerConfig,
    custom,
    family_of,
    groups,
    has_rule,
    leaves,
)
from optbench.optimizers import WAME as WAMEConfig
from optbench.optimizers.base import array_functions
from optbench.optimizers.groups import is_plain
from optbench.optimizers.wame import EpsMode, Variant

#: ``xp`` of a rule.
FUNCTIONS = array_functions(ops)

#: A float, a ``LearningRateSchedule``, or a callable without arguments.
LearningRate = float | Callable[..., Any]


@keras.saving.register_keras_serializable(package="optbench")
class Canonical(keras.optimizers.Optimizer):  # type: ignore[misc]
    """A canonical rule as a Keras optimizer.

    Parameters
    ----------
    config : CanonicalConfig or mapping
        Family and hyperparameters, or groups of these; a mapping of its fields, ``optimizer`` among them, is
        what a saved model holds.
    learning_rate : float, schedule or callable, optional
        In place of the config's ``lr``.
    roles : mapping, optional
        Names and roles of the variables, in their order; guessed from their shapes if not given.
    **kwargs
        As for every Keras optimizer: ``clipnorm``, ``use_ema``, ``loss_scale_factor``, ``name``, ...

    Examples
    --------
    >>> from optbench.optimizers import SGD
    >>> round(float(Canonical(SGD(lr=0.5)).learning_rate), 3)
    0.5
    """

    def __init__(
        self,
        config: CanonicalConfig | dict[str, Any],
        learning_rate: LearningRate | None = None,
        *,
        roles: Mapping[str, Role] | None = None,
        **kwargs: Any,
    ) -> None:
        own = _read(config) if isinstance(config, dict) else config
        with _float64_learning_rate():
            super().__init__(learning_rate=own.lr if learning_rate is None else learning_rate, **kwargs)
        self._config, self._roles = own, roles
        #: Set before a step to the loss whose gradients it takes, where a rule needs it.
        self.loss: Any = None

    def build(self, variables: list[Any]) -> None:
        """Make the state of every variable."""
        if self.built:
            return
        super().build(variables)
        roles = self._roles
        if roles is None:
            roles = groups.roles_by_shape([variable.shape for variable in variables])
        places = {name: place for place, name in enumerate(roles)}
        assigned = groups.assign(self._config, roles)
        self._assigned = {places[name]: part for part in assigned for name in part.names}
        self.states = [self._new_state(v, self._assigned[k].config) for k, v in enumerate(variables)]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable and its state."""
        dtype, place = _arithmetic(variable), self._get_variable_index(variable)
        part, state = self._assigned[place], self.states[place]
        family = family_of(part.config)
        loss = None if self.loss is None else ops.cast(self.loss, dtype)
        rate = part.rate(learning_rate, self._config.lr)
        if isinstance(rate, float):  # a cast would round it to float32 first
            rate = ops.convert_to_tensor(rate, dtype)
        delta, new = family.update(
            part.config,
            ops.cast(variable, dtype),
            ops.cast(ops.convert_to_tensor(gradient), dtype),
            {name: ops.cast(array, dtype) for name, array in state.items()},
            lr=ops.cast(rate, dtype),
            t=ops.cast(self.iterations + 1, dtype),
            xp=FUNCTIONS,
            **family.known_loss(part.config, loss),
        )
        for name, value in new.items():
            self.assign(state[name], ops.cast(value, state[name].dtype))
        self.assign_add(variable, ops.cast(delta, variable.dtype))

    def get_config(self) -> dict[str, Any]:
        """Describe the optimizer as JSON-ready values."""
        roles = None if self._roles is None else dict(self._roles)
        return {**super().get_config(), "config": asdict(self._config), "roles": roles}

    def _new_state(self, variable: Any, config: Any) -> dict[str, Any]:
        family = family_of(config)
        start = family.init(config, np.zeros((1,) * len(variable.shape), _arithmetic(variable)), np)
        start = family.compact(config, start, np)
        return {
            name: self.add_variable(
                shape=variable.shape if value.shape or not variable.shape else (),
                initializer=_Full(float(value.max())),
                dtype="int8" if name == "sign" else _arithmetic(variable),
                name=f"{variable.path.replace('/', '_')}_{name}",
            )
            for name, value in start.items()
        }


def _read(config: dict[str, Any]) -> Any:
    """Read what a saved model holds."""
    from pydantic import TypeAdapter

    family = FAMILIES.get(config["optimizer"], groups.FAMILY)
    kind: Any = family.config
    return TypeAdapter(kind).validate_python(config)


class _Full(keras.initializers.Initializer):  # type: ignore[misc]
    """A constant in full precision, where Keras's own goes through float32."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> Any:
        return ops.convert_to_tensor(np.full(shape, self.value, dtype))


@keras.saving.register_keras_serializable(package="optbench")
class WAME(Canonical):
    r"""Weight-wise adaptive learning rates with a moving average estimator.

    .. math::

        \zeta_t &= \operatorname{clip}(\{\eta_+, 1, \eta_-\} \zeta_{t-1}) \text{ as } g_t g_{t-1} >, =, < 0 \\
        Z_t &= \alpha Z_{t-1} + (1 - \alpha) \zeta_t, \quad
        \theta_t = \alpha \theta_{t-1} + (1 - \alpha) g_t^2 \\
        w_t &= w_{t-1} - \eta Z_t g_t / \sqrt{\theta_t + \epsilon}

    Parameters
    ----------
    learning_rate : float, schedule or callable
        Above 0; .01 to .1 where gradients are noisy.
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
    **kwargs
        As for every Keras optimizer.

    Notes
    -----
    The state takes 12 bytes a float32 parameter, as zeta carries the sign of the last gradient; 13 with
    ``author_shipped`` and ``report1_shipped``, whose zeta cannot.

    References
    ----------
    Mosca & Magoulas, "Training convolutional networks with weight-wise adaptive learning rates", ESANN 2017.

    Examples
    --------
    >>> import keras
    >>> from optbench.optimizers.keras import WAME
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    >>> model.compile(optimizer=WAME(0.05), loss="mse")
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.05,
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
        **kwargs: Any,
    ) -> None:
        config = WAMEConfig(
            alpha=alpha,
            eta_plus=eta_plus,
            eta_minus=eta_minus,
            zeta_min=zeta_min,
            zeta_max=zeta_max,
            eps=eps,
            variant=variant,
            eps_mode=eps_mode,
            weight_decay=weight_decay or 0.0,
        )
        super().__init__(config, learning_rate, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Describe the optimizer as JSON-ready values."""
        described = super().get_config()
        own = described.pop("config")
        del described["roles"]
        return {**described, **{name: own[name] for name in own if name not in ("optimizer", "lr")}}


def make_optimizer(
    config: OptimizerConfig,
    *,
    learning_rate: LearningRate | None = None,
    roles: Mapping[str, Role] | None = None,
) -> keras.optimizers.Optimizer:
    """Build the Keras optimizer that follows a config's canonical rule.

    Parameters
    ----------
    config : OptimizerConfig
        Family and hyperparameters, a custom class, or groups of families.
    learning_rate : float, schedule or callable, optional
        In place of the config's ``lr``.
    roles : mapping, optional
        Names and roles of the variables, in their order; guessed from their shapes if not given.

    Returns
    -------
    keras.optimizers.Optimizer
        The class that the family names, such as :class:`WAME`, or :class:`Canonical`. With ``flavor: keras``
        it takes the steps of Keras's own class, but without rounding the hyperparameters to float32.
    """
    if not has_rule(config):
        if len(leaves(config)) > 1:
            raise TypeError(
                "one Keras optimizer cannot hold groups with classes of others; optbench trains them"
            )
        return _custom(config, roles or {})
    if not is_plain(config):
        return Canonical(config, learning_rate, roles=roles)
    rate = config.lr if learning_rate is None else learning_rate
    if (native := family_of(config).native_for("keras", config)) is not None:
        declared, arguments = native
        return resolve_name(declared.target)(rate, **arguments)
    return Canonical(config, rate)


def _custom(config: Any, roles: Mapping[str, Role]) -> keras.optimizers.Optimizer:
    made = custom.make(config, roles=roles)
    if not isinstance(made, keras.optimizers.Optimizer):
        raise TypeError(
            f"{config.reference} makes a {type(made).__name__}; the tensorflow backend needs a "
            "keras.optimizers.Optimizer"
        )
    return made


def _arithmetic(variable: Any) -> str:
    """Precision of a variable's state and arithmetic: float32 for half-precision variables."""
    return "float64" if variable.dtype == "float64" else "float32"


@contextmanager
def _float64_learning_rate() -> Iterator[None]:
    """Let Keras keep the learning rate in float64, where it would round it to its default precision."""
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        yield
    finally:
        keras.config.set_floatx(before)
