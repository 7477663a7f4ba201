"""Convolution with its gradients written as plain convolutions, for XLA on a CPU.

The gradients that JAX derives are convolutions with permuted dimensions. XLA's CPU compiler brings those into
the layout of its fast kernels at a program's top level but not inside a loop, where they run up to forty
times slower; and an epoch is a loop. Written in the fast layout to begin with, they stay fast. On GPUs and
TPUs the derived gradients are the right ones.
"""

from __future__ import annotations

from functools import partial

import jax
from jax import lax

Array = jax.Array
Padding = tuple[tuple[int, int], tuple[int, int]]

#: Full precision on every device: the default is TF32 on new GPUs and bfloat16 on TPUs.
PRECISION = lax.Precision.HIGHEST


def derived(
    x: Array, kernel: Array, stride: int, padding: Padding, *, product: lax.Precision = PRECISION
) -> Array:
    """Cross-correlation of images [n, h, w, in] with a kernel [h, w, in, out]."""
    return _plain(x, kernel, padding, stride=stride, product=product)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def written_out(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """Compute the same as :func:`derived`, with gradients of its own."""
    return _plain(x, kernel, padding, stride=stride)


def _forward(x: Array, kernel: Array, stride: int, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    return _plain(x, kernel, padding, stride=stride), (x, kernel)


def _backward(stride: int, padding: Padding, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    around_g, around_x = [], []
    for axis in (1, 2):
        size, window, spread = x.shape[axis], kernel.shape[axis - 1], (g.shape[axis] - 1) * stride + 1
        before = padding[axis - 1][0]
        around_g.append((window - 1 - before, size - spread + before))
        around_x.append((before, window - 1 - size - before + spread))
    turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    dx = _plain(g, turned, (around_g[0], around_g[1]), spread_x=stride)
    images, filters = x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)
    dk = _plain(images, filters, (around_x[0], around_x[1]), spread_kernel=stride).transpose(1, 2, 0, 3)
    return dx, dk


written_out.defvjp(_forward, _backward)


def _plain(
    x: Array,
    kernel: Array,
    padding: Padding,
    *,
    stride: int = 1,
    spread_x: int = 1,
    spread_kernel: int = 1,
    product: lax.Precision = PRECISION,
) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        lhs_dilation=(spread_x, spread_x),
        rhs_dilation=(spread_kernel, spread_kernel),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=product,
    )
