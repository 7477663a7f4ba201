"""A training step of plain dense networks written out by hand.

The operations are those that autograd calls, in its order and so with its bits; what is saved is its graph,
the memory that each of them asks for, and the optimizer's bookkeeping: a third of a step of ``mlp``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from optbench.backends.base import LossSpec, entry
from optbench.backends.torch.direct import direct
from optbench.backends.torch.losses import WRITTEN_OUT
from optbench.backends.torch.state import TrainState
from optbench.backends.torch.steps import batches
from optbench.models import layers as spec
from optbench.models.layers import BuiltLayer
from optbench.optimizers import has_rule, needs_loss
from optbench.optimizers.schedules import is_stepwise
from optbench.trial import TrialSpec

aten = torch.ops.aten
#: In-place functions, and their derivatives from their results: (gradient, result) -> gradient, in place. A
#: model with any other activation takes its steps by autograd.
ACTIVATIONS: Mapping[str, tuple[Callable[[Tensor], object], Callable[[Tensor, Tensor], object]]] = {
    "linear": (lambda y: y, lambda g, y: g),
    "relu": (torch.relu_, lambda g, y: aten.threshold_backward.grad_input(g, y, 0, grad_input=g)),
    "tanh": (torch.tanh_, lambda g, y: aten.tanh_backward.grad_input(g, y, grad_input=g)),
    "sigmoid": (torch.sigmoid_, lambda g, y: aten.sigmoid_backward.grad_input(g, y, grad_input=g)),
}


def can_be_written_out(trial: TrialSpec, built: tuple[BuiltLayer, ...]) -> bool:
    """Whether a trial's step can be written out: dense layers, simple activations and dropout."""
    workload = trial.workload
    if workload.ema or workload.accumulate or is_stepwise(workload.schedule):
        return False
    if trial.device not in ("cpu", "cuda") or trial.precision not in ("float32", "float64"):
        return False
    # A custom class may keep a gradient, whose memory the next step uses again.
    if not has_rule(trial.optimizer) or needs_loss(trial.optimizer):
        return False
    return LossSpec.of(trial.workload).name in WRITTEN_OUT and all(
        place.layer.kind in LAYERS
        and getattr(place.layer, "activation", "linear") in ACTIVATIONS
        and getattr(place.layer, "bias", True)
        for place in built
    )


class DenseStep:
    """See :class:`optbench.backends.torch.steps.Step`."""

    name = "hand-written"

    def __init__(self, built: tuple[BuiltLayer, ...], why: str) -> None:
        self._built, self.why = built, why
        self._tapes: dict[int, _Tape] = {}
        self._gradients: list[Tensor] = []

    @torch.no_grad()
    def warm_up(self, state: TrainState, rows: Tensor) -> None:
        """See :class:`optbench.backends.torch.steps.Step`."""
        x, y = state.pool_x.flatten(1), state.pool_y.index_select(0, rows)
        self._tape(state, len(rows)).run(x, rows, y, x.new_empty(()))

    @torch.no_grad()
    def epoch(self, state: TrainState, pool: Tensor, places: Tensor, rows: Tensor) -> Tensor:
        """See :class:`optbench.backends.torch.steps.Step`."""
        pool = pool.flatten(1)
        cut = batches(state, places, state.pool_y.index_select(0, rows))
        losses = pool.new_empty(len(cut[0]))
        step: Callable[[], object] | None = None
        for place, targets, loss in zip(*cut, losses.unbind(), strict=True):
            self._tape(state, len(place)).run(pool, place, targets, loss)
            state.regularize()
            if step is None:  # the state is there after a first step, and may be new since the last epoch
                state.step()
                step = direct(state.optimizer, state.params, self._gradients)
            else:
                step()
        for w in state.params:
            w.grad = None
        return losses

    def _tape(self, state: TrainState, n: int) -> _Tape:
        if not self._gradients:
            self._gradients = [torch.empty_like(w, requires_grad=False) for w in state.params]
        if state.params[0].grad is not self._gradients[0]:
            for w, g in zip(state.params, self._gradients, strict=True):
                w.grad = g
        if n not in self._tapes:
            self._tapes[n] = _Tape(state, self._built, n)
        return self._tapes[n]


class _Layer(Protocol):
    def forward(self, x: Tensor) -> Tensor:
        """Output for an input."""

    def backward(self, g: Tensor) -> Tensor:
        """Gradient of the input from that of the output, which may be overwritten."""


