"""What the inside of a body is painted with, whatever the operation: noise, fat, blood, tubes, and layers put together.

A picture of the whole field (FIELD, larger than what the endoscope sees). Colours are RGB in [0, 255]; masks lie in [0, 1]; places are (x, y) in
pixels of the field.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domains.generic.textures import spectrum
from domains.surgical.procedure import Act

FIELD = (420, 560)  # height, width in pixels
Plane = NDArray[np.float32]
Picture = NDArray[np.uint8]
Place = tuple[float, float]
Done = Callable[[str], float]  # how much of a phase is over, in [0, 1]


@dataclass(frozen=True, kw_only=True)
class State:
    """How far things are, each in [0, 1]: blood that lies about, what was cut out in the bag, the bag raised to the trocar."""

    blood: float = 0.0
    bagged: float = 0.0
    raised: float = 0.0


class Field(ABC):
    """The field of one patient, painted as the operation goes on.

    gloss: (FIELD, 2), fields whose mixture makes reflections that wander. bag, dome: where the specimen bag is filled, and where it goes out.
    """

    bag: Place
    dome: Place

    def __init__(self, rng: np.random.Generator) -> None:
        height, width = FIELD
        self._y, self._x = np.mgrid[:height, :width].astype(np.float32)
        self._noise = [noise(8, rng), noise(32, rng), noise(90, rng)]
        self.gloss = np.dstack([noise(128, rng, 0.15), noise(128, rng, 0.15)])

    @abstractmethod
    def state(self, done: Done, blood: float) -> State:
        """How far things are, in steps: what is unlike the last is painted anew."""

    @abstractmethod
    def paint(self, state: State) -> Picture:
        """The field as it is now, (*FIELD, 3) uint8."""

    @abstractmethod
    def target(self, act: Act, state: State) -> Place:
        """What a tool works on."""

    def held(self, state: State) -> Place:
        """Where the bag is held while it is pulled out."""
        x, y = between(self.bag, self.dome, state.raised)
        return x, y - 40.0

    def _fat_of(self, colour: NDArray[np.float64], lobes: Plane) -> Plane:
        low, middle, _ = self._noise
        return shade(colour, 0.22 * (lobes - 0.5) + 0.06 * middle + 0.08 * low)

    def _bleed(self, picture: Plane, blood: float, clot: Plane, film: Plane) -> None:
        """Blood in the hollows, in place."""
        low, middle, _ = self._noise
        if blood > 0.01:
            pool = soft(low + 0.4 * middle - 1.9 + 2.0 * blood, 0.12)
            blend(picture, clot, 0.86 * pool * film)

    def _clot(self) -> Plane:
        low, middle, _ = self._noise
        return shade(np.array([104, 8, 12]), 0.22 * middle + 0.1 * low)

    def _ellipse(self, centre: Place, a: float, b: float, degrees: float, edge: float) -> Plane:
        """A mask with an uneven edge."""
        angle = np.deg2rad(degrees)
        part = window(np.array([centre]), 1.4 * max(a, b))
        x, y = self._x[part] - centre[0], self._y[part] - centre[1]
        u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
        radius = np.sqrt((u / a) ** 2 + (v / b) ** 2) + 0.12 * self._noise[1][part]
        mask = np.zeros(FIELD, np.float32)
        mask[part] = soft((1 - radius) * min(a, b), edge)
        return mask


def noise(finest: float, rng: np.random.Generator, slope: float = 0.7) -> Plane:
    """Unit deviation over the field."""
    side = max(FIELD)
    found = spectrum(side, finest, slope, rng)[: FIELD[0], : FIELD[1]]
    return (found - found.mean()) / found.std()


def lobules(rng: np.random.Generator) -> Plane:
    """Fat: round lobes, bright in the middle and dark between, in [0, 1]."""
    points = np.ones(FIELD, np.uint8)
    count = FIELD[0] * FIELD[1] // 420
    points[rng.integers(0, FIELD[0], count), rng.integers(0, FIELD[1], count)] = 0
    distance = cv2.distanceTransform(points, cv2.DIST_L2, 5)
    return np.clip(1 - distance / 15, 0, 1).astype(np.float32) ** 0.7


def soft(distance: NDArray[np.floating[Any]], width: float) -> Plane:
    """From 0 to 1 about the line where `distance` (positive inside) is 0."""
    return np.clip(0.5 + distance / (2 * width), 0, 1).astype(np.float32)


def shade(colour: NDArray[np.float64], relief: Plane) -> Plane:
    """A colour that is lighter where the relief is high."""
    return (np.clip(1 + relief, 0.35, 1.6)[..., None] * colour.astype(np.float32)).astype(np.float32)


def window(points: NDArray[np.float64], margin: float) -> tuple[slice, slice]:
    """The part of the field within `margin` pixels of points (n, 2)."""
    (x0, y0), (x1, y1) = points.min(axis=0) - margin, points.max(axis=0) + margin
    return slice(max(0, int(y0)), max(0, int(y1) + 1)), slice(max(0, int(x0)), max(0, int(x1) + 1))


def over(below: Plane, above: Plane, mask: Plane) -> Plane:
    """One layer over another."""
    return below + (above - below) * mask[..., None]


def blend(picture: Plane, above: Plane, mask: Plane) -> None:
    """`above` into `picture`, in place, within the bounds of the mask."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(ys):
        part = (slice(ys[0], ys[-1] + 1), slice(xs[0], xs[-1] + 1))
        picture[part] += (above[part] - picture[part]) * mask[part][..., None]


def between(a: Place, b: Place, share: float) -> Place:
    """The place after a share of the way from a to b."""
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share


def tube(picture: Plane, a: Place, b: Place, width: int, colour: tuple[int, int, int]) -> None:
    """A round cord, lighter along its middle."""
    start, end = ((round(x), round(y)) for x, y in (a, b))
    for share, light in ((1.0, 0.6), (0.7, 0.9), (0.35, 1.15)):
        cv2.line(picture, start, end, [c * light for c in colour], max(1, round(width * share)), cv2.LINE_AA)


def draw_clip(picture: Plane, a: Place, b: Place) -> None:
    """A closed clip of titanium, from a to b."""
    start, end = ((round(x), round(y)) for x, y in (a, b))
    cv2.line(picture, start, end, (70, 74, 80), 7, cv2.LINE_AA)
    cv2.line(picture, start, end, (214, 220, 228), 4, cv2.LINE_AA)
