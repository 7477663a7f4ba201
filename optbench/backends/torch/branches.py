"""Several trials of one config as branches of one CUDA graph: each trial's own kernels, side by side.

A convolution of a trial alone leaves most of a GPU idle, and as one of many groups it is slower than alone.
So the steps of all trials are recorded as they are, on streams that fork from one and join it again: one
launch a step for all of them, with the bits of each trial alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optbench.backends.base import NotStackableError, is_out_of_memory
from optbench.backends.torch.graph import Recorder, make_capturable, obstacle, state_to_device, step_counts
from optbench.backends.torch.session import TorchSession
from optbench.backends.torch.stack import drawn, first_line
from optbench.matching import Indices


class BranchStack:
    """See :class:`optbench.backends.base.Stack`; its sessions are those of trials alone."""

    def __init__(self, sessions: Sequence[TorchSession], recorder: Recorder) -> None:
        for session in sessions:
            if (reason := obstacle(session.optimizer, same_bits=False)) is not None:
                raise NotStackableError(reason)
            make_capturable(session.optimizer)
        self._sessions, self._recorder = list(sessions), recorder
        self._buffers: _Buffers | None = None
        self._replay: Callable[[], None] | None = None
        self._rates: dict[int, float] = {}
        self.members: list[Any] = list(sessions)

    def train_epoch(
        self, sessions: Sequence[Any], rows: Sequence[Indices], xs: Sequence[NDArray[Any]] | None
    ) -> list[NDArray[np.float64]]:
        """See :class:`optbench.backends.base.Stack`. Trials that have ended leave in halves."""
        if 2 * len(sessions) <= len(self._sessions):
            live = {id(session) for session in sessions}
            self._sessions = [s for s in self._sessions if id(s) in live]
            self._replay = self._buffers = None
        first = self._sessions[0]
        first.set_products()
        places = {id(session): k for k, session in enumerate(sessions)}
        which = [places.get(id(session), 0) for session in self._sessions]
        buffers = self._fill([rows[k] for k in which], None if xs is None else [xs[k] for k in which])
        rates = {id(session): session.lr for session in sessions}
        if any(self._rates.get(key) != rate for key, rate in rates.items()):
            self._replay, self._rates = None, rates
        losses = self._epoch(buffers).double().cpu().numpy()
        order = {id(session): k for k, session in enumerate(self._sessions)}
        return [losses[order[id(session)]] for session in sessions]

    def _fill(self, rows: Sequence[Indices], xs: Sequence[NDArray[Any]] | None) -> _Buffers:
        """Bring an epoch to where the recording looks for it."""
        first = self._sessions[0]
        order = first.on_device(np.stack(rows))
        places = order
        if xs is not None:
            places = first.on_device(np.arange(order.shape[1])).expand(order.shape)
        held = self._buffers
        if held is None or held.rows.shape != order.shape or held.resident != (xs is None):
            self._replay = None
            held = self._buffers = _Buffers(self._sessions, order, resident=xs is None)
        if xs is not None:
            for pool, session, x in zip(held.pools, self._sessions, xs, strict=True):
                pool.copy_(session.inputs(x))
        held.places.copy_(places)
        held.rows.copy_(order)
        return held

    def _epoch(self, buffers: _Buffers) -> Tensor:
        batch, n = buffers.batch, buffers.rows.shape[1]
        whole, done, losses = n // batch, 0, []
        if whole:
            if self._replay is None:
                losses.append(self._first(buffers))
                done = 1
            assert self._replay is not None
            counts = [count for s in self._sessions for count in step_counts(s.optimizer)]
            buffers.count.fill_(done)
            for _ in range(done, whole):
                self._replay()
            for kept, name, count in counts:
                kept[name] = count + whole - done
            losses.append(buffers.losses[:, done:whole].clone())
        if whole * batch < n:
            rest = torch.arange(whole * batch, n, device=buffers.rows.device)
            last = buffers.losses.new_zeros((len(self._sessions), 1))
            self._recorder.side_by_side(
                [partial(self._step, k, buffers, rest, last[k]) for k in range(len(self._sessions))]
            )
            losses.append(last)
        return torch.cat(losses, 1)

    def _first(self, buffers: _Buffers) -> Tensor:
        """Take the first step as it is, which makes the optimizers' states, and record the next one."""
        trials = range(len(self._sessions))
        generators = [session.model.generator for session in self._sessions]
        before = [generator.get_state() for generator in generators]
        for session in self._sessions:
            state_to_device(session.optimizer, buffers.rows.device)
        taken = buffers.losses.new_zeros((len(self._sessions), 1))
        with self._recorder.aside():
            self._recorder.side_by_side(
                [partial(self._step, k, buffers, buffers.first, taken[k]) for k in trials]
            )

        def step() -> None:
            index = buffers.count * buffers.batch + buffers.first
            self._recorder.side_by_side([partial(self._recorded, k, buffers, index) for k in trials])
            buffers.count.add_(1)

        counts = [count for session in self._sessions for count in step_counts(session.optimizer)]
        try:
            self._replay = self._recorder.record(step, *drawn(generators, before))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise NotStackableError(f"a step cannot be recorded: {first_line(error)}") from error
        for kept, name, count in counts:  # recording a step counts it and does not take it
            kept[name] = count
        return taken

    def _step(self, k: int, buffers: _Buffers, index: Tensor, loss: Tensor) -> None:
        """Take a step of a trial on the batch at these places of its epoch; its loss goes into ``loss``."""
        loss.copy_(self._loss(k, buffers, index))

    def _recorded(self, k: int, buffers: _Buffers, index: Tensor) -> None:
        buffers.losses[k].index_copy_(0, buffers.count, self._loss(k, buffers, index)[None])

    def _loss(self, k: int, buffers: _Buffers, index: Tensor) -> Tensor:
        state = self._sessions[k].train_state
        x = buffers.pools[k].index_select(0, buffers.places[k].index_select(0, index))
        loss = state.loss(x, buffers.rows[k].index_select(0, index))
        loss.backward()
        state.update()
        return loss.detach()


class _Buffers:
    """What a recorded step of all trials reads and writes."""

    def __init__(self, sessions: Sequence[TorchSession], rows: Tensor, *, resident: bool) -> None:
        states = [session.train_state for session in sessions]
        self.batch, self.resident = states[0].batch, resident
        self.pools = [
            s.pool_x if resident else s.pool_x.new_empty((rows.shape[1], *s.pool_x.shape[1:])) for s in states
        ]
        self.places, self.rows = torch.empty_like(rows), torch.empty_like(rows)
        self.count = rows.new_zeros(1)
        self.first = torch.arange(self.batch, device=rows.device)
        self.losses = states[0].pool_x.new_zeros((len(rows), max(1, rows.shape[1] // self.batch)))
