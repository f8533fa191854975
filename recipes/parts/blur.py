"""Gaussian blur that is the same in every frame of a clip, on the device."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.parts import draws


def drawn_blur(seeds: Tensor, probability: float, least: float, most: float, *, name: str) -> Tensor:
    """Deviations in pixels, (B,) fp32 on the CPU: uniform in [least, most], 0 (no blur) but for a share `probability` of the samples."""
    blurred, depth = draws.uniform(seeds, (2,), name=name).unbind(dim=1)
    return (least + (most - least) * depth) * (blurred < probability)


def blur(clip: Tensor, deviations: Tensor, most: float) -> Tensor:
    """clip (B, T, C, H, W), each sample blurred with its deviation (B,) in pixels, at most `most`; 0 leaves a sample as it is. -> the same shape.

    The kernel ends at three of the largest deviations; at the border the outermost pixels go on.
    """
    reach = min(max(1, math.ceil(3 * most)), min(clip.shape[-2:]) - 1)
    offsets = torch.arange(-reach, reach + 1, device=clip.device)
    deviations = deviations.to(clip.device, non_blocking=True)
    kernel = torch.exp(-0.5 * (offsets / deviations.clamp_min(1e-3).unsqueeze(1)).square())
    weights = (kernel / kernel.sum(dim=1, keepdim=True)).to(clip.dtype).T.view(len(offsets), -1, 1, 1, 1, 1)
    for axis, pad in ((-1, (reach, reach, 0, 0)), (-2, (0, 0, reach, reach))):
        padded = F.pad(clip.flatten(0, 1), pad, mode="replicate").unflatten(0, clip.shape[:2])
        size, blurred = clip.shape[axis], torch.zeros_like(clip)
        for place, weight in enumerate(weights):
            blurred.addcmul_(padded.narrow(axis, place, size), weight)
        clip = blurred
    return clip
