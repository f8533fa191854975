"""Clips whose motion is broken and whose scene is kept: the same frames, repeated or out of order. Indices for `frames.take`."""

from __future__ import annotations

import torch
from torch import Tensor

from recipes.parts import draws

TRIES = 8  # orders drawn for each sample, of which the most broken is taken


def repeated(seeds: Tensor, frames: int, *, name: str) -> Tensor:
    """One drawn frame of each sample, all the time: (B, frames) int64, on the CPU."""
    return draws.integers(seeds, frames, (1,), name=name).expand(-1, frames)


def shuffled(seeds: Tensor, frames: int, *, window: int | None = None, name: str) -> Tensor:
    """Every frame once, out of order: (B, frames) int64, on the CPU.

    window: frames stay within consecutive windows of so many (the last may be shorter), so that the course of the clip is kept and its motion is
    not; None: anywhere. Of TRIES orders the one is taken in which fewest frames are followed by their true neighbour, forwards or backwards:
    a few frames are often drawn nearly in order.
    """
    size = min(window or frames, frames)
    keys = draws.uniform(seeds, (TRIES, frames), name=name) + torch.arange(frames) // size
    orders = keys.argsort(dim=-1)  # whole numbers keep windows apart
    kept = (orders.diff(dim=-1).abs() == 1).sum(dim=-1)
    best = kept.argmin(dim=1)
    return orders[torch.arange(len(orders)), best]
