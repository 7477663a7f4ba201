"""Models built: every shape and parameter of a tree of layers, inferred from the data's shape.

Each backend builds the same computation from what is inferred here, and :mod:`optbench.matching` draws the
initial weights. The layers themselves are in :mod:`optbench.models.kinds`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from optbench.models.kinds import (
    GLOROT_UNIFORM,
    HE_UNIFORM,
    LAYERS,
    ONES,
    SMALL_NORMAL,
    ZEROS,
    Activate,
    Activation,
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
    Model,
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
from optbench.models.shapes import (
    SHAPES,
    Building,
    BuiltLayer,
    ModelError,
    Parameter,
    Shaped,
    same_padding,
)

__all__ = [
    "GLOROT_UNIFORM",
    "HEADS",
    "HE_UNIFORM",
    "LAYERS",
    "ONES",
    "SHAPES",
    "SMALL_NORMAL",
    "ZEROS",
    "Activate",
    "Activation",
    "Attention",
    "AveragePool2D",
    "BatchNorm",
    "Building",
    "BuiltLayer",
    "ClassToken",
    "Conv2D",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "Embedding",
    "Flatten",
    "GatedDense",
    "GlobalAveragePool2D",
    "GroupNorm",
    "Initializer",
    "Layer",
    "LayerNorm",
    "MaxPool2D",
    "Model",
    "ModelError",
    "OwnNetwork",
    "Padding",
    "Parameter",
    "PoolSequence",
    "Positions",
    "RMSNorm",
    "Residual",
    "Role",
    "Shaped",
    "Subsample",
    "ToSequence",
    "Unembedding",
    "build",
    "count_parameters",
    "multiplications",
    "place",
    "roles",
    "same_padding",
    "siblings",
    "walk",
]

#: Roles of which the last one in a model is its head.
HEADS: tuple[Role, ...] = ("matrix", "conv")


def build(
    model: Model, input_shape: tuple[int, ...], outputs: int, *, tokens: bool = False
) -> tuple[BuiltLayer, ...]:
    """Infer every shape and parameter of a model.

    Parameters
    ----------
    model : Model
        The layers, first to last.
    input_shape : tuple of int
        Shape of one example: (features,), (height, width, channels), or (context,) of a text.
    outputs : int
        Outputs that the data ask for (:attr:`optbench.datasets.base.DatasetInfo.outputs`); the units of a
        dense layer that leaves them open.
    tokens : bool
        Whether an example is a window of tokens, and a prediction is asked for at each place.

    Returns
    -------
    tuple of BuiltLayer
        Same order as the layers. Parameter names are ``<layer>_<k>/<parameter>``, k counting layers of
        that kind from 1, in the whole tree. A dense layer behind an image gets a flatten layer of its own in
        front.

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
    built = Building(outputs=outputs, tokens=tokens).sequence(model.layers, tuple(input_shape))
    shape = built[-1].output_shape
    if tokens and (len(shape) != 2 or shape[1] < outputs):
        raise ModelError(
            f"model {model.name!r} ends in shape {shape}, but a text asks for {outputs} outputs at each "
            "place; begin it with an embedding, end it in a dense layer (units left open) or an unembedding"
        )
    if not tokens and (len(shape) != 1 or shape[0] < outputs):
        raise ModelError(
            f"model {model.name!r} ends in shape {shape}, but the data ask for {outputs} outputs (one a "
            f"class); end it in a dense layer (units left open) or a global average over {outputs} filters"
        )
    return _with_head(built)


def walk(built: Iterable[BuiltLayer]) -> Iterator[BuiltLayer]:
    """Go through all layers of a tree: each one, then those that it holds."""
    for layer in built:
        yield layer
        for part in layer.inner:
            yield from walk(part)


def siblings(built: tuple[BuiltLayer, ...]) -> Iterator[tuple[BuiltLayer, ...]]:
    """Go through all tuples of layers that follow each other in a tree."""
    yield built
    for layer in built:
        for part in layer.inner:
            yield from siblings(part)


def place(layer: Layer, shape: tuple[int, ...], outputs: int, *, tokens: bool = False) -> BuiltLayer:
    """Build one layer on its own; a tied one with the embedding that it needs."""
    building = Building(outputs=outputs, tokens=tokens)
    if isinstance(layer, Unembedding):
        building.embedding = Parameter(
            name="embedding_1/table", shape=(outputs, shape[-1]), initializer=SMALL_NORMAL, role="embedding"
        )
    return building.layer(layer, shape)


def roles(built: Iterable[BuiltLayer]) -> dict[str, Role]:
    """Tell the role of every trainable parameter of a built model, by name in the layers' order."""
    return {p.name: p.role for layer in walk(built) for p in layer.parameters if p.trainable}


def count_parameters(built: tuple[BuiltLayer, ...], *, trainable_only: bool = False) -> int:
    """Count the scalars of a built model (Keras counts the running averages of batch norm as well)."""
    total = 0
    for layer in walk(built):
        for parameter in layer.parameters:
            if parameter.trainable or not trainable_only:
                total += math.prod(parameter.shape)
    return total


def multiplications(built: Iterable[BuiltLayer]) -> int:
    """Count the multiplications with kernels that one example takes on its way through a model."""
    work = 0
    for layer in walk(built):
        positions = math.prod(layer.output_shape[:-1])
        kernels = (p for p in layer.parameters if p.trainable and p.role != "embedding")
        work += positions * sum(math.prod(p.shape) for p in kernels)
        if isinstance(layer.layer, Attention):
            work += 2 * positions**2 * layer.output_shape[-1]
        if isinstance(layer.layer, Unembedding):
            work += math.prod(layer.input_shape) * layer.output_shape[-1]
    return work


def _with_head(built: tuple[BuiltLayer, ...]) -> tuple[BuiltLayer, ...]:
    """Call the last kernel of a model its head, unless its outputs come from an embedding."""
    kernels = [
        (layer.tied, p)
        for layer in walk(built)
        for p in (*layer.parameters, *([None] if layer.tied else []))
        if p is None or p.role in HEADS
    ]
    if not kernels or kernels[-1][1] is None:
        return built
    head = kernels[-1][1]

    def named(layer: BuiltLayer) -> BuiltLayer:
        parameters = tuple(replace(p, role="head") if p is head else p for p in layer.parameters)
        inner = tuple(tuple(map(named, part)) for part in layer.inner)
        return replace(layer, parameters=parameters, inner=inner)

    return tuple(map(named, built))
