"""From pixels to the patches of the tokens that are wanted, and no others."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def patches(pixel_values: Tensor, tubelet: int, patch: int, visible: Tensor | None = None) -> Tensor:
    """Pixels of tokens, in raster order or as `visible` says.

    pixel_values (B, T, C, H, W); visible (B, ..., V) positions n = (it * h + ih) * w + iw.
    Returns (B, N, C * tubelet * patch * patch) or (B, ..., V, C * tubelet * patch * patch), channels first as in a
    Conv3d kernel. Hidden pixels are never read.
    """
    clip = pixel_values.unflatten(1, (-1, tubelet)).unflatten(-2, (-1, patch)).unflatten(-1, (-1, patch))
    clip = clip.permute(0, 1, 4, 6, 3, 2, 5, 7)  # B, t, h, w, C, tubelet, patch, patch
    if visible is None:
        return clip.flatten(4).flatten(1, 3)
    h, w = clip.shape[2:4]
    sample = torch.arange(len(clip), device=visible.device).view(-1, *[1] * (visible.ndim - 1))
    return clip[sample, visible // (h * w), visible // w % h, visible % w].flatten(-4)


def temporal_change(tokens: Tensor, frames: int) -> Tensor:
    """How far each token is from the one at its place in the tubelet before: (B, frames * P, D) in raster order -> (B, frames * P), fp32.

    Tokens of the first tubelet, which have none before them, count as much as those after them. (EVEREST, Hwang et al., ICML 2024.)
    """
    if frames == 1:
        return tokens.new_zeros(tokens.shape[:2], dtype=torch.float32)
    change = tokens.float().unflatten(1, (frames, -1)).diff(dim=1).norm(dim=-1)
    return torch.cat([change[:, :1], change], dim=1).flatten(1)


def deviation_at_places(tokens: Tensor, places: Tensor, total: int) -> Tensor:
    """Deviation over time of the tokens (B, V, D) that share a place, averaged over places with two or more: (B, D); 0 where there is none.

    places (B, V) int64 in [0, total).
    """
    at = places.unsqueeze(-1).expand_as(tokens)
    empty = tokens.new_zeros(len(tokens), total, tokens.shape[-1])
    count = empty[..., 0].scatter_add(1, places, tokens.new_ones(places.shape)).unsqueeze(-1)
    mean = empty.scatter_add(1, at, tokens) / count.clamp_min(1)
    square = empty.scatter_add(1, at, (tokens - mean.gather(1, at)).square()) / count.clamp_min(1)
    several = (count > 1).to(tokens.dtype)
    return (square.clamp_min(1e-12).sqrt() * several).sum(dim=1) / several.sum(dim=1).clamp_min(1)


def average_at(tokens: Tensor, where: Tensor, total: int) -> Tensor:
    """Mean of the tokens (B, V, D) that share a number where (B, V) in [0, total): (B, total, D); the mean of all where there is none."""
    at = where.unsqueeze(-1).expand_as(tokens)
    sums = tokens.new_zeros(len(tokens), total, tokens.shape[-1]).scatter_add(1, at, tokens)
    count = tokens.new_zeros(len(tokens), total).scatter_add(1, where, tokens.new_ones(where.shape)).unsqueeze(-1)
    return torch.where(count > 0, sums / count.clamp_min(1), tokens.mean(dim=1, keepdim=True))


def embed_patches(projection: nn.Module, pixel_values: Tensor, visible: Tensor | None = None) -> Tensor:
    """What a patch-embedding Conv3d, or Conv2d of every frame, whose stride is its kernel gives at the positions `visible`: (B, ..., V, D).

    As a matrix product over the wanted patches: at 90 % masking the convolution over all of them would cost as much as
    the encoder.
    """
    assert isinstance(projection, nn.Conv3d | nn.Conv2d)
    tubelet = projection.kernel_size[0] if isinstance(projection, nn.Conv3d) else 1
    wanted = patches(pixel_values.to(projection.weight.dtype), tubelet, projection.kernel_size[-1], visible)
    return F.linear(wanted, projection.weight.flatten(1), projection.bias)
