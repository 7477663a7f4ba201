"""What the training steps of one trial read and write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from optbench.backends.base import LossSpec
from optbench.backends.torch.direct import step_of
from optbench.backends.torch.losses import Objective
from optbench.backends.torch.model import TorchModel
from optbench.backends.torch.optimizers import parts_of, set_lr
from optbench.backends.torch.own_network import OwnModel
from optbench.trial import Workload


@dataclass(frozen=True, kw_only=True)
class GradientRules:
    """What happens to gradients and kernels before an update; see :class:`optbench.trial.Workload`."""

    clip_value: float | None
    clip_norm: float | None
    weight_decay: float | None

    @classmethod
    def of(cls, workload: Workload) -> GradientRules:
        """Take the rules of a workload."""
        return cls(
            clip_value=workload.clip_value, clip_norm=workload.clip_norm, weight_decay=workload.weight_decay
        )

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return any(rule is not None for rule in (self.clip_value, self.clip_norm, self.weight_decay))


class TrainState:
    """Model, optimizer and training pool of one trial on its device.

    Parameters
    ----------
    model, optimizer
        The optimizer's parameters are the model's.
    loss : LossSpec
        Of the training.
    half : str, optional
        Device of autocast, see :meth:`optbench.backends.torch.model.Network.outputs`.
    rules : GradientRules
    pool_x, pool_y : Tensor
        Inputs and targets of the whole training pool.
    batch : int
        Examples of a full batch.
    lr : float
        Learning rate of the steps to come; 0 for an optimizer without one.
    ema, accumulate
        See :class:`optbench.trial.Workload`. ``averages`` are the moving averages, ``micro`` the examples
        whose gradient is computed at a time; ``rates`` gives each step's learning rate, if it has its own.
    """

    def __init__(
        self,
        *,
        model: TorchModel | OwnModel,
        optimizer: torch.optim.Optimizer,
        loss: LossSpec,
        half: str | None,
        rules: GradientRules,
        pool_x: Tensor,
        pool_y: Tensor,
        batch: int,
        lr: float,
        ema: float | None = None,
        accumulate: int | None = None,
    ) -> None:
        self.model, self.params = model, model.parameters()
        self.loss_spec = loss
        self.pool_x, self.pool_y, self.batch, self.lr = pool_x, pool_y, batch, lr
        self._objective = Objective(model.network, loss, half)
        self._rules, self._regularized = rules, rules.any
        self._kernels = [model.weights[name] for name in model.kernels]
        self.rates: Iterator[float] | None = None
        self.micro = batch if accumulate is None else -(-batch // accumulate)
        self._decay = ema
        self.averages = [] if ema is None else [w.detach().clone() for w in self.params]
        self.use(optimizer)

    def use(self, optimizer: torch.optim.Optimizer) -> None:
        """Train with this optimizer of the model's weights from now on."""
        self.optimizer = optimizer
        self._told = [part for part in parts_of(optimizer) if getattr(part, "needs_loss", False)]
        self.step = step_of(optimizer)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the steps to come."""
        self.lr = lr
        set_lr(self.optimizer, lr)

    def loss(self, x: Tensor, rows: Tensor) -> Tensor:
        """Loss of inputs x with the targets of ``rows``, in training mode, with penalties."""
        return self.loss_of(x, self.pool_y.index_select(0, rows))

    def loss_of(self, x: Tensor, y: Tensor) -> Tensor:
        """Loss of inputs x with targets y, in training mode, with penalties."""
        return self._objective(self.model.weights, x, y, draw=self.model.draw)

    def tell(self, loss: Tensor) -> None:
        """Tell the rules that need it what the loss was whose gradients are there."""
        for part in self._told:
            part.loss = loss.detach()  # type: ignore[attr-defined]

    def update(self) -> None:
        """Take the step that the gradients say, and drop them."""
        if self.rates is not None:
            self.set_lr(next(self.rates))
        self.regularize()
        self.step()
        if self._decay is not None:
            with torch.no_grad():
                torch._foreach_lerp_(self.averages, self.params, 1 - self._decay)
        for w in self.params:  # what zero_grad does, without its hooks: a tenth of a small step
            w.grad = None

    def regularize(self) -> None:
        """Clip the gradients and decay the kernels, where the workload says so."""
        if self._regularized:
            self._regularize()

    @torch.no_grad()
    def _regularize(self) -> None:
        rules = self._rules
        if rules.clip_value is not None or rules.clip_norm is not None:
            gradients = [w.grad for w in self.params if w.grad is not None]
            if rules.clip_value is not None:
                torch._foreach_clamp_min_(gradients, -rules.clip_value)
                torch._foreach_clamp_max_(gradients, rules.clip_value)
            if rules.clip_norm is not None:
                norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
                torch._foreach_mul_(gradients, (rules.clip_norm / norm).clamp(max=1.0))
        if rules.weight_decay is not None and self._kernels:
            torch._foreach_mul_(self._kernels, 1 - self.lr * rules.weight_decay)
