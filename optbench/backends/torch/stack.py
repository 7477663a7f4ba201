"""Several trials of one config as one PyTorch program: every weight has a leading axis, one entry a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optbench.backends.arrays import penalties
from optbench.backends.base import LossSpec, NotStackableError
from optbench.backends.torch.losses import loss_function
from optbench.backends.torch.optimizers import make_optimizer
from optbench.backends.torch.session import TorchSession
from optbench.backends.torch.stacked_layers import StackedWeights, forward
from optbench.backends.torch.steps import flush_denormals
from optbench.matching import Indices
from optbench.models.layers import BuiltLayer
from optbench.optimizers import family_of
from optbench.trial import TrialSpec


class TorchStack:
    """See :class:`optbench.backends.base.Stack`.

    Dense layers are batched matrix products over [trials, batch, features]; images travel as [batch, trials *
    channels, height, width], so that convolutions are grouped and pooling and batch normalisation are
    themselves. The update rules work element by element, so one optimizer moves all trials.
    """

    def __init__(
        self, specs: Sequence[TrialSpec], built: tuple[BuiltLayer, ...], sessions: Sequence[TorchSession]
    ) -> None:
        config, workload = specs[0].optimizer, specs[0].workload
        if (reason := family_of(config).stack_obstacle("torch")) is not None:
            raise NotStackableError(reason)
        if specs[0].precision not in ("float32", "float64"):
            raise NotStackableError(f"{specs[0].precision} is for trials alone")
        if workload.schedule is not None and workload.schedule.kind == "reduce_on_plateau":
            raise NotStackableError("reduce_on_plateau gives each trial another learning rate")
        self._workload, self._config = workload, config
        self._each_loss = loss_function(LossSpec.of(workload), reduction="none")
        self._built, self._sessions = built, list(sessions)
        self._weights = {
            name: torch.stack([s.model.weights[name].detach() for s in sessions])
            for name in sessions[0].model.weights
        }
        self._open(make_optimizer(config, self._trained()))
        for place, w in enumerate(self._params):
            if any(states := [s.optimizer.state.get(s.params[place], {}) for s in sessions]):
                self._optimizer.state[w] = {
                    name: torch.stack([state[name] for state in states])
                    if isinstance(value, Tensor) and value.shape == w.shape[1:]
                    else value
                    for name, value in states[0].items()
                }

    @flush_denormals()
    def train_epoch(
        self, sessions: Sequence[Any], rows: Sequence[Indices], xs: Sequence[NDArray[Any]] | None
    ) -> list[NDArray[np.float64]]:
        """See :class:`optbench.backends.base.Stack`."""
        self._keep(sessions)
        for group in self._optimizer.param_groups:
            group["lr"] = sessions[0].lr
        states = [session.train_state for session in sessions]
        batch = states[0].batch
        targets = torch.stack(
            [
                s.train_state.pool_y.index_select(0, s.on_device(r))
                for s, r in zip(sessions, rows, strict=True)
            ]
        )
        pools = [s.train_state.pool_x if xs is None else s.inputs(xs[k]) for k, s in enumerate(sessions)]
        one_pool = pools[0] if all(pool is pools[0] for pool in pools) else None
        places = torch.stack([sessions[0].on_device(r if xs is None else np.arange(len(r))) for r in rows])
        losses = []
        for place, target in zip(places.split(batch, 1), targets.split(batch, 1), strict=True):
            if one_pool is not None:
                x = one_pool.index_select(0, place.reshape(-1)).view(*place.shape, *one_pool.shape[1:])
            else:
                x = torch.stack([p.index_select(0, at) for p, at in zip(pools, place, strict=True)])
            loss = self._loss(x, target)
            loss.sum().backward()
            self._regularize(sessions[0].lr)
            self._optimizer.step()
            for w in self._params:
                w.grad = None
            losses.append(loss.detach())
        with torch.no_grad():
            for k, session in enumerate(sessions):
                for name, w in session.model.weights.items():
                    w.copy_(self._weights[name][k])
                for single, w in zip(session.params, self._params, strict=True):
                    session.optimizer.state[single] = self._entry(self._optimizer.state[w], w, k)
        return list(torch.stack(losses, 1).double().cpu().numpy())

    def _trained(self) -> list[Tensor]:
        return [self._weights[name].requires_grad_(True) for name in self._sessions[0].model.trainable]

    def _open(self, optimizer: torch.optim.Optimizer) -> None:
        """Make the forward pass over the stacked weights as they are now."""
        self._params = [self._weights[name] for name in self._sessions[0].model.trainable]
        self._kernels = [w for n, w in self._weights.items() if n.endswith("/kernel")]
        stacked = StackedWeights(
            weights=self._weights, generators=[s.model.generator for s in self._sessions]
        )
        self._penalties = [(self._weights[name], l1, l2) for name, l1, l2 in penalties(self._built)]
        self._layers = [forward(layer, stacked) for layer in self._built]
        self._optimizer = optimizer

    def _keep(self, sessions: Sequence[TorchSession]) -> None:
        """Go on with these alone; the others have ended."""
        if len(sessions) == len(self._sessions):
            return
        kept = torch.tensor([self._sessions.index(s) for s in sessions])
        before = [(w, self._optimizer.state[w]) for w in self._params]
        self._sessions = list(sessions)
        self._weights = {name: w.detach()[kept].clone() for name, w in self._weights.items()}
        optimizer = make_optimizer(self._config, self._trained())
        self._open(optimizer)
        for new, (old, state) in zip(self._params, before, strict=True):
            optimizer.state[new] = self._entry(state, old, kept)

    @staticmethod
    def _entry(state: Mapping[str, Any], w: Tensor, which: Any) -> dict[str, Any]:
        """State of one weight for some of the trials; what is not element by element is shared by all."""
        return {
            name: value[which] if isinstance(value, Tensor) and value.shape == w.shape else value
            for name, value in state.items()
        }

    def _loss(self, x: Tensor, targets: Tensor) -> Tensor:
        """Loss of each trial, [trials]: x is [trials, batch, *shape], targets [trials, batch, ...]."""
        if x.ndim == 5:
            trials, batch, height, width, channels = x.shape
            x = x.permute(1, 0, 4, 2, 3).reshape(batch, trials * channels, height, width)
        for function in self._layers:
            x = function(x)
        losses = self._each_loss(x.flatten(0, 1), targets.flatten(0, 1))
        loss = losses.view(targets.shape[:2]).mean(1)
        for w, l1, l2 in self._penalties:
            if l1:
                loss = loss + l1 * w.abs().flatten(1).sum(1)
            if l2:
                loss = loss + l2 * w.square().flatten(1).sum(1)
        return loss

    @torch.no_grad()
    def _regularize(self, lr: float) -> None:
        value, norm, decay = (
            getattr(self._workload, name) for name in ("clip_value", "clip_norm", "weight_decay")
        )
        gradients = [w.grad for w in self._params if w.grad is not None]
        if value is not None:
            torch._foreach_clamp_min_(gradients, -value)
            torch._foreach_clamp_max_(gradients, value)
        if norm is not None:
            norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients])
            factor = (norm / torch.linalg.vector_norm(norms, dim=0)).clamp(max=1.0)
            for g in gradients:
                g.mul_(factor.view(-1, *[1] * (g.ndim - 1)))
        if decay is not None and self._kernels:
            torch._foreach_mul_(self._kernels, 1 - lr * decay)
