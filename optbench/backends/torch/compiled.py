"""A training step whose forward and backward pass are one program of ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from optbench.backends.base import LossSpec
from optbench.backends.torch.losses import Objective
from optbench.backends.torch.model import Network
from optbench.backends.torch.state import TrainState
from optbench.backends.torch.steps import AutogradStep
from optbench.models.layers import BuiltLayer

#: Configurations whose programs a process keeps.
KEPT = 256
#: What a compiler that is missing or fails raises: Dynamo's and Inductor's errors are RuntimeErrors, those of
#: a program that cannot be started are of the system. The record says which it was.
COMPILER_ERRORS = (RuntimeError, OSError, ImportError)
Loss = Callable[[Mapping[str, Tensor], Tensor, Tensor, list[Tensor]], Tensor]


@dataclass(frozen=True, kw_only=True)
class Program:
    """What a program is compiled for: optimizers, seeds and learning rates share it."""

    built: tuple[BuiltLayer, ...]
    loss: LossSpec
    half: str | None


class CompiledStep(AutogradStep):
    """See :class:`optbench.backends.torch.steps.Step`. The short last batch goes autograd's way.

    So do all batches where the compiler fails, which is found while warming up.
    """

    name = "compiled"

    def __init__(self, program: Program, why: str) -> None:
        super().__init__(why)
        self._loss: Loss | None = compiled(program)

    def warm_up(self, state: TrainState, rows: Tensor) -> None:
        """See :class:`optbench.backends.torch.steps.Step`."""
        try:
            super().warm_up(state, rows)
        except COMPILER_ERRORS as error:
            self._loss, self.name = None, "autograd"
            self.why = f"compiled was asked for: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
            super().warm_up(state, rows)

    def loss(self, state: TrainState, x: Tensor, rows: Tensor) -> Tensor:
        """See :class:`optbench.backends.torch.steps.AutogradStep`."""
        if self._loss is None or len(rows) < state.micro:
            return super().loss(state, x, rows)
        masks = state.model.masks(len(rows), x.dtype)
        return self._loss(state.model.weights, x, state.pool_y.index_select(0, rows), masks)


@lru_cache(KEPT)
def compiled(program: Program) -> Loss:
    """Compile the training loss as a function of weights, inputs, targets and dropout masks."""
    config: Any = torch._dynamo.config
    # Every configuration is a variant of one function to the compiler, which stops at 8 of them by default.
    config.cache_size_limit = max(config.cache_size_limit, KEPT)
    config.accumulated_cache_size_limit = max(config.accumulated_cache_size_limit, KEPT)
    torch._inductor.config.compile_threads = 1  # no processes of its own: a trial may run in a worker
    settings: Any = torch._inductor.config
    if hasattr(settings, "deterministic"):  # which the engine's own switch leaves alone
        settings.deterministic = torch.are_deterministic_algorithms_enabled()
    objective = Objective(Network(program.built), program.loss, program.half)

    def loss(weights: Mapping[str, Tensor], x: Tensor, y: Tensor, masks: list[Tensor]) -> Tensor:
        ahead = iter(masks)
        return objective(weights, x, y, draw=lambda x, keep: next(ahead))

    made: Loss = torch.compile(loss, fullgraph=True, dynamic=False)
    return made
