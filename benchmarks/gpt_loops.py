"""A GPT as people write it in PyTorch, for ``benchmarks/engines.py``: one product for query, key, value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Attention and two dense layers, a norm in front of each."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.mixed, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs for x [n, places, width]."""
        n, places, width = x.shape
        parts = self.mixed(self.norms[0](x)).split(width, -1)
        query, key, value = (part.view(n, places, self.heads, -1).transpose(1, 2) for part in parts)
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(out.transpose(1, 2).reshape(n, places, width))
        return x + self.narrow(F.gelu(self.wide(self.norms[1](x))))


class GPT(nn.Module):
    """A causal transformer with learned positions and tied weights; logits [n * places, tokens]."""

    def __init__(self, *, tokens: int, depth: int, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(tokens, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("order", torch.arange(context))

    def forward(self, x: Tensor) -> Tensor:
        """Logits for tokens [n, places]."""
        x = self.tokens(x) + self.places(self.order)
        for block in self.blocks:
            x = block(x)
        return F.linear(self.norm(x), self.tokens.weight).flatten(0, 1)

    @torch.no_grad()
    def load(self, weights: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Take over the weights of optbench's network: kernels [in, out], one each for query, key, value."""

        def copy(to: Tensor, *names: str) -> None:
            found = np.concatenate([weights[name] for name in names], -1)
            to.copy_(torch.from_numpy(found.T.copy() if names[0].endswith("kernel") else found))

        copy(self.tokens.weight, "embedding_1/table")
        copy(self.places.weight, "positions_1/table")
        norms = [norm for block in self.blocks for norm in block.norms] + [self.norm]  # type: ignore[union-attr]
        for number, norm in enumerate(norms, 1):
            copy(norm.weight, f"layer_norm_{number}/gamma")  # type: ignore[arg-type]
            copy(norm.bias, f"layer_norm_{number}/beta")  # type: ignore[arg-type]
        for number, block in enumerate(self.blocks):
            attention = f"attention_{number + 1}"
            places = {
                "mixed": [f"{attention}/{part}" for part in ("query", "key", "value")],
                "output": [f"{attention}/output"],
                "wide": [f"dense_{2 * number + 1}"],
                "narrow": [f"dense_{2 * number + 2}"],
            }
            for own, names in places.items():
                layer: Any = getattr(block, own)
                copy(layer.weight, *(f"{name}/kernel" for name in names))
                copy(layer.bias, *(f"{name}/bias" for name in names))
