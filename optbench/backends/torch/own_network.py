"""A custom network, a ``torch.nn.Module``, in the place of a built model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from optbench.backends.own_network import OwnNetworkError, check_outputs, kernels, make, with_head
from optbench.backends.torch.layers import Draw, Weights
from optbench.models.layers import BuiltLayer, OwnNetwork, Role


def build(own: OwnNetwork, seed: int) -> nn.Module:
    """Make the network; see :func:`optbench.backends.own_network.make`."""
    module: nn.Module = make(own, "torch", seed)
    return module


def roles_of(module: nn.Module) -> dict[str, Role]:
    """Guess the role of every trained weight from the kind of its module, and else from its shape."""
    found: dict[str, Role] = {}
    for prefix, part in module.named_modules():
        for name, weight in part.named_parameters(recurse=False):
            full = f"{prefix}.{name}" if prefix else name
            if weight.requires_grad and full not in found:
                found[full] = _role(part, name, weight)
    return with_head(found)


def _role(part: nn.Module, name: str, weight: Tensor) -> Role:
    if isinstance(part, nn.Embedding):
        return "embedding"
    if "bias" in name:
        return "bias"
    if weight.ndim == 1:
        return "norm"
    return "conv" if weight.ndim > 2 else "matrix"


class OwnModel:
    """See :class:`optbench.backends.torch.model.TorchModel`: weights by name, and the module as a function.

    Images come to it as [n, channels, height, width], tables as [n, features], texts as tokens [n, context].
    A dropout of its own draws from PyTorch's global generator, which is the trial's while it is trained.
    """

    def __init__(
        self, module: nn.Module, place: BuiltLayer, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._place = place
        self._module = module.to(device=device, dtype=dtype)
        self.network = self
        self.penalties: list[tuple[str, float, float]] = []
        self.generator = torch.Generator(device=device)
        # Weights that share memory are one weight, by the first of their names.
        named = dict(module.named_parameters())
        self.weights: dict[str, Tensor] = {name: w.detach().clone() for name, w in named.items()}
        self.trainable = [name for name, w in named.items() if w.requires_grad]
        for name in self.trainable:
            self.weights[name].requires_grad_(True)
        self.weights |= {name: b.detach().clone() for name, b in module.named_buffers()}
        self.roles = {name: role for name, role in roles_of(module).items() if name in self.trainable}
        self.kernels = [name for name in self.trainable if name in kernels(self.roles)]

    def parameters(self) -> list[Tensor]:
        """Trainable weights in the module's order."""
        return [self.weights[name] for name in self.trainable]

    def outputs(
        self, weights: Weights, x: Tensor, *, training: bool, draw: Draw, half: str | None = None
    ) -> Tensor:
        """See :meth:`optbench.backends.torch.model.Network.outputs`."""
        self._module.train(training)
        x = x.permute(0, 3, 1, 2) if x.ndim == 4 else x
        if half is None:
            return self._called(weights, x)
        with torch.autocast(half, torch.bfloat16, cache_enabled=False):
            return self._called(weights, x).to(next(iter(weights.values())).dtype)

    def _called(self, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        out: Any = functional_call(self._module, dict(weights), (x,), tie_weights=True)
        if not isinstance(out, Tensor):
            raise OwnNetworkError(
                f"the network gave {type(out).__name__} for a batch of inputs; it must give one tensor"
            )
        out = out.unsqueeze(1) if out.ndim == 1 else out
        assert isinstance(self._place.layer, OwnNetwork)
        check_outputs(self._place.layer, tuple(out.shape[1:]), self._place.output_shape)
        return out

    def penalty(self, weights: Weights) -> None:
        """None: the penalties of such a network are its own."""

    def masks(self, n: int, dtype: torch.dtype) -> list[Tensor]:
        """None: it draws its own."""
        return []

    def draw(self, x: Tensor, keep: float) -> Tensor:
        """Unused: its dropout is its own."""
        raise NotImplementedError("a custom network draws its own masks")
