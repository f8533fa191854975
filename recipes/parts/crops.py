"""Small views of a clip for an encoder of fixed geometry: boxes of its tokens."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recipes.parts.branch import Branch
from recipes.parts.draws import generators

Box = tuple[int, int, int]


def crop_box(grid: Box, frames: float, side: float) -> Box:
    """(t, h, w) tokens of a crop that takes the share `frames` of a clip's times and `side` of its height and width; at least one of each."""
    t, h, w = grid
    return max(1, round(t * frames)), max(1, round(h * side)), max(1, round(w * side))


def token_crops(seeds: Tensor, grid: Box, box: Box, views: int, *, name: str = "") -> Tensor:
    """Boxes of tokens, anywhere in the clip: what multi-crop's local views (Caron et al., SwAV, NeurIPS 2020) are to an encoder that sees one size.

    seeds (B,) one number per sample; box (t', h', w') within grid (t, h, w). Returns positions (B, views, t' h' w'), rising: what
    `VideoEncoder.forward` takes for `visible`. A sample's crops follow from its own seed and `name`.
    """
    room = np.array(grid) - np.array(box) + 1
    starts = np.stack([random.integers(room, size=(views, 3)) for random in generators(seeds, name)])
    start = torch.from_numpy(starts)  # B, views, 3
    axes = [start[..., axis].unsqueeze(-1) + torch.arange(box[axis]) for axis in range(3)]
    times, rows, columns = axes[0][..., :, None, None], axes[1][..., None, :, None], axes[2][..., None, None, :]
    return ((times * grid[1] + rows) * grid[2] + columns).flatten(2)


def of_crops(
    branch: Branch, clips: Tensor, seeds: Tensor, views: int, count: int, *, frames: float, side: float
) -> Tensor:
    """What `branch` says of `count` small crops of each of V `views`: clips (V * B, T, C, H, W), seeds (B,) -> (B, V * count, K).

    frames, side: see `crop_box`.
    """
    grid = branch.encoder.grid
    box = crop_box(grid, frames, side)
    places = token_crops(seeds, grid, box, views * count, name="crops")
    places = places.unflatten(1, (views, count)).transpose(0, 1).flatten(0, 1)  # V * B, count, tokens
    outputs = branch(clips, places.to(clips.device))
    of_views: Tensor = outputs.unflatten(0, (views, -1)).transpose(0, 1)
    return of_views.flatten(1, 2)
