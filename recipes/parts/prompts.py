"""What a clip adds to a text before the two are compared: video-specific prompts."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Prompts(nn.Module):
    """Texts as a clip would have them said (Ni et al., X-CLIP, ECCV 2022).

        c_ij = c_j + alpha * decoder(c_j, patches of clip i)

    forward: texts (N, D), patches (B, P, D) -> (B, N, D). A decoder block is attention from the text to the patches, and an MLP; alpha (D,) is
    learned and starts small. Texts do not see each other.
    """

    def __init__(self, width: int, *, depth: int, heads: int, alpha: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(PromptBlock(width, heads) for _ in range(depth))
        self.alpha = nn.Parameter(torch.full((width,), alpha))

    def forward(self, texts: Tensor, patches: Tensor) -> Tensor:
        """See the class."""
        own = texts.unsqueeze(0).expand(len(patches), -1, -1)
        hidden = own
        for block in self.blocks:
            hidden = block(hidden, patches)
        said: Tensor = own + self.alpha * hidden
        return said


class PromptBlock(nn.Module):
    """Texts (B, N, D) look at patches (B, P, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ask, self.seen, self.between = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, texts: Tensor, patches: Tensor) -> Tensor:
        """See the class."""
        seen = self.seen(patches)
        texts = texts + self.attention(self.ask(texts), seen, seen, need_weights=False)[0]
        said: Tensor = texts + self.mlp(self.between(texts))
        return said
