"""How a clip moves, found in the clip itself: block matching on the device, with neither codec vectors nor a flow network.

Displacements are in pixels of the clip, (x, y), as torch's grid_sample counts them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def grey(clip: Tensor, scale: int = 1) -> Tensor:
    """clip (B, T, C, H, W) -> its mean channel, averaged over squares of scale x scale pixels: (B, T, H / scale, W / scale), fp32."""
    pictures = clip.detach().float().mean(dim=2)
    return F.avg_pool2d(pictures, scale) if scale > 1 else pictures


@torch.no_grad()
def block_motion(frames: Tensor, spacing: int, reach: int) -> Tensor:
    """Where each place of a frame is in the next one: the shift under which the square around it, three spacings wide, differs least.

    frames (B, T, H, W); spacing: of the places, see `places`; reach: largest shift tried in each direction. All in pixels of `frames`. Returns
    (B, T - 1, 2, H / spacing, W / spacing), to a fraction of a pixel (a parabola through the costs on both sides of the least). What is flat
    does not move: of equal costs the smallest shift wins. (2 reach + 1)^2 passes over the frames.
    """
    here, there = frames[:, :-1].flatten(0, 1).unsqueeze(1), frames[:, 1:].flatten(0, 1).unsqueeze(1)
    height, width = here.shape[-2:]
    around = F.pad(there, [reach] * 4, mode="replicate")
    side, costs = 2 * reach + 1, []
    for down in range(side):
        for right in range(side):
            difference = (around[..., down : down + height, right : right + width] - here).abs_()
            costs.append(F.avg_pool2d(difference, spacing))
    cost = F.avg_pool2d(torch.cat(costs, dim=1), 3, 1, 1, count_include_pad=False)  # n, side * side, h, w
    shift = torch.arange(-reach, reach + 1, device=cost.device)
    far = (shift.view(-1, 1) ** 2 + shift**2).float().sqrt().view(1, -1, 1, 1)
    best = (cost + 1e-4 * far).argmin(dim=1, keepdim=True)
    row, column = best // side, best % side
    x = column - reach + _vertex(cost, best, 1, column, side)
    y = row - reach + _vertex(cost, best, side, row, side)
    return torch.cat([x, y], dim=1).unflatten(0, (frames.shape[0], -1))


def clip_motion(clip: Tensor, side: int, reach: int) -> tuple[Tensor, int]:
    """`block_motion` of clip (B, T, C, H, W) at two places a patch of `side` pixels, searched on pictures of 8 or more pixels a patch.

    reach: in pixels of the clip. Returns the motion (B, T - 1, 2, h, w) and the spacing of its places, both in pixels of the clip.
    """
    scale = max(1, side // 8)
    if side % (2 * scale):
        scale = 1
    spacing = side // 2 if side % 2 == 0 else side
    motion = block_motion(grey(clip, scale), spacing // scale, max(1, round(reach / scale)))
    return motion * scale, spacing


def _vertex(cost: Tensor, best: Tensor, step: int, place: Tensor, side: int) -> Tensor:
    """Offset in [-0.5, 0.5] of the least cost along one direction; 0 at the edge of what was tried, and where nothing bends.

    Never more than what is left of the least cost explains, of costs that rise evenly on both sides: a perfect match is no fraction of a pixel away,
    however its neighbours differ.
    """
    last = cost.shape[1] - 1
    before, least, after = (cost.gather(1, (best + move).clamp(0, last)) for move in (-step, 0, step))
    bend = before - 2 * least + after
    offset = (before - after) / (2 * bend.clamp_min(1e-6))
    most = (2 * least / (before + after).clamp_min(1e-6)).clamp(max=0.5)
    inside = (place > 0) & (place < side - 1) & (bend > 1e-6)
    return torch.where(inside, torch.maximum(torch.minimum(offset, most), -most), torch.zeros_like(offset))


def places(height: int, width: int, spacing: float, device: torch.device) -> Tensor:
    """(2, height, width): x and y of the middles of squares of side `spacing`."""
    y = (torch.arange(height, device=device) + 0.5) * spacing
    x = (torch.arange(width, device=device) + 0.5) * spacing
    return torch.stack(torch.meshgrid(x, y, indexing="xy"))


def look_up(field: Tensor, points: Tensor, spacing: float) -> Tensor:
    """Values of a field known at `places(h, w, spacing)`, at any points, linear in between, held beyond the border.

    field (n, c, h, w), points (n, 2, h', w') -> (n, c, h', w').
    """
    height, width = field.shape[-2] * spacing, field.shape[-1] * spacing
    grid = torch.stack([points[:, 0] * (2 / width) - 1, points[:, 1] * (2 / height) - 1], dim=-1)
    return F.grid_sample(field, grid.to(field.dtype), padding_mode="border", align_corners=False)


def trace(motion: Tensor, points: Tensor, spacing: float) -> Tensor:
    """Follow points through L steps of motion: positions at the start and after every step.

    motion (n, L, 2, h, w) known at `places(h, w, spacing)`; points (n, 2, h', w') -> (n, L + 1, 2, h', w').
    """
    track = [points]
    for step in motion.unbind(dim=1):
        track.append(track[-1] + look_up(step, track[-1], spacing))
    return torch.stack(track, dim=1)


def towards(motion: Tensor, spacing: float) -> Tensor:
    """How far each place of frame k is from where it was in frame 0, for motions that lead from each frame k to frame k - 1.

    motion (n, K, 2, h, w), of frames 1 to K -> (n, K + 1, 2, h, w), the first of them 0.
    """
    here = places(motion.shape[-2], motion.shape[-1], spacing, motion.device).to(motion.dtype)
    shift = [motion.new_zeros(len(motion), *motion.shape[2:])]
    for step in motion.unbind(dim=1):
        shift.append(step + look_up(shift[-1], here + step, spacing))
    return torch.stack(shift, dim=1)
