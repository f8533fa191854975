"""Which tokens a masked student sees."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


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
    stream = zlib.crc32(name.encode())
    order = np.empty((len(seeds), views, places), np.int64)
    for row, seed in enumerate(seeds.tolist()):
        random = np.random.Generator(np.random.Philox(key=np.array([seed, stream], np.uint64)))
        order[row] = random.random((views, places)).argsort(axis=-1)
    spatial = torch.from_numpy(order)
    return Masks(
        _tubes(spatial[..., :keep], t, places),
        _tubes(spatial[..., keep:], t, places),
    )


def _tubes(places: Tensor, frames: int, per_frame: int) -> Tensor:
    """(B, M, P) places of a frame -> (B, M, T * P) positions of the clip, rising."""
    starts = torch.arange(frames).view(-1, 1) * per_frame
    return (places.sort(dim=-1).values.unsqueeze(-2) + starts).flatten(-2)
