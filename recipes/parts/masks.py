"""Which tokens an encoder sees. Every mask follows from its sample's seed alone, so a step can be replayed anywhere."""

from __future__ import annotations

import torch
from torch import Tensor

from recipes.encoders.tokens import gather

__all__ = ["gather", "place_back", "tube_mask"]


def tube_mask(grid: tuple[int, int, int], ratio: float, seeds: Tensor, draw: int = 0) -> tuple[Tensor, Tensor]:
    """Tube masking (VideoMAE, Tong et al. 2022): one spatial mask, the same in every frame of a clip.

    grid (t, h, w); ratio: share of hidden tokens; seeds (B,) int64; draw: which of several masks of one sample.
    Returns visible (B, V) and hidden (B, N - V), int64, each in raster order. V is the same for every sample and at least one tube.
    """
    t, h, w = grid
    places = h * w
    keep = max(1, round(places * (1 - ratio)))
    if keep >= places:
        raise ValueError(f"a mask ratio of {ratio} hides none of {places} places")
    shuffled = torch.stack([torch.randperm(places, generator=generator(seed, draw)) for seed in seeds.tolist()])
    seen, unseen = shuffled[:, :keep].sort(dim=1).values, shuffled[:, keep:].sort(dim=1).values
    steps = torch.arange(t).view(1, t, 1) * places
    return (steps + seen.unsqueeze(1)).flatten(1), (steps + unseen.unsqueeze(1)).flatten(1)


def generator(seed: int, draw: int) -> torch.Generator:
    """A generator of its own for each (sample, draw)."""
    return torch.Generator().manual_seed((int(seed) * 1_000_003 + draw * 7_919 + 1) % (2**63 - 1))


def place_back(visible: Tensor, index: Tensor, filler: Tensor, tokens: int) -> Tensor:
    """Visible tokens (B, V, D) at their positions `index` (B, V) among `tokens` positions; `filler` (1, 1, D) everywhere else -> (B, N, D)."""
    full = filler.to(visible.dtype).expand(len(visible), tokens, -1)
    return full.scatter(1, index.unsqueeze(-1).expand_as(visible), visible)
