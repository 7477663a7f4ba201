"""Canonical rules on PyTorch's arrays: written once for any library, run here on many tensors at once."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from optbench.optimizers import CanonicalConfig, family_of
from optbench.optimizers.base import ARRAY_FUNCTIONS, array_functions


def _matrix(w: Tensor) -> Tensor:
    """See :data:`optbench.optimizers.base.ARRAY_FUNCTIONS`; convolution kernels begin with their filters."""
    return w if w.ndim == 2 else w.reshape(w.shape[0], -1).t()


def _like(x: Tensor, w: Tensor) -> Tensor:
    return x if w.ndim == 2 else x.t().reshape(w.shape)


#: ``xp`` of a rule on one tensor.
ONE = array_functions(torch, matrix=_matrix, like=_like)


class Many:
    """Tensors of any shapes that an operation treats alike: one call of ``torch._foreach`` for all.

    The arithmetic is that of the tensors one by one, to the bit.
    """

    __slots__ = ("tensors",)
    __array_ufunc__ = None

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = list(tensors)

    def _with(self, other: Any, foreach: Callable[..., Any], single: Callable[..., Tensor]) -> Many:
        if isinstance(other, Tensor):  # a number on the device
            return self._each(other, single)
        return Many(foreach(self.tensors, other.tensors if isinstance(other, Many) else other))

    def _each(self, other: Any, operation: Callable[..., Tensor]) -> Many:
        others = other.tensors if isinstance(other, Many) else [other] * len(self.tensors)
        return Many([operation(a, b) for a, b in zip(self.tensors, others, strict=True)])

    def __add__(self, other: Any) -> Many:
        return self._with(other, torch._foreach_add, operator.add)

    def __sub__(self, other: Any) -> Many:
        return self._with(other, torch._foreach_sub, operator.sub)

    def __mul__(self, other: Any) -> Many:
        return self._with(other, torch._foreach_mul, operator.mul)

    def __truediv__(self, other: Any) -> Many:
        return self._with(other, torch._foreach_div, operator.truediv)

    def __pow__(self, exponent: float) -> Many:
        return Many(torch._foreach_pow(self.tensors, exponent))

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Any) -> Many:
        return -self + other

    def __rtruediv__(self, other: Any) -> Many:
        return self._each(other, lambda a, b: b / a)

    def __neg__(self) -> Many:
        return Many(torch._foreach_neg(self.tensors))

    def __gt__(self, other: Any) -> Many:
        return self._each(other, operator.gt)

    def __lt__(self, other: Any) -> Many:
        return self._each(other, operator.lt)

    def __ge__(self, other: Any) -> Many:
        return self._each(other, operator.ge)

    def __le__(self, other: Any) -> Many:
        return self._each(other, operator.le)


def _foreach(name: str) -> Callable[..., Any]:
    """Find the function for many tensors, or make it of that for one."""
    single, several = getattr(ONE, name), getattr(torch, f"_foreach_{name}", None)

    def function(*arguments: Any) -> Any:
        many = next((a for a in arguments if isinstance(a, Many)), None)
        if many is None:
            return single(*arguments)
        count = len(many.tensors)
        columns = [a.tensors if isinstance(a, Many) else [a] * count for a in arguments]
        if several is not None and all(isinstance(a, Many) for a in arguments):
            return Many(several(*columns))
        return Many([single(*row) for row in zip(*columns, strict=True)])

    return function


#: ``xp`` of a rule on :class:`Many`.
MANY: Any = type("ManyFunctions", (), {name: staticmethod(_foreach(name)) for name in ARRAY_FUNCTIONS})


class RuleOptimizer(torch.optim.Optimizer):
    """A canonical rule on PyTorch's arrays.

    Half-precision parameters keep their state, and do their arithmetic, in float32. A group that is
    ``capturable`` counts its steps on the device, as a CUDA graph must; what the steps' number goes into is
    then rounded elsewhere.

    Parameters
    ----------
    params : iterable
        Tensors or parameter groups.
    config : CanonicalConfig
        Family and hyperparameters.

    Attributes
    ----------
    loss : Tensor or float, optional
        Loss whose gradients the next step takes, for a rule that needs it; a closure's goes first.
    """

    def __init__(self, params: Any, config: CanonicalConfig) -> None:
        super().__init__(params, {"lr": config.lr, "config": config, "capturable": False})
        self.loss: Any = None
        self.needs_loss = family_of(config).needs_loss(config)

    def recorded(self, *, same_bits: bool) -> str | None:
        """Say why a step cannot be recorded, with the same bits or at all; None where it can."""
        for group in self.param_groups:
            config = group["config"]
            family = family_of(config)
            if family.needs_loss(config):
                return f"{config.optimizer}'s rule reads the loss on the host"
            if same_bits and family.counts(config):
                return f"{config.optimizer}'s rule rounds otherwise where steps are counted on the device"
        return None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[tuple[Any, ...], list[Tensor]] = {}
            for w in group["params"]:
                if w.grad is not None:
                    state = self.state[w]
                    if not state:
                        state.update(self._new_state(w, group["config"]))
                    t = state["t"] = _next(state["t"], w.device, on_device=group["capturable"])
                    same = "on the device" if isinstance(t, Tensor) else t
                    alike.setdefault((same, w.dtype, w.device), []).append(w)
            for weights in alike.values():
                t = self.state[weights[0]]["t"]
                self._update(group, weights, t, self.loss if loss is None else loss)
        return loss

    @staticmethod
    def _new_state(w: Tensor, config: CanonicalConfig) -> dict[str, Any]:
        made = family_of(config).init(config, _widened(w), ONE)
        return {"t": 0, **{name: array.to(w.device, copy=True) for name, array in made.items()}}

    def _update(self, group: dict[str, Any], weights: list[Tensor], t: int | Tensor, loss: Any) -> None:
        """Take step t of these weights; a state keeps its memory, so that a step can be recorded."""
        config = group["config"]
        family = family_of(config)
        options = {"lr": group["lr"], "t": t, **family.known_loss(config, loss)}
        wide = [_widened(w) for w in weights]
        gradients = [_widened(w.grad) for w in weights if w.grad is not None]
        states = [{n: x for n, x in self.state[w].items() if n != "t"} for w in weights]
        kept = {name: [_widened(state[name]) for state in states] for name in states[0]}
        if family.matrices(config):
            each = zip(wide, gradients, states, strict=True)
            found = [family.update(config, w, g, s, xp=ONE, **options) for w, g, s in each]
            deltas = [delta for delta, _ in found]
            new = {name: [state[name] for _, state in found] for name in kept}
        else:
            before = {name: Many(arrays) for name, arrays in kept.items()}
            delta, after = family.update(config, Many(wide), Many(gradients), before, xp=MANY, **options)
            deltas, new = delta.tensors, {name: after[name].tensors for name in kept}
        for name, arrays in new.items():
            torch._foreach_copy_([state[name] for state in states], arrays)
        if wide[0] is weights[0]:
            torch._foreach_add_(weights, deltas)
        else:
            for w, delta in zip(weights, deltas, strict=True):  # in float32, rounded once
                w.add_(delta)


def _next(t: int | Tensor, device: torch.device, *, on_device: bool) -> int | Tensor:
    """Count a step, on the device in place."""
    if not on_device:
        return int(t) + 1
    if not isinstance(t, Tensor):
        t = torch.tensor(t, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
    return t.add_(1)


def _widened(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
