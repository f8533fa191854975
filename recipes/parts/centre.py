"""The running centre of a teacher's logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recipes.parts.distributed import global_sum


class Centre(nn.Module):
    """c <- m c + (1 - m) mean(teacher logits), over all ranks and all forward passes of one optimiser step.

    Subtracted from teacher logits, it keeps one output from winning everywhere. It averages logits, not probabilities.
    """

    value: Tensor

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(outputs))
        self._sum: Tensor | None = None
        self._count = 0

    @torch.no_grad()
    def observe(self, logits: Tensor) -> None:
        """Remember logits (..., K) for the next `update`; ignored in evaluation mode."""
        if self.training:
            rows = logits.detach().float().flatten(0, -2)
            self._sum = rows.sum(dim=0) if self._sum is None else self._sum + rows.sum(dim=0)
            self._count += len(rows)

    @torch.no_grad()
    def update(self, momentum: float) -> None:
        """Move towards the mean of what was observed since the last update."""
        if self._sum is None:
            return
        total = global_sum(torch.cat([self._sum, self._sum.new_tensor([float(self._count)])]))
        self.value.lerp_(total[:-1] / total[-1], 1 - momentum)
        self._sum, self._count = None, 0
