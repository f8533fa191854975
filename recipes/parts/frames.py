"""Clips cut out of longer ones, on the device."""

from __future__ import annotations

import torch
from torch import Tensor


def take(clip: Tensor, indices: Tensor) -> Tensor:
    """clip (B, L, ...), indices (B, T) of each sample's frames, on any device -> (B, T, ...)."""
    rows = torch.arange(len(clip), device=clip.device).unsqueeze(1)
    return clip[rows, indices.to(clip.device, non_blocking=True)]
