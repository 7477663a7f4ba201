"""Optimizer configs as PyTorch classes.

The class that the family names, in the fastest of its forms that this device has; the rule itself on
PyTorch's arrays where it names none; one of these for each parameter group.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from pkgutil import resolve_name
from typing import Any, Literal

import torch
from torch import Tensor

from optbench.backends.base import is_out_of_memory
from optbench.backends.torch.rules import RuleOptimizer
from optbench.models.layers import Role
from optbench.optimizers import FAMILIES, OptimizerConfig, custom, family_of, groups, has_rule
from optbench.optimizers.base import Native
from optbench.optimizers.groups import Assigned


def _spare_the_compiler() -> None:
    """Have an optimizer be made without PyTorch's compiler, whose import takes as long as PyTorch's own.

    Its only part is to say of ``add_param_group`` that it is not to be compiled; nothing here compiles it.
    """
    plain = getattr(torch.optim.Optimizer.add_param_group, "__wrapped__", None)
    if plain is not None and not hasattr(plain, "__dynamo_disable"):
        plain.__dynamo_disable = plain


_spare_the_compiler()


def make_optimizer(
    config: OptimizerConfig,
    params: list[Tensor],
    roles: Mapping[str, Role] | None = None,
    *,
    suits: Callable[[torch.optim.Optimizer], bool] = lambda made: True,
) -> torch.optim.Optimizer:
    """Build the PyTorch optimizer that follows a config's canonical rule.

    Parameters
    ----------
    config : OptimizerConfig
        Family and hyperparameters, a custom class, or groups of these.
    params : list of Tensor
        What it trains.
    roles : mapping, optional
        Their names and roles, in the same order; guessed from their shapes if not given.
    suits : callable, optional
        Whether an optimizer will do; the rule itself takes the place of a class that does not.

    Returns
    -------
    torch.optim.Optimizer
        Its groups' ``lr`` is the learning rate; :func:`set_lr` moves it.

    Raises
    ------
    TypeError
        If a custom class makes no ``torch.optim.Optimizer``, or one whose step needs a closure.
    GroupsError
        If the groups do not fit the roles.

    Examples
    --------
    >>> import torch
    >>> from optbench.optimizers import Adam
    >>> type(make_optimizer(Adam(lr=0.01), [torch.zeros(3, requires_grad=True)])).__name__
    'Adam'
    """
    if roles is None:
        roles = groups.roles_by_shape([w.shape for w in params])
    named = dict(zip(roles, params, strict=True))
    assigned = groups.assign(config, roles)
    if len(assigned) == 1 and assigned[0].scheduled:
        return _one(assigned[0].config, params, roles, suits)
    parts = []
    for part in assigned:
        own = {name: roles[name] for name in part.names}
        parts.append((part, _one(part.config, [named[name] for name in part.names], own, suits)))
    return GroupedOptimizer(parts, config.lr)


class GroupedOptimizer(torch.optim.Optimizer):
    """Several optimizers, each for weights of its own, as one.

    Parameters
    ----------
    parts : sequence of (Assigned, Optimizer)
        What each is, and the optimizer with those weights.
    lr : float, optional
        Learning rate that :meth:`set_lr` counts from.
    """

    def __init__(self, parts: Sequence[tuple[Assigned, torch.optim.Optimizer]], lr: float | None) -> None:
        self.parts = tuple(optimizer for _, optimizer in parts)
        self._assigned, self._reference = tuple(part for part, _ in parts), lr
        self.lr: Any = lr
        super().__init__([w for part in self.parts for w in _params(part)], {})
        # Groups and state are those of the parts, in which a step looks for them.
        self.param_groups = [group for part in self.parts for group in part.param_groups]
        for part in self.parts:
            part.state = self.state

    def set_lr(self, lr: float) -> None:
        """Move the learning rates, each in proportion to its own."""
        self.lr = lr
        for part, optimizer in zip(self._assigned, self.parts, strict=True):
            if (rate := part.rate(lr, self._reference)) is not None:
                set_lr(optimizer, rate)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step of every part."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; the parts go on from it."""
        super().load_state_dict(state_dict)
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state


def _params(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [w for group in optimizer.param_groups for w in group["params"]]


def parts_of(optimizer: torch.optim.Optimizer) -> tuple[torch.optim.Optimizer, ...]:
    """List the optimizers that an optimizer is made of: its parts, or itself."""
    return optimizer.parts if isinstance(optimizer, GroupedOptimizer) else (optimizer,)


def class_facts(optimizer: torch.optim.Optimizer) -> dict[str, str]:
    """Name for the record the classes that move the weights, and their kernels."""
    parts = parts_of(optimizer)
    return {
        "optimizer": " and ".join(type(part).__qualname__ for part in parts),
        "kernel": " and ".join(kernel_of(part) for part in parts),
    }


def kernel_of(optimizer: torch.optim.Optimizer) -> str:
    """Name what moves the weights: an optimizer's own path, or PyTorch's fused, foreach or plain form."""
    form = next((name for name in ("fused", "foreach") if optimizer.defaults.get(name)), "plain")
    name = str(getattr(optimizer, "path", form))
    return f"{name}, steps counted on the device" if rounds_otherwise(optimizer) else name


def rounds_otherwise(optimizer: torch.optim.Optimizer) -> bool:
    """Whether an optimizer that is made ready for a graph no longer has the bits of its usual step."""
    if not any(group.get("capturable") for group in optimizer.param_groups):
        return False
    if isinstance(optimizer, RuleOptimizer):
        return optimizer.recorded(same_bits=True) is not None
    native = declared(type(optimizer))
    return native is not None and native.graph == "other bits"


def lr_of(optimizer: torch.optim.Optimizer) -> float:
    """Tell the learning rate that :func:`set_lr` has set, or the first one."""
    rate: float = optimizer.lr if isinstance(optimizer, GroupedOptimizer) else optimizer.param_groups[0]["lr"]
    return rate


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the steps to come."""
    if isinstance(optimizer, GroupedOptimizer):
        optimizer.set_lr(lr)
        return
    for group in optimizer.param_groups:
        group["lr"] = lr


def _one(
    config: Any,
    params: list[Tensor],
    roles: Mapping[str, Role],
    suits: Callable[[torch.optim.Optimizer], bool],
) -> torch.optim.Optimizer:
    if not has_rule(config):
        return _custom(config, params, roles)
    native = family_of(config).native_for("torch", config)
    if native is None or (not native[0].float64 and any(w.dtype == torch.float64 for w in params)):
        return RuleOptimizer(params, config)
    kind, arguments = native
    made = _fastest(kind, params, {"lr": config.lr, **arguments})
    return made if suits(made) else RuleOptimizer(params, config)


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
        except (TypeError, RuntimeError) as error:  # this class, or this device, has no such form
            if is_out_of_memory(error):
                raise
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
    except (TypeError, RuntimeError) as error:
        if is_out_of_memory(error):  # which is of this moment, and not of the device
            raise
        return False
    return True


def _custom(config: Any, params: list[Tensor], roles: Mapping[str, Role]) -> torch.optim.Optimizer:
    made = custom.make(config, params, roles=roles)
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
    for part in parts_of(optimizer):
        if all(callable(getattr(part, name, None)) for name in ("train", "eval")):
            getattr(part, mode)()
