"""Position tables for other frame counts and sizes than an encoder was trained with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

Grid = tuple[int, int, int]


def sincos_table(positions: int, width: int) -> Tensor:
    """(positions, width) fp32: sin at even, cos at odd channels, of position / 10000^(2 floor(i / 2) / width), over the
    raster index: VideoMAE's own table (Tong et al., NeurIPS 2022)."""
    index = torch.arange(positions, dtype=torch.float64).unsqueeze(1)
    frequency = 10_000 ** (-2 * (torch.arange(width) // 2).double() / width)
    angle = index * frequency
    table = torch.where(torch.arange(width) % 2 == 0, angle.sin(), angle.cos())
    return table.float()


def interpolate_positions(table: Tensor, old: Grid, new: Grid) -> Tensor:
    """A table (N_old, D) in raster order over the grid `old` (t, h, w), resampled to `new`: (N_new, D), fp32.

    Bicubic with anti-aliasing in space and linear in time, always in fp32: in half precision neighbouring positions
    fall together. Nothing changes where the grids are equal.
    """
    if old == new:
        return table.float()
    grid = table.float().view(*old, -1)
    if old[1:] != new[1:]:
        space = F.interpolate(grid.permute(0, 3, 1, 2), size=new[1:], mode="bicubic", antialias=True)
        grid = space.permute(0, 2, 3, 1)
    if old[0] != new[0]:
        time = F.interpolate(grid.flatten(1).T.unsqueeze(0), size=new[0], mode="linear", align_corners=False)
        grid = time.squeeze(0).T.reshape(*new, -1)
    return grid.reshape(-1, table.shape[-1])
