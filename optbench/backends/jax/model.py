"""Layers as pure JAX functions over a flat dictionary of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from optbench.backends.arrays import relu_after_pool
from optbench.backends.jax import convolution
from optbench.models import layers as spec
from optbench.models.layers import BuiltLayer, same_padding

Array = jax.Array
Weights = Mapping[str, Array]
#: (weights, x, key, training) -> (output, new running averages by name).
Forward = Callable[[Weights, Array, Array, bool], tuple[Array, dict[str, Array]]]

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "elu": jax.nn.elu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}


class JaxModel:
    """A built model as a pure function; images are NHWC, kernels HWIO.

    In bfloat16 the layers' arithmetic, in the trial's precision otherwise; logits in that of the weights.
    """

    def __init__(self, built: tuple[BuiltLayer, ...], *, cpu: bool, precision: str = "float32") -> None:
        self._half = precision == "bfloat16"
        self.trainable = [p.name for layer in built for p in layer.parameters if p.trainable]
        self.penalties = [
            (f"{layer.name}/kernel", layer.layer.l1, layer.layer.l2)
            for layer in built
            if isinstance(layer.layer, spec.Dense | spec.Conv2D) and (layer.layer.l1 or layer.layer.l2)
        ]
        product = lax.Precision.HIGH if precision == "tf32" else convolution.PRECISION
        self._layers = []
        for layer, relu_last in relu_after_pool(built):
            function = _forward(layer, cpu=cpu, product=product)
            self._layers.append(_then_relu(function) if relu_last else function)

    def __call__(
        self, weights: Weights, x: Array, *, key: Array, training: bool
    ) -> tuple[Array, dict[str, Array]]:
        """Logits of a batch [n, *shape], and the running averages that training moved."""
        moved: dict[str, Array] = {}
        stored = x.dtype
        if self._half:
            x = x.astype(jnp.bfloat16)
        for place, function in enumerate(self._layers):
            x, new = function(weights, x, jax.random.fold_in(key, place) if training else key, training)
            moved |= new
        return x.astype(stored), moved

    def penalty(self, weights: Weights) -> Array | float:
        """Sum of the declared L1 and L2 penalties, l1 * sum|w| + l2 * sum w^2 as in Keras."""
        total: Array | float = 0.0
        for name, l1, l2 in self.penalties:
            w = weights[name]
            if l1:
                total = total + l1 * jnp.abs(w).sum()
            if l2:
                total = total + l2 * jnp.square(w).sum()
        return total


def _forward(built: BuiltLayer, *, cpu: bool, product: lax.Precision) -> Forward:
    layer = built.layer
    if isinstance(layer, spec.Dense | spec.Conv2D):
        return _linear(built, layer, cpu=cpu, product=product)
    if isinstance(layer, spec.BatchNorm):
        return _batch_norm(built.name, layer)
    if isinstance(layer, spec.Dropout):
        return _dropout(layer)
    plain: Callable[[Array], Array]
    if isinstance(layer, spec.MaxPool2D):
        plain = _max_pool(built, layer)
    elif isinstance(layer, spec.GlobalAveragePool2D):
        plain = lambda x: x.mean((1, 2))  # noqa: E731
    elif isinstance(layer, spec.Flatten):
        plain = lambda x: x.reshape(len(x), -1)  # noqa: E731
    else:
        plain = ACTIVATIONS[layer.activation]
    return lambda weights, x, key, training: (plain(x), {})


def _then_relu(function: Forward) -> Forward:
    def both(weights: Weights, x: Array, key: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        x, moved = function(weights, x, key, training)
        return jax.nn.relu(x), moved

    return both


def _linear(
    built: BuiltLayer, layer: spec.Dense | spec.Conv2D, *, cpu: bool, product: lax.Precision
) -> Forward:
    activation = ACTIVATIONS[layer.activation]
    convolve = convolution.written_out if cpu else partial(convolution.derived, product=product)

    def function(weights: Weights, x: Array, key: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        kernel, bias = (weights[f"{built.name}/{part}"].astype(x.dtype) for part in ("kernel", "bias"))
        if isinstance(layer, spec.Dense):
            return activation(jnp.dot(x, kernel, precision=product) + bias), {}
        padding = _padding(built, layer.kernel, layer.stride, layer.padding)
        return activation(convolve(x, kernel, layer.stride, padding) + bias), {}

    return function


def _batch_norm(name: str, layer: spec.BatchNorm) -> Forward:
    names = [f"{name}/{part}" for part in ("gamma", "beta", "moving_mean", "moving_variance")]

    def function(weights: Weights, x: Array, key: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        gamma, beta, mean, variance = (weights[part] for part in names)
        moved, dtype = {}, x.dtype
        x = x.astype(gamma.dtype)
        if training:
            axes, n = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
            batch_mean, batch_variance = x.mean(axes), x.var(axes)
            unbiased = batch_variance * (n / max(n - 1, 1))
            moved = {
                names[2]: layer.momentum * mean + (1 - layer.momentum) * batch_mean,
                names[3]: layer.momentum * variance + (1 - layer.momentum) * unbiased,
            }
            mean, variance = batch_mean, batch_variance
        return ((x - mean) * (lax.rsqrt(variance + layer.epsilon) * gamma) + beta).astype(dtype), moved

    return function


def _dropout(layer: spec.Dropout) -> Forward:
    keep = 1 - layer.rate

    def function(weights: Weights, x: Array, key: Array, training: bool) -> tuple[Array, dict[str, Array]]:
        if not (training and layer.rate):
            return x, {}
        # Whole random words, so that a mask is the same in every precision.
        kept = jax.random.bits(key, x.shape, jnp.uint32) < jnp.uint32(round(keep * 2**32))
        return jnp.where(kept, x * (1 / keep), 0), {}

    return function


def _max_pool(built: BuiltLayer, layer: spec.MaxPool2D) -> Callable[[Array], Array]:
    size, stride = layer.size, layer.stride or layer.size
    padding = _padding(built, size, stride, layer.padding)
    if stride != size:
        window, strides = (1, size, size, 1), (1, stride, stride, 1)
        around = ((0, 0), *padding, (0, 0))
        return lambda x: lax.reduce_window(x, -jnp.inf, lax.max, window, strides, around)
    height, width, channels = built.output_shape

    def function(x: Array) -> Array:
        # Windows that do not overlap are one reshape, many times faster than XLA's general scatter on a CPU.
        x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf) if any(map(any, padding)) else x
        x = x[:, : height * size, : width * size]
        windows = x.reshape(-1, height, size, width, size, channels)
        return _first_max(windows.transpose(0, 1, 3, 2, 4, 5).reshape(-1, height, width, size**2, channels))

    return function


@jax.custom_vjp
def _first_max(windows: Array) -> Array:
    """Maximum over the last but one axis; the gradient goes to the first of equals, as in PyTorch."""
    return windows.max(-2)


def _first_max_forward(windows: Array) -> tuple[Array, tuple[Array, Array]]:
    return windows.max(-2), (windows.argmax(-2), windows)


def _first_max_backward(saved: tuple[Array, Array], gradient: Array) -> tuple[Array]:
    first, windows = saved
    places = lax.broadcasted_iota(first.dtype, windows.shape, windows.ndim - 2)
    return (jnp.where(places == first[..., None, :], gradient[..., None, :], 0),)


_first_max.defvjp(_first_max_forward, _first_max_backward)


def _padding(
    built: BuiltLayer, window: int, stride: int, padding: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows above and below, columns left and right."""
    if padding == "valid":
        return (0, 0), (0, 0)
    height, width = built.input_shape[:2]
    return same_padding(height, window, stride), same_padding(width, window, stride)
