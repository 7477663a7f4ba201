"""A built model in PyTorch: functions over a flat dictionary of weights, and the weights on a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from optbench.backends.arrays import penalties
from optbench.backends.torch.layers import Draw, Tensor, Weights, chain, run
from optbench.models import layers as spec
from optbench.models.layers import BuiltLayer, walk


def to_torch(array: NDArray[Any]) -> NDArray[Any]:
    """Bring a canonical weight into PyTorch's layout: HWIO kernels become OIHW."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array


def from_torch(tensor: Tensor) -> NDArray[Any]:
    """Copy a weight out in the canonical layout."""
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return np.array(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array, order="C")


class Network:
    """A built model without its weights: functions over a dictionary of them by canonical name."""

    def __init__(self, built: tuple[BuiltLayer, ...]) -> None:
        self.penalties = penalties(built)
        self._training, self._evaluation = chain(built)

    def __call__(self, weights: Weights, x: Tensor, *, training: bool, draw: Draw) -> Tensor:
        """Outputs for a batch [n, *shape]."""
        if x.ndim == 4:
            x = x.permute(0, 3, 1, 2)
        return run(self._training if training else self._evaluation, weights, x, draw)

    def outputs(
        self, weights: Weights, x: Tensor, *, training: bool, draw: Draw, half: str | None = None
    ) -> Tensor:
        """Outputs in the precision of the weights.

        ``half`` is the device on which autocast chooses the operations that run in bfloat16; None for none.
        """
        if half is None:
            return self(weights, x, training=training, draw=draw)
        # Each weight is used once, so keeping its cast is no gain, and a captured graph must not.
        with torch.autocast(half, torch.bfloat16, cache_enabled=False):
            stored = next(iter(weights.values())).dtype
            return self(weights, x, training=training, draw=draw).to(stored)

    def penalty(self, weights: Weights) -> Tensor | None:
        """Sum of the declared L1 and L2 penalties; None without any."""
        total: Tensor | None = None
        for name, l1, l2 in self.penalties:
            w = weights[name]
            terms = ([l1 * w.abs().sum()] if l1 else []) + ([l2 * w.square().sum()] if l2 else [])
            for term in terms:
                total = term if total is None else total + term
        return total


class TorchModel:
    """A network with its weights on a device, and the generator of its dropout masks.

    The generator is the model's own, so that masks depend on the seed alone.
    """

    def __init__(
        self,
        built: tuple[BuiltLayer, ...],
        weights: Mapping[str, NDArray[Any]],
        *,
        device: torch.device,
        dropout_seed: int,
    ) -> None:
        self.network = Network(built)
        self.generator = torch.Generator(device=device).manual_seed(dropout_seed)
        self.weights: dict[str, Tensor] = {}
        self.trainable: list[str] = []
        for place in walk(built):
            for parameter in place.parameters:
                tensor = torch.from_numpy(to_torch(weights[parameter.name]).copy()).to(device)
                if tensor.ndim == 4:  # gradients come so, and would be copied into any other layout
                    tensor = tensor.contiguous(memory_format=torch.channels_last)
                self.weights[parameter.name] = tensor.requires_grad_(parameter.trainable)
                if parameter.trainable:
                    self.trainable.append(parameter.name)
        self.kernels = [name for name in self.trainable if name.endswith("/kernel")]
        self._masks = [
            (place.output_shape, 1 - place.layer.rate)
            for place in walk(built)
            if isinstance(place.layer, spec.Dropout) and place.layer.rate
        ]

    def parameters(self) -> list[Tensor]:
        """Trainable weights in the layers' order."""
        return [self.weights[name] for name in self.trainable]

    def draw(self, x: Tensor, keep: float) -> Tensor:
        """Draw the next dropout mask, for a tensor like this one."""
        return torch.empty_like(x).bernoulli_(keep, generator=self.generator).div_(keep)

    def masks(self, n: int, dtype: torch.dtype) -> list[Tensor]:
        """Draw all masks of a step on n examples before it, the same as :meth:`draw` would in its course."""
        drawn = []
        for shape, keep in self._masks:
            mask = torch.empty((n, *shape), dtype=dtype, device=self.generator.device)
            mask = mask.bernoulli_(keep, generator=self.generator).div_(keep)
            drawn.append(mask.permute(0, 3, 1, 2) if len(shape) == 3 else mask)
        return drawn