class _Affine:
    def __init__(self, kernel: Tensor, bias: Tensor, activation: str, n: int, *, first: bool) -> None:
        self._kernel, self._bias = kernel.detach(), bias.detach()
        self._of_kernel: Any = kernel.grad
        self._of_bias: Any = bias.grad
        self._y = kernel.new_empty((n, kernel.shape[1]), requires_grad=False)
        self._of_x = None if first else kernel.new_empty((n, kernel.shape[0]), requires_grad=False)
        self._activate, self._derive = entry(ACTIVATIONS, activation, "torch activations written out")
        self._kernel_t, self._x_t = self._kernel.t(), self._y

    def forward(self, x: Tensor) -> Tensor:
        self._x_t = x.t()
        torch.addmm(self._bias, x, self._kernel, out=self._y)
        self._activate(self._y)
        return self._y

    def backward(self, g: Tensor) -> Tensor:
        self._derive(g, self._y)
        torch.mm(self._x_t, g, out=self._of_kernel)
        torch.sum(g, 0, out=self._of_bias)
        return g if self._of_x is None else torch.mm(g, self._kernel_t, out=self._of_x)


class _Activation:
    def __init__(self, activation: str, like: Tensor) -> None:
        self._y = torch.empty_like(like)
        self._activate, self._derive = entry(ACTIVATIONS, activation, "torch activations written out")

    def forward(self, x: Tensor) -> Tensor:
        self._activate(self._y.copy_(x))
        return self._y

    def backward(self, g: Tensor) -> Tensor:
        self._derive(g, self._y)
        return g


class _Dropout:
    def __init__(self, keep: float, like: Tensor, generator: torch.Generator) -> None:
        self._mask, self._y = torch.empty_like(like), torch.empty_like(like)
        self._keep, self._generator = keep, generator

    def forward(self, x: Tensor) -> Tensor:
        self._mask.bernoulli_(self._keep, generator=self._generator).div_(self._keep)
        return torch.mul(x, self._mask, out=self._y)

    def backward(self, g: Tensor) -> Tensor:
        return g.mul_(self._mask)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a layer is written out: an output ``like`` this, and whether it is the first with weights."""

    name: str
    state: TrainState
    like: Tensor
    first: bool


def _dense(layer: spec.Dense, place: _Place) -> _Layer:
    kernel, bias = (place.state.model.weights[f"{place.name}/{part}"] for part in ("kernel", "bias"))
    return _Affine(kernel, bias, layer.activation, len(place.like), first=place.first)


def _activate(layer: spec.Activate, place: _Place) -> _Layer | None:
    return None if layer.activation == "linear" else _Activation(layer.activation, place.like)


def _dropout(layer: spec.Dropout, place: _Place) -> _Layer | None:
    if not layer.rate:
        return None
    return _Dropout(1 - layer.rate, place.like.flatten(1), place.state.model.generator)


def _flatten(layer: spec.Flatten, place: _Place) -> None:
    return None


#: Layers that are written out, None where there is nothing to do: the pool is flat. A model with a layer of
#: any other kind takes its steps by autograd.
LAYERS: Mapping[str, Callable[[Any, _Place], _Layer | None]] = {
    "dense": _dense,
    "activation": _activate,
    "dropout": _dropout,
    "flatten": _flatten,
}


class _Tape:
    """Forward and backward pass of one batch size, with the memory of everything between."""

    def __init__(self, state: TrainState, built: tuple[BuiltLayer, ...], n: int) -> None:
        model, like = state.model, state.pool_x
        self._x = like.new_empty((n, like[0].numel()))
        self._layers: list[_Layer] = []
        self._deep: list[_Layer] = []  # those whose gradients are needed
        for place in built:
            out = like.new_empty((n, *place.output_shape))
            where = _Place(name=place.name, state=state, like=out, first=not self._deep)
            layer = entry(LAYERS, place.layer.kind, "torch layers written out")(place.layer, where)
            if layer is None:
                continue
            self._layers.append(layer)
            if self._deep or isinstance(layer, _Affine):
                self._deep.insert(0, layer)
        loss = state.loss_spec
        make_loss = entry(WRITTEN_OUT, loss.name, "torch losses written out")
        self._loss = make_loss(like, n, built[-1].output_shape[0], **dict(loss.options))
        self._penalty = partial(model.network.penalty, model.weights)
        self._penalised = [(model.weights[name], l1, l2) for name, l1, l2 in model.network.penalties]

    def run(self, pool: Tensor, places: Tensor, y: Tensor, loss: Tensor) -> None:
        """Write the loss of ``pool[places]`` with targets y, and the gradients into those of the weights."""
        x = torch.index_select(pool, 0, places, out=self._x)
        for layer in self._layers:
            x = layer.forward(x)
        g = self._loss.run(x, y, loss)
        for layer in self._deep:
            g = layer.backward(g)
        if (penalty := self._penalty()) is not None:
            loss.add_(penalty)
        for w, l1, l2 in self._penalised:
            assert w.grad is not None
            if l1:
                w.grad.add_(w.sign(), alpha=l1)
            if l2:
                w.grad.add_(w, alpha=2 * l2)
