"""Made-up objects that move over clips: shapes with a texture of their own, on smooth paths, drawn on the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recipes.parts import draws
from recipes.parts.noise import coloured_noise

TEXTURE = 24  # places of a texture's noise across its square


@torch.no_grad()
def paste_objects(
    clip: Tensor, seeds: Tensor, count: int, sizes: tuple[float, float], speed: float, *, name: str = "objects"
) -> tuple[Tensor, Tensor]:
    """clip (B, T, C, H, W) -> the clip with `count` moving objects, and how much of each pixel they cover (B, T, H, W), 0 to 1.

    sizes: smallest and largest diameter, as parts of the clip's width; speed: root mean square step from frame to frame, of the width too. An object
    is an ellipse or a rounded box, turned, with red noise as texture; its brightness and contrast are drawn in units of the clip's own deviation
    about its mean, the same in all channels. It keeps within the picture, reflected by the borders. All follows from the sample's own seed.
    """
    length, side = clip.shape[1], clip.shape[-1]
    mean, spread = clip.float().mean(dim=(1, 2, 3, 4)), clip.float().std(dim=(1, 2, 3, 4))
    shown, cover = clip.float(), clip.new_zeros(len(clip), length, *clip.shape[-2:], dtype=torch.float32)
    grid = (torch.arange(side, device=clip.device) + 0.5) / side
    for number in range(count):
        here = f"{name} {number}"
        path = smooth_paths(seeds, length, speed, name=here).to(clip.device, non_blocking=True)
        drawn = draws.uniform(seeds, (6,), name=f"{here} look").to(clip.device, non_blocking=True)
        noise = coloured_noise(seeds, (TEXTURE, TEXTURE), "red", (0.0, 1.5), name=f"{here} texture")
        texture = noise.to(clip.device, non_blocking=True)
        radius = (sizes[0] + (sizes[1] - sizes[0]) * drawn[:, 0]) / 2
        x = grid.view(1, 1, 1, -1) - path[..., 0, None, None]
        y = grid.view(1, 1, -1, 1) - path[..., 1, None, None]
        turn, aspect = (one.view(-1, 1, 1, 1) for one in (torch.pi * drawn[:, 1], 0.5 + 0.5 * drawn[:, 2]))
        u = (x * turn.cos() + y * turn.sin()) / radius.view(-1, 1, 1, 1)
        v = (y * turn.cos() - x * turn.sin()) / (radius.view(-1, 1, 1, 1) * aspect)
        power = torch.where(drawn[:, 3] < 0.5, 2.0, 6.0).view(-1, 1, 1, 1)
        away = (u.abs() ** power + v.abs() ** power).clamp_min(1e-12) ** (1 / power)
        alpha = ((1 - away) * radius.view(-1, 1, 1, 1) * side + 0.5).clamp(0, 1)  # an edge of one pixel
        at = torch.stack([u, v], dim=-1).flatten(1, 2)
        grain = F.grid_sample(texture.unsqueeze(1), at, padding_mode="reflection", align_corners=False).view(
            alpha.shape
        )
        level, contrast = (one.view(-1, 1, 1, 1) for one in (4 * drawn[:, 4] - 2, 0.2 + 0.8 * drawn[:, 5]))
        looks = mean.view(-1, 1, 1, 1) + spread.view(-1, 1, 1, 1) * (level + contrast * grain)
        shown = torch.lerp(shown, looks.unsqueeze(2), alpha.unsqueeze(2))
        cover = torch.maximum(cover, alpha)
    return shown.to(clip.dtype), cover


def smooth_paths(seeds: Tensor, length: int, speed: float, *, name: str) -> Tensor:
    """(B, length, 2): x and y in [0, 1] of something that moves by `speed` a frame (root mean square), turning slowly."""
    smooth = np.exp(-0.5 * (np.subtract.outer(np.arange(length), np.arange(length)) / max(1.0, length / 6)) ** 2)
    paths = []
    for random in draws.generators(seeds, f"{name} path"):
        steps = smooth @ random.standard_normal((length, 2))
        steps *= speed / max(1e-9, float(np.sqrt((steps**2).sum(axis=1).mean())))
        where = random.random(2) + np.cumsum(steps, axis=0)
        paths.append(1 - np.abs(where % 2 - 1))  # reflected by the borders
    return torch.from_numpy(np.stack(paths)).float()
