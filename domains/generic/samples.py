"""Two clips of one scene, and what is true of each: what a general encoder learns from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domains.generic.render import View, render
from domains.generic.scene import BACKGROUND, Scene, draw_scene
from domains.generic.textures import TEXTURES
from domains.generic.truth import facts_of, flow_of
from domains.store.frames import Frames

PACES = (0.5, 0.75, 1.0, 1.5, 2.0)  # frames of the scene from one frame of a clip to the next
SWAPPED = 0.25  # share of the samples
REACH = 12.0  # clips have their middle within so many frames of the moment about which a scene is drawn


@dataclass(frozen=True)
class Truth:
    """What is true of one clip.

    flow: float32 (tubelets, rows, columns, 2), pixels a frame in the middle of each patch, (x, y), between the first two frames of each tubelet.
    front: float32 (tubelets, rows, columns), 1 where something is in front of the background.
    facts: float32 (len(truth.FACTS),).
    """

    flow: NDArray[np.float32]
    front: NDArray[np.float32]
    facts: NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """clips, truths: of both. pace: index into PACES; backwards: whether time runs so; swapped: whether the second half of the clips is shown before
    the first; texture: of the background, index into TEXTURES."""

    clips: tuple[Frames, Frames]
    truths: tuple[Truth, Truth]
    pace: int
    backwards: bool
    swapped: bool
    texture: int


def generator(seed: int, index: int) -> np.random.Generator:
    """All that is random of a sample follows from this."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))


def draw_sample(seed: int, index: int, frames: int, size: int, patch: tuple[int, int]) -> Sample:
    """The sample `index` of the endless series `seed`. Both clips run at one pace and in one direction, at two times, and are cropped, lit and
    tinted each in its own way. patch: (frames of a tubelet, pixels) of the encoder that the truth is for."""
    rng = generator(seed, index)
    scene = draw_scene(rng)
    pace, backwards, swapped = int(rng.integers(len(PACES))), bool(rng.random() < 0.5), bool(rng.random() < SWAPPED)
    made = [_clip(scene, _draw_view(rng, frames, PACES[pace], backwards), size, patch) for _ in range(2)]
    if swapped:
        made = [(halves_swapped(clip, patch[0]), halves_swapped_truth(truth)) for clip, truth in made]
    texture = TEXTURES.index(next(one.texture for one in scene.surfaces if one.kind == BACKGROUND))
    return Sample((made[0][0], made[1][0]), (made[0][1], made[1][1]), pace, backwards, swapped, texture)


def _draw_view(rng: np.random.Generator, frames: int, pace: float, backwards: bool) -> View:
    half = float(rng.uniform(0.55, 1.0))
    x, y = rng.uniform(-1.2, 1.2, 2) * (1 - half)
    steps = (np.arange(frames, dtype=np.float64) - (frames - 1) / 2) * pace
    times = float(rng.uniform(-REACH, REACH) / 2) + (steps[::-1] if backwards else steps)
    tint = rng.uniform(0.7, 1.3, 3)
    return View(
        times, (float(x), float(y), half), (float(tint[0]), float(tint[1]), float(tint[2])), float(np.exp(rng.normal(0, 0.25))),
        int(rng.integers(2**62)),
    )  # fmt: skip


def _clip(scene: Scene, view: View, size: int, patch: tuple[int, int]) -> tuple[Frames, Truth]:
    tubelet, side = patch
    points = grid_points(size, side)
    shown = render(scene, view, size, points)
    flow = flow_of(scene, view, shown.owner, points, size)
    rows = size // side
    shape = (len(view.times) // tubelet, rows, rows)
    return shown.frames, Truth(
        flow[::tubelet].reshape(*shape, 2).astype(np.float32),
        (shown.owner[::tubelet] > 0).reshape(shape).astype(np.float32),
        facts_of(flow, points, size).astype(np.float32),
    )


def halves_swapped(frames: Frames, tubelet: int) -> Frames:
    """The clip with its later tubelets first."""
    return np.roll(frames, len(frames) // tubelet // 2 * tubelet, axis=0)


def halves_swapped_truth(truth: Truth) -> Truth:
    """What is then true: within a tubelet, and of the clip as a whole, everything moves as before."""
    half = len(truth.flow) // 2
    return Truth(np.roll(truth.flow, half, axis=0), np.roll(truth.front, half, axis=0), truth.facts)


def grid_points(size: int, side: int) -> NDArray[np.int64]:
    """(P, 2), (x, y) in pixels: the middle of every patch, row by row."""
    middle = np.arange(size // side) * side + side // 2
    return np.stack(np.meshgrid(middle, middle), axis=-1).reshape(-1, 2)
