"""Shorter calls of PyTorch's own optimizers: the same kernels in the same order, and so the same bits.

``Optimizer.step`` looks at every parameter anew, wraps itself in profiling and hooks, and imports the
compiler, which takes as long as PyTorch itself. None of it changes a weight.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from optbench.backends.torch.optimizers import parts_of

Call = Callable[[], object]


def step_of(optimizer: torch.optim.Optimizer) -> Call:
    """Find the call that takes an optimizer's step: of PyTorch's own classes, what their ``step`` wraps."""
    parts = parts_of(optimizer)
    if len(parts) > 1 and all(map(_bare, parts)):
        steps = [step_of(part) for part in parts]

        def all_parts() -> None:
            for step in steps:
                step()

        return all_parts
    if not _bare(optimizer):
        return optimizer.step
    wrapped: Any = inspect.unwrap(type(optimizer).step)

    @torch.no_grad()
    def step() -> None:
        wrapped(optimizer)

    return step


def _bare(optimizer: torch.optim.Optimizer) -> bool:
    """Whether nothing but PyTorch's own arithmetic is in a step."""
    hooks = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
    return (
        type(optimizer).__module__.startswith("torch.optim.")
        and "step" not in vars(optimizer)
        and not any(getattr(optimizer, name, None) for name in hooks)
        and not optimizer.defaults.get("differentiable")
    )


def direct(optimizer: torch.optim.Optimizer, params: list[Tensor], gradients: list[Tensor]) -> Call:
    """Find the shortest call that takes an optimizer's step from these gradients, its state being there.

    It is the kernels of Adam, AdamW, SGD, RMSprop and NAdam without the work around them, and
    :func:`step_of` all others.
    """
    group = optimizer.param_groups[0]
    form = "fused" if group.get("fused") else "foreach"
    make = DIRECT.get((type(optimizer), form))
    others = ("amsgrad", "maximize", "capturable", *(("weight_decay",) if form == "foreach" else ()))
    plain = not any(group.get(name) for name in others)
    if make is None or len(optimizer.param_groups) > 1 or not plain or not _bare(optimizer):
        return step_of(optimizer)
    states = [optimizer.state.get(w, {}) for w in params]
    return make(group, [w.detach() for w in params], gradients, states)


def _counted(states: list[dict[str, Any]]) -> Tensor:
    """Have the counts of all weights in one array, so that one call moves them."""
    count = torch.stack([state["step"] for state in states])
    for state, step in zip(states, count.unbind(), strict=True):
        state["step"] = step
    return count


def _adam(
    group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], states: list[dict[str, Any]]
) -> Call:
    averages, squares = ([s[name] for s in states] for name in ("exp_avg", "exp_avg_sq"))
    count = _counted(states)
    steps = list(count.unbind())
    beta1, beta2 = group["betas"]
    kernel = torch._fused_adamw_ if group.get("decoupled_weight_decay") else torch._fused_adam_

    def adam() -> None:
        count.add_(1)
        kernel(
            weights, gradients, averages, squares, [], steps, amsgrad=False, lr=group["lr"],
            beta1=beta1, beta2=beta2, weight_decay=group["weight_decay"], eps=group["eps"],
            maximize=False, grad_scale=None, found_inf=None,
        )  # fmt: skip

    return adam


def _adamw(
    group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], states: list[dict[str, Any]]
) -> Call:
    return _adam({"decoupled_weight_decay": True, **group}, weights, gradients, states)


def _sgd(
    group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], states: list[dict[str, Any]]
) -> Call:
    momenta = [s["momentum_buffer"] for s in states] if group["momentum"] else []

    def sgd() -> None:
        torch._fused_sgd_(
            weights, gradients, momenta, weight_decay=group["weight_decay"], momentum=group["momentum"],
            lr=group["lr"], dampening=group["dampening"], nesterov=group["nesterov"],
            maximize=False, is_first_step=False, grad_scale=None, found_inf=None,
        )  # fmt: skip

    return sgd


def _rmsprop(
    group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], states: list[dict[str, Any]]
) -> Call:
    alpha, eps, momentum = group["alpha"], group["eps"], group["momentum"]
    count, squares = _counted(states), [s["square_avg"] for s in states]
    means = [s["grad_avg"] for s in states] if group["centered"] else []
    momenta = [s["momentum_buffer"] for s in states] if momentum else []

    def rmsprop() -> None:
        count.add_(1)
        torch._foreach_mul_(squares, alpha)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - alpha)
        if means:
            torch._foreach_lerp_(means, gradients, 1 - alpha)
            below = torch._foreach_addcmul(squares, means, means, value=-1)
            torch._foreach_sqrt_(below)
        else:
            below = torch._foreach_sqrt(squares)
        torch._foreach_add_(below, eps)
        if momenta:
            torch._foreach_mul_(momenta, momentum)
            torch._foreach_addcdiv_(momenta, gradients, below)
            torch._foreach_add_(weights, momenta, alpha=-group["lr"])
        else:
            torch._foreach_addcdiv_(weights, gradients, below, value=-group["lr"])

    return rmsprop


def _nadam(
    group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], states: list[dict[str, Any]]
) -> Call:
    (beta1, beta2), eps, decay = group["betas"], group["eps"], group["momentum_decay"]
    averages, squares = ([s[name] for s in states] for name in ("exp_avg", "exp_avg_sq"))
    count = _counted(states)
    products = torch.stack([s["mu_product"] for s in states])
    for state, product in zip(states, products.unbind(), strict=True):
        state["mu_product"] = product

    def nadam() -> None:
        count.add_(1)
        step = count[0].item()  # the same for all, as is the product
        torch._foreach_lerp_(averages, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        below = torch._foreach_sqrt(squares)
        mu = beta1 * (1.0 - 0.5 * (0.96 ** (step * decay)))
        ahead = beta1 * (1.0 - 0.5 * (0.96 ** ((step + 1) * decay)))
        products.mul_(mu)
        product, lr = products[0].item(), group["lr"]
        torch._foreach_div_(below, (1 - beta2**step) ** 0.5)
        torch._foreach_add_(below, eps)
        torch._foreach_addcdiv_(weights, gradients, below, value=(lr * (1.0 - mu) / (1.0 - product)) * -1)
        torch._foreach_addcdiv_(weights, averages, below, value=(lr * ahead / (1.0 - product * ahead)) * -1)

    return nadam


#: (class, form) -> (group, weights, gradients, states) -> its call.
DIRECT: Mapping[tuple[type, str], Callable[..., Call]] = {
    (torch.optim.Adam, "fused"): _adam,
    (torch.optim.AdamW, "fused"): _adamw,
    (torch.optim.SGD, "fused"): _sgd,
    (torch.optim.RMSprop, "foreach"): _rmsprop,
    (torch.optim.NAdam, "foreach"): _nadam,
}
