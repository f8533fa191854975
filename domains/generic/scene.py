"""What a scene is: surfaces, each with a look and a motion of its own, seen by a camera that moves as well.

Coordinates: of the view, [-1, 1]^2, x to the right and y down; of a surface, its own, in which its picture stands still. Times are in frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domains.generic.motion import Course, draw_course
from domains.generic.shapes import REACH, SHAPES
from domains.generic.textures import TEXTURES

Array = NDArray[np.float64]
BACKGROUND = "background"
SPREAD = 3.0  # half the side of the background's picture, in view coordinates; beyond, it is mirrored
STILL = Course()


@dataclass(frozen=True)
class Place:
    """Where something is over time: translation (of the view), rotation (radians), logarithm of its scale."""

    x: Course = STILL
    y: Course = STILL
    turn: Course = STILL
    grow: Course = STILL

    @property
    def courses(self) -> tuple[Course, ...]:
        """All four."""
        return self.x, self.y, self.turn, self.grow


@dataclass(frozen=True)
class Bend:
    """A deformation: surface coordinates v are moved by size(t) * way * sin(2 pi wave . v + phase).

    Less than a fold: 2 pi |wave| size stays below 0.8, so that it can be undone.
    """

    size: Course = STILL
    way: tuple[float, float] = (0.0, 0.0)
    wave: tuple[float, float] = (0.0, 0.0)
    phase: float = 0.0


@dataclass(frozen=True)
class Surface:
    """One surface. kind: one of SHAPES, or BACKGROUND. radius: in view coordinates, at grow = 0. near: how much of the camera's motion it
    takes part in (0: fixed to the camera). seed: of its picture. features: of its texture, along its picture. contrast: of its colours.
    """

    kind: str
    texture: str
    radius: float
    place: Place
    bend: Bend
    near: float
    seed: int
    features: float
    contrast: float
    shaded: bool

    @property
    def reach(self) -> float:
        """Half the side of its picture, in its own coordinates."""
        return SPREAD if self.kind == BACKGROUND else REACH

    def affine(self, camera: Place, times: Array, crop: tuple[float, float, float]) -> tuple[Array, Array]:
        """(T, 2, 2) and (T, 2): view coordinates x at each time -> surface coordinates A x + b, before the deformation.

        crop: (x, y, half side) of the part of the scene that the view shows.
        """
        own, near = self.place, self.near
        seen = _turned(camera.turn.at(times) * near, crop[2] * np.exp(-camera.grow.at(times) * near))
        shift = np.stack([camera.x.at(times), camera.y.at(times)], axis=-1) * near
        shift = shift + (seen @ np.array(crop[:2])) / crop[2] - np.stack([own.x.at(times), own.y.at(times)], axis=-1)
        into = _turned(-own.turn.at(times), np.exp(-own.grow.at(times)) / self.radius)
        return into @ seen, (into @ shift[:, :, None])[:, :, 0]


@dataclass(frozen=True)
class Light:
    """What light and camera do to the picture. gain: brightness over time. slope, slope_turn: a lit side that may move.
    gamma; floor: black level; noise: deviation of the noise, of full scale; grain: the same, as a factor; blur: deviation in shares of the
    picture's side; corner: darkening towards the corners.
    """

    gain: Course
    slope: float
    slope_turn: Course
    gamma: float
    floor: float
    noise: float
    grain: float
    blur: float
    corner: float


@dataclass(frozen=True)
class Scene:
    """A scene: the background first, then what is in front of it, back to front. grey: without colour."""

    surfaces: tuple[Surface, ...]
    camera: Place
    light: Light
    grey: bool


def draw_scene(rng: np.random.Generator) -> Scene:
    """A scene that follows from `rng` alone."""
    grey, contrast = bool(rng.random() < 0.4), float(rng.choice([0.25, 0.6, 1.0]))
    moving = rng.random() < 0.45
    camera = _draw_place(rng, 0.5, 0.4, 0.25, still=0.4) if moving else Place()
    if rng.random() < 0.15:  # a hand that is not steady
        period = float(rng.uniform(2.5, 6))
        x, y = (Course("wander", 0.0, float(rng.uniform(0.02, 0.1)), period, float(rng.random())) for _ in range(2))
        camera = Place(x, y, camera.turn, camera.grow)
    count = min(6, int(rng.geometric(0.33)) - (rng.random() < 0.1))
    surfaces = [_draw_background(rng, contrast)]
    together = _draw_place(rng, 0.3, 0.5, 0.3, still=0.4) if rng.random() < 0.2 else None
    for _ in range(count):
        surfaces.append(_draw_thing(rng, contrast, together))
    return Scene(tuple(surfaces), camera, _draw_light(rng), grey)


def _draw_background(rng: np.random.Generator, contrast: float) -> Surface:
    bend = _draw_bend(rng) if rng.random() < 0.2 else Bend()
    return Surface(
        BACKGROUND, _draw_kind(rng, TEXTURES), 1.0, Place(), bend, 1.0, int(rng.integers(2**62)), float(6 * 8 ** rng.random()),
        contrast * float(rng.uniform(0.2, 1)), bool(rng.random() < 0.3),
    )  # fmt: skip


def _draw_thing(rng: np.random.Generator, contrast: float, together: Place | None) -> Surface:
    """A shape. together: how all of them move, where they move as one."""
    radius = float(0.12 * 5 ** rng.random())
    x, y = rng.uniform(-0.8, 0.8, 2)
    turn = rng.uniform(0, 2 * np.pi)
    if together is None:
        place = _draw_place(rng, 0.5, 1.2, 0.35, still=0.35)
    else:
        place = together
    place = Place(_moved(place.x, x), _moved(place.y, y), _moved(place.turn, turn), place.grow)
    return Surface(
        _draw_kind(rng, SHAPES), _draw_kind(rng, TEXTURES), radius, place, _draw_bend(rng) if rng.random() < 0.25 else Bend(),
        float(rng.choice([0.0, 1.0, rng.uniform(0.7, 1.5)], p=[0.1, 0.6, 0.3])), int(rng.integers(2**62)), float(1.5 * 4 ** rng.random()),
        contrast * float(rng.uniform(0.2, 1)), bool(rng.random() < 0.5),
    )  # fmt: skip


def _draw_place(rng: np.random.Generator, shift: float, turn: float, grow: float, *, still: float) -> Place:
    """Courses of all four, some of which stand still. A third of them share one period, as parts of one motion."""
    courses = [draw_course(rng, 0.0, size, still=still) for size in (shift, shift, turn, grow)]
    if rng.random() < 0.33:
        first = courses[0]
        courses = [Course(c.kind, c.rest, c.size, first.period, c.phase) for c in courses]
    return Place(*courses)


def _draw_bend(rng: np.random.Generator) -> Bend:
    wave, way = rng.uniform(-0.8, 0.8, 2), rng.uniform(0, 2 * np.pi)
    largest = 0.6 / (2 * np.pi * max(float(np.hypot(*wave)), 0.4))
    kind, period = ("sine", "beat", "wander", "linear")[rng.integers(4)], float(5 * 8 ** rng.random())
    size = Course(
        kind, 0.0, float(rng.uniform(0.2, 1) * largest * (0.3 if kind == "linear" else 1)), period, float(rng.random())
    )
    return Bend(
        size, (float(np.cos(way)), float(np.sin(way))), (float(wave[0]), float(wave[1])), float(rng.uniform(0, 6.28))
    )


def _draw_light(rng: np.random.Generator) -> Light:
    gain = float(np.exp(rng.normal(-0.1, 0.35)))
    clean = rng.random() < 0.4
    return Light(
        gain=_moved(draw_course(rng, 0.0, 0.35 * gain, still=0.7), gain),
        slope=float(rng.uniform(0, 0.8)) if rng.random() < 0.35 else 0.0,
        slope_turn=_moved(draw_course(rng, 0.0, 2.0, still=0.6), float(rng.uniform(0, 6.28))),
        gamma=float(np.exp(rng.normal(0, 0.3))),
        floor=float(rng.uniform(0, 0.15)) if rng.random() < 0.3 else 0.0,
        noise=0.0 if clean else float(0.1 * rng.random() ** 2),
        grain=float(rng.uniform(0, 0.4)) if rng.random() < 0.25 else 0.0,
        blur=float(rng.uniform(0, 0.03)) if rng.random() < 0.3 else 0.0,
        corner=float(rng.uniform(0, 1.2)) if rng.random() < 0.3 else 0.0,
    )


def _draw_kind(rng: np.random.Generator, kinds: tuple[str, ...]) -> str:
    return kinds[int(rng.integers(len(kinds)))]


def _moved(course: Course, by: float) -> Course:
    return Course(course.kind, course.rest + float(by), course.size, course.period, course.phase)


def _turned(angle: Array, scale: Array) -> Array:
    """(T, 2, 2) rotations times scales."""
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    return np.stack([np.stack([c, -s], axis=-1), np.stack([s, c], axis=-1)], axis=-2)
