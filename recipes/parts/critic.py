"""A critic of patches: whether pixels look like those of recordings (Wasserstein GAN with gradient penalty, Gulrajani et al., NeurIPS 2017)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from recipes.parts import draws
from recipes.parts.precision import as_they_are


class Criticism(NamedTuple):
    """Of one batch: what the makers of patches lose, what the critic loses, and how far apart its scores are. Neither loss has a gradient for
    the other side."""

    maker: Tensor
    critic: Tensor
    distance: Tensor


class PatchCritic(nn.Module):
    """D: a patch's pixels (..., P) -> a score (...): two linear layers with leaky rectification (slope 0.2), fp32 whatever the autocast.

    maker  = - mean D(fake)
    critic = mean D(fake) - mean D(real) + penalty mean (|| grad D(mixed) || - 1)^2,   mixed = a real + (1 - a) fake, a ~ U(0, 1) for each patch
    """

    LEAK = 0.2

    def __init__(self, pixels: int, hidden: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(pixels, hidden), nn.Linear(hidden, 1)

    def forward(self, patches: Tensor) -> Tensor:
        """See the class."""
        with as_they_are(patches):
            scores: Tensor = self.last(F.leaky_relu(self.first(patches.float()), self.LEAK)).squeeze(-1)
        return scores

    def slope(self, patches: Tensor) -> Tensor:
        """grad D at patches (..., P), of the same shape, with gradient for the critic: D is linear in pieces, so that it can be written down."""
        with as_they_are(patches):
            gate = torch.where(self.first(patches.float()).detach() > 0, 1.0, self.LEAK)
            return (gate * self.last.weight[0]) @ self.first.weight

    def judge(self, fake: Tensor, real: Tensor, seeds: Tensor, penalty: float) -> Criticism:
        """fake (B, n, P) with gradient for its makers, real (B, n, P), seeds (B,) -> both losses, to be minimised together."""
        fixed = {name: parameter.detach() for name, parameter in self.named_parameters()}
        maker = -functional_call(self, fixed, (fake,)).mean()
        made, real = fake.detach().float(), real.detach().float()
        distance = self(real).mean() - self(made).mean()
        share = draws.uniform(seeds, (fake.shape[1], 1), name="critic").to(fake.device, non_blocking=True)
        steep = self.slope(torch.lerp(made, real, share)).norm(dim=-1).sub(1).square().mean()
        return Criticism(maker, penalty * steep - distance, distance.detach())
