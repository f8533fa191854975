"""Which frames and which crop of a video a clip is made of, from (seed, epoch, sample id) and nothing else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Clip:
    """A view that an objective asks for.

    augment: name of the domain's policy (`none`, `weak`, `strong`).
    near: another view whose place in time this one is drawn close to; None: anywhere.
    rate: multiple of the domain's sampling rate (2.0 looks twice as fast).
    """

    augment: str = "weak"
    near: str | None = None
    rate: float = 1.0
