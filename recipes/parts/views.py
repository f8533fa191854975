"""Several clips of one recording."""

from __future__ import annotations

from dataclasses import replace

from domains.store.clips import Clip

NAMES = ("first", "second", "third", "fourth")


def clips_of(count: int, clip: Clip) -> dict[str, Clip]:
    """`count` views, each drawn by itself as `clip` says: the rho clips of Feichtenhofer et al. (CVPR 2021)."""
    return dict.fromkeys([*NAMES[:count], *(f"clip_{number}" for number in range(len(NAMES) + 1, count + 1))], clip)


def rho_views(rho: int, clip: Clip) -> dict[str, Clip]:
    """`clips_of` a recording, and where rho is 1 two views of one clip: the same time, each in an augmentation of its own."""
    views = clips_of(max(2, rho), clip)
    if rho == 1:
        first, second = views
        views[second] = replace(clip, near=first, within=0.0)
    return views


def with_more(clip: Clip, frames: int, more: int) -> Clip:
    """`clip` with `more` frames than the `frames` that the encoder sees: differences of neighbours are one fewer than frames."""
    return replace(clip, length=(frames + more) / frames)
