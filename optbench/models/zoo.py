"""Named architectures: functions from their parameters to layers, called by their structure.

``c`` counts convolutions and ``d`` dense layers before or including the one of the classes, as each name's
source does. Parameter counts below are for 28x28x1 images unless said otherwise and, like Keras's, include
the running averages of batch normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

from optbench.models.layers import (
    SMALL_NORMAL,
    Activate,
    Activation,
    Attention,
    BatchNorm,
    ClassToken,
    Conv2D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GatedDense,
    GlobalAveragePool2D,
    Initializer,
    Layer,
    LayerNorm,
    MaxPool2D,
    Padding,
    PoolSequence,
    Positions,
    Residual,
    RMSNorm,
    Subsample,
    ToSequence,
    Unembedding,
)

Count = Annotated[int, Gt(0)]
#: Blocks or layers of a network that is made by a loop over them.
Depth = Annotated[int, Gt(0), Le(2000)]
Rate = Annotated[float, Ge(0), Lt(1)]
Penalty = Annotated[float, Ge(0)]
Layers = tuple[Layer, ...]
GLOROT_UNIFORM = Initializer()


def mlp(
    *,
    hidden: Sequence[Count] = (128, 256),
    activation: Activation = "relu",
    dropout: Rate | Sequence[Rate] = 0.0,
    batch_norm: Literal["hidden", "ends"] | None = None,
    l1: Penalty = 0.0,
    l2: Penalty = 0.0,
    initializer: Initializer = GLOROT_UNIFORM,
    norm: Literal["layer", "rms"] | None = None,
    residual: bool = False,
) -> Layers:
    """Dense layers of the hidden sizes, each followed by dropout, then one unit an output.

    Penalties lie on the hidden layers' kernels; ``initializer`` draws the kernels of all layers. One dropout
    rate serves every hidden layer. Batch normalisation stands behind every hidden layer (``hidden``), or on
    the inputs and behind the last hidden layer (``ends``). ``norm`` stands in front of every hidden layer but
    the first, and of the last layer; with ``residual`` a hidden layer as wide as its input is added to it.
    """
    layers: list[Layer] = [Flatten(), BatchNorm()] if batch_norm == "ends" else []
    rates = _per_layer("dropout", dropout, len(hidden))
    before: int | None = None
    for place, (units, rate) in enumerate(zip(hidden, rates, strict=True), start=1):
        block: list[Layer] = [_norm(norm)] if norm is not None and before is not None else []
        block.append(Dense(units=units, activation=activation, kernel_initializer=initializer, l1=l1, l2=l2))
        if batch_norm == "hidden" or (batch_norm == "ends" and place == len(hidden)):
            block.append(BatchNorm())
        if rate:
            block.append(Dropout(rate=rate))
        layers += [Residual(layers=tuple(block))] if residual and units == before else block
        before = units
    last = [_norm(norm)] if norm is not None else []
    return (*layers, *last, Dense(kernel_initializer=initializer))


def small_cnn(*, filters: Sequence[Count] = (8, 16), kernel: Count = 3, dense: Count = 64) -> Layers:
    """Convolutions with ReLU, each followed by 2x2 max pooling, then a dense layer and the classes."""
    layers: list[Layer] = []
    for count in filters:
        layers += [_conv(count, kernel), MaxPool2D()]
    return (*layers, Dense(units=dense, activation="relu"), Dense())


def mosca_cnn(*, dense: Sequence[Count] = (1024,), dropout: Rate | Sequence[Rate] = 0.5) -> Layers:
    """WAME's network for small grey images: 5x5-64, 1x1-64, pool, 5x5-128, 1x1-128, pool, a dense stack.

    Mosca & Magoulas (ESANN 2017), one dense layer of 1024 with dropout .5: 2,335,690 parameters for ten
    classes. Dropout follows each dense layer.
    """
    layers: list[Layer] = []
    for filters in (64, 128):
        layers += [_conv(filters, 5), _conv(filters, 1), MaxPool2D()]
    for units, rate in zip(dense, _per_layer("dropout", dropout, len(dense)), strict=True):
        layers.append(Dense(units=units, activation="relu"))
        if rate:
            layers.append(Dropout(rate=rate))
    return (*layers, Dense())


def mosca_cifar_cnn() -> Layers:
    """WAME's network for 32x32 colour images, all convolutional: 1,369,738 parameters for ten classes.

    Mosca & Magoulas (ESANN 2017), after All-CNN-C of Springenberg et al. (2015): twice two 3x3 convolutions
    and one with stride 2 (96, then 192 filters), 3x3-192, 1x1-192, 1x1 with one filter a class, global
    average. ``same`` padding.
    """
    layers: list[Layer] = []
    for filters in (96, 192):
        layers += [_conv(filters, 3, "same"), _conv(filters, 3, "same"), _conv(filters, 3, "same", stride=2)]
    layers += [_conv(192, 3, "same"), _conv(192, 1, "same")]
    return (*layers, Conv2D(kernel=1, padding="same"), GlobalAveragePool2D())


def cnn_2c1d(*, dropout: Rate = 0.4, head: Count | None = None) -> Layers:
    """Convolution 5x5-64, pool, 5x5-64, pool, dropout, and the class layer.

    ``head`` gives the last layer more units than there are classes, as an MSc report on Fashion-MNIST (2020)
    had it; the surplus ones are classes that never occur.
    """
    return (
        *(_conv(64, 5), MaxPool2D()),
        *(_conv(64, 5), MaxPool2D()),
        *((Dropout(rate=dropout),) if dropout else ()),
        Dense(units=head),
    )


def cnn_2c2d_bn(*, dropout: Sequence[Rate] = (0.25, 0.25, 0.5), dense: Count = 256) -> Layers:
    """Two blocks of 5x5 convolution, pool, batch normalisation and dropout (32, 64 filters), dense, dropout.

    From a report on MNIST digits (2022): layers of 832, 128, 51,264, 256, 803,072 and 2,570 parameters.
    """
    first, second, last = _per_layer("dropout", dropout, 3)
    return (
        *(_conv(32, 5, "same"), MaxPool2D(), BatchNorm(), Dropout(rate=first)),
        *(_conv(64, 5, "same"), MaxPool2D(), BatchNorm(), Dropout(rate=second)),
        *(Dense(units=dense, activation="relu"), Dropout(rate=last)),
        Dense(),
    )


def cnn_1c2d(*, filters: Count = 32, dense: Count = 100) -> Layers:
    """Convolution 3x3-32, pool, dense 100, classes: 543,644 parameters for the 24 letters of sign-mnist."""
    return (_conv(filters, 3), MaxPool2D(), Dense(units=dense, activation="relu"), Dense())


def cnn_bn(*, filters: Sequence[Count] = (64, 32, 64), dense: Count = 200) -> Layers:
    """Two 3x3 convolutions, batch normalisation, pool; one, pool; one, flatten, batch normalisation; dense.

    From a report on Sign Language MNIST (2023), whose second batch normalisation stands behind the
    flattening, one average a value: 719,552 parameters for its 24 letters. All
    convolutions have ``same`` padding.
    """
    if len(filters) != 3:
        raise ValueError(f"filters has {len(filters)} counts; give three, as in [64, 32, 64]")
    first, second, third = filters
    return (
        *(_conv(first, 3, "same"), _conv(first, 3, "same"), BatchNorm(), MaxPool2D()),
        *(_conv(second, 3, "same"), MaxPool2D()),
        *(_conv(third, 3, "same"), Flatten(), BatchNorm()),
        *(Dense(units=dense, activation="relu"), Dense()),
    )


def deepobs_2c2d() -> Layers:
    """DeepOBS's ``2c2d``: 5x5-32, pool, 5x5-64, pool, dense 1024, classes; 3,274,634 parameters.

    Kernels from a normal with sd .05 cut at two sigma, biases .05 (Schneider, Balles & Hennig, ICLR 2019).
    """
    start = Initializer(name="truncated_normal", sd=0.05)
    bias = Initializer(name="constant", value=0.05)

    def conv(filters: int) -> Layer:
        return Conv2D(
            filters=filters,
            kernel=5,
            padding="same",
            activation="relu",
            kernel_initializer=start,
            bias_initializer=bias,
        )

    pool = MaxPool2D(padding="same")
    hidden = Dense(units=1024, activation="relu", kernel_initializer=start, bias_initializer=bias)
    return (conv(32), pool, conv(64), pool, hidden, Dense(kernel_initializer=start, bias_initializer=bias))


def deepobs_mlp() -> Layers:
    """DeepOBS's ``mnist_mlp``: dense 1000, 500, 100, classes; 1,336,610 parameters.

    Kernels from a normal with sd .03 cut at two sigma, biases 0.
    """
    return mlp(hidden=(1000, 500, 100), initializer=Initializer(name="truncated_normal", sd=0.03))


def gpt(
    *,
    depth: Depth = 4,
    width: Count = 128,
    heads: Count = 4,
    context: Count | None = None,
    dropout: Rate = 0.0,
    positions: Literal["learned", "rotary"] = "learned",
    norm: Literal["layer", "rms"] = "layer",
    feed_forward: Literal["gelu", "swiglu"] = "gelu",
    bias: bool = True,
    tied: bool = True,
) -> Layers:
    """A causal transformer, norms in front (Radford et al. 2019): 124,439,808 weights as GPT-2 has them.

    That is depth 12, width 768, 12 heads, context 1024 and 50,257 tokens. Kernels from a normal with sd .02,
    those that are added to the stream from one of .02 / sqrt(2 depth). ``context`` is the longest window;
    that of the workload if not given. ``tied`` outputs use the embedding's weights.
    """
    embed: list[Layer] = [Embedding(width=width)]
    if positions == "learned":
        embed.append(Positions(length=context))
    blocks: list[Layer] = []
    for _ in range(depth):
        attention = Attention(
            heads=heads,
            causal=True,
            rotary=positions == "rotary",
            bias=bias,
            kernel_initializer=SMALL_NORMAL,
            output_initializer=_into_stream(depth),
        )
        blocks += _transformer(attention, width, depth, dropout, norm, feed_forward, bias)
    last: Layer = Unembedding() if tied else Dense(kernel_initializer=SMALL_NORMAL, bias=False)
    return (*embed, *_drop(dropout), *blocks, _norm(norm, bias=bias), last)


def vit(
    *,
    patch: Count = 4,
    depth: Depth = 6,
    width: Count = 64,
    heads: Count = 4,
    dropout: Rate = 0.0,
    pool: Literal["first", "mean"] = "first",
) -> Layers:
    """A vision transformer (Dosovitskiy et al. 2021): 86,567,656 weights as ViT-B/16 has them.

    That is patch 16, depth 12, width 768, 12 heads, 224x224x3 images and 1,000 classes. ``pool`` takes the
    class token, or without one the mean of all places. Initialised as :func:`gpt`.
    """
    layers: list[Layer] = [
        Conv2D(filters=width, kernel=patch, stride=patch, kernel_initializer=SMALL_NORMAL),
        ToSequence(),
        *([ClassToken()] if pool == "first" else []),
        Positions(),
        *_drop(dropout),
    ]
    for _ in range(depth):
        attention = Attention(
            heads=heads, kernel_initializer=SMALL_NORMAL, output_initializer=_into_stream(depth)
        )
        layers += _transformer(attention, width, depth, dropout, "layer", "gelu", True)
    return (*layers, _norm("layer"), PoolSequence(how=pool), Dense(kernel_initializer=SMALL_NORMAL))


def resnet(*, depth: Depth = 20, width: Count = 16, shortcut: Literal["pad", "project"] = "pad") -> Layers:
    """A residual network for small images (He et al. 2016): 269,722 weights at depth 20 for ten classes.

    464,154 at depth 32 and 853,018 at 56, for 32x32x3 images. Depth is 6 n + 2: three groups of n blocks of
    two 3x3 convolutions, with ``width``, twice and four times as many filters. Shortcuts that change the
    shape have no weights (``pad``) or a 1x1 convolution (``project``). He's initialisation; depth 8 is small.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or not blocks:
        raise ValueError(f"depth is {depth}; give 6 n + 2, as in 8, 20, 32, 56")
    start = Initializer(name="he_normal")

    def conv(filters: int, kernel: int = 3, stride: int = 1) -> tuple[Layer, ...]:
        convolution = Conv2D(
            filters=filters,
            kernel=kernel,
            stride=stride,
            padding="same",
            kernel_initializer=start,
            bias=False,
        )
        return convolution, BatchNorm(momentum=0.9, epsilon=1e-5)

    relu = Activate(activation="relu")
    layers: list[Layer] = [*conv(width), relu]
    for group in range(3):
        filters = width * 2**group
        for block in range(blocks):
            stride = 2 if group and not block else 1
            around: tuple[Layer, ...] = ()
            if stride == 2:
                pad = (Subsample(stride=2, filters=filters),)
                around = pad if shortcut == "pad" else conv(filters, 1, 2)
            body = (*conv(filters, stride=stride), relu, *conv(filters))
            layers += [Residual(layers=body, shortcut=around), relu]
    return (*layers, GlobalAveragePool2D(), Dense(kernel_initializer=start))


