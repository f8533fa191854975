"""What is true of a clip because its scene is known: where every point goes next, and what the whole of it does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domains.generic.render import View
from domains.generic.scene import Array, Scene, Surface

UNDO = 6  # rounds in which a deformation is undone; it never folds (see `Bend`), so each brings the point nearer
FACTS = ("speed", "across", "down", "outwards", "around", "change")


def flow_of(scene: Scene, view: View, owner: NDArray[np.int8], points: NDArray[np.int64], size: int) -> Array:
    """(T - 1, P, 2): how far what is seen at `points` (P, 2) moves to the next frame, (x, y) in pixels; owner (T, P) of `Rendered`."""
    seen = (points + 0.5) * 2 / size - 1
    moved = np.zeros((len(view.times) - 1, len(points), 2))
    for number, surface in enumerate(scene.surfaces):
        mine = owner[:-1] == number
        if mine.any():
            moved += np.where(mine[..., None], _moved(surface, scene, view, seen), 0.0)
    return moved * (size / 2)


def _moved(surface: Surface, scene: Scene, view: View, seen: Array) -> Array:
    """(T - 1, P, 2) in view coordinates: where points of this surface that are seen at `seen` (P, 2) go in a frame."""
    matrix, shift = surface.affine(scene.camera, view.times, view.crop)
    size = surface.bend.size.at(view.times)[:, None, None]
    here = np.einsum("tij,pj->tpi", matrix, seen) + shift[:, None]
    mark = here + size * _bent(surface, here)  # the point of the surface's picture, which is the same a frame later
    then, later = mark[:-1], size[1:]
    place = then
    for _ in range(UNDO if surface.bend.size.size else 0):
        place = then - later * _bent(surface, place)
    inverse = np.linalg.inv(matrix[1:])
    return np.einsum("tij,tpj->tpi", inverse, place - shift[1:, None]) - seen


def _bent(surface: Surface, where: Array) -> Array:
    """The direction in which a deformation of size 1 takes points (..., 2) of the surface."""
    bend = surface.bend
    wave = np.sin(2 * np.pi * (where @ np.array(bend.wave)) + bend.phase)
    return wave[..., None] * np.array(bend.way)


def facts_of(flow: Array, points: NDArray[np.int64], size: int) -> Array:
    """(len(FACTS),) of a clip, from the flow (T - 1, P, 2) of points spread over the picture, in pixels of a picture of 64.

    speed: mean length; across, down: mean flow; outwards, around: mean flow along and across the way from the middle; change: deviation over time of
    the mean length.
    """
    flow = flow * (64 / size)
    length = np.linalg.norm(flow, axis=-1)
    away = (points + 0.5) * 2 / size - 1
    away = away / np.maximum(np.linalg.norm(away, axis=-1, keepdims=True), 1e-6)
    outwards = (flow * away).sum(axis=-1).mean()
    around = (flow[..., 1] * away[:, 0] - flow[..., 0] * away[:, 1]).mean()
    per_frame = length.mean(axis=1)
    return np.array([length.mean(), *flow.mean(axis=(0, 1)), outwards, around, per_frame.std()])
