"""Weights of several trials at once, each with a leading axis, one entry a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class StackedWeights:
    """Weights of all trials by name, the generator of each trial's dropout masks, and the mode."""

    weights: Mapping[str, Tensor]
    generators: Sequence[torch.Generator]
    training: bool = True

    @property
    def trials(self) -> int:
        """Number of trials."""
        return len(self.generators)

    def of(self, name: str) -> Tensor | None:
        """A weight of all trials; None where the model has none of this name."""
        return self.weights.get(name)

    def by_trial(self, x: Tensor) -> Tensor:
        """From [batch, trials * channels, h, w] to [trials, batch, h, w, channels]."""
        batch, _, height, width = x.shape
        return x.view(batch, self.trials, -1, height, width).permute(1, 0, 3, 4, 2)

    def as_images(self, x: Tensor) -> Tensor:
        """From [trials, batch, h, w, channels] to [batch, trials * channels, h, w]."""
        return x.permute(1, 0, 4, 2, 3).flatten(1, 2)


def affine(x: Tensor, name: str, stacked: StackedWeights) -> Tensor:
    """``x @ kernel + bias`` of each trial, for x [trials, batch, ..., in]."""
    kernel, bias = stacked.weights[f"{name}/kernel"], stacked.of(f"{name}/bias")
    flat = x.flatten(1, -2)
    out = flat @ kernel if bias is None else torch.baddbmm(bias.unsqueeze(1), flat, kernel)
    return out if x.ndim == 3 else out.unflatten(1, x.shape[1:-1])
