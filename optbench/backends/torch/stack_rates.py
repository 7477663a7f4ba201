"""The optimizers of a stack: one for each run of neighbours with the same learning rate.

An update rule that works element by element moves the weights of all trials of a stack as one array. Trials
of other learning rates are neighbours in that array, so that each rate has a slice of it, and a sweep of 16
rates over 64 trials is 16 calls of the kernel that a trial alone calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from optbench.backends.torch.direct import step_of
from optbench.backends.torch.optimizers import lr_of, set_lr

#: Makes the optimizer of a learning rate for parameters.
Make = Callable[[float, list[Tensor]], torch.optim.Optimizer]
#: State of one parameter of the stack by name: [trials, *shape], or what all trials share.
State = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """Trials ``start`` to ``stop`` of a stack: their slices of the weights, and the optimizer of these."""

    start: int
    stop: int
    params: list[Tensor]
    kernels: list[Tensor]
    optimizer: torch.optim.Optimizer
    step: Callable[[], object]

    @property
    def lr(self) -> float:
        """Learning rate of these trials."""
        return lr_of(self.optimizer)


class StackOptimizer:
    """Moves stacked weights, each trial at its own learning rate.

    Parameters
    ----------
    make : callable
    params : list of Tensor
        Weights that are trained, [trials, *shape].
    kernels : list of Tensor
        Weights that decay, [trials, *shape].
    rates : sequence of float
        Learning rate of each trial; a group is a run of equal ones.
    state : list of State, optional
        Of each parameter; empty before the first step.
    side_by_side : callable, optional
        Does works that do not depend on each other: a slice alone leaves most of a GPU idle.
    """

    def __init__(
        self,
        make: Make,
        params: Sequence[Tensor],
        kernels: Sequence[Tensor],
        rates: Sequence[float],
        state: Sequence[State] = (),
        *,
        side_by_side: Callable[[Sequence[Callable[[], None]]], None] | None = None,
    ) -> None:
        self._side_by_side = side_by_side
        self._make, self._params, self._kernels = make, list(params), list(kernels)
        self.groups: list[Group] = []
        self._open(rates, state or [{} for _ in params])

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """All of them."""
        return [group.optimizer for group in self.groups]

    def rates(self, wanted: Sequence[float | None]) -> bool:
        """Set the learning rate of each trial, None where it does not matter; whether one is another now."""
        found = []
        for group in self.groups:
            asked = {rate for rate in wanted[group.start : group.stop] if rate is not None}
            if len(asked) > 1:
                old = [group.lr for group in self.groups for _ in range(group.start, group.stop)]
                rates = [was if rate is None else rate for rate, was in zip(wanted, old, strict=True)]
                self._open(rates, self.state())
                return True
            found.append(asked.pop() if asked else group.lr)
        moved = False
        for group, rate in zip(self.groups, found, strict=True):
            moved = moved or rate != group.lr
            set_lr(group.optimizer, rate)
        return moved

    @torch.no_grad()
    def step(self, decay: float | None) -> None:
        """Move the weights by their gradients, after their decoupled decay."""
        works = [partial(self._move, group, decay) for group in self.groups]
        if self._side_by_side is not None and len(works) > 1:
            self._side_by_side(works)
        else:
            for work in works:
                work()

    def _move(self, group: Group, decay: float | None) -> None:
        if decay is not None and group.kernels:
            torch._foreach_mul_(group.kernels, 1 - group.lr * decay)
        for w, whole in zip(group.params, self._params, strict=True):
            w.grad = None if whole.grad is None else whole.grad[group.start : group.stop]
        group.step()
        for w in group.params:
            w.grad = None

    def state(self) -> list[State]:
        """State of each parameter for all trials."""
        whole = []
        for place in range(len(self._params)):
            parts = [group.optimizer.state.get(group.params[place], {}) for group in self.groups]
            whole.append(
                {
                    name: torch.cat([part[name] for part in parts])
                    if _by_trial(value, self.groups[0].params[place])
                    else value
                    for name, value in parts[0].items()
                }
            )
        return whole

    def state_of(self, trial: int) -> list[State]:
        """State of each parameter for one trial, in the memory of the stack."""
        group = next(group for group in self.groups if group.start <= trial < group.stop)
        return [
            {
                name: value[trial - group.start] if _by_trial(value, w) else value
                for name, value in group.optimizer.state.get(w, {}).items()
            }
            for w in group.params
        ]

    def _open(self, rates: Sequence[float], state: Sequence[Mapping[str, Any]]) -> None:
        self.groups = []
        ends = [k for k in range(1, len(rates)) if rates[k] != rates[k - 1]]
        for start, stop in zip([0, *ends], [*ends, len(rates)], strict=True):
            params = [w.detach()[start:stop].requires_grad_(True) for w in self._params]
            optimizer = self._make(rates[start], params)
            for w, whole, kept in zip(params, self._params, state, strict=True):
                if kept:
                    optimizer.state[w] = {
                        name: value[start:stop].clone() if _by_trial(value, whole) else _own(value)
                        for name, value in kept.items()
                    }
            kernels = [w.detach()[start:stop] for w in self._kernels]
            self.groups.append(Group(start, stop, params, kernels, optimizer, step_of(optimizer)))


def joined(states: Sequence[Mapping[str, Any]], w: Tensor) -> State:
    """State of one parameter w [trials, *shape] from those of its trials; what they share is the first's."""
    return {
        name: torch.stack([state[name] for state in states])
        if isinstance(value, Tensor) and value.shape == w.shape[1:]
        else value
        for name, value in states[0].items()
    }


def picked(state: Mapping[str, Any], w: Tensor, which: Tensor) -> State:
    """State of one parameter w [trials, *shape] for some of the trials."""
    return {name: value[which] if _by_trial(value, w) else value for name, value in state.items()}


def _by_trial(value: Any, w: Tensor) -> bool:
    """Whether a state has an entry a trial; what is not element by element is shared by all."""
    return isinstance(value, Tensor) and value.shape == w.shape


def _own(value: Any) -> Any:
    """Copy of what trials share: each group's optimizer counts for itself."""
    return value.clone() if isinstance(value, Tensor) else value