#: Named architectures; the name is what a suite writes.
ZOO: Mapping[str, Callable[..., Layers]] = MappingProxyType(
    {
        function.__name__: function
        for function in (
            mlp,
            small_cnn,
            mosca_cnn,
            mosca_cifar_cnn,
            cnn_2c1d,
            cnn_2c2d_bn,
            cnn_1c2d,
            cnn_bn,
            deepobs_2c2d,
            deepobs_mlp,
            gpt,
            vit,
            resnet,
        )
    }
)


def _conv(filters: int, kernel: int, padding: Padding = "valid", *, stride: int = 1) -> Conv2D:
    return Conv2D(filters=filters, kernel=kernel, stride=stride, padding=padding, activation="relu")


def _transformer(
    attention: Attention,
    width: int,
    depth: int,
    dropout: float,
    norm: Literal["layer", "rms"],
    feed_forward: Literal["gelu", "swiglu"],
    bias: bool,
) -> tuple[Layer, ...]:
    """One block: attention, then two dense layers of which the inner one has 4 times the width.

    The inner one of SwiGLU has 8/3 times the width, in whole eights, so that it has as many weights.
    """
    first: Layer = Dense(units=4 * width, activation="gelu", kernel_initializer=SMALL_NORMAL, bias=bias)
    if feed_forward == "swiglu":
        first = GatedDense(units=8 * -(-width // 3), kernel_initializer=SMALL_NORMAL, bias=bias)
    second = Dense(units=width, kernel_initializer=_into_stream(depth), bias=bias)
    return (
        Residual(layers=(_norm(norm, bias=bias), attention, *_drop(dropout))),
        Residual(layers=(_norm(norm, bias=bias), first, second, *_drop(dropout))),
    )


def _into_stream(depth: int) -> Initializer:
    """Start of a kernel whose outputs are added up over the depth, as in GPT-2."""
    return Initializer(name="normal", sd=0.02 / math.sqrt(2 * depth))


def _norm(name: Literal["layer", "rms"], *, bias: bool = True) -> Layer:
    return LayerNorm(bias=bias) if name == "layer" else RMSNorm()


def _drop(rate: float) -> tuple[Layer, ...]:
    return (Dropout(rate=rate),) if rate else ()


def _per_layer(name: str, value: float | Sequence[float], count: int) -> Sequence[float]:
    if not isinstance(value, Sequence):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} rates for {count} layers; give one, or one a layer")
    return value
