"""Prototypes on the unit sphere, and the balanced assignment of features to them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.parts.distributed import global_sum


class Prototypes(nn.Module):
    """K directions; the score of a feature is its cosine with each."""

    def __init__(self, width: int, number: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(number, width), dim=-1))

    def forward(self, features: Tensor) -> Tensor:
        """(R, width) -> cosines (R, K)."""
        return F.linear(F.normalize(features, dim=-1), F.normalize(self.weight, dim=-1))

    @torch.no_grad()
    def renormalise(self) -> None:
        """Back to unit length, after an optimiser step (SwAV)."""
        self.weight.copy_(F.normalize(self.weight, dim=-1))


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Sinkhorn-Knopp (Cuturi 2013; SwAV, Caron et al. 2020): soft codes under which every prototype is used equally often.

    scores (R, K): cosines of the rows of this process. The normalisation runs over the rows of all processes, in float32.
    Returns codes (R, K), each row sums to 1; no gradient. Computed on exp((scores - max) / epsilon): the same codes, no overflow.
    """
    plan = torch.exp((scores.float() - 1.0) / epsilon)  # cosines are at most 1
    rows = global_sum(torch.tensor(float(len(plan)), device=plan.device))
    number = plan.shape[1]
    for _ in range(iterations):
        plan = plan / (global_sum(plan.sum(dim=0, keepdim=True)) * number).clamp_min(1e-30)
        plan = plan / (plan.sum(dim=1, keepdim=True) * rows).clamp_min(1e-30)
    return plan / plan.sum(dim=1, keepdim=True)
