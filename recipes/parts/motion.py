"""What moves in a clip: its derivatives in time, on the device. A cheap stand-in for optical flow."""

from __future__ import annotations

from torch import Tensor

FLOOR = 0.05  # root mean square of a derivative below which it is not brought to 1: the noise of a recording in which nothing moves stays small


def derivative(clip: Tensor, order: int, frames: int) -> Tensor:
    """The derivative of `order` in time, by differences of neighbouring frames: clip (B, L, C, H, W) -> (B, frames, C, H, W).

        order 1: x[t + 1] - x[t];   order 2: x[t + 2] - 2 x[t + 1] + x[t];   order 0: the clip itself, its first frames

    L is at least frames + order. Derivatives are brought to a root mean square of 1 in each sample, on the scale of normalised pixels, so that one
    encoder can read them beside the clip; a sample that hardly moves (below FLOOR) to less.
    """
    for _ in range(order):
        clip = clip[:, 1:] - clip[:, :-1]
    clip = clip[:, :frames]
    if not order:
        return clip
    size = clip.float().square().mean(dim=(1, 2, 3, 4), keepdim=True).sqrt()
    return clip / size.clamp_min(FLOOR)
