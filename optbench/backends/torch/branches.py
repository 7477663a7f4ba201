"""Several trials of one config as branches of one CUDA graph: each trial's own kernels, side by side.

A convolution of a trial alone leaves most of a GPU idle, and as one of many groups it is slower than alone.
So the passes of all trials are recorded as they are, on streams that fork from one and join it again: one
launch a step for all of them, with the bits of each trial alone. What works element by element, the update,
is then one call for all.
"""

from __future__ import annotations

import copy
from collections import defaultdict
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
        """Copy an epoch into the buffers of the recording."""
        first = self._sessions[0]
        order = first.stacked_on_device(rows)
        held = self._buffers
        if held is None or held.rows.shape != order.shape or held.resident != (xs is None):
            self._replay = None
            held = self._buffers = _Buffers(self._sessions, order, resident=xs is None)
        held.rows.copy_(order)
        held.places.copy_(order if xs is None else torch.arange(order.shape[1], device=order.device))
        if xs is not None:
            for pool, session, x in zip(held.pools_x, self._sessions, xs, strict=True):
                pool.copy_(session.inputs(x))
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
            losses.append(self._step(buffers, torch.arange(whole * batch, n, device=buffers.rows.device)))
        return torch.cat(losses, 1)

    def _first(self, buffers: _Buffers) -> Tensor:
        """Take the first step as it is, which makes the optimizers' states, and record the next one."""
        generators = [session.model.generator for session in self._sessions]
        before = [generator.get_state() for generator in generators]
        for session in self._sessions:
            state_to_device(session.optimizer, buffers.rows.device)
        with self._recorder.aside():
            taken = self._step(buffers, buffers.first)
        together = joint([session.optimizer for session in self._sessions])

        def step() -> None:
            index = buffers.count * buffers.batch + buffers.first
            losses = self._step(buffers, index, together)
            buffers.losses.index_copy_(1, buffers.count, losses)
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

    def _step(
        self, buffers: _Buffers, index: Tensor, together: torch.optim.Optimizer | None = None
    ) -> Tensor:
        """Take a step of every trial on the batch at these places of its epoch; losses [trials, 1] before it.

        Each trial's own optimizer moves its weights, or one that moves those of all ``together``.
        """
        states = [session.train_state for session in self._sessions]
        batch = list(zip(buffers.inputs(index), buffers.targets(index), strict=True))
        losses: list[Tensor] = [buffers.losses] * len(states)

        def passes(k: int) -> None:
            loss = states[k].loss_of(*batch[k])
            loss.backward()
            losses[k] = loss.detach()
            if together is None:
                states[k].update()
            else:
                states[k].regularize()

        self._recorder.side_by_side([partial(passes, k) for k in range(len(states))])
        if together is not None:
            together.step()
            for state in states:
                for w in state.params:
                    w.grad = None
        return torch.stack(losses)[:, None]


class _Buffers:
    """What a recorded step of all trials reads and writes."""

    def __init__(self, sessions: Sequence[TorchSession], rows: Tensor, *, resident: bool) -> None:
        states = [session.train_state for session in sessions]
        self.batch, self.resident = states[0].batch, resident
        self.pools_x = [
            s.pool_x if resident else s.pool_x.new_empty((rows.shape[1], *s.pool_x.shape[1:])) for s in states
        ]
        self.pools_y = [s.pool_y for s in states]
        self.places, self.rows = torch.empty_like(rows), torch.empty_like(rows)
        self.count = rows.new_zeros(1, dtype=torch.int64)
        self.first = torch.arange(self.batch, device=rows.device)
        batches = max(1, rows.shape[1] // self.batch)
        self.losses = rows.new_zeros((len(rows), batches), dtype=states[0].params[0].dtype)

    def inputs(self, index: Tensor) -> Sequence[Tensor]:
        """Inputs of a batch of each trial."""
        return _looked_up(self.pools_x, self.places.index_select(1, index))

    def targets(self, index: Tensor) -> Sequence[Tensor]:
        """Targets of a batch of each trial."""
        return _looked_up(self.pools_y, self.rows.index_select(1, index))


def _looked_up(pools: Sequence[Tensor], rows: Tensor) -> Sequence[Tensor]:
    """Look up rows [trials, n] in each trial's pool, all at once where it is one."""
    first = pools[0]
    if any(pool is not first for pool in pools):
        return [pool.index_select(0, own) for pool, own in zip(pools, rows, strict=True)]
    return first.index_select(0, rows.flatten()).view(*rows.shape, *first.shape[1:]).unbind()


def joint(optimizers: Sequence[torch.optim.Optimizer]) -> torch.optim.Optimizer | None:
    """Make one optimizer that moves the weights of several, and their states, in as few calls as can be.

    It is for PyTorch's own classes, whose arithmetic is element by element and whose state is all in
    ``state``; None for others. Groups of the same options become one.
    """
    first = optimizers[0]
    if any(type(o) is not type(first) for o in optimizers) or not _of_pytorch(first):
        return None
    made = copy.copy(first)
    made.state = defaultdict(dict)
    made.param_groups = []
    for optimizer in optimizers:
        made.state.update(optimizer.state)
        for group in optimizer.param_groups:
            options = {name: value for name, value in group.items() if name != "params"}
            same = next((g for g in made.param_groups if _same(g, options)), None)
            if same is None:
                made.param_groups.append({**options, "params": list(group["params"])})
            else:
                same["params"] += group["params"]
    return made


def _of_pytorch(optimizer: torch.optim.Optimizer) -> bool:
    group = optimizer.param_groups[0]
    own = type(optimizer).__module__.startswith("torch.optim.")
    return own and bool(group.get("fused") or group.get("foreach"))


def _same(group: dict[str, Any], options: dict[str, Any]) -> bool:
    return all(type(group[name]) is type(value) and group[name] == value for name, value in options.items())
