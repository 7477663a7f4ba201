"""The ways a training step can take in PyTorch, and which of them a trial takes.

All of them take the same step: gradients of the same loss, the same rules on them, the optimizer's update.
``autograd`` and ``hand-written`` do it with the same bits, and so does ``graph``, which replays autograd's
kernels; ``compiled`` rounds in other places. What is chosen by the clock is therefore chosen among the ways
of the same bits: no result depends on how busy a machine was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from optbench.backends.torch.engine import TorchSession


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
    """A way to take the steps of one session."""

    #: As the record has it.
    name: str
    #: Why this one.
    why: str

    def warm_up(self, session: TorchSession, rows: Tensor) -> None:
        """Compile and allocate what a step on these rows needs; gradients may be left behind."""

    def epoch(self, session: TorchSession, pool: Tensor, places: Tensor, rows: Tensor) -> Tensor:
        """Take a step a batch, inputs ``pool[places]``, labels those of ``rows``; losses [batches]."""


class AutogradStep:
    """PyTorch's own: forward, ``backward()``, ``step()``."""

    name = "autograd"

    def __init__(self, why: str) -> None:
        self.why = why

    def warm_up(self, session: TorchSession, rows: Tensor) -> None:
        """See :class:`Step`."""
        self.loss(session, session.pool_x.index_select(0, rows), rows).backward()

    def epoch(self, session: TorchSession, pool: Tensor, places: Tensor, rows: Tensor) -> Tensor:
        """See :class:`Step`."""
        return torch.stack(self.steps(session, pool, *batches(session, places, rows)))

    def steps(
        self, session: TorchSession, pool: Tensor, places: Sequence[Tensor], rows: Sequence[Tensor]
    ) -> list[Tensor]:
        """Take a step for each of these batches; their losses."""
        losses = []
        for place, batch in zip(places, rows, strict=True):
            loss = self.loss(session, pool.index_select(0, place), batch)
            loss.backward()
            session.update()
            losses.append(loss.detach())
        return losses

    def loss(self, session: TorchSession, x: Tensor, rows: Tensor) -> Tensor:
        """Loss of a batch in training mode, with penalties."""
        return session.loss(x, rows)


def batches(session: TorchSession, *rows: Tensor) -> list[tuple[Tensor, ...]]:
    """Cut rows of an epoch into batches, the last one as short as it is."""
    return [indices.split(session.batch) for indices in rows]
