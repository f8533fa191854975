"""Taking away what all samples of a batch have in common. In an untrained encoder that is nearly everything."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recipes.parts.distributed import global_sum, shared_sum


class BatchStandardise(nn.Module):
    """Every channel to mean 0 and deviation 1 over the samples of all ranks: (..., D) -> (..., D).

    Keeps no running statistics: a teacher uses those of its own outputs. Ranks exchange 2 D sums, whatever the number of rows.
    """

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        rows = x.float().flatten(0, -2)
        count = global_sum(torch.tensor(float(len(rows)), device=rows.device))
        centred = rows - shared_sum(rows.sum(dim=0)) / count
        deviation = (shared_sum(centred.square().sum(dim=0)) / count).add(1e-6).sqrt()
        return (centred / deviation).view(x.shape)


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
