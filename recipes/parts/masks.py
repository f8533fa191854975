"""Which tokens a masked student sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recipes.parts.draws import generators


@dataclass(frozen=True)
class Masks:
    """Positions (it * h + ih) * w + iw in rising order; every row has the same number.

    visible (B, M, V) and hidden (B, M, N - V), int64, for M views of B clips.
    """

    visible: Tensor
    hidden: Tensor


def tube_masks(
    seeds: Tensor,
    grid: tuple[int, int, int],
    ratio: float,
    views: int = 1,
    *,
    name: str = "",
) -> Masks:
    """Tube masks (Tong et al., NeurIPS 2022): the same places are hidden in every frame, so that no neighbouring frame
    gives them away.

    seeds (B,) one number per sample; ratio: share of places hidden, at least one stays visible. A sample's masks follow
    from its own seed and `name` (so that two uses of one seed differ), never from the rest of its batch.
    """
    t, h, w = grid
    places = h * w
    keep = min(places, max(1, round(places * (1 - ratio))))
    order = np.empty((len(seeds), views, places), np.int64)
    for row, random in enumerate(generators(seeds, name)):
        order[row] = random.random((views, places)).argsort(axis=-1)
    spatial = torch.from_numpy(order)
    return Masks(
        tubes(spatial[..., :keep], t, places),
        tubes(spatial[..., keep:], t, places),
    )


def running_cells(seeds: Tensor, hidden: Tensor, grid: tuple[int, int, int], share: float, *, name: str = "") -> Tensor:
    """Which hidden tokens of a tube mask a decoder predicts (B, D), rising: VideoMAE V2's running cells (Wang et al., CVPR 2023).

    hidden (B, H) of `tube_masks`; share: of the hidden places, at least one, in every frame. Frames are cut into cells of 2 x 2 places;
    of each cell, the places that are predicted move on by one from frame to frame, so that every place has its turn and neighbours in
    time stay out. What the mask leaves of the cells is filled up, or cut, at random to the same number in every frame.
    """
    t, h, w = grid
    keep = max(1, round(hidden.shape[1] // t * share))
    places = hidden.view(len(hidden), t, -1)[:, 0]  # those of the first frame are those of all
    corner = places // w % 2 * 2 + places % w % 2
    corner = torch.where(corner > 1, 5 - corner, corner)  # round the cell, not line by line
    rank = np.empty((len(seeds), t, places.shape[1]))
    for row, random in enumerate(generators(seeds, f"{name} cells")):
        start, luck = random.integers(4), random.random((t, places.shape[1]))
        # How many frames until a place's turn: 0 to 3. The smallest are predicted, chance decides between equals.
        rank[row] = (corner[row].numpy() - start - np.arange(t)[:, None]) % 4 + luck
    chosen = torch.from_numpy(rank.argsort(axis=-1)[..., :keep])
    taken = places.unsqueeze(1).expand(-1, t, -1).gather(-1, chosen)
    return (taken.sort(dim=-1).values + torch.arange(t).view(-1, 1) * h * w).flatten(1)


def tubes(places: Tensor, frames: int, per_frame: int) -> Tensor:
    """(B, M, P) places of a frame -> (B, M, T * P) positions of the clip, rising."""
    starts = torch.arange(frames).view(-1, 1) * per_frame
    return (places.sort(dim=-1).values.unsqueeze(-2) + starts).flatten(-2)
