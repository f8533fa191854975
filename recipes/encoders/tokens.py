"""From pixels to patch tokens when only some are wanted: hidden pixels are dropped before anything is computed from them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def cut_tubelets(pixel_values: Tensor, tubelet: int, patch: int) -> Tensor:
    """(B, T, C, H, W) -> (B, N, C * tubelet * patch * patch), tokens in raster order (t, h, w); values ordered as a Conv3d kernel's."""
    b, frames, channels, height, width = pixel_values.shape
    t, h, w = frames // tubelet, height // patch, width // patch
    cut = pixel_values.reshape(b, t, tubelet, channels, h, patch, w, patch)
    return cut.permute(0, 1, 4, 6, 3, 2, 5, 7).reshape(b, t * h * w, channels * tubelet * patch * patch)


def gather(tokens: Tensor, index: Tensor) -> Tensor:
    """tokens (B, N, D), index (B, V) -> (B, V, D)."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def embed_patches(projection: nn.Conv3d, pixel_values: Tensor, visible: Tensor | None) -> Tensor:
    """The projection of all tubelets (B, N, D), or of those at `visible` alone (B, V, D).

    The second is the same product as the convolution's, over a tenth of the rows where nine tenths are hidden.
    """
    pixel_values = pixel_values.to(projection.weight.dtype)
    if visible is None:
        return projection(pixel_values.transpose(1, 2)).flatten(2).transpose(1, 2)
    tubelet, patch, _ = projection.kernel_size
    return F.linear(gather(cut_tubelets(pixel_values, tubelet, patch), visible), projection.weight.flatten(1), projection.bias)


def interpolate_positions(table: Tensor, old: tuple[int, int, int], new: tuple[int, int, int]) -> Tensor:
    """Position embeddings (1, N, D) of grid `old` resampled to grid `new`: bicubic in space, linear in time, in float32."""
    if old == new:
        return table.float()
    (t0, h0, w0), (t1, h1, w1) = old, new
    grid = table.float().reshape(t0, h0, w0, -1).permute(0, 3, 1, 2)
    if (h0, w0) != (h1, w1):
        grid = F.interpolate(grid, (h1, w1), mode="bicubic", align_corners=False)
    if t0 != t1:
        width = grid.shape[1]
        lines = grid.permute(2, 3, 1, 0).reshape(1, h1 * w1 * width, t0)
        lines = F.interpolate(lines, t1, mode="linear", align_corners=False)
        grid = lines.reshape(h1, w1, width, t1).permute(3, 2, 0, 1)
    return grid.permute(0, 2, 3, 1).reshape(1, t1 * h1 * w1, -1)


def all_positions(batch: int, tokens: int, device: torch.device) -> Tensor:
    """(B, N): every position, in raster order."""
    return torch.arange(tokens, device=device).expand(batch, -1)
