"""A light transformer that fills in what the encoder did not see."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.parts.masks import place_back


class Block(nn.Module):
    """Pre-norm transformer block with fused attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))
        return x + self.mlp(self.norm2(x))


class MaskedDecoder(nn.Module):
    """Visible tokens in, a token for every position out, in raster order (MAE, He et al. 2022)."""

    def __init__(self, width_in: int, grid: tuple[int, int, int], *, width: int, depth: int, heads: int, width_out: int) -> None:
        super().__init__()
        self.tokens = math.prod(grid)
        self.enter = nn.Linear(width_in, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.norm, self.leave = nn.LayerNorm(width), nn.Linear(width, width_out)
        self.register_buffer("positions", sincos_positions(grid, width), persistent=False)
        self.positions: Tensor
        nn.init.trunc_normal_(self.mask_token, std=0.02)

    def forward(self, visible: Tensor, index: Tensor, wanted: Tensor | None = None) -> Tensor:
        """visible (B, V, width_in) at positions index (B, V) -> (B, N, width_out), or only the positions `wanted` (B, M)."""
        hidden = place_back(self.enter(visible), index, self.mask_token, self.tokens) + self.positions
        for block in self.blocks:
            hidden = block(hidden)
        if wanted is not None:
            hidden = hidden.gather(1, wanted.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        return self.leave(self.norm(hidden))


def sincos_positions(grid: tuple[int, int, int], width: int) -> Tensor:
    """(1, N, width): fixed sine-cosine embeddings, a third of the channels for each of t, h, w; what is left over stays zero."""
    each = width // 6 * 2
    parts = []
    for axis, place in zip(grid, torch.meshgrid(*(torch.arange(n).float() for n in grid), indexing="ij"), strict=True):
        assert place.shape == torch.Size(grid)
        assert axis > 0
        frequency = 1.0 / 10000 ** (torch.arange(each // 2).float() / (each // 2))
        angle = place.flatten()[:, None] * frequency
        parts.append(torch.cat([angle.sin(), angle.cos()], dim=-1))
    return F.pad(torch.cat(parts, dim=-1), (0, width - 3 * each)).unsqueeze(0)
