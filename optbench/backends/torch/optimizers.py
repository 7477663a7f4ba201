"""Canonical optimizers as PyTorch classes.

PyTorch's own class where it has the canonical semantics, in its fused form where the device has one and its
foreach form elsewhere; the rule itself on PyTorch's arrays where there is no such class.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any, Literal

import torch
from torch import Tensor

from optbench.optimizers import (
    FAMILIES,
    SGD,
    WAME,
    Adagrad,
    Adam,
    AdamW,
    CanonicalConfig,
    Custom,
    Nadam,
    OptimizerConfig,
    RMSprop,
    custom,
)
from optbench.optimizers import torch as ours


def make_optimizer(
    config: OptimizerConfig, params: list[Tensor], *, names: list[str] | None = None
) -> torch.optim.Optimizer:
    """Build the PyTorch optimizer that follows a config's canonical rule.

    Parameters
    ----------
    config : OptimizerConfig
        Family and hyperparameters, or a user's own class.
    params : list of Tensor
        What it trains.
    names : list of str, optional
        Name of each parameter, for optimizers that go by names.

    Returns
    -------
    torch.optim.Optimizer
        Its groups' ``lr`` is the learning rate, which schedules may move.

    Raises
    ------
    TypeError
        If a user's class makes no ``torch.optim.Optimizer``, or one whose step needs a closure.

    Examples
    --------
    >>> import torch
    >>> from optbench.optimizers import Adam
    >>> type(make_optimizer(Adam(lr=0.01), [torch.zeros(3, requires_grad=True)])).__name__
    'Adam'
    """
    if isinstance(config, Custom):
        return _custom(config, params)
    if isinstance(config, WAME):
        arguments = {name: getattr(config, name) for name in (*ours.HYPERPARAMETERS, "lr")}
        return ours.WAME(params, **arguments)
    keeps_float32 = isinstance(config, Nadam) and any(w.dtype == torch.float64 for w in params)
    if getattr(config, "flavor", None) is not None or keeps_float32:  # NAdam's product of momenta is float32
        return RuleOptimizer(params, config)
    kind, arguments = _native(config)
    return _fastest(kind, params, lr=config.lr, **arguments)


def _native(config: CanonicalConfig) -> tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]:
    """PyTorch's class of a family, and its arguments beside the learning rate."""
    if isinstance(config, SGD):
        given = {"momentum": config.momentum, "nesterov": config.nesterov, "dampening": config.dampening}
        return torch.optim.SGD, given
    if isinstance(config, RMSprop):
        given = {"alpha": config.rho, "momentum": config.momentum, "centered": config.centered}
        return torch.optim.RMSprop, {**given, "eps": config.eps}
    if isinstance(config, Adagrad):
        given = {"initial_accumulator_value": config.initial_accumulator, "eps": config.eps}
        return torch.optim.Adagrad, given
    if not isinstance(config, Adam | AdamW | Nadam):
        raise TypeError(f"no PyTorch class for {type(config).__name__}")
    moments: dict[str, Any] = {"betas": (config.beta1, config.beta2), "eps": config.eps}
    if isinstance(config, AdamW):
        return torch.optim.AdamW, {**moments, "weight_decay": config.weight_decay}
    if isinstance(config, Nadam):
        return torch.optim.NAdam, {**moments, "momentum_decay": config.momentum_decay}
    return torch.optim.Adam, moments


def _fastest(
    kind: Callable[..., torch.optim.Optimizer], params: list[Tensor], **arguments: Any
) -> torch.optim.Optimizer:
    """Make an optimizer in its fused form, or in the fastest that this class has on this device."""
    for form in ({"fused": True}, {"foreach": True}):
        try:
            return kind(params, **arguments, **form)
        except (TypeError, RuntimeError):  # this class, or this device, has no such form
            continue
    return kind(params, **arguments)


def _custom(config: Custom, params: list[Tensor]) -> torch.optim.Optimizer:
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

    Parameters
    ----------
    params : iterable
        Tensors or parameter groups.
    config : CanonicalConfig
        Family and hyperparameters.
    """

    def __init__(self, params: Any, config: CanonicalConfig) -> None:
        super().__init__(params, {"lr": config.lr, "config": config})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            config = group["config"]
            family = FAMILIES[config.optimizer]
            for w in group["params"]:
                if w.grad is None:
                    continue
                state = self.state[w]
                if not state:
                    state.update({"t": 0, **family.init(config, w, torch)})
                t = state.pop("t") + 1
                delta, new = family.update(config, w, w.grad, dict(state), lr=group["lr"], t=t, xp=torch)
                state.update({"t": t, **new})
                w.add_(delta)
        return loss
