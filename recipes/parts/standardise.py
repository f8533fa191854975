"""Taking away what all samples of a batch have in common. In an untrained encoder that is nearly everything."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recipes.parts.distributed import gather, global_sum


class BatchStandardise(nn.Module):
    """Every channel to mean 0 and deviation 1 over the samples of all ranks: (..., D) -> (..., D).

    Keeps no running statistics: a teacher uses those of its own outputs.
    """

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        rows = gather(x.float().flatten(0, -2))
        deviation = rows.var(dim=0, unbiased=False).add(1e-6).sqrt()
        return (x - rows.mean(dim=0)) / deviation


def centre_places(tokens: Tensor, places: Tensor, count: int) -> Tensor:
    """Tokens minus the mean of their place over all samples of all ranks; the mean carries no gradient.

    tokens (..., D); places (...) int64 in [0, count). What every clip shows at a place says nothing of this clip, and
    an encoder that knows its positions could otherwise answer with the place alone.
    """
    rows = tokens.detach().float().flatten(0, -2)
    ones = torch.ones_like(rows[:, :1])
    sums = rows.new_zeros(count, rows.shape[1] + 1).index_add_(0, places.flatten(), torch.cat([rows, ones], dim=1))
    total = global_sum(sums)
    return tokens - (total[:, :-1] / total[:, -1:].clamp_min(1))[places]
