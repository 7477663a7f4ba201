"""Canonical optimizers as PyTorch classes.

The class that the family names, in the fastest of its forms that this device has; the rule itself on
PyTorch's arrays where it names none.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from pkgutil import resolve_name
from typing import Any, Literal

import torch
from torch import Tensor

from optbench.optimizers import FAMILIES, CanonicalConfig, OptimizerConfig, custom, family_of, has_rule
from optbench.optimizers.base import Native


def make_optimizer(config: OptimizerConfig, params: list[Tensor]) -> torch.optim.Optimizer:
    """Build the PyTorch optimizer that follows a config's canonical rule.

    Parameters
    ----------
    config : OptimizerConfig
        Family and hyperparameters, or a custom class.
    params : list of Tensor
        What it trains.

    Returns
    -------
    torch.optim.Optimizer
        Its groups' ``lr`` is the learning rate, which schedules may move.

    Raises
    ------
    TypeError
        If a custom class makes no ``torch.optim.Optimizer``, or one whose step needs a closure.

    Examples
    --------
    >>> import torch
    >>> from optbench.optimizers import Adam
    >>> type(make_optimizer(Adam(lr=0.01), [torch.zeros(3, requires_grad=True)])).__name__
    'Adam'
    """
    if not has_rule(config):
        return _custom(config, params)
    native = family_of(config).native_for("torch", config)
    if native is None or (not native[0].float64 and any(w.dtype == torch.float64 for w in params)):
        return RuleOptimizer(params, config)
    kind, arguments = native
    return _fastest(kind, params, {"lr": config.lr, **arguments})


def declared(kind: type) -> Native | None:
    """Find what a family declares of an optimizer's class; None where no family names exactly this class."""
    return _declared().get(kind)


@functools.cache
def _declared() -> Mapping[type, Native]:
    natives = [family.native["torch"] for family in FAMILIES.values() if "torch" in family.native]
    return {resolve_name(native.target): native for native in natives}


def _fastest(native: Native, params: list[Tensor], arguments: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Make an optimizer in the first of its forms that this version of PyTorch has on this device."""
    kind = resolve_name(native.target)
    for form in native.forms:
        try:
            made: torch.optim.Optimizer = kind(params, **arguments, **{form: True})
        except (TypeError, RuntimeError):  # this class, or this device, has no such form
            continue
        if params[0].device.type == "cpu" or _steps(kind, form, params[0].device.type):
            return made
    plain: torch.optim.Optimizer = kind(params, **arguments)
    return plain


@functools.cache
def _steps(kind: Callable[..., torch.optim.Optimizer], form: str, device: str) -> bool:
    """Whether a form takes a step on a device: some classes find that out no earlier."""
    w = torch.zeros(1, device=device, requires_grad=True)
    w.grad = torch.zeros_like(w)
    try:
        kind([w], **{form: True}).step()
    except (TypeError, RuntimeError):
        return False
    return True


def _custom(config: Any, params: list[Tensor]) -> torch.optim.Optimizer:
    made = custom.load(config)(params, **custom.arguments(config))
    if not isinstance(made, torch.optim.Optimizer):
        raise TypeError(
            f"{config.reference} makes a {type(made).__name__}; the torch backend needs a torch Optimizer"
        )
    closure = signature(made.step).parameters.get("closure")
    if closure is not None and closure.default is Parameter.empty:
        raise TypeError(
            f"{config.reference}: its step() needs a closure that evaluates the loss again; a trial gives "
            "one gradient a step, so this optimizer cannot be matched with others"
        )
    return made


def switch(optimizer: torch.optim.Optimizer, mode: Literal["train", "eval"]) -> None:
    """Tell an optimizer with weights of its own for evaluation, as schedule-free ones have, which to show."""
    if all(callable(getattr(optimizer, name, None)) for name in ("train", "eval")):
        getattr(optimizer, mode)()


class RuleOptimizer(torch.optim.Optimizer):
    """A canonical rule on PyTorch's arrays, one tensor at a time.

    Half-precision parameters keep their state, and do their arithmetic, in float32. A group that is
    ``capturable`` counts its steps on the device and changes its state in place, as a CUDA graph must; what
    the steps' number goes into is then rounded elsewhere.

    Parameters
    ----------
    params : iterable
        Tensors or parameter groups.
    config : CanonicalConfig
        Family and hyperparameters.
    """

    def __init__(self, params: Any, config: CanonicalConfig) -> None:
        super().__init__(params, {"lr": config.lr, "config": config, "capturable": False})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            config = group["config"]
            family = family_of(config)
            for w in group["params"]:
                if w.grad is None:
                    continue
                wide, g = _widened(w), _widened(w.grad)
                state = self.state[w]
                if not state:
                    begun = family.init(config, wide, torch)
                    if group["capturable"]:  # each has its own memory, to be changed in place
                        begun = {name: value.to(w.device, copy=True) for name, value in begun.items()}
                    state.update({"t": 0, **begun})
                t = _next(state.pop("t"), w.device, on_device=group["capturable"])
                before = {name: _widened(value) for name, value in state.items()}
                delta, new = family.update(config, wide, g, before, lr=group["lr"], t=t, xp=torch)
                if group["capturable"]:
                    olds = list(before.values())
                    apart = {k: v.clone() if any(v is old for old in olds) else v for k, v in new.items()}
                    for name, value in apart.items():
                        state[name].copy_(value)
                    state["t"] = t
                else:
                    # The weight changes in place, and a gradient's memory is used again: no state may lie
                    # there.
                    state.update({name: _apart(value, wide, g) for name, value in new.items()}, t=t)
                w.add_(delta)
        return loss


def _next(t: int | Tensor, device: torch.device, *, on_device: bool) -> int | Tensor:
    """Count a step, on the device in place."""
    if not on_device:
        return int(t) + 1
    if not isinstance(t, Tensor):
        t = torch.tensor(t, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
    return t.add_(1)


def _widened(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _apart(x: Tensor, *others: Tensor) -> Tensor:
    """Copy a tensor where it shares memory with one of the others."""
    place = x.untyped_storage().data_ptr()
    return x.clone() if any(place == other.untyped_storage().data_ptr() for other in others) else x
