"""A training step of plain dense networks written out by hand, for a CPU.

The operations are those that autograd calls, in its order and so with its bits; what is saved is its graph,
the memory that each of them asks for, and the optimizer's bookkeeping: a third of a step of ``mlp``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from optbench.backends.torch.steps import batches
from optbench.models import layers as spec
from optbench.models.layers import BuiltLayer
from optbench.optimizers import has_rule
from optbench.trial import TrialSpec

if TYPE_CHECKING:
    from optbench.backends.torch.engine import TorchSession

aten = torch.ops.aten
#: In-place functions, and their derivatives from their results: (gradient, result) -> gradient, in place.
ACTIVATIONS: Mapping[str, tuple[Callable[[Tensor], object], Callable[[Tensor, Tensor], object]]] = {
    "relu": (torch.relu_, lambda g, y: aten.threshold_backward.grad_input(g, y, 0, grad_input=g)),
    "tanh": (torch.tanh_, lambda g, y: aten.tanh_backward.grad_input(g, y, grad_input=g)),
    "sigmoid": (torch.sigmoid_, lambda g, y: aten.sigmoid_backward.grad_input(g, y, grad_input=g)),
}


def takes(trial: TrialSpec, built: tuple[BuiltLayer, ...]) -> bool:
    """Whether a trial's step can be written out: dense layers, simple activations and dropout, on a CPU."""
    if trial.device != "cpu" or trial.precision not in ("float32", "float64"):
        return False
    # A custom class may keep a gradient, whose memory the next step uses again.
    if not has_rule(trial.optimizer):
        return False
    return all(
        isinstance(place.layer, spec.Flatten | spec.Dropout)
        or (
            isinstance(place.layer, spec.Dense | spec.Activate)
            and place.layer.activation in (*ACTIVATIONS, "linear")
        )
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
    def warm_up(self, session: TorchSession, rows: Tensor) -> None:
        """See :class:`optbench.backends.torch.steps.Step`."""
        x, y = session.pool_x.flatten(1), session.pool_y.index_select(0, rows)
        self._tape(session, len(rows)).run(x, rows, y, x.new_empty(()))

    @torch.no_grad()
    def epoch(self, session: TorchSession, pool: Tensor, places: Tensor, rows: Tensor) -> Tensor:
        """See :class:`optbench.backends.torch.steps.Step`."""
        pool = pool.flatten(1)
        cut = batches(session, places, session.pool_y.index_select(0, rows))
        losses = pool.new_empty(len(cut[0]))
        step: Callable[[], object] | None = None
        for place, labels, loss in zip(*cut, losses.unbind(), strict=True):
            self._tape(session, len(place)).run(pool, place, labels, loss)
            session.regularize()
            if step is None:  # the state is there after a first step, and may be new since the last epoch
                session.optimizer.step()
                step = direct(session.optimizer, session.params, self._gradients)
            else:
                step()
        for w in session.params:
            w.grad = None
        return losses

    def _tape(self, session: TorchSession, n: int) -> _Tape:
        if not self._gradients:
            self._gradients = [torch.empty_like(w, requires_grad=False) for w in session.params]
        if session.params[0].grad is not self._gradients[0]:
            for w, g in zip(session.params, self._gradients, strict=True):
                w.grad = g
        if n not in self._tapes:
            self._tapes[n] = _Tape(session, self._built, n)
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
        self._activation = ACTIVATIONS.get(activation)
        self._kernel_t, self._x_t = self._kernel.t(), self._y

    def forward(self, x: Tensor) -> Tensor:
        self._x_t = x.t()
        torch.addmm(self._bias, x, self._kernel, out=self._y)
        if self._activation is not None:
            self._activation[0](self._y)
        return self._y

    def backward(self, g: Tensor) -> Tensor:
        if self._activation is not None:
            self._activation[1](g, self._y)
        torch.mm(self._x_t, g, out=self._of_kernel)
        torch.sum(g, 0, out=self._of_bias)
        return g if self._of_x is None else torch.mm(g, self._kernel_t, out=self._of_x)


class _Activation:
    def __init__(self, activation: str, like: Tensor) -> None:
        self._y = torch.empty_like(like)
        self._activate, self._derive = ACTIVATIONS[activation]

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


class _Tape:
    """Forward and backward pass of one batch size, with the memory of everything between."""

    def __init__(self, session: TorchSession, built: tuple[BuiltLayer, ...], n: int) -> None:
        model, like = session.model, session.pool_x
        self._x = like.new_empty((n, like[0].numel()))
        self._layers: list[_Layer] = []
        self._deep: list[_Layer] = []  # those whose gradients are needed
        for place in built:
            layer, out = place.layer, like.new_empty((n, *place.output_shape))
            if isinstance(layer, spec.Dense):
                kernel, bias = (model.weights[f"{place.name}/{part}"] for part in ("kernel", "bias"))
                self._layers.append(_Affine(kernel, bias, layer.activation, n, first=not self._deep))
            elif isinstance(layer, spec.Activate) and layer.activation != "linear":
                self._layers.append(_Activation(layer.activation, out))
            elif isinstance(layer, spec.Dropout) and layer.rate:
                self._layers.append(_Dropout(1 - layer.rate, out.flatten(1), model.generator))
            else:
                continue
            if self._deep or isinstance(layer, spec.Dense):
                self._deep.insert(0, self._layers[-1])
        outputs = built[-1].output_shape[0]
        self._log_p, self._of_log_p, self._of_logits = (like.new_empty((n, outputs)) for _ in range(3))
        self._total = like.new_empty(())
        smoothing = session.workload.label_smoothing or 0.0
        self._hit, self._rest = like.new_full((), 1 - smoothing), smoothing / outputs
        self._penalty = partial(model.network.penalty, model.weights)
        self._penalised = [(model.weights[name], l1, l2) for name, l1, l2 in model.network.penalties]

    def run(self, pool: Tensor, places: Tensor, y: Tensor, loss: Tensor) -> None:
        """Write the loss of ``pool[places]`` with labels y, and the gradients into those of the weights."""
        x = torch.index_select(pool, 0, places, out=self._x)
        for layer in self._layers:
            x = layer.forward(x)
        log_p, g = self._log_p, self._of_log_p
        torch._log_softmax(x, 1, False, out=log_p)
        aten.nll_loss_forward.output(log_p, y, None, 1, -100, output=loss, total_weight=self._total)
        aten.nll_loss_backward.grad_input(self._hit, log_p, y, None, 1, -100, self._total, grad_input=g)
        if self._rest:
            loss.mul_(self._hit).add_(log_p.sum(1).mean(), alpha=-self._rest)
            g.sub_(self._rest / len(y))
        g = aten._log_softmax_backward_data.out(g, log_p, 1, x.dtype, out=self._of_logits)
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


def direct(
    optimizer: torch.optim.Optimizer, params: list[Tensor], gradients: list[Tensor]
) -> Callable[[], object]:
    """Find the shortest call that takes an optimizer's step from these gradients, its state being there.

    It is the fused kernel of Adam, AdamW and SGD without the work around it, and ``optimizer.step`` of all
    others.
    """
    group = optimizer.param_groups[0]
    if not group.get("fused") or len(optimizer.param_groups) > 1:
        return optimizer.step
    weights, states = [w.detach() for w in params], [optimizer.state.get(w, {}) for w in params]
    if type(optimizer) in (torch.optim.Adam, torch.optim.AdamW) and not group["amsgrad"]:
        averages, squares, steps = ([s[name] for s in states] for name in ("exp_avg", "exp_avg_sq", "step"))
        count = torch.stack(steps)  # one for all weights is moved at once
        for state, own in zip(states, count.unbind(), strict=True):
            state["step"] = own
        steps = list(count.unbind())
        beta1, beta2 = group["betas"]
        decoupled = group.get("decoupled_weight_decay", type(optimizer) is torch.optim.AdamW)
        kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_

        def adam() -> None:
            count.add_(1)
            kernel(
                weights, gradients, averages, squares, [], steps, amsgrad=False, lr=group["lr"],
                beta1=beta1, beta2=beta2, weight_decay=group["weight_decay"], eps=group["eps"],
                maximize=False, grad_scale=None, found_inf=None,
            )  # fmt: skip

        return adam
    if type(optimizer) is torch.optim.SGD:
        momenta = [s["momentum_buffer"] for s in states] if group["momentum"] else []

        def sgd() -> None:
            torch._fused_sgd_(
                weights, gradients, momenta, weight_decay=group["weight_decay"], momentum=group["momentum"],
                lr=group["lr"], dampening=group["dampening"], nesterov=group["nesterov"],
                maximize=False, is_first_step=False, grad_scale=None, found_inf=None,
            )  # fmt: skip

        return sgd
    return optimizer.step
