"""What each kind of layer makes of its input: output shape and parameters, one function a kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from optbench.models.kinds import (
    ONES,
    ZEROS,
    Activate,
    Attention,
    AveragePool2D,
    BatchNorm,
    ClassToken,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Embedding,
    Flatten,
    GatedDense,
    GlobalAveragePool2D,
    GroupNorm,
    Initializer,
    Layer,
    LayerNorm,
    MaxPool2D,
    OwnNetwork,
    Padding,
    PoolSequence,
    Positions,
    Residual,
    RMSNorm,
    Role,
    Subsample,
    ToSequence,
    Unembedding,
)


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
    layer: Layer | OwnNetwork
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: tuple[Parameter, ...] = ()
    #: Of a residual layer, its layers and those of its shortcut.
    inner: tuple[tuple[BuiltLayer, ...], ...] = ()
    #: Parameter of another layer that it uses.
    tied: str | None = None
    #: Layers before it in the tree.
    number: int = 0


class Shaped(NamedTuple):
    """What is inferred of a layer; see :class:`BuiltLayer`."""

    output: tuple[int, ...]
    parameters: tuple[Parameter, ...] = ()
    inner: tuple[tuple[BuiltLayer, ...], ...] = ()
    tied: str | None = None


class ModelError(ValueError):
    """A model whose layers do not fit each other or the data."""


@dataclass
class Building:
    """A model that is being built: what the data ask for, and what has been built of it."""

    outputs: int
    tokens: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    number: int = 0
    embedding: Parameter | None = None

    def sequence(
        self, layers: Iterable[Layer | OwnNetwork], shape: tuple[int, ...]
    ) -> tuple[BuiltLayer, ...]:
        """Build layers that follow each other; a dense one behind an image gets a flatten layer in front."""
        built: list[BuiltLayer] = []
        for layer in layers:
            if isinstance(layer, OwnNetwork):  # its shapes are its own; a trial says what it gives
                output = (*shape[:1], self.outputs) if self.tokens else (self.outputs,)
                return (BuiltLayer(name="own", layer=layer, input_shape=shape, output_shape=output),)
            if isinstance(layer, Dense) and len(shape) == 3:
                built.append(self.layer(Flatten(), shape))
                shape = built[-1].output_shape
            built.append(self.layer(layer, shape))
            shape = built[-1].output_shape
        return tuple(built)

    def layer(self, layer: Layer, shape: tuple[int, ...]) -> BuiltLayer:
        """Build a layer for an input of a shape."""
        self.counts[layer.kind] = self.counts.get(layer.kind, 0) + 1
        name = f"{layer.kind}_{self.counts[layer.kind]}"
        if layer.kind not in SHAPES:
            raise NotImplementedError(
                f"layer {name}: no shape is declared for its kind, only for {list(SHAPES)}"
            )
        number = self.number
        self.number += 1
        found = Shaped(*SHAPES[layer.kind](layer, name, shape, self))
        return BuiltLayer(
            name=name,
            layer=layer,
            input_shape=shape,
            output_shape=found.output,
            parameters=found.parameters,
            inner=found.inner,
            tied=found.tied,
            number=number,
        )


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis under ``same`` padding (TensorFlow's rule: the odd one after)."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


#: Output shape and parameters: what most kinds of layers say of themselves.
Plain = tuple[tuple[int, ...], tuple[Parameter, ...]]


def _dense(layer: Dense, name: str, shape: tuple[int, ...], at: Building) -> Plain:
    units = layer.units or at.outputs
    return (*shape[:-1], units), _kernel_and_bias(name, layer, (shape[-1], units), "matrix")


def _conv2d(layer: Conv2D, name: str, shape: tuple[int, ...], at: Building) -> Plain:
    height, width, channels = _image(name, shape)
    filters = layer.filters or at.outputs
    output = (
        _window(name, height, layer.kernel, layer.stride, layer.padding),
        _window(name, width, layer.kernel, layer.stride, layer.padding),
        filters,
    )
    return output, _kernel_and_bias(name, layer, (layer.kernel, layer.kernel, channels, filters), "conv")


def _max_pool2d(layer: MaxPool2D, name: str, shape: tuple[int, ...], at: Building) -> Plain:
    height, width, channels = _image(name, shape)
    stride = layer.stride or layer.size
    return (
        _window(name, height, layer.size, stride, layer.padding),
        _window(name, width, layer.size, stride, layer.padding),
        channels,
    ), ()


def _global_average_pool2d(
    layer: GlobalAveragePool2D, name: str, shape: tuple[int, ...], at: Building
) -> Plain:
    return (_image(name, shape)[2],), ()


def _batch_norm(layer: BatchNorm, name: str, shape: tuple[int, ...], at: Building) -> Plain:
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


def _flatten(layer: Flatten, name: str, shape: tuple[int, ...], at: Building) -> Plain:
    return (math.prod(shape),), ()


def _unchanged(layer: Dropout | Activate, name: str, shape: tuple[int, ...], at: Building) -> Plain:
    return shape, ()


def _depthwise_conv2d(layer: DepthwiseConv2D, name: str, shape: tuple[int, ...], at: Building) -> Plain:
    height, width, channels = _image(name, shape)
    output = (
        _window(name, height, layer.kernel, layer.stride, layer.padding),
        _window(name, width, layer.kernel, layer.stride, layer.padding),
        channels,
    )
    return output, _kernel_and_bias(name, layer, (layer.kernel, layer.kernel, 1, channels), "conv")


def _average_pool2d(layer: AveragePool2D, name: str, shape: tuple[int, ...], at: Building) -> Plain:
    height, width, channels = _image(name, shape)
    stride = layer.stride or layer.size
    sizes = (_window(name, size, layer.size, stride, "valid") for size in (height, width))
    return (*sizes, channels), ()


def _subsample(layer: Subsample, name: str, shape: tuple[int, ...], at: Building) -> Plain:
    height, width, channels = _image(name, shape)
    if layer.filters < channels:
        raise ModelError(f"layer {name} makes {layer.filters} channels of {channels}; it only adds some")
    return (-(-height // layer.stride), -(-width // layer.stride), layer.filters), ()


def _group_norm(layer: GroupNorm, name: str, shape: tuple[int, ...], at: Building) -> Plain:
    channels = _image(name, shape)[2]
    if channels % layer.groups:
        raise ModelError(f"layer {name} cannot cut {channels} channels into {layer.groups} equal groups")
    return shape, _scale_and_shift(name, channels)


def _layer_norm(layer: LayerNorm, name: str, shape: tuple[int, ...], at: Building) -> Plain:
    parameters = _scale_and_shift(name, shape[-1])
    return shape, parameters if layer.bias else parameters[:1]


def _rms_norm(layer: RMSNorm, name: str, shape: tuple[int, ...], at: Building) -> Plain:
    return shape, _scale_and_shift(name, shape[-1])[:1]


def _embedding(layer: Embedding, name: str, shape: tuple[int, ...], at: Building) -> Plain:
    if not at.tokens or len(shape) != 1 or at.embedding is not None:
        raise ModelError(f"layer {name} takes the tokens of a text, and stands first; its input is {shape}")
    rows = layer.vocabulary or at.outputs
    if rows < at.outputs:
        raise ModelError(f"layer {name} has vectors for {rows} tokens, but the text has {at.outputs}")
    table = _vectors(f"{name}/table", (rows, layer.width), layer.initializer)
    at.embedding = table
    return (shape[0], layer.width), (table,)


def _positions(layer: Positions, name: str, shape: tuple[int, ...], at: Building) -> Plain:
    places, width = _sequence(name, shape)
    length = layer.length or places
    if length < places:
        raise ModelError(f"layer {name} has {length} places, but its input has {places}")
    return shape, (_vectors(f"{name}/table", (length, width), layer.initializer),)


def _attention(layer: Attention, name: str, shape: tuple[int, ...], at: Building) -> Plain:
    _, width = _sequence(name, shape)
    if width % layer.heads:
        raise ModelError(f"layer {name} cannot cut {width} features into {layer.heads} equal heads")
    if layer.rotary and width // layer.heads % 2:
        raise ModelError(
            f"layer {name} turns pairs, but a head has {width // layer.heads} features; use more"
        )
    parameters: list[Parameter] = []
    for part in ("query", "key", "value", "output"):
        start = layer.output_initializer if part == "output" else layer.kernel_initializer
        parameters.append(
            Parameter(name=f"{name}/{part}/kernel", shape=(width, width), initializer=start, role="matrix")
        )
        if layer.bias:
            parameters.append(_bias(f"{name}/{part}/bias", width))
    return shape, tuple(parameters)


def _gated_dense(layer: GatedDense, name: str, shape: tuple[int, ...], at: Building) -> Plain:
    parameters: list[Parameter] = []
    for part in ("gate", "value"):
        kernel = (shape[-1], layer.units)
        parameters.append(
            Parameter(
                name=f"{name}/{part}/kernel",
                shape=kernel,
                initializer=layer.kernel_initializer,
                role="matrix",
            )
        )
        if layer.bias:
            parameters.append(_bias(f"{name}/{part}/bias", layer.units))
    return (*shape[:-1], layer.units), tuple(parameters)


def _unembedding(layer: Unembedding, name: str, shape: tuple[int, ...], at: Building) -> Shaped:
    table = at.embedding
    if table is None:
        raise ModelError(f"layer {name} needs an embedding at the model's beginning, whose weights it shares")
    if shape[-1] != table.shape[1]:
        raise ModelError(f"layer {name} has {shape[-1]} features, but the embedding {table.shape[1]}")
    return Shaped((*shape[:-1], table.shape[0]), tied=table.name)


def _to_sequence(layer: ToSequence, name: str, shape: tuple[int, ...], at: Building) -> Plain:
    height, width, channels = _image(name, shape)
    return (height * width, channels), ()


def _class_token(layer: ClassToken, name: str, shape: tuple[int, ...], at: Building) -> Plain:
    places, width = _sequence(name, shape)
    return (places + 1, width), (_vectors(f"{name}/token", (1, width), layer.initializer),)


def _pool_sequence(layer: PoolSequence, name: str, shape: tuple[int, ...], at: Building) -> Plain:
    return (_sequence(name, shape)[1],), ()


def _residual(layer: Residual, name: str, shape: tuple[int, ...], at: Building) -> Shaped:
    inner = at.sequence(layer.layers, shape), at.sequence(layer.shortcut, shape)
    outputs = [part[-1].output_shape if part else shape for part in inner]
    if outputs[0] != outputs[1]:
        raise ModelError(
            f"layer {name} adds shapes {outputs[0]} and {outputs[1]}; give it a shortcut that ends in the "
            "same shape as its layers"
        )
    return Shaped(outputs[0], inner=inner)


#: Output shape and parameters (start, role) of every kind of layer; see :data:`LAYERS`.
SHAPES: Mapping[str, Callable[[Any, str, tuple[int, ...], Building], Plain | Shaped]] = MappingProxyType(
    {
        "dense": _dense,
        "conv2d": _conv2d,
        "max_pool2d": _max_pool2d,
        "global_average_pool2d": _global_average_pool2d,
        "batch_norm": _batch_norm,
        "dropout": _unchanged,
        "flatten": _flatten,
        "activation": _unchanged,
        "depthwise_conv2d": _depthwise_conv2d,
        "average_pool2d": _average_pool2d,
        "subsample": _subsample,
        "group_norm": _group_norm,
        "layer_norm": _layer_norm,
        "rms_norm": _rms_norm,
        "embedding": _embedding,
        "positions": _positions,
        "attention": _attention,
        "gated_dense": _gated_dense,
        "unembedding": _unembedding,
        "to_sequence": _to_sequence,
        "class_token": _class_token,
        "pool_sequence": _pool_sequence,
        "residual": _residual,
    }
)


def _kernel_and_bias(
    name: str, layer: Dense | Conv2D | DepthwiseConv2D, shape: tuple[int, ...], role: Role
) -> tuple[Parameter, ...]:
    kernel = Parameter(name=f"{name}/kernel", shape=shape, initializer=layer.kernel_initializer, role=role)
    bias = Parameter(name=f"{name}/bias", shape=shape[-1:], initializer=layer.bias_initializer, role="bias")
    return (kernel, bias) if layer.bias else (kernel,)


def _bias(name: str, units: int) -> Parameter:
    return Parameter(name=name, shape=(units,), initializer=ZEROS, role="bias")


def _scale_and_shift(name: str, features: int) -> tuple[Parameter, ...]:
    starts = (("gamma", ONES), ("beta", ZEROS))
    return tuple(
        Parameter(name=f"{name}/{part}", shape=(features,), initializer=start, role="norm")
        for part, start in starts
    )


def _vectors(name: str, shape: tuple[int, int], start: Initializer) -> Parameter:
    return Parameter(name=name, shape=shape, initializer=start, role="embedding")


def _image(name: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ModelError(
            f"layer {name} needs images (height, width, channels) but its input has shape {shape}; "
            "use an mlp for data without pixels, or move the layer in front of the first dense one"
        )
    return shape[0], shape[1], shape[2]


def _sequence(name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) != 2:
        raise ModelError(
            f"layer {name} needs a sequence (places, features) but its input has shape {shape}; put an "
            "embedding in front of it, or to_sequence behind a convolution"
        )
    return shape[0], shape[1]


def _window(name: str, size: int, kernel: int, stride: int, padding: Padding) -> int:
    output = -(-size // stride) if padding == "same" else (size - kernel) // stride + 1
    if output < 1:
        raise ModelError(
            f"layer {name} puts a window of {kernel} on an axis of {size}: nothing is left; "
            "use a smaller kernel, padding: same, or fewer pooling layers"
        )
    return output
