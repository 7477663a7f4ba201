"""A training step recorded once as a CUDA graph and replayed: one launch in place of hundreds.

Everything that a step reads or writes lies where it lay when it was recorded. So the epoch's order goes into
a buffer, a counter on the device says which batch comes next, and each loss is written to its place: a replay
needs nothing from Python. Learning rates and clipping limits are numbers in the recording; a new learning
rate makes a new one.

PyTorch's documentation: "CUDA semantics", section "CUDA Graphs"; ``Optimizer`` arguments ``capturable``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from optbench.backends.torch.optimizers import declared, parts_of
from optbench.backends.torch.rules import RuleOptimizer
from optbench.backends.torch.state import TrainState
from optbench.backends.torch.steps import AutogradStep


class Recorder(Protocol):
    """Records steps on a device."""

    def aside(self) -> AbstractContextManager[object]:
        """Where a step is taken before one is recorded."""

    def record(self, step: Callable[[], None], *generators: torch.Generator) -> Callable[[], None]:
        """Record a step and the draws of its generators, taking none; returns what takes it."""

    def side_by_side(self, works: Sequence[Callable[[], None]]) -> None:
        """Do works that do not depend on each other, in a recording or outside of one."""


class CudaRecorder:
    """See :class:`Recorder`."""

    #: Streams on which works run side by side; each may hold a workspace of 32 MB a library.
    STREAMS = 16

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()
        self._branches: list[torch.cuda.Stream] = []

    @contextmanager
    def aside(self) -> Iterator[None]:
        """See :class:`Recorder`."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            yield
        current.wait_stream(self._stream)

    def record(self, step: Callable[[], None], *generators: torch.Generator) -> Callable[[], None]:
        """See :class:`Recorder`."""
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, stream=self._stream):
            step()
        replay: Callable[[], None] = graph.replay
        return replay

    def side_by_side(self, works: Sequence[Callable[[], None]]) -> None:
        """See :class:`Recorder`: streams that fork from the current one and join it again."""
        while len(self._branches) < min(len(works), self.STREAMS):
            self._branches.append(torch.cuda.Stream())
        current, branches = torch.cuda.current_stream(), self._branches[: len(works)]
        for branch in branches:
            branch.wait_stream(current)
        try:
            for k, work in enumerate(works):
                with torch.cuda.stream(branches[k % len(branches)]):
                    work()
        finally:  # else the recording's end would hide what went wrong
            for branch in branches:
                current.wait_stream(branch)


def obstacle(optimizer: torch.optim.Optimizer, *, same_bits: bool) -> str | None:
    """Say why an optimizer's step cannot be recorded; None where it can.

    With ``same_bits`` it must also be the arithmetic of the step that is not recorded. Families declare it of
    PyTorch's classes; optbench's own classes answer by ``graph_obstacle``, as it depends on their arguments.
    """
    if len(parts := parts_of(optimizer)) > 1:
        return next(filter(None, (obstacle(part, same_bits=same_bits) for part in parts)), None)
    if (own := getattr(optimizer, "graph_obstacle", None)) is not None:
        reason: str | None = own()
        return reason
    if isinstance(optimizer, RuleOptimizer):
        return optimizer.recorded(same_bits=same_bits)
    name, native = type(optimizer).__qualname__, declared(type(optimizer))
    if native is None or native.graph == "no":
        return f"{name} computes on the host between its kernels"
    if native.graph == "same bits":
        return None
    if same_bits:
        return f"{name} rounds otherwise in a graph"
    wide = any(w.dtype == torch.float64 for group in optimizer.param_groups for w in group["params"])
    return f"{name} counts its steps in float32 in a graph" if wide else None


