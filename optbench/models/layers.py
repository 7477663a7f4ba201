"""Layers as data: what a model is made of, without any framework.

A model is a tuple of these frozen records. Each backend builds the same computation from them, and
:mod:`optbench.matching` draws their initial weights. Shapes leave out the batch axis; images are
height x width x channels, convolution kernels [height, width, in, out], dense kernels [in, out].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Annotated, Any, Literal, Union, get_args

from annotated_types import Ge, Gt, Lt, MinLen

from optbench.task import FORBID_EXTRA

Activation = Literal["linear", "relu", "tanh", "sigmoid", "elu", "gelu"]
Padding = Literal["valid", "same"]
#: What a weight is in its network. Each kind of layer says it of its parameters; the kernel of the last layer
#: with weights is the ``head``, whatever its kind.
Role = Literal["matrix", "conv", "embedding", "head", "norm", "bias"]


@dataclass(frozen=True, kw_only=True)
class Initializer:
    """How the initial values of one parameter are drawn.

    Glorot (Glorot & Bengio 2010): uniform on +-sqrt(6 / (fan_in + fan_out)), or normal with variance
    2 / (fan_in + fan_out). He (He et al. 2015): the same with 2 * fan_in in place of the sum. The normal
    variants of Glorot and He are plain normals, not truncated ones. ``truncated_normal`` redraws what lies
    beyond two standard deviations, without rescaling. Only ``normal`` and ``truncated_normal`` read
    ``mean`` and ``sd``, only ``constant`` reads ``value``.
    """

    __pydantic_config__ = FORBID_EXTRA

    name: Literal[
        "glorot_uniform",
        "glorot_normal",
        "he_uniform",
        "he_normal",
        "normal",
        "truncated_normal",
        "constant",
        "zeros",
    ] = "glorot_uniform"
    mean: float = 0.0
    sd: Annotated[float, Gt(0)] = 0.05
    value: float = 0.0


GLOROT_UNIFORM = Initializer()
ZEROS = Initializer(name="zeros")
ONES = Initializer(name="constant", value=1.0)


@dataclass(frozen=True, kw_only=True)
class Dense:
    """Fully connected layer, ``activation(x @ kernel + bias)``.

    ``units: null`` means the outputs that the task asks for: one a class.
    """

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["dense"] = "dense"
    units: Annotated[int, Gt(0)] | None = None
    activation: Activation = "linear"
    kernel_initializer: Initializer = GLOROT_UNIFORM
    bias_initializer: Initializer = ZEROS
    l1: Annotated[float, Ge(0)] = 0.0
    l2: Annotated[float, Ge(0)] = 0.0


@dataclass(frozen=True, kw_only=True)
class Conv2D:
    """2-D convolution (cross-correlation); ``same`` pads as TensorFlow does, the odd pixel at the end.

    ``filters: null`` means the outputs that the task asks for: one a class.
    """

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["conv2d"] = "conv2d"
    filters: Annotated[int, Gt(0)] | None = None
    kernel: Annotated[int, Gt(0)]
    stride: Annotated[int, Gt(0)] = 1
    padding: Padding = "valid"
    activation: Activation = "linear"
    kernel_initializer: Initializer = GLOROT_UNIFORM
    bias_initializer: Initializer = ZEROS
    l1: Annotated[float, Ge(0)] = 0.0
    l2: Annotated[float, Ge(0)] = 0.0


@dataclass(frozen=True, kw_only=True)
class MaxPool2D:
    """Maximum over size x size windows; ``stride: null`` means the window size."""

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["max_pool2d"] = "max_pool2d"
    size: Annotated[int, Gt(0)] = 2
    stride: Annotated[int, Gt(0)] | None = None
    padding: Padding = "valid"


@dataclass(frozen=True, kw_only=True)
class GlobalAveragePool2D:
    """Mean over height and width."""

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["global_average_pool2d"] = "global_average_pool2d"


@dataclass(frozen=True, kw_only=True)
class BatchNorm:
    """Batch normalisation over all axes but the last (Ioffe & Szegedy 2015, algorithms 1 and 2).

    Training normalises by the biased batch variance. The running averages move by
    ``running = momentum * running + (1 - momentum) * batch`` and take the unbiased batch variance.
    """

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["batch_norm"] = "batch_norm"
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.99
    epsilon: Annotated[float, Gt(0)] = 1e-3


@dataclass(frozen=True, kw_only=True)
class Dropout:
    """Zero each value with probability ``rate`` in training and scale the rest by 1 / (1 - rate)."""

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["dropout"] = "dropout"
    rate: Annotated[float, Ge(0), Lt(1)]


@dataclass(frozen=True, kw_only=True)
class Flatten:
    """All axes into one, in row-major height, width, channel order."""

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["flatten"] = "flatten"


@dataclass(frozen=True, kw_only=True)
class Activate:
    """An activation on its own, for models that put batch normalisation in front of it."""

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["activation"] = "activation"
    activation: Activation


Layer = Union[Dense, Conv2D, MaxPool2D, GlobalAveragePool2D, BatchNorm, Dropout, Flatten, Activate]  # noqa: UP007

#: Roles of which the last one in a model is its head.
HEADS: tuple[Role, ...] = ("matrix", "conv")

#: Layer classes by the ``kind`` that a suite file names.
LAYERS: Mapping[str, type[Layer]] = MappingProxyType({cls.kind: cls for cls in get_args(Layer)})


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model: its layers, and the name people know it by (the name is a label, not identity).

    ``code`` is the package, as ``name==version``, whose function made the layers by the name of an entry
    point.
    """

    __pydantic_config__ = FORBID_EXTRA

    name: str = field(compare=False)
    layers: Annotated[tuple[Layer, ...], MinLen(1)]
    code: str | None = None


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One array of a built model: where it belongs, its shape, how it starts and what it is."""

    name: str
    shape: tuple[int, ...]
    initializer: Initializer
    role: Role
    trainable: bool = True


@dataclass(frozen=True, kw_only=True)
class BuiltLayer:
    """A layer with its name in the model, its input and output shapes and its parameters."""

    name: str
    layer: Layer
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: tuple[Parameter, ...] = ()


#: Output shape and parameters of a layer.
Shaped = tuple[tuple[int, ...], tuple[Parameter, ...]]


class ModelError(ValueError):
    """A model whose layers do not fit each other or the data."""


def build(model: Model, input_shape: tuple[int, ...], outputs: int) -> tuple[BuiltLayer, ...]:
    """Infer every shape and parameter of a model.

    Parameters
    ----------
    model : Model
        The layers, first to last.
    input_shape : tuple of int
        Shape of one example: (features,) or (height, width, channels).
    outputs : int
        Outputs that the data ask for (:attr:`optbench.datasets.base.DatasetInfo.outputs`); the units of a
        dense layer that leaves them open.

    Returns
    -------
    tuple of BuiltLayer
        Same order as the layers. Parameter names are ``<layer>_<k>/<parameter>``, k counting layers of
        that kind from 1. A dense layer behind an image gets a flatten layer of its own in front.

    Raises
    ------
    ModelError
        If a layer cannot take its input, or the last layer gives fewer values than are asked for.

    Examples
    --------
    >>> net = Model(name="mlp", layers=(Dense(units=4, activation="relu"), Dense()))
    >>> [(b.name, b.output_shape) for b in build(net, (3,), 2)]
    [('dense_1', (4,)), ('dense_2', (2,))]
    """
    built: list[BuiltLayer] = []
    counts: dict[str, int] = {}
    shape = tuple(input_shape)
    for layer in model.layers:
        if isinstance(layer, Dense) and len(shape) > 1:
            flatten = _build_layer(Flatten(), counts, shape, outputs)
            built.append(flatten)
            shape = flatten.output_shape
        built.append(_build_layer(layer, counts, shape, outputs))
        shape = built[-1].output_shape
    if len(shape) != 1 or shape[0] < outputs:
        raise ModelError(
            f"model {model.name!r} ends in shape {shape}, but the data ask for {outputs} outputs (one a "
            f"class); end it in a dense layer (units left open) or a global average over {outputs} filters"
        )
    return _with_head(built)


def roles(built: Iterable[BuiltLayer]) -> dict[str, Role]:
    """Tell the role of every trainable parameter of a built model, by name in the layers' order."""
    return {p.name: p.role for layer in built for p in layer.parameters if p.trainable}


