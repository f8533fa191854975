"""Region maps on the device: which part of the picture a patch belongs to, and masks that hide parts first."""

from __future__ import annotations

import torch
from torch import Tensor

from recipes.encoders.base import Geometry
from recipes.parts import draws
from recipes.parts.masks import Masks, ranked

LABELS = 256
OUTSIDE, PICTURE = 0, 1  # as domains.store.region_map says; larger numbers are regions of interest


def labels_of(view: Tensor, geometry: Geometry) -> Tensor:
    """A view that shows a region map (B, 1, 3, H, W), normalised as every view is -> its whole numbers (B, H, W) int64, 0 to 255."""
    grey = view[:, 0, 0].float() * geometry.std[0] + geometry.mean[0]
    return (grey * (LABELS - 1)).round().long().clamp(0, LABELS - 1)


def patch_labels(labels: Tensor, side: int) -> Tensor:
    """labels (B, H, W) -> of each patch of `side` pixels (B, P), in raster order: the largest number that it reaches in a quarter of its pixels."""
    pixels = labels.unflatten(1, (-1, side)).unflatten(3, (-1, side)).transpose(2, 3).flatten(3).flatten(1, 2)
    return pixels.sort(dim=-1).values[..., (3 * pixels.shape[-1]) // 4]


def region_masks(
    seeds: Tensor, labels: Tensor, tubelets: int, ratio: float, anywhere: float = 0.0, *, name: str = ""
) -> Masks:
    """Tube masks that hide regions of interest first (Cai et al., MARLIN, CVPR 2023), on the device of labels (B, P), those of the patches.

    Places stay visible in this order until the share 1 - ratio is reached: the plain picture, by chance; regions of interest, one after the other
    in an order of the sample's own, places within one by chance; what lies outside the picture. anywhere: share of the visible places that is
    drawn from the whole picture beforehand, regions or not.
    """
    count, device = labels.shape[1], labels.device
    keep = min(count, max(1, round(count * (1 - ratio))))
    turn, luck, free = (
        draws.uniform(seeds, (size,), name=f"{name} {what}").to(device, non_blocking=True)
        for size, what in ((LABELS, "regions"), (count, "places"), (count, "anywhere"))
    )
    score = turn.gather(1, labels)  # regions of interest: in [0, 1)
    score = score.masked_fill(labels == PICTURE, 2).masked_fill(labels == OUTSIDE, -1) + 1e-3 * luck
    first = free.masked_fill(labels == OUTSIDE, -1).argsort(dim=1, descending=True, stable=True)
    score = score.scatter_add(
        1, first[:, : round(keep * anywhere)], score.new_full((len(labels), round(keep * anywhere)), 4)
    )
    masks = ranked(score.view(len(labels), 1, 1, count), ratio)
    starts = torch.arange(tubelets, device=device).unsqueeze(1) * count
    return Masks(*((part.unsqueeze(-2) + starts).flatten(-2) for part in (masks.visible, masks.hidden)))
