"""A WAME step in plain PyTorch, on the packed state: what runs where nothing faster does.

zeta's sign bit holds the sign of the previous gradient, theta's whether it was not zero; both are never
negative themselves. The operations and their order are those of wame.cpp and triton.py.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from optbench.optimizers.wame import AUTHOR_THETA_DECAY, EpsMode, Rule, Variant, rule


@dataclass(frozen=True, kw_only=True)
class Hyper:
    """What a kernel has to know beside the learning rate."""

    alpha: float
    eta_plus: float
    eta_minus: float
    zeta_min: float
    zeta_max: float
    eps: float
    variant: Variant
    eps_mode: EpsMode | None

    @functools.cached_property
    def rule(self) -> Rule:
        """The variant, taken apart."""
        return rule(self.variant, self.eps_mode)

    @property
    def theta_decay(self) -> float:
        """Decay of the average of squared gradients."""
        return AUTHOR_THETA_DECAY if self.rule.author else self.alpha


def step(
    w: Tensor, g: Tensor, zeta: Tensor, average: Tensor, theta: Tensor, *, lr: float, hyper: Hyper
) -> None:
    """Update one tensor and its state in place; arithmetic is in theta's precision."""
    how, dtype = hyper.rule, theta.dtype
    grad = g.to(dtype)
    factor = zeta.abs().to(dtype)
    if how.rate != "constant":
        both = theta.signbit().logical_and_(grad != 0)
        same = grad.signbit() == zeta.signbit()
        grown, shrunk = factor * hyper.eta_plus, factor * hyper.eta_minus
        if not how.shipped:
            grown.clamp_(max=hyper.zeta_max)
            shrunk.clamp_(min=hyper.zeta_min)
        factor = torch.where(both, torch.where(same, grown, shrunk), factor)
    used = factor.clamp(hyper.zeta_min, hyper.zeta_max) if how.shipped else factor
    mean = (average.to(dtype) * hyper.alpha).add_(used * (1 - hyper.alpha))
    square = (theta.abs() * hyper.theta_decay).add_((grad * grad).mul_(1 - hyper.theta_decay))
    if how.rate == "multiply":
        scaled = (mean * lr).mul_(grad)
    elif how.rate == "divide":  # a number divided by a tensor would be a product with its reciprocal
        scaled = torch.div(torch.full_like(mean, lr), mean).mul_(grad)
    else:
        scaled = (used / mean).mul_(lr).mul_(grad) if how.rate == "ratio" else grad * lr
    if how.root == "outside":
        below = _sqrt(square.clone()).add_(hyper.eps)
    else:
        below = square + hyper.eps
        below = _sqrt(below) if how.root == "inside" else below
    remembered = w.to(dtype, copy=True) if how.shipped else grad
    w.copy_(w.to(dtype) - scaled.div_(below))
    zeta.copy_(torch.copysign(factor, remembered))
    average.copy_(mean)
    theta.copy_(torch.where(remembered != 0, -square, square))


def addressable(w: Tensor) -> bool:
    """Whether a kernel may take a tensor by its address: no subclass, dense, nothing overlapping."""
    return type(w) in (Tensor, torch.nn.Parameter) and (
        w.is_contiguous() or bool(torch.ops.aten.is_non_overlapping_and_dense(w))
    )


def _sqrt(x: Tensor) -> Tensor:
    """Take the root in place, rounded correctly: on a CPU torch.sqrt is one unit off in one case of seven."""
    if x.device.type != "cpu":
        return x.sqrt_()
    array = x.numpy()
    np.sqrt(array, out=array)
    return x
