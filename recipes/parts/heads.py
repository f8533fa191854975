"""Heads on pooled tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recipes.parts.standardise import BatchStandardise


class CosineLinear(nn.Module):
    """Linear layer without bias whose rows have length one: (..., D) of length one -> cosines (..., K).

    held: the rows' gradient is 0, as DINO and SwAV have it in the first steps; what is multiplied by them still learns. A process group waits for
    the gradient of every parameter, so it is 0 and not left out; `renormalise` takes back what weight decay does to the rows meanwhile.
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(outputs, width), dim=-1))
        self.held = False

    def rows(self) -> Tensor:
        """(K, D), of length one."""
        weight = self.weight.detach() + 0 * self.weight if self.held else self.weight
        return F.normalize(weight, dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Cosines between `x`, normalised here, and the rows."""
        return F.linear(F.normalize(x, dim=-1), self.rows())


@torch.no_grad()
def renormalise(layer: CosineLinear) -> None:
    """Bring the rows back to length one, so that their length does not change the size of later steps."""
    layer.weight.copy_(F.normalize(layer.weight, dim=-1))


def mlp(width: int, hidden: int, outputs: int, *, layers: int = 2, standardise: bool = False) -> nn.Sequential:
    """(..., width) -> (..., outputs): linear layers with GELU between them.

    standardise: every hidden channel to mean 0 and deviation 1 over the samples of all ranks before the GELU, as batch norm does in BYOL and SimSiam
    (there it is what keeps them from collapse). A sample's output then depends on the batch.
    """
    parts: list[nn.Module] = []
    for layer in range(layers):
        last = layer + 1 == layers
        parts.append(nn.Linear(width if layer == 0 else hidden, outputs if last else hidden))
        if not last:
            parts += [BatchStandardise(), nn.GELU()] if standardise else [nn.GELU()]
    return nn.Sequential(*parts)


class DistillationHead(nn.Module):
    """DINO's head (Caron et al., ICCV 2021): three-layer MLP, length one, weight-normed linear layer of K outputs.

    (..., D) -> logits (..., K) in [-1, 1]. `standardise`: over the batch, before the MLP.
    """

    def __init__(self, width: int, hidden: int, bottleneck: int, outputs: int, *, standardise: bool = False) -> None:
        super().__init__()
        self.before = BatchStandardise() if standardise else nn.Identity()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.last = CosineLinear(bottleneck, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.last(self.mlp(self.before(x)))
        return logits
