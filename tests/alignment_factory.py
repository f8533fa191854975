"""Every loss between modalities at once, for a test that two ranks are one with the whole batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recipes.parts.alignment import both_ways, mil_nce, of_one_group, shared_nce, sigmoid_loss
from recipes.parts.centroids import Centroids
from recipes.parts.multilinear import Placeholder, symile
from recipes.parts.soft_dtw import procedure_loss
from recipes.parts.volume import gram_loss


def rows(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers, the same every time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Joined(nn.Module):
    """Every loss, of rows (B, 3, 4) in three modalities, with what is learned in them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.log_scale, self.bias = (nn.Parameter(torch.tensor(value)) for value in (1.6, -2.0))
        self.placeholder = Placeholder(4)
        self.centroids = Centroids(2, 4, memory=8).train()

    def forward(self, x: Tensor, seeds: Tensor) -> dict[str, Tensor]:
        a, b, c = x.unbind(1)
        some, group = seeds % 3 > 0, seeds % 4
        present = torch.stack([some, seeds % 5 > 0], dim=1)
        scale = self.log_scale.exp()
        self.centroids.observe(x, seeds)
        self.centroids.fit()
        return {
            "both": both_ways(a, b, 1 / scale, forward=0.75, apart=of_one_group(group)),
            "sigmoid": sigmoid_loss(a, b, scale, self.bias, apart=of_one_group(group)),
            "mil": mil_nce(a, x[:, 1:], 0.2, present),
            "shared": shared_nce(a, b, 1 / scale, of_one_group(group)),
            "procedure": procedure_loss(x, x.flip(1), step_count=seeds % 4),
            "gram": gram_loss(a, x[:, 1:], 1 / scale, present=present),
            "symile": symile([a, self.placeholder(b, some), c], scale, seeds),
            "symile_all": symile([a, self.placeholder(b, some), c], scale, seeds, strangers="all"),
            "clusters": self.centroids([a, b, c], 0.2, margin=0.1, present=torch.stack([some, some, ~some], dim=1)),
        }


def modalities() -> tuple[Tensor, Tensor]:
    """(8, 3, 4) rows and a seed for each."""
    return rows(8, 3, 4), torch.tensor([3, 1, 4, 15, 9, 2, 6, 5])


def gradients(x: Tensor, seeds: Tensor) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Of every loss: its value, its gradient by the rows, and by what is learned."""
    found: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    model, x = Joined(), x.clone().requires_grad_()
    for name, loss in model(x, seeds).items():
        learned = list(model.parameters())
        by_x, *by_learned = torch.autograd.grad(loss, [x, *learned], retain_graph=True, allow_unused=True)
        flat = [torch.zeros_like(p) if g is None else g for p, g in zip(learned, by_learned, strict=True)]
        found[name] = loss.detach(), by_x, torch.cat([one.flatten() for one in flat])
    return found
