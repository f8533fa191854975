"""Clips cut out of longer ones, on the device."""

from __future__ import annotations

import torch
from torch import Tensor


def take(clip: Tensor, indices: Tensor) -> Tensor:
    """clip (B, L, ...), indices (B, T) of each sample's frames, on any device -> (B, T, ...)."""
    rows = torch.arange(len(clip), device=clip.device).unsqueeze(1)
    return clip[rows, indices.to(clip.device, non_blocking=True)]


def recorded(clip: Tensor) -> Tensor:
    """How many frames of clips (B, L, C, H, W) were recorded: (B,) int64, at least 1.

    The loader holds the last frame of a recording that is shorter than the clip; held frames are alike to the last pixel, recorded ones never are
    (but for FreqAug's temporal filter, after which all frames count as recorded).
    """
    others = (clip != clip[:, -1:]).flatten(2).any(dim=-1)
    places = torch.arange(clip.shape[1], device=clip.device)
    return torch.where(others, places, -1).amax(dim=1) + 2


def mirrored(indices: Tensor, count: Tensor) -> Tensor:
    """Frames (B, ...) as they are met going back and forth over `count` (B,) frames: 0, 1, 2, 1, 0, 1, ... for 3.

    What is asked of a clip must not be told by how short its recording was: in place of a held frame time runs back.
    """
    last = (count - 1).view(-1, *[1] * (indices.ndim - 1))
    place = indices % (2 * last).clamp_min(1)
    return torch.where(place > last, 2 * last - place, place)
