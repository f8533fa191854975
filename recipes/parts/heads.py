"""Heads on pooled features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.parts.distributed import global_mean


class DistillationHead(nn.Module):
    """DINO's head (Caron et al., ICCV 2021): MLP width-hidden-hidden-bottleneck, L2 norm, linear with unit rows to `out` logits.

    The last layer's rows are of length one (weight norm with its gain fixed): logits are cosines in [-1, 1].
    """

    def __init__(self, width: int, hidden: int, bottleneck: int, out: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=width**-0.5)
                nn.init.zeros_(layer.bias)
        self.last = nn.Parameter(torch.empty(out, bottleneck))
        nn.init.normal_(self.last)

    def forward(self, features: Tensor) -> Tensor:
        """(B, width) -> logits (B, out)."""
        return F.linear(F.normalize(self.mlp(features), dim=-1), F.normalize(self.last, dim=-1))


class Centre(nn.Module):
    """Running mean of the teacher's logits over all processes; subtracting it keeps one output from winning (DINO)."""

    def __init__(self, out: int) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(1, out))
        self.value: Tensor

    @torch.no_grad()
    def follow(self, logits: Tensor, momentum: float) -> None:
        """logits (B, out), of the teacher, before any softmax."""
        self.value.lerp_(global_mean(logits.float().mean(dim=0, keepdim=True)).to(self.value.dtype), 1.0 - momentum)
