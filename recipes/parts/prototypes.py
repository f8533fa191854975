"""Online clusters: shared prototypes and balanced assignments to them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.parts.distributed import global_max, global_sum
from recipes.parts.heads import CosineLinear
from recipes.parts.precision import as_they_are


class Prototypes(CosineLinear):
    """K directions of length one; tokens (..., D) -> cosine scores (..., K) in fp32, whatever the autocast."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        with as_they_are(x):
            return F.linear(F.normalize(x.float(), dim=-1), self.rows().float())


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 10) -> Tensor:
    """Balanced soft assignments of the tokens of all ranks (Cuturi 2013; Caron et al., SwAV, NeurIPS 2020).

    scores (n, K) -> q (n, K), fp32: exp(scores / epsilon) scaled by rows and columns until every prototype holds the
    same share of all tokens; rows sum to one. No gradient.
    """
    # exp(score / epsilon) = kernel x rows, both at most 1 whatever epsilon is. Later scalings of the rows are computed
    # afresh, so a row that is 0 here at first is not lost.
    largest = scores.float().max(dim=1).values
    kernel = ((scores.float() - largest.unsqueeze(1)) / epsilon).exp()
    rows = ((largest - global_max(largest)) / epsilon).exp()
    count = global_sum(torch.tensor(float(len(kernel)), device=kernel.device))
    columns = torch.ones(kernel.shape[1], device=kernel.device)
    tiny = torch.finfo(torch.float32).tiny
    for _ in range(iterations):
        # The scalings alone are iterated: two matrix-vector products, and one all-reduce of K numbers.
        columns = (count / len(columns)) / global_sum(kernel.T @ rows).clamp_min(tiny)
        rows = 1 / (kernel @ columns).clamp_min(tiny)
    return kernel * columns * rows.unsqueeze(1)
