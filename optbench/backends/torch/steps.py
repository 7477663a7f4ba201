"""The ways a training step can take in PyTorch, and which of them a trial takes.

All of them take the same step: gradients of the same loss, the same rules on them, the optimizer's update.
``autograd`` and ``hand-written`` do it with the same bits, and so does ``graph``, which replays autograd's
kernels; ``compiled`` rounds in other places. ``auto`` chooses among the ways of the same bits, and by what is
trained and on what, never by the clock: all trials of an optimizer go one way, however busy a machine is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from optbench.backends.torch.state import TrainState


@contextmanager
def flush_denormals() -> Iterator[None]:
    """Take numbers below the least normal one (1e-38 in float32) as 0, as XLA and TensorFlow do.

    An x86 core computes with them up to a hundred times slower, and squared gradients that decay reach them.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


class Step(Protocol):
    """A way to take the steps of one state."""

    #: As the record has it.
    name: str
    #: Why this one.
    why: str

    def warm_up(self, state: TrainState, rows: Tensor) -> None:
        """Compile and allocate what a step on these rows needs; gradients may be left behind."""

    def epoch(self, state: TrainState, pool: Tensor, places: Tensor, rows: Tensor) -> Tensor:
        """Take a step a batch, inputs ``pool[places]``, targets those of ``rows``; losses [batches]."""


MakeStep = Callable[[TrainState], Step]


class AutogradStep:
    """PyTorch's own: forward, ``backward()``, ``step()``."""

    name = "autograd"

    def __init__(self, why: str) -> None:
        self.why = why

    def warm_up(self, state: TrainState, rows: Tensor) -> None:
        """See :class:`Step`."""
        self.passes(state, state.pool_x.index_select(0, rows), rows)

    def epoch(self, state: TrainState, pool: Tensor, places: Tensor, rows: Tensor) -> Tensor:
        """See :class:`Step`."""
        return torch.stack(self.steps(state, pool, *batches(state, places, rows)))

    def steps(
        self, state: TrainState, pool: Tensor, places: Sequence[Tensor], rows: Sequence[Tensor]
    ) -> list[Tensor]:
        """Take a step for each of these batches; their losses."""
        losses = []
        for place, batch in zip(places, rows, strict=True):
            loss = self.passes(state, pool.index_select(0, place), batch)
            state.tell(loss)
            state.update()
            losses.append(loss.detach())
        return losses

    def passes(self, state: TrainState, x: Tensor, rows: Tensor) -> Tensor:
        """Forward and backward pass of a batch, all at once or part after part; its loss."""
        n = len(rows)
        if n <= state.micro:
            loss = self.loss(state, x, rows)
            loss.backward()
            return loss
        total = torch.zeros((), dtype=state.params[0].dtype, device=state.params[0].device)
        for part, own in zip(x.split(state.micro), rows.split(state.micro), strict=True):
            loss = self.loss(state, part, own) * (len(own) / n)
            loss.backward()
            total += loss.detach()
        return total

    def loss(self, state: TrainState, x: Tensor, rows: Tensor) -> Tensor:
        """Loss of a batch in training mode, with penalties."""
        return state.loss(x, rows)


def batches(state: TrainState, *rows: Tensor) -> list[tuple[Tensor, ...]]:
    """Cut rows of an epoch into batches, the last one as short as it is."""
    return [indices.split(state.batch) for indices in rows]
