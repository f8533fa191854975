"""Several clips of one recording."""

from __future__ import annotations

from dataclasses import replace

from domains.store.clips import Clip

NAMES = ("first", "second", "third", "fourth")


def clips_of(count: int, clip: Clip) -> dict[str, Clip]:
    """`count` (at most four) views, each drawn by itself as `clip` says: the rho clips of Feichtenhofer et al. (CVPR 2021)."""
    return dict.fromkeys(NAMES[:count], clip)


def with_more(clip: Clip, frames: int, more: int) -> Clip:
    """`clip` with `more` frames than the `frames` that the encoder sees: differences of neighbours are one fewer than frames."""
    return replace(clip, length=(frames + more) / frames)
