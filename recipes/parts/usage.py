"""How evenly outputs are used: clusters that nobody is assigned to, and heads that say the same of every clip."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from recipes.parts.distributed import global_sum


class Usage(nn.Module):
    """Counts which of K outputs (prototypes, classes of a distillation head) wins, over all rows since the last `entropy`, on all ranks.

    Balanced assignments (Sinkhorn) are used evenly whatever the scores are: give it the scores. Nothing waits for the device and nothing is kept in
    checkpoints; only training is counted.
    """

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self._counts: Tensor | None = None

    @torch.no_grad()
    def observe(self, scores: Tensor) -> None:
        """scores (..., K), of which the largest wins."""
        if not self.training:
            return
        winners = scores.detach().argmax(dim=-1).flatten()
        if self._counts is None or self._counts.device != winners.device:
            self._counts = torch.zeros(self.outputs, dtype=torch.int64, device=winners.device)
        self._counts.index_add_(0, winners, torch.ones_like(winners))

    def entropy(self) -> float | None:
        """Entropy of the shares of the outputs, as a part of the largest possible, log min(K, rows): 0 where one takes all, 1 where all are used
        alike. Starts anew. None where nothing was observed. Every rank must ask."""
        if self._counts is None:
            return None
        counts = global_sum(self._counts).double()
        self._counts = None
        rows = int(counts.sum())
        share = counts[counts > 0] / max(1, rows)
        most = math.log(min(self.outputs, rows)) if rows > 1 else 0.0
        return float(-(share * share.log()).sum()) / most if most > 0 else 1.0


class Usages(nn.ModuleDict):
    """Several, by the name of the figure that they are logged under."""

    def __init__(self, outputs: Mapping[str, int]) -> None:
        super().__init__({name: Usage(count) for name, count in outputs.items()})

    def observe(self, name: str, scores: Tensor) -> None:
        """See `Usage.observe`."""
        usage = self[name]
        assert isinstance(usage, Usage)
        usage.observe(scores)
