"""Smooth local distortion of the picture that is the same in every frame: the scene is broken, the motion goes on. On the device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.parts import draws


def drawn_bends(seeds: Tensor, points: int, reach: float, *, name: str) -> Tensor:
    """How far (x, y) a picture is pulled at a grid of points, in distances between them: (B, 2, points, points) fp32 within +- reach, on the CPU."""
    return reach * (2 * draws.uniform(seeds, (2, points, points), name=name) - 1)


def warp(clip: Tensor, bends: Tensor) -> Tensor:
    """clip (B, T, C, H, W), bends (B, 2, g, g) of points spread from corner to corner, in their distances -> the same shape.

    Between the points the pull is bicubic. Outside the picture its border goes on. Bends below half a distance do not fold the picture at its points.
    """
    height, width = clip.shape[-2:]
    points = bends.shape[-1]
    bends = bends.to(clip.device, non_blocking=True) * (
        2 / (points - 1)
    )  # in grid_sample's units: the picture spans [-1, 1]
    pull = F.interpolate(bends, size=(height, width), mode="bicubic", align_corners=True)
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, size, device=clip.device) for size in (height, width)), indexing="ij")
    places = torch.stack([x + pull[:, 0], y + pull[:, 1]], dim=-1)
    warped = F.grid_sample(clip.flatten(1, 2), places, mode="bilinear", padding_mode="border", align_corners=True)
    return warped.view(clip.shape)
