"""Canonical optimizers as PyTorch classes."""

from __future__ import annotations

from typing import Any

import torch

from optbench.optimizers import SGD, WAME, Adam, OptimizerConfig, RMSprop


def make_optimizer(
    config: OptimizerConfig, params: list[torch.Tensor], *, names: list[str] | None = None
) -> torch.optim.Optimizer:
    """Build the PyTorch optimizer that follows a config's canonical rule."""
    if isinstance(config, Adam):
        return torch.optim.Adam(
            params, lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, foreach=True
        )
    if isinstance(config, RMSprop):
        return torch.optim.RMSprop(params, lr=config.lr, alpha=config.rho, eps=config.eps, foreach=True)
    if isinstance(config, SGD):
        return torch.optim.SGD(
            params, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, foreach=True
        )
    return TorchWAME(params, config)


class TorchWAME(torch.optim.Optimizer):
    """WAME, one tensor at a time."""

    def __init__(self, params: list[torch.Tensor], config: WAME) -> None:
        self.config = config
        super().__init__(params, {"lr": config.lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        c = self.config
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is None:
                    continue
                state = self.state[w]
                if not state:
                    state["zeta"] = torch.ones_like(w)
                    state["Z"], state["theta"], state["sign"] = (torch.zeros_like(w) for _ in range(3))
                g, zeta = w.grad, state["zeta"]
                sign = g.sign()
                agreement = sign * state["sign"]
                zeta.copy_(
                    torch.where(
                        agreement > 0,
                        (zeta * c.eta_plus).clamp(max=c.zeta_max),
                        torch.where(agreement < 0, (zeta * c.eta_minus).clamp(min=c.zeta_min), zeta),
                    )
                )
                state["sign"] = sign
                state["Z"].mul_(c.alpha).add_(zeta, alpha=1 - c.alpha)
                state["theta"].mul_(c.alpha).addcmul_(g, g, value=1 - c.alpha)
                w.sub_(group["lr"] * state["Z"] * g / (state["theta"] + c.eps).sqrt())
