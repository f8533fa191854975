"""What pretext tasks ask of a clip's own pixels: where and where to it moves most, where its light changes most and least."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.encoders.base import Geometry

DIRECTIONS = 8  # of motion, the first to the right, then clockwise as rows are counted from above
SHADES = 8  # of luminance, from black to white
BLANK = 0.02  # spread of luminance, of full scale, below which a block holds nothing to ask about
RIDGE = 1e-6  # added to the diagonal of a block's structure tensor: no motion where there is no texture


class Motion(NamedTuple):
    """Of each clip, all (B,) int64: the block that moves most, its dominant direction, the pair of frames between which most moves."""

    block: Tensor
    direction: Tensor
    moment: Tensor


class Appearance(NamedTuple):
    """Of each clip, all (B,) int64: the block whose luminance changes most and its dominant shade, the one where it changes least and its shade."""

    most: Tensor
    most_shade: Tensor
    least: Tensor
    least_shade: Tensor


def luminance(clip: Tensor, geometry: Geometry) -> Tensor:
    """Normalised pixel_values (B, T, 3, H, W) -> luminance in [0, 1] (B, T, H, W), fp32 (the weights are those of ITU-R BT.601)."""
    each = (1, 1, 3, 1, 1)
    std = torch.tensor(geometry.std).to(clip.device).view(each)
    mean = torch.tensor(geometry.mean).to(clip.device).view(each)
    weights = torch.tensor([0.299, 0.587, 0.114]).to(clip.device).view(each)
    return ((clip.float() * std + mean) * weights).sum(dim=2)


@torch.no_grad()
def motion_of(light: Tensor, blocks: int) -> Motion:
    """light (B, T, H, W), cut into blocks x blocks.

    No flow network: how much moves is the mean difference of neighbouring frames, and where to is the least-squares displacement of each block from
    each frame to the next (Lucas and Kanade, 1981). A direction counts as much as its displacements are long.
    """
    change = light[:, 1:] - light[:, :-1]
    amount = by_block(change.abs(), blocks).flatten(2)  # B, T - 1, blocks^2
    block = amount.mean(dim=1).argmax(dim=-1)
    chosen = block.view(-1, 1, 1)
    across, down = slopes((light[:, 1:] + light[:, :-1]) / 2)
    products = (across * across, across * down, down * down, across * change, down * change)
    xx, xy, yy, xt, yt = (
        by_block(product, blocks).flatten(2).gather(2, chosen.expand(-1, product.shape[1], 1)).squeeze(2)
        for product in products
    )
    determinant = (xx + RIDGE) * (yy + RIDGE) - xy * xy
    x, y = (xy * yt - (yy + RIDGE) * xt) / determinant, (xy * xt - (xx + RIDGE) * yt) / determinant  # B, T - 1
    sector = (torch.atan2(y, x) / (2 * math.pi / DIRECTIONS)).round().long() % DIRECTIONS
    is_there = sector.unsqueeze(2) == torch.arange(DIRECTIONS, device=light.device)
    votes = (is_there * torch.hypot(x, y).unsqueeze(2)).sum(dim=1)
    return Motion(block, votes.argmax(dim=-1), amount.mean(dim=2).argmax(dim=-1))


@torch.no_grad()
def appearance_of(light: Tensor, blocks: int) -> Appearance:
    """light (B, T, H, W). A block changes as little as the histograms of its frames overlap: sum over shades of their least share in any frame, over
    that of their largest. Blocks without any structure (the black around an ultrasound sector) are never the one that changes least.
    """
    shade = (light * SHADES).long().clamp(0, SHADES - 1)
    counts = torch.stack([by_block((shade == one).float(), blocks).flatten(2) for one in range(SHADES)], dim=-1)
    overlap = counts.amin(dim=1).sum(dim=-1) / counts.amax(dim=1).sum(dim=-1).clamp_min(1e-6)  # B, blocks^2
    mean = by_block(light, blocks).flatten(2).mean(dim=1)
    spread = (by_block(light.square(), blocks).flatten(2).mean(dim=1) - mean.square()).clamp_min(0).sqrt()
    most, least = overlap.argmin(dim=-1), torch.where(spread < BLANK, -1.0, overlap).argmax(dim=-1)
    common = counts.sum(dim=1).argmax(dim=-1)  # B, blocks^2

    def at(block: Tensor) -> Tensor:
        return common.gather(1, block.unsqueeze(1)).squeeze(1)

    return Appearance(most, at(most), least, at(least))


def by_block(maps: Tensor, blocks: int) -> Tensor:
    """Means over the blocks of maps (B, T, H, W) -> (B, T, blocks, blocks)."""
    return F.adaptive_avg_pool2d(maps, blocks)


def slopes(light: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences (B, T, H, W) of luminance across and down, 0 at the border."""
    across = F.pad((light[..., 2:] - light[..., :-2]) / 2, (1, 1))
    down = F.pad((light[..., 2:, :] - light[..., :-2, :]) / 2, (0, 0, 1, 1))
    return across, down
