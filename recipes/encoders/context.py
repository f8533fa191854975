"""What a set of clips of one recording says together: a small transformer over the descriptions of an encoder."""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from domains.schema import Strict


class ContextSettings(Strict):
    """The shape of a `SetTransformer`. features: channels of a clip's description; width: of the blocks and of the summary."""

    features: PositiveInt
    width: PositiveInt
    depth: PositiveInt
    heads: PositiveInt


class SetTransformer(nn.Module):
    """Descriptions (B, n, features) of n clips, in any order and number -> a summary (B, width).

    Clips have no positions: where their order or number changes, only what they show counts. The summary is the output of a token of its own.
    """

    def __init__(self, settings: ContextSettings) -> None:
        super().__init__()
        self.settings = settings
        inner = settings.width
        self.enter = nn.Sequential(nn.LayerNorm(settings.features), nn.Linear(settings.features, inner))
        self.token = nn.Parameter(torch.randn(inner) * 0.02)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(inner, settings.heads, 4 * inner, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(settings.depth)
        )
        self.norm = nn.LayerNorm(inner)

    def forward(self, descriptions: Tensor) -> Tensor:
        """See the class."""
        clips = self.enter(descriptions)
        hidden = torch.cat([self.token.to(clips.dtype).expand(len(clips), 1, -1), clips], dim=1)
        for block in self.blocks:
            hidden = block(hidden)
        summary: Tensor = self.norm(hidden[:, 0])
        return summary
