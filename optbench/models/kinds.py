"""Layers as data: what a model is made of, without any framework.

A model is a tree of these frozen records: a tuple of layers, of which a residual one holds layers itself.
Each backend builds the same computation from them. Shapes leave out the batch axis; images are height x
width x channels, sequences places x features, convolution kernels [height, width, in, out], dense ones
[in, out].
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Union, get_args

from annotated_types import Ge, Gt, Lt, MinLen

from optbench.models.own import Framework
from optbench.task import FORBID_EXTRA, OMIT_DEFAULT

#: ``gelu_tanh`` is GELU by the formula with tanh, as GPT-2 has it.
Activation = Literal["linear", "relu", "tanh", "sigmoid", "elu", "gelu", "gelu_tanh", "silu"]
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
HE_UNIFORM = Initializer(name="he_uniform")
ZEROS = Initializer(name="zeros")
ONES = Initializer(name="constant", value=1.0)
#: As GPT-2 draws all of its kernels and embeddings.
SMALL_NORMAL = Initializer(name="normal", sd=0.02)


@dataclass(frozen=True, kw_only=True)
class Dense:
    """Fully connected layer, ``activation(x @ kernel + bias)``, at each place of a sequence.

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
    bias: bool = field(default=True, metadata=OMIT_DEFAULT)


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
    bias: bool = field(default=True, metadata=OMIT_DEFAULT)


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


@dataclass(frozen=True, kw_only=True)
class DepthwiseConv2D:
    """Convolution of each channel with a kernel of its own; ``same`` pads as :class:`Conv2D` does."""

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["depthwise_conv2d"] = "depthwise_conv2d"
    kernel: Annotated[int, Gt(0)]
    stride: Annotated[int, Gt(0)] = 1
    padding: Padding = "valid"
    activation: Activation = "linear"
    kernel_initializer: Initializer = HE_UNIFORM
    bias_initializer: Initializer = ZEROS
    bias: bool = True


@dataclass(frozen=True, kw_only=True)
class AveragePool2D:
    """Mean over size x size windows; ``stride: null`` means the window size. What is left over is cut off."""

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["average_pool2d"] = "average_pool2d"
    size: Annotated[int, Gt(0)] = 2
    stride: Annotated[int, Gt(0)] | None = None


@dataclass(frozen=True, kw_only=True)
class Subsample:
    """Every ``stride``-th pixel, with channels of zeros at both ends up to ``filters``.

    The shortcut without weights (option A) of He et al. (2016).
    """

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["subsample"] = "subsample"
    stride: Annotated[int, Gt(0)] = 2
    filters: Annotated[int, Gt(0)]


@dataclass(frozen=True, kw_only=True)
class GroupNorm:
    """Normalise each example over height, width and each of ``groups`` groups of channels.

    Wu & He (2018). Scale and shift are by channel.
    """

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["group_norm"] = "group_norm"
    groups: Annotated[int, Gt(0)]
    epsilon: Annotated[float, Gt(0)] = 1e-5


@dataclass(frozen=True, kw_only=True)
class LayerNorm:
    """Normalise each vector (the last axis): ``(x - mean) / sqrt(variance + epsilon) * gamma + beta``.

    Ba et al. (2016); the variance is the biased one. Without ``bias`` there is no beta.
    """

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["layer_norm"] = "layer_norm"
    epsilon: Annotated[float, Gt(0)] = 1e-5
    bias: bool = True


@dataclass(frozen=True, kw_only=True)
class RMSNorm:
    """Divide each vector by its root mean square: ``x / sqrt(mean(x^2) + epsilon) * gamma``.

    Zhang & Sennrich (2019).
    """

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["rms_norm"] = "rms_norm"
    epsilon: Annotated[float, Gt(0)] = 1e-6


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """A vector a token: [context] tokens become [context, width]. The first layer of a model of texts.

    ``vocabulary: null`` means the tokens that the data have.
    """

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["embedding"] = "embedding"
    width: Annotated[int, Gt(0)]
    vocabulary: Annotated[int, Gt(0)] | None = None
    initializer: Initializer = SMALL_NORMAL


@dataclass(frozen=True, kw_only=True)
class Positions:
    """Add a learned vector a place; ``length: null`` means as many as the sequence has."""

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["positions"] = "positions"
    length: Annotated[int, Gt(0)] | None = None
    initializer: Initializer = SMALL_NORMAL