class GraphStep(AutogradStep):
    """See :class:`optbench.backends.torch.steps.Step`. The short last batch is not recorded."""

    name = "graph"

    def __init__(self, optimizer: torch.optim.Optimizer, recorder: Recorder, why: str) -> None:
        super().__init__(why)
        self._recorder = recorder
        self._replay: Callable[[], None] | None = None
        self._lr = math.nan
        self._buffers: _Buffers | None = None
        make_capturable(optimizer)

    def epoch(self, state: TrainState, pool: Tensor, places: Tensor, rows: Tensor) -> Tensor:
        """See :class:`optbench.backends.torch.steps.Step`."""
        buffers = self._fill(state, pool, places, rows)
        batch, whole, done = state.batch, len(rows) // state.batch, 0
        losses: list[Tensor] = []
        if whole and (self._replay is None or state.lr != self._lr):
            state_to_device(state.optimizer, buffers.pool.device)
            # A step of the ordinary kind makes the optimizer's state and the libraries' workspaces.
            with self._recorder.aside():
                losses = self.steps(state, buffers.pool, [places[:batch]], [rows[:batch]])
            done = 1
            self._record(state, buffers)
        counts = step_counts(state.optimizer)
        buffers.batch.fill_(done)
        for _ in range(done, whole):
            assert self._replay is not None
            self._replay()
        for kept, name, count in counts:
            kept[name] = count + whole - done
        taken = buffers.losses[done:whole].clone()
        if whole * batch < len(rows):
            losses += self.steps(state, buffers.pool, [places[whole * batch :]], [rows[whole * batch :]])
        return torch.cat([*[loss[None] for loss in losses[:done]], taken, *[x[None] for x in losses[done:]]])

    def _fill(self, state: TrainState, pool: Tensor, places: Tensor, rows: Tensor) -> _Buffers:
        """Copy an epoch into the buffers of the recording."""
        held, resident = self._buffers, pool is state.pool_x
        if held is None or len(rows) > len(held.rows) or resident != held.resident:
            self._replay = None
            held = self._buffers = _Buffers(state, pool, rows)
        if not resident:
            held.pool[: len(pool)] = pool
        held.places[: len(places)] = places
        held.rows[: len(rows)] = rows
        return held

    def _record(self, state: TrainState, buffers: _Buffers) -> None:
        def step() -> None:
            index = buffers.batch * state.batch + buffers.first
            x = buffers.pool.index_select(0, buffers.places.index_select(0, index))
            loss = self.passes(state, x, buffers.rows.index_select(0, index))
            state.update()
            buffers.losses.index_copy_(0, buffers.batch, loss.detach()[None])
            buffers.batch.add_(1)

        counts = step_counts(state.optimizer)
        self._replay = None  # the old recording's memory goes first
        self._replay = self._recorder.record(step, state.model.generator)
        self._lr = state.lr
        for kept, name, count in counts:  # recording a step counts it and does not take it
            kept[name] = count


class _Buffers:
    """What a recorded step reads and writes."""

    def __init__(self, state: TrainState, pool: Tensor, rows: Tensor) -> None:
        self.resident = pool is state.pool_x
        self.pool = pool if self.resident else torch.empty_like(pool)
        self.places, self.rows = torch.zeros_like(rows), torch.zeros_like(rows)
        self.batch = rows.new_zeros(1)
        self.first = torch.arange(state.batch, device=rows.device)
        count = -(-len(rows) // state.batch)
        self.losses = torch.zeros(count, dtype=state.params[0].dtype, device=rows.device)


def make_capturable(optimizer: torch.optim.Optimizer) -> None:
    """Have an optimizer do its arithmetic on the device alone."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
    # PyTorch would warn of the steps that are taken before the recording.
    for part in parts_of(optimizer):
        part._warned_capturable_if_run_uncaptured = True


def state_to_device(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Bring an optimizer's state to the device: what was saved by another way may lie on the host."""
    for kept in optimizer.state.values():
        for name, value in kept.items():
            if isinstance(value, Tensor):
                kept[name] = value.to(device)


def step_counts(optimizer: torch.optim.Optimizer) -> list[tuple[dict[str, Any], str, int]]:
    """Steps that an optimizer counts in Python, which a replay does not see."""
    return [(s, k, v) for s in optimizer.state.values() for k, v in s.items() if type(v) is int]
