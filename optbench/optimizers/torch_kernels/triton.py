"""Source of the Triton kernel; see gpu.py."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["n"])  # type: ignore[untyped-decorator]
def wame_step(  # type: ignore[no-untyped-def]
    w_,
    g_,
    zeta_,
    average_,
    theta_,
    n: tl.int64,
    lr,
    alpha,
    rest,
    decay,
    gain,
    eta_plus,
    eta_minus,
    zeta_min,
    zeta_max,
    eps,
    RATE: tl.constexpr,
    ROOT: tl.constexpr,
    SHIPPED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Update BLOCK elements of a tensor and its packed state."""
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offsets < n
    w = tl.load(w_ + offsets, mask).to(tl.float32)
    g = tl.load(g_ + offsets, mask).to(tl.float32)
    packed_zeta = tl.load(zeta_ + offsets, mask).to(tl.float32)
    packed_theta = tl.load(theta_ + offsets, mask)
    zeta = tl.abs(packed_zeta)
    if RATE != 3:
        both = (packed_theta.to(tl.int32, bitcast=True) < 0) & (g != 0)
        same = (g.to(tl.int32, bitcast=True) ^ packed_zeta.to(tl.int32, bitcast=True)) >= 0
        grown = zeta * eta_plus
        shrunk = zeta * eta_minus
        if not SHIPPED:
            grown = tl.minimum(grown, zeta_max)
            shrunk = tl.maximum(shrunk, zeta_min)
        zeta = tl.where(both, tl.where(same, grown, shrunk), zeta)
    used = zeta
    if SHIPPED:
        used = tl.maximum(tl.minimum(zeta, zeta_max), zeta_min)
    average = tl.load(average_ + offsets, mask).to(tl.float32) * alpha + used * rest
    theta = tl.abs(packed_theta) * decay + (g * g) * gain
    if RATE == 0:
        scale = lr * average
    elif RATE == 1:
        scale = tl.div_rn(lr + tl.zeros_like(average), average)
    elif RATE == 2:
        scale = lr * tl.div_rn(used, average)
    else:
        scale = lr + tl.zeros_like(average)
    if ROOT == 0:
        below = tl.sqrt_rn(theta + eps)
    elif ROOT == 1:
        below = tl.sqrt_rn(theta) + eps
    else:
        below = theta + eps
    remembered = g
    if SHIPPED:
        remembered = w
    new = w - tl.div_rn(scale * g, below)
    tl.store(w_ + offsets, new.to(w_.dtype.element_ty), mask)
    # Signs are set by their bits: Triton's -x is 0 - x, which loses that of a zero.
    sign = (remembered.to(tl.int32, bitcast=True) >> 31) << 31
    signed = (zeta.to(tl.int32, bitcast=True) | sign).to(tl.float32, bitcast=True)
    there = (-(remembered != 0).to(tl.int32)) << 31
    marked = (theta.to(tl.int32, bitcast=True) | there).to(tl.float32, bitcast=True)
    tl.store(zeta_ + offsets, signed.to(zeta_.dtype.element_ty), mask)
    tl.store(average_ + offsets, average.to(average_.dtype.element_ty), mask)
    tl.store(theta_ + offsets, marked, mask)