@dataclass(frozen=True, kw_only=True)
class Attention:
    r"""Multi-head attention of a sequence to itself (Vaswani et al. 2017), without dropout.

    Head h gives :math:`\mathrm{softmax}(q_h k_h^\top / \sqrt{d / H}) v_h`, with q, k, v = x @ kernel + bias;
    the heads side by side go through the output's kernel. ``causal``: no place sees a later one. ``rotary``
    turns q and k by their place t (Su et al. 2021): of a head's n numbers, i and i + n/2 by the angle
    :math:`t \cdot 10000^{-2i/n}`.
    """

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["attention"] = "attention"
    heads: Annotated[int, Gt(0)]
    causal: bool = False
    rotary: bool = False
    bias: bool = True
    kernel_initializer: Initializer = GLOROT_UNIFORM
    output_initializer: Initializer = GLOROT_UNIFORM


@dataclass(frozen=True, kw_only=True)
class GatedDense:
    """``activation(x @ gate) * (x @ kernel)``: with ``silu`` and a dense layer behind it SwiGLU.

    Shazeer (2020).
    """

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["gated_dense"] = "gated_dense"
    units: Annotated[int, Gt(0)]
    activation: Activation = "silu"
    bias: bool = False
    kernel_initializer: Initializer = GLOROT_UNIFORM


@dataclass(frozen=True, kw_only=True)
class Unembedding:
    """One output a token at each place, by the transpose of the model's own embedding (tied weights).

    Press & Wolf (2017). It has no weights of its own.
    """

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["unembedding"] = "unembedding"


@dataclass(frozen=True, kw_only=True)
class ToSequence:
    """An image as a sequence of its pixels, row by row: [height * width, channels]."""

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["to_sequence"] = "to_sequence"


@dataclass(frozen=True, kw_only=True)
class ClassToken:
    """Put a learned vector in front of a sequence (Dosovitskiy et al. 2021)."""

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["class_token"] = "class_token"
    initializer: Initializer = SMALL_NORMAL


@dataclass(frozen=True, kw_only=True)
class PoolSequence:
    """One vector of a sequence: the ``mean`` of all, or the ``first``."""

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["pool_sequence"] = "pool_sequence"
    how: Literal["mean", "first"] = "mean"


@dataclass(frozen=True, kw_only=True)
class Residual:
    """``shortcut(x) + layers(x)``; the shortcut is the input itself where it names no layers."""

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["residual"] = "residual"
    layers: Annotated[tuple[Layer, ...], MinLen(1)]
    shortcut: tuple[Layer, ...] = ()


Layer = Union[  # noqa: UP007
    Dense, Conv2D, MaxPool2D, GlobalAveragePool2D, BatchNorm, Dropout, Flatten, Activate,
    DepthwiseConv2D, AveragePool2D, Subsample, GroupNorm, LayerNorm, RMSNorm,
    Embedding, Positions, Attention, GatedDense, Unembedding, ToSequence, ClassToken, PoolSequence,
    Residual,
]  # fmt: skip

#: Layer classes by the ``kind`` that a suite file names.
LAYERS: Mapping[str, type[Layer]] = MappingProxyType({cls.kind: cls for cls in get_args(Layer)})


@dataclass(frozen=True, kw_only=True)
class OwnNetwork:
    """A custom network, the only layer of its model: one of PyTorch, Keras, Flax or Equinox.

    Attributes
    ----------
    reference : str
        ``file.py:Class`` or ``package.module:Class``; or a function that returns one.
    code : str
        What identifies the code: ``sha256:...`` of the file, or ``name==version`` of the package.
    arguments : str
        What it is called with, as JSON.
    framework : str
        Backend that trains it, see :data:`optbench.models.own.NETWORKS`.
    directory : Path, optional
        Where a file is looked for; the working directory otherwise. No part of the identity.
    """

    __pydantic_config__ = FORBID_EXTRA

    kind: Literal["own"] = "own"
    reference: str
    code: str
    arguments: str = "{}"
    framework: Framework = field(default="torch", metadata=OMIT_DEFAULT)
    directory: InitVar[Path | None] = None

    def __post_init__(self, directory: Path | None) -> None:
        object.__setattr__(self, "_directory", directory and directory.absolute())

    @property
    def given(self) -> dict[str, Any]:
        """Arguments by name."""
        found: dict[str, Any] = json.loads(self.arguments)
        return found


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model: its layers, and the name people know it by (the name is a label, not identity).

    ``code`` is the package, as ``name==version``, whose function made the layers by the name of an entry
    point.
    """

    __pydantic_config__ = FORBID_EXTRA

    name: str = field(compare=False)
    layers: Annotated[tuple[Layer | OwnNetwork, ...], MinLen(1)]
    code: str | None = None

    @property
    def own(self) -> OwnNetwork | None:
        """The custom network, if it is one."""
        first = self.layers[0]
        return first if isinstance(first, OwnNetwork) else None
