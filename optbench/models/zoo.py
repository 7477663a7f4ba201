"""Named architectures: functions from their parameters to layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated

from annotated_types import Ge, Gt, Lt

from optbench.models.layers import (
    Activation,
    Conv2D,
    Dense,
    Dropout,
    Initializer,
    Layer,
    MaxPool2D,
)

Count = Annotated[int, Gt(0)]
Rate = Annotated[float, Ge(0), Lt(1)]
Penalty = Annotated[float, Ge(0)]
GLOROT_UNIFORM = Initializer()


def mlp(
    *,
    hidden: Sequence[Count] = (128, 256),
    activation: Activation = "relu",
    dropout: Rate | Sequence[Rate] = 0.0,
    l1: Penalty = 0.0,
    l2: Penalty = 0.0,
    initializer: Initializer = GLOROT_UNIFORM,
) -> tuple[Layer, ...]:
    """Dense layers of the hidden sizes, each followed by dropout, then one unit a class.

    Penalties lie on the hidden layers' kernels; ``initializer`` draws the kernels of all layers. One dropout
    rate serves every hidden layer.
    """
    layers: list[Layer] = []
    for units, rate in zip(hidden, _per_layer("dropout", dropout, len(hidden)), strict=True):
        layers.append(Dense(units=units, activation=activation, kernel_initializer=initializer, l1=l1, l2=l2))
        if rate:
            layers.append(Dropout(rate=rate))
    return (*layers, Dense(kernel_initializer=initializer))


def small_cnn(
    *, filters: Sequence[Count] = (8, 16), kernel: Count = 3, dense: Count = 64
) -> tuple[Layer, ...]:
    """Convolutions with ReLU, each followed by 2x2 max pooling, then a dense layer and the classes."""
    layers: list[Layer] = []
    for count in filters:
        layers += [Conv2D(filters=count, kernel=kernel, activation="relu"), MaxPool2D()]
    return (*layers, Dense(units=dense, activation="relu"), Dense())


ZOO: Mapping[str, Callable[..., tuple[Layer, ...]]] = MappingProxyType({"mlp": mlp, "small_cnn": small_cnn})


def _per_layer(name: str, value: float | Sequence[float], count: int) -> Sequence[float]:
    if not isinstance(value, Sequence):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} rates for {count} layers; give one, or one a layer")
    return value
