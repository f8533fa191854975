"""The light decoder that fills in tokens which the encoder did not see."""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from domains.schema import Strict
from recipes.encoders.positions import sincos_table


class DecoderSettings(Strict):
    """The size of a method's decoder; the defaults are VideoMAE's."""

    decoder_depth: PositiveInt = Field(4, description="blocks of the decoder")
    decoder_width: PositiveInt = Field(384, description="width of the decoder; a multiple of decoder_heads")
    decoder_heads: PositiveInt = Field(6, description="attention heads of the decoder")

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.decoder_width % self.decoder_heads:
            raise ValueError("decoder_width must be a multiple of decoder_heads")
        return self


class TokenDecoder(nn.Module):
    """A few transformer blocks over the visible tokens and one query per wanted position.

    A query is the shared mask token plus the position's sin-cos embedding. Only what is wanted is decoded: work grows
    with the wanted positions, not with the clip.
    """

    positions: Tensor

    @classmethod
    def of(cls, settings: DecoderSettings, width: int, tokens: int, out: int | None = None) -> TokenDecoder:
        """Of the size that `settings` ask for; the rest as for the class itself."""
        s = settings
        return cls(width, s.decoder_width, s.decoder_depth, s.decoder_heads, tokens, out)

    def __init__(self, width: int, inner: int, depth: int, heads: int, tokens: int, out: int | None = None) -> None:
        """width: of the encoder's tokens; inner: of the blocks; tokens: N of the clip; out: of the output, None: `width`."""
        super().__init__()
        self.enter = nn.Linear(width, inner)
        self.mask_token = nn.Parameter(torch.randn(inner) * 0.02)
        self.register_buffer("positions", sincos_table(tokens, inner), persistent=False)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(inner, heads, 4 * inner, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(inner)
        self.leave = nn.Linear(inner, out or width)

    def forward(self, tokens: Tensor, visible: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Tokens of the positions `wanted`, in that order; of all, in raster order, where `wanted` is None.

        tokens (B, V, D) of positions visible (B, V); wanted (B, W), which may overlap `visible`. Returns (B, W, out).
        """
        known = self.enter(tokens) + self.positions[visible]
        if wanted is None:
            canvas = (self.mask_token + self.positions).to(known.dtype).expand(len(tokens), -1, -1)
            hidden = canvas.scatter(1, visible.unsqueeze(-1).expand_as(known), known)
        else:
            queries = (self.mask_token + self.positions[wanted]).to(known.dtype)
            hidden = torch.cat([queries, known], dim=1)
        for block in self.blocks:
            hidden = block(hidden)
        if wanted is not None:
            hidden = hidden[:, : wanted.shape[1]]
        out: Tensor = self.leave(self.norm(hidden))
        return out
