"""Which of several texts comes when, told by looking at clips in their order."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.encoders.positions import sincos_table
from recipes.parts.pretext import timid


class Sorter(nn.Module):
    """A transformer that reads what a video shows, in its order, and texts without one, and says of each text the place that it has (TVTS's).

    forward: seen (B, K, t, D_v), tokens of K clips one after the other; said (B, K, D_t), their texts; present (B, K) bool -> scores (B, K, K) of
    the places, the lowest number for those that there are not. Texts have no positions, so that their order says nothing: what is said of a text is
    the same wherever it stands, and nothing need be shuffled.
    """

    def __init__(self, video: int, text: int, width: int, places: int, *, depth: int, heads: int) -> None:
        super().__init__()
        self.see, self.hear = nn.Linear(video, width), nn.Linear(text, width)
        self.kinds = nn.Parameter(0.02 * torch.randn(2, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.answer = nn.Linear(width, places)
        timid(self.answer)

    def forward(self, seen: Tensor, said: Tensor, present: Tensor) -> Tensor:
        """See the class."""
        clips, times = seen.shape[1:3]
        width = self.see.out_features
        table = sincos_table(clips * times, width).to(seen.device, non_blocking=True)
        video = self.see(F.layer_norm(seen.flatten(1, 2).float(), seen.shape[-1:])) + table + self.kinds[0]
        texts = self.hear(F.layer_norm(said.float(), said.shape[-1:])) + self.kinds[1]
        missing = torch.cat([~present.repeat_interleave(times, dim=1), ~present], dim=1)
        first = torch.arange(missing.shape[1], device=missing.device) == 0
        hidden = torch.cat([video, texts], dim=1)
        for block in self.blocks:
            hidden = block(hidden, src_key_padding_mask=missing & ~first)  # attention over nothing is not a number
        scores: Tensor = self.answer(self.norm(hidden[:, clips * times :])).float()
        return scores.masked_fill(~present.unsqueeze(1), torch.finfo(torch.float32).min)


def sorting_loss(scores: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """Of scores (B, K, K) for texts that stand in their order, of which `present` (B, K), those at the front: the cross-entropy of each sample, the
    mean over its texts (B,), and how many are told right (B,) int64."""
    samples, count = present.shape
    truth = torch.arange(count, device=scores.device).expand(samples, -1)
    each = F.cross_entropy(scores.flatten(0, 1), truth.flatten(), reduction="none").view(samples, count)
    each = each.where(present, 0.0)
    right = (scores.argmax(dim=-1) == truth) & present
    return each.sum(dim=1) / present.sum(dim=1).clamp_min(1), right.sum(dim=1)
