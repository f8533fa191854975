"""Histograms of oriented gradients (Dalal and Triggs, CVPR 2005), on the device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def oriented_gradients(frames: Tensor, cell: int, bins: int = 9) -> Tensor:
    """frames (n, T, H, W) -> (n, T, bins, H / cell, W / cell), fp32: of each cell, how much gradient lies in each direction, of length one.

    Directions are unsigned, bin k of `bins` holds angles in [k, k + 1) pi / bins; central differences, weighted by their length. Cells without any
    gradient are 0.
    """
    around = F.pad(frames.float(), (1, 1, 1, 1), mode="replicate")
    x = around[..., 1:-1, 2:] - around[..., 1:-1, :-2]
    y = around[..., 2:, 1:-1] - around[..., :-2, 1:-1]
    size = torch.hypot(x, y)
    which = (torch.atan2(y, x) % torch.pi / torch.pi * bins).long().clamp_(max=bins - 1)
    # Bin by bin: one-hot maps of every pixel would need `bins` times the memory of the clip.
    cells = torch.stack([F.avg_pool2d(size * (which == one), cell) for one in range(bins)], dim=2)
    return cells / cells.norm(dim=2, keepdim=True).clamp_min(1e-4)
