"""Which tokens a masked student sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from recipes.parts import draws
from recipes.parts.noise import Colour, coloured_noise
from recipes.parts.trajectories import clip_motion, look_up, places, towards


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
    for row, random in enumerate(draws.generators(seeds, name)):
        order[row] = random.random((views, places)).argsort(axis=-1)
    spatial = torch.from_numpy(order)
    return Masks(
        tubes(spatial[..., :keep], t, places),
        tubes(spatial[..., keep:], t, places),
    )


def random_masks(seeds: Tensor, grid: tuple[int, int, int], ratio: float, views: int = 1, *, name: str = "") -> Masks:
    """Any tokens of the clip, whatever their time and place (Feichtenhofer et al., MAE-ST, NeurIPS 2022). As `tube_masks` otherwise."""
    t, h, w = grid
    return ranked(draws.uniform(seeds, (views, 1, t * h * w), name=name), ratio)


def noise_masks(
    seeds: Tensor,
    grid: tuple[int, int, int],
    ratio: float,
    colour: Colour,
    sigmas: tuple[float, float],
    views: int = 1,
    *,
    name: str = "",
) -> Masks:
    """Tokens where coloured noise over time and space is largest stay visible: patches that come and go (Bhowmik et al., 2025; see
    `coloured_noise`). The number of visible tokens is that of a random mask, of the whole clip and not of every frame."""
    noise = [coloured_noise(seeds, grid, colour, sigmas, name=f"{name} {view}") for view in range(views)]
    return ranked(torch.stack([one.flatten(1) for one in noise], dim=1).unsqueeze(2), ratio)


def motion_masks(
    seeds: Tensor,
    clip: Tensor,
    grid: tuple[int, int, int],
    patch: tuple[int, int],
    ratio: float,
    reach: int,
    *,
    name: str = "",
) -> Masks:
    """Visible places of the middle tubelet, followed through the clip: what is hidden stays hidden where it moves (Huang et al., MGMAE, ICCV 2023).

    clip (B, T, C, H, W), on any device, where the masks stay. Places of each other tubelet are traced back to the middle one along the motion
    of the clip (`clip_motion`, up to `reach` pixels from a tubelet to the next); those nearest to a visible place are visible, as many in every
    tubelet. Where nothing moves this is the tube mask of the same seeds. MGMAE warps a picture of Gaussians by a flow network's field and adds up
    its pixels in each patch: much the same order of patches, but for the blur of repeated warping.
    """
    t, h, w = grid
    tubelet, side = patch
    pictures, middle = clip.unflatten(1, (t, tubelet)).mean(dim=2), t // 2
    shifts = []
    for outwards in (pictures[:, : middle + 1], pictures[:, middle:].flip(1)):  # both towards the middle
        if outwards.shape[1] > 1:
            motion, spacing = clip_motion(outwards, side, reach)
            shifts.append(towards(motion.flip(1), spacing))
        else:
            spacing, shifts = side, [*shifts, clip.new_zeros(len(clip), 1, 2, h, w)]
        shifts[-1] = _at_patches(shifts[-1], h, w, side, spacing)
    before, after = shifts
    shift = torch.cat([before.flip(1), after[:, 1:]], dim=1)  # B, t, 2, h, w: from each tubelet to the middle one
    centres = places(h, w, side, clip.device)
    start = tube_masks(seeds, (1, h, w), ratio, name=name).visible[:, 0].to(clip.device, non_blocking=True)
    seen = centres.flatten(1).T[start]  # B, V, 2
    origin = (centres + shift).flatten(-2).transpose(-1, -2).flatten(1, 2)  # B, t * h * w, 2
    away = torch.cdist(origin.float(), seen.float(), compute_mode="donot_use_mm_for_euclid_dist").amin(dim=-1)
    luck = draws.uniform(seeds, (t * h * w,), name=f"{name} ties").to(clip.device, non_blocking=True)
    return ranked(-(away + 1e-3 * luck).view(len(clip), 1, t, h * w), ratio)


def _at_patches(field: Tensor, h: int, w: int, side: int, spacing: int) -> Tensor:
    """A field (B, K, 2, ., .) known at places `spacing` apart, at the middles of patches: (B, K, 2, h, w)."""
    here = places(h, w, side, field.device).to(field.dtype)
    return look_up(field.flatten(0, 1), here.expand(field.shape[0] * field.shape[1], -1, -1, -1), spacing).unflatten(
        0, field.shape[:2]
    )


def ranked(scores: Tensor, ratio: float) -> Masks:
    """The tokens of largest score stay visible, as many in every group, at least one.

    scores (B, M, G, n): G groups of n tokens, in raster order one after the other: the tubelets of a clip, or the clip as one group.
    """
    groups, size = scores.shape[-2:]
    keep = min(size, max(1, round(size * (1 - ratio))))
    order = scores.argsort(dim=-1, descending=True, stable=True)
    starts = torch.arange(groups, device=scores.device).unsqueeze(1) * size
    visible, hidden = ((part.sort(dim=-1).values + starts).flatten(-2) for part in order.split([keep, size - keep], -1))
    return Masks(visible, hidden)


def running_cells(
    seeds: Tensor,
    hidden: Tensor,
    grid: tuple[int, int, int],
    share: float,
    *,
    each_frame: bool = True,
    name: str = "",
) -> Tensor:
    """Which hidden tokens a decoder predicts (B, D), rising: VideoMAE V2's running cells (Wang et al., CVPR 2023).

    hidden (B, H) rising; share: of the hidden places, at least one, in every frame (`each_frame`, for masks that hide as many in each) or of the
    clip. Frames are cut into cells of 2 x 2 places; of each cell, the places that are predicted move on by one from frame to frame, so that
    every place has its turn and neighbours in time stay out. What the mask leaves of the cells is filled up, or cut, at random to the same number.
    """
    t, h, w = grid
    place, time = hidden % (h * w), hidden // (h * w)
    corner = place // w % 2 * 2 + place % w % 2
    corner = torch.where(corner > 1, 5 - corner, corner)  # round the cell, not line by line
    start = draws.integers(seeds, 4, (1,), name=f"{name} cells").to(hidden.device, non_blocking=True)
    luck = draws.uniform(seeds, (hidden.shape[1],), name=f"{name} luck").to(hidden.device, non_blocking=True)
    # How many frames until a place's turn: 0 to 3. The smallest are predicted, chance decides between equals.
    rank = ((corner - start - time) % 4 + luck).unflatten(1, (t if each_frame else 1, -1))
    keep = max(1, round(rank.shape[-1] * share))
    chosen = rank.argsort(dim=-1)[..., :keep]
    return hidden.view(rank.shape).gather(-1, chosen).sort(dim=-1).values.flatten(1)


def tubes(places: Tensor, frames: int, per_frame: int) -> Tensor:
    """(B, M, P) places of a frame -> (B, M, T * P) positions of the clip, rising."""
    starts = torch.arange(frames).view(-1, 1) * per_frame
    return (places.sort(dim=-1).values.unsqueeze(-2) + starts).flatten(-2)