def count_parameters(built: tuple[BuiltLayer, ...], *, trainable_only: bool = False) -> int:
    """Count the scalars of a built model (Keras counts the running averages of batch norm as well)."""
    total = 0
    for layer in built:
        for parameter in layer.parameters:
            if parameter.trainable or not trainable_only:
                total += math.prod(parameter.shape)
    return total


def multiplications(built: Iterable[BuiltLayer]) -> int:
    """Count the multiplications with kernels that one example takes on its way through a model."""
    work = 0
    for layer in built:
        positions = math.prod(layer.output_shape[:2]) if len(layer.output_shape) == 3 else 1
        work += positions * sum(math.prod(p.shape) for p in layer.parameters if p.trainable)
    return work


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis under ``same`` padding (TensorFlow's rule: the odd one after)."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _with_head(built: Sequence[BuiltLayer]) -> tuple[BuiltLayer, ...]:
    """Call the last kernel of a model its head."""
    kernels = [(k, p) for k, place in enumerate(built) for p in place.parameters if p.role in HEADS]
    if not kernels:
        return tuple(built)
    last, kernel = kernels[-1]
    named = tuple(replace(p, role="head") if p is kernel else p for p in built[last].parameters)
    return (*built[:last], replace(built[last], parameters=named), *built[last + 1 :])


def _build_layer(layer: Layer, counts: dict[str, int], shape: tuple[int, ...], outputs: int) -> BuiltLayer:
    counts[layer.kind] = counts.get(layer.kind, 0) + 1
    name = f"{layer.kind}_{counts[layer.kind]}"
    if layer.kind not in SHAPES:
        raise NotImplementedError(f"layer {name}: no shape is declared for its kind, only for {list(SHAPES)}")
    output, parameters = SHAPES[layer.kind](layer, name, shape, outputs)
    return BuiltLayer(name=name, layer=layer, input_shape=shape, output_shape=output, parameters=parameters)


def _dense(layer: Dense, name: str, shape: tuple[int, ...], outputs: int) -> Shaped:
    units = layer.units or outputs
    return (units,), _kernel_and_bias(name, layer, (shape[0], units), "matrix")


def _conv2d(layer: Conv2D, name: str, shape: tuple[int, ...], outputs: int) -> Shaped:
    height, width, channels = _image(name, shape)
    filters = layer.filters or outputs
    output = (
        _window(name, height, layer.kernel, layer.stride, layer.padding),
        _window(name, width, layer.kernel, layer.stride, layer.padding),
        filters,
    )
    return output, _kernel_and_bias(name, layer, (layer.kernel, layer.kernel, channels, filters), "conv")


def _max_pool2d(layer: MaxPool2D, name: str, shape: tuple[int, ...], outputs: int) -> Shaped:
    height, width, channels = _image(name, shape)
    stride = layer.stride or layer.size
    return (
        _window(name, height, layer.size, stride, layer.padding),
        _window(name, width, layer.size, stride, layer.padding),
        channels,
    ), ()


def _global_average_pool2d(
    layer: GlobalAveragePool2D, name: str, shape: tuple[int, ...], outputs: int
) -> Shaped:
    return (_image(name, shape)[2],), ()


def _batch_norm(layer: BatchNorm, name: str, shape: tuple[int, ...], outputs: int) -> Shaped:
    return shape, tuple(
        Parameter(
            name=f"{name}/{part}", shape=(shape[-1],), initializer=start, role="norm", trainable=trainable
        )
        for part, start, trainable in (
            ("gamma", ONES, True),
            ("beta", ZEROS, True),
            ("moving_mean", ZEROS, False),
            ("moving_variance", ONES, False),
        )
    )


def _flatten(layer: Flatten, name: str, shape: tuple[int, ...], outputs: int) -> Shaped:
    return (math.prod(shape),), ()


def _unchanged(layer: Dropout | Activate, name: str, shape: tuple[int, ...], outputs: int) -> Shaped:
    return shape, ()


#: Output shape and parameters (start, role) of every kind of layer; see :data:`LAYERS`.
SHAPES: Mapping[str, Callable[[Any, str, tuple[int, ...], int], Shaped]] = MappingProxyType(
    {
        "dense": _dense,
        "conv2d": _conv2d,
        "max_pool2d": _max_pool2d,
        "global_average_pool2d": _global_average_pool2d,
        "batch_norm": _batch_norm,
        "dropout": _unchanged,
        "flatten": _flatten,
        "activation": _unchanged,
    }
)


def _kernel_and_bias(
    name: str, layer: Dense | Conv2D, shape: tuple[int, ...], role: Role
) -> tuple[Parameter, ...]:
    return (
        Parameter(name=f"{name}/kernel", shape=shape, initializer=layer.kernel_initializer, role=role),
        Parameter(name=f"{name}/bias", shape=shape[-1:], initializer=layer.bias_initializer, role="bias"),
    )


def _image(name: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ModelError(
            f"layer {name} needs images (height, width, channels) but its input has shape {shape}; "
            "use an mlp for data without pixels, or move the layer in front of the first dense one"
        )
    return shape[0], shape[1], shape[2]


def _window(name: str, size: int, kernel: int, stride: int, padding: Padding) -> int:
    output = -(-size // stride) if padding == "same" else (size - kernel) // stride + 1
    if output < 1:
        raise ModelError(
            f"layer {name} puts a window of {kernel} on an axis of {size}: nothing is left; "
            "use a smaller kernel, padding: same, or fewer pooling layers"
        )
    return output
