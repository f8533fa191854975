"""What lies under the liver, painted once per procedure in layers and put together as the operation goes on.

A picture of the whole field (FIELD, larger than what the endoscope sees): wall, liver and its bed, gallbladder, duct and artery, fat, blood,
clips. Colours are RGB in [0, 255]; masks lie in [0, 1]; places are (x, y) in pixels of the field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from domains.generic.textures import spectrum

FIELD = (420, 560)  # height, width in pixels
Plane = NDArray[np.float32]
Picture = NDArray[np.uint8]
Place = tuple[float, float]

NECK: Place = (235.0, 235.0)  # where the gallbladder becomes the cystic duct
FUNDUS: Place = (360.0, 120.0)
DUCT_END: Place = (150.0, 300.0)
ARTERY_END: Place = (175.0, 245.0)
BED: Place = (330.0, 150.0)  # where it lay on the liver
BAG: Place = (285.0, 280.0)
DOME: Place = (300.0, 30.0)  # where the trocar for the bag comes through the wall


@dataclass(frozen=True)
class State:
    """How far things are, each in [0, 1]: fat over the triangle, gallbladder off the liver, blood, char of the bed, gallbladder in the bag,
    bag raised to the trocar. clips: how many there are. cut: between them."""

    fat: float = 1.0
    detached: float = 0.0
    blood: float = 0.0
    char: float = 0.0
    bagged: float = 0.0
    raised: float = 0.0
    clips: int = 0
    cut: bool = False


class Scene:
    """The field of one patient. `paint(state)` is (FIELD, 3) uint8; `gloss` (FIELD, 2): fields whose mixture makes reflections that wander."""

    def __init__(self, rng: np.random.Generator) -> None:
        height, width = FIELD
        self._y, self._x = np.mgrid[:height, :width].astype(np.float32)
        self._noise = [_noise(8, rng), _noise(32, rng), _noise(90, rng)]
        self.gloss = np.dstack([_noise(128, rng, 0.15), _noise(128, rng, 0.15)])
        tint = rng.uniform(-12, 12, 3)
        self._liver = np.array([124, 44, 42]) + tint
        self._organ = np.array(((168, 150, 96), (150, 140, 112), (172, 120, 98))[int(rng.integers(3))]) + tint
        self._fat = np.array([222, 170, 84]) + rng.uniform(-14, 14, 3)
        self._lobules = _lobules(rng)
        self._patches = rng.uniform(-34, 34, (10, 2)) + np.array([190, 265])
        self._girth = float(rng.uniform(36, 50))
        low, middle, fine = self._noise
        self._still = self._paint_still(rng)
        self._raw = _shade(np.array([158, 40, 40]), 0.22 * middle + 0.12 * fine)
        self._lump = self._fat_of(1.04)
        self._clot = _shade(np.array([104, 8, 12]), 0.22 * middle + 0.1 * low)
        self._skin = _shade(self._organ, 0.06 * middle + 0.03 * fine)
        self._skin[np.abs(middle + 0.3 * fine) < 0.06] *= (0.94, 0.7, 0.66)
        self._film = _soft(300 - np.abs(self._x - 260), 60) * _soft(self._y - 120, 40)

    def _paint_still(self, rng: np.random.Generator) -> Plane:
        """Wall, liver and fat, which nobody moves."""
        low, middle, fine = self._noise
        wall = _shade(np.array([196, 128, 118]), 0.16 * low + 0.08 * middle)
        vessels = np.abs(low + 0.5 * middle - 0.1) < 0.05
        wall[vessels] *= (0.9, 0.72, 0.72)
        edge = 250 - 0.32 * self._x + 26 * np.sin(self._x / 95 + float(rng.uniform(0, 3))) + 60 * (self._x > 0)
        top = 70 + 18 * np.sin(self._x / 130 + float(rng.uniform(0, 3)))
        liver = _soft(edge + 6 * middle - self._y, 3) * _soft(self._y - top, 6)
        body = _shade(self._liver, 0.14 * low + 0.10 * middle + 0.05 * fine)
        rim = np.exp(-(((edge - self._y - 5) / 5) ** 2))[..., None] * np.array([46, 30, 26], np.float32)
        picture = _over(wall, body + rim, liver)
        fat_edge = 305 + 22 * np.sin(self._x / 70 + float(rng.uniform(0, 6))) + 12 * low
        cavity = _soft(self._y - edge - 4, 10) * _soft(fat_edge - self._y, 14)
        picture = _over(picture, _shade(np.array([92, 36, 30]), 0.2 * middle), cavity)
        return _over(picture, self._fat_of(1.0), _soft(self._y - fat_edge, 6))

    def _fat_of(self, light: float) -> Plane:
        low, middle, _ = self._noise
        return _shade(self._fat * light, 0.22 * (self._lobules - 0.5) + 0.06 * middle + 0.08 * low)

    def paint(self, state: State) -> Picture:
        """The field as it is now."""
        low, middle, fine = self._noise
        picture = self._still.copy()
        if state.detached > 0:
            bed = self._ellipse(BED, 74, 34, -40, 5)
            raw = self._raw.copy()
            raw[fine > 1.8 - 1.2 * state.char] = (58, 34, 26)
            _blend(picture, raw, bed * min(1.0, 1.6 * state.detached))
        self._tubes(picture, state)
        if state.bagged < 1:
            self._gallbladder(picture, state)
        for place in self._patches[: max(0, round(len(self._patches) * state.fat))]:
            _blend(picture, self._lump, self._ellipse(tuple(place), 32, 20, 20, 7))
        self._clips(picture, state)
        if state.blood > 0.01:
            pool = _soft(low + 0.4 * middle - 1.9 + 2.0 * state.blood, 0.12)
            _blend(picture, self._clot, 0.86 * pool * self._film)
        return np.clip(picture, 0, 255).astype(np.uint8)

    def _gallbladder(self, picture: Plane, state: State) -> None:
        """A pear from neck to fundus; it hangs lower, and turns, as it comes off."""
        down = 70 * state.detached
        fundus = np.array([FUNDUS[0] - 20 * state.detached, FUNDUS[1] + 1.3 * down])
        neck = np.array([NECK[0] + 30 * state.detached * state.cut, NECK[1] + 0.4 * down * state.cut])
        goal = np.array(BAG)
        fundus, neck = (point + (goal - point) * min(1.0, 1.1 * state.bagged) for point in (fundus, neck))
        axis = fundus - neck
        length = float(np.hypot(*axis)) + 1e-3
        u, v = axis / length
        part = _window(np.stack([neck, fundus]), 1.4 * self._girth)
        x, y = self._x[part] - neck[0], self._y[part] - neck[1]
        along, across = (x * u + y * v) / length, np.abs(y * u - x * v)
        # Radius along the axis: a slim neck, the widest at three quarters, a round fundus.
        rise = np.clip((along + 0.02) / 0.55, 0, 1)
        tip = np.sqrt(np.clip(1 - np.clip((along - 0.72) / 0.34, 0, 1) ** 2, 0, 1))
        girth = self._girth * (0.2 + 0.8 * rise**2 * (3 - 2 * rise)) * tip * (along > -0.02)
        light = 1.12 - 0.62 * (across / np.maximum(girth, 1)) ** 2
        colour = self._skin[part] * np.clip(light, 0.35, 1.15)[..., None]
        picture[part] += (colour - picture[part]) * _soft(girth - across, 2.5)[..., None]

    def _tubes(self, picture: Plane, state: State) -> None:
        """The cystic duct and, above it, the artery; a gap where they are cut."""
        for end, width, colour in ((DUCT_END, 15, (206, 176, 124)), (ARTERY_END, 7, (196, 72, 66))):
            for part in ((0.0, 0.42), (0.58, 1.0)) if state.cut else ((0.0, 1.0),):
                a, b = (_between(NECK, end, share) for share in part)
                _tube(picture, a, b, width, colour)

    def _clips(self, picture: Plane, state: State) -> None:
        """Two on the side that stays and one on the gallbladder's, of each tube in turn."""
        for number in range(state.clips):
            end = (DUCT_END, ARTERY_END)[number % 2]
            x, y = _between(NECK, end, (0.3, 0.66, 0.78)[number // 2 % 3])
            across = np.array([-(end[1] - NECK[1]), end[0] - NECK[0]], float)
            across *= (11 if number % 2 == 0 else 7) / np.hypot(*across)
            a, b = ((round(x + s * across[0]), round(y + s * across[1])) for s in (-1, 1))
            cv2.line(picture, a, b, (70, 74, 80), 7, cv2.LINE_AA)
            cv2.line(picture, a, b, (214, 220, 228), 4, cv2.LINE_AA)

    def _ellipse(self, centre: Place, a: float, b: float, degrees: float, soft: float) -> Plane:
        """A mask with an uneven edge."""
        angle = np.deg2rad(degrees)
        part = _window(np.array([centre]), 1.4 * max(a, b))
        x, y = self._x[part] - centre[0], self._y[part] - centre[1]
        u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
        radius = np.sqrt((u / a) ** 2 + (v / b) ** 2) + 0.12 * self._noise[1][part]
        mask = np.zeros(FIELD, np.float32)
        mask[part] = _soft((1 - radius) * min(a, b), soft)
        return mask


def _noise(finest: float, rng: np.random.Generator, slope: float = 0.7) -> Plane:
    """Unit deviation over the field."""
    side = max(FIELD)
    field = spectrum(side, finest, slope, rng)[: FIELD[0], : FIELD[1]]
    return (field - field.mean()) / field.std()


def _lobules(rng: np.random.Generator) -> Plane:
    """Fat: round lobes, bright in the middle and dark between, in [0, 1]."""
    points = np.ones(FIELD, np.uint8)
    count = FIELD[0] * FIELD[1] // 420
    points[rng.integers(0, FIELD[0], count), rng.integers(0, FIELD[1], count)] = 0
    distance = cv2.distanceTransform(points, cv2.DIST_L2, 5)
    return np.clip(1 - distance / 15, 0, 1).astype(np.float32) ** 0.7


def _soft(distance: NDArray[np.floating[Any]], width: float) -> Plane:
    """From 0 to 1 about the line where `distance` (positive inside) is 0."""
    return np.clip(0.5 + distance / (2 * width), 0, 1).astype(np.float32)


def _shade(colour: NDArray[np.float64], relief: Plane) -> Plane:
    """A colour that is lighter where the relief is high."""
    return (np.clip(1 + relief, 0.35, 1.6)[..., None] * colour.astype(np.float32)).astype(np.float32)


def _window(points: NDArray[np.float64], margin: float) -> tuple[slice, slice]:
    """The part of the field within `margin` pixels of points (n, 2)."""
    (x0, y0), (x1, y1) = points.min(axis=0) - margin, points.max(axis=0) + margin
    return slice(max(0, int(y0)), max(0, int(y1) + 1)), slice(max(0, int(x0)), max(0, int(x1) + 1))


def _over(below: Plane, above: Plane, mask: Plane) -> Plane:
    return below + (above - below) * mask[..., None]


def _blend(picture: Plane, above: Plane, mask: Plane) -> None:
    """`above` into `picture`, in place, within the bounds of the mask."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(ys):
        part = (slice(ys[0], ys[-1] + 1), slice(xs[0], xs[-1] + 1))
        picture[part] += (above[part] - picture[part]) * mask[part][..., None]


def _between(a: Place, b: Place, share: float) -> Place:
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share


def _tube(picture: Plane, a: Place, b: Place, width: int, colour: tuple[int, int, int]) -> None:
    """A round cord, lighter along its middle."""
    start, end = ((round(x), round(y)) for x, y in (a, b))
    for share, light in ((1.0, 0.6), (0.7, 0.9), (0.35, 1.15)):
        cv2.line(picture, start, end, [c * light for c in colour], max(1, round(width * share)), cv2.LINE_AA)
