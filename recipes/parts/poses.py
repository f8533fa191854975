"""2D poses as tokens: which cell of the picture a joint is in."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.encoders.positions import sincos_table
from recipes.parts import draws


class PoseTower(nn.Module):
    """Joints over time (B, T, J, 2) in shares of the clip, NaN where none is seen -> a description (B, width), by way of tokens.

    A token is the cell of a bins x bins grid that a joint is in, or that it is not seen; a small transformer reads steps x J of them, moments evenly
    spaced, each with its joint and its time, and a token of its own that gathers what all say ("pose as discrete tokens", Hamoud et al., 2025; cells
    in place of their learned code book).
    """

    def __init__(self, joints: int, steps: int, bins: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.joints, self.steps, self.bins = joints, steps, bins
        self.cells, self.unseen, self.masked = bins * bins, bins * bins, bins * bins + 1
        self.embed = nn.Embedding(bins * bins + 2, width)
        self.joint = nn.Parameter(torch.randn(joints, width))
        self.whole = nn.Parameter(torch.randn(1, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.guess = nn.Linear(width, self.cells)

    def tokens(self, pose: Tensor) -> Tensor:
        """(B, T, J, 2) -> (B, steps, J) int64, in [0, cells) and `unseen`. What is beyond the picture is in the cell at its edge."""
        when = torch.linspace(0, pose.shape[1] - 1, self.steps, device=pose.device).round().long()
        at = pose[:, when]
        seen = ~at.isnan().any(dim=-1)
        column, row = (torch.where(seen.unsqueeze(-1), at, 0.0) * self.bins).long().clamp(0, self.bins - 1).unbind(-1)
        return torch.where(seen, row * self.bins + column, self.unseen)

    def hide(self, tokens: Tensor, seeds: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
        """(tokens with a share of the joints that are seen masked, which those are); both (B, steps, J). Follows from seeds (B,)."""
        drawn = draws.uniform(seeds, (self.steps, self.joints), name="pose").to(tokens.device, non_blocking=True)
        hidden = (drawn < ratio) & (tokens != self.unseen)
        return tokens.masked_fill(hidden, self.masked), hidden

    def forward(self, tokens: Tensor, beside: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """tokens (B, steps, J); beside (B, width): something else to read, the video above all. Returns the description (B, width), and what is
        made of every token (B, steps, J, width)."""
        times = sincos_table(self.steps, self.joint.shape[1]).to(self.joint).view(self.steps, 1, -1)
        each = (self.embed(tokens) + self.joint + times).flatten(1, 2)
        gathers = self.whole.expand(len(each), 1, -1).to(each.dtype)
        if beside is not None:
            gathers = gathers + beside.unsqueeze(1).to(each.dtype)
        hidden = torch.cat([gathers, each], dim=1)
        for block in self.blocks:
            hidden = block(hidden)
        hidden = self.norm(hidden)
        return hidden[:, 0], hidden[:, 1:].unflatten(1, (self.steps, self.joints))

    def guesses(self, made: Tensor, tokens: Tensor, hidden: Tensor) -> Tensor:
        """Cross-entropy of the cells that were hidden, summed for each sample: (B,), fp32."""
        scores = self.guess(made).float()
        wanted = tokens.clamp_max(self.cells - 1)  # of what is not hidden it means nothing, and does not count
        each = F.cross_entropy(scores.flatten(0, 2), wanted.flatten(), reduction="none").view(tokens.shape)
        return (each * hidden).flatten(1).sum(dim=1)
