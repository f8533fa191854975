"""Attention over time on the tokens of an encoder that has none of its own, such as an image model that sees one frame at a time."""

from __future__ import annotations

from pydantic import PositiveInt
from torch import Tensor, nn

from domains.schema import Strict
from recipes.encoders.positions import sincos_table


class TemporalSettings(Strict):
    """The shape of a `TemporalModule`. width: of the encoder's tokens."""

    width: PositiveInt
    depth: PositiveInt
    heads: PositiveInt


class TemporalModule(nn.Module):
    """Transformer blocks in which a token sees the tokens of its own place at other times: the temporal half of divided space-time attention
    (Bertasius et al., TimeSformer, ICML 2021).

    Its blocks begin as the identity: a new one changes what the encoder says by its norm alone.
    """

    def __init__(self, settings: TemporalSettings) -> None:
        super().__init__()
        self.settings = settings
        width = settings.width
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, settings.heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(settings.depth)
        )
        for block in self.blocks:
            assert isinstance(block, nn.TransformerEncoderLayer)
            for last in (block.self_attn.out_proj, block.linear2):
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, grid: tuple[int, int, int], visible: Tensor | None = None) -> Tensor:
        """tokens (B, N, D) of a whole clip in raster order over grid (t, h, w), or (..., V, D) at positions visible (..., V) -> the same shape."""
        times, places = grid[0], grid[1] * grid[2]
        table = sincos_table(times, self.settings.width).to(tokens.device, non_blocking=True)
        if visible is None:
            lines = tokens.unflatten(1, (times, places)).transpose(1, 2).flatten(0, 1)  # B * places, t, D
            lines = self.through(lines, table, None)
            return lines.unflatten(0, (-1, places)).transpose(1, 2).flatten(1, 2)
        flat, where = tokens.flatten(0, -3), visible.flatten(0, -2)
        here = where % places
        apart = here.unsqueeze(-1) != here.unsqueeze(-2)
        return self.through(flat, table[where // places], apart).view(tokens.shape)

    def through(self, tokens: Tensor, times: Tensor, apart: Tensor | None) -> Tensor:
        """All blocks. times: the positions in time, added before the first; apart (S, V, V): which tokens do not see each other."""
        hidden = tokens + times.to(tokens.dtype)
        mask = None if apart is None else apart.repeat_interleave(self.settings.heads, dim=0)
        for block in self.blocks:
            hidden = block(hidden, src_mask=mask)
        said: Tensor = self.norm(hidden - times.to(tokens.dtype))
        return said
