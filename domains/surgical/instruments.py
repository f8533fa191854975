"""Instruments as they are seen: a shaft from the edge of the picture to a tip that acts.

A tool is drawn into a view (H, W, 3) uint8 RGB in place. tip: (x, y) in pixels of the view; towards: the unit vector from the tip to where the shaft
comes from; size: pixels of the shaft's width at the tip; open: how far jaws are apart, in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Vector = NDArray[np.float64]
Colour = tuple[int, int, int]

STEEL, BLACK, BLUE, WHITE = (190, 194, 200), (58, 58, 62), (58, 96, 168), (232, 230, 222)
SHIFT = 4  # binary places of sub-pixel coordinates
ROUND = ((-1.0, 0.30), (-0.62, 0.62), (-0.2, 1.0), (0.2, 1.18), (0.55, 0.72), (0.85, 0.4))  # light across a rod


def draw_tool(picture: Picture, tool: str, tip: Vector, towards: Vector, size: float, open_: float) -> None:
    """Draw `tool`, one of those with a shaft."""
    _DRAW[tool](picture, tip, towards, size, open_)


def _rod(picture: Picture, a: Vector, b: Vector, wide_a: float, wide_b: float, colour: Colour) -> None:
    """A round rod from a to b, in strips of light."""
    along = b - a
    across = np.array([-along[1], along[0]]) / (np.hypot(*along) + 1e-6) / 2
    edges = [*(edge for edge, _ in ROUND), 1.0]
    for (low, light), high in zip(ROUND, edges[1:], strict=True):
        corners = [
            a + across * wide_a * low,
            a + across * wide_a * high,
            b + across * wide_b * high,
            b + across * wide_b * low,
        ]
        _fill(picture, corners, _lit(colour, light))


def _shaft(picture: Picture, start: Vector, towards: Vector, size: float, colour: Colour) -> None:
    """From `start` out of the picture, wider as it comes nearer."""
    far = start + towards * 1.5 * max(picture.shape)
    _rod(picture, start, far, size, size * 3.2, colour)


def _fill(picture: Picture, corners: Sequence[Vector], colour: Colour) -> None:
    points = np.round(np.asarray(corners) * (1 << SHIFT)).astype(np.int32)
    cv2.fillPoly(picture, [points], colour, cv2.LINE_AA, SHIFT)


@lru_cache(maxsize=1024)
def _lit(colour: Colour, light: float) -> Colour:
    r, g, b = (min(255, round(c * light)) for c in colour)
    return r, g, b


def _turn(vector: Vector, angle: float) -> Vector:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([c * vector[0] - s * vector[1], s * vector[0] + c * vector[1]])


def _jaw(
    picture: Picture, hinge: Vector, way: Vector, length: float, wide: float, colour: Colour, window: bool
) -> None:
    """A jaw from its hinge; window: grasping jaws have a hole."""
    side = np.array([-way[1], way[0]]) * wide
    corners = [
        hinge - side,
        hinge + way * length * 0.75 - side,
        hinge + way * length,
        hinge + way * length * 0.8 + side,
        hinge + side,
    ]
    _fill(picture, corners, _lit(colour, 0.55))
    inner = [hinge + way * length * 0.1 + (corner - hinge - way * length * 0.1) * 0.78 for corner in corners]
    _fill(picture, inner, colour)
    if window:
        a, b = hinge + way * length * 0.3, hinge + way * length * 0.65
        _rod(picture, a, b, wide * 0.8, wide * 0.6, _lit(colour, 0.35))


def _grasper(picture: Picture, tip: Vector, towards: Vector, size: float, open_: float) -> None:
    hinge = tip + towards * 2.6 * size
    _shaft(picture, hinge + towards * 1.2 * size, towards, size, BLACK)
    _rod(picture, hinge, hinge + towards * 1.4 * size, size * 0.85, size * 0.95, STEEL)
    for side in (-1, 1):
        _jaw(picture, hinge, _turn(-towards, side * 0.5 * open_), 2.7 * size, 0.34 * size, STEEL, window=True)


def _bipolar(picture: Picture, tip: Vector, towards: Vector, size: float, open_: float) -> None:
    hinge = tip + towards * 3.0 * size
    _shaft(picture, hinge, towards, size, BLUE)
    _rod(picture, hinge - towards * 0.6 * size, hinge + towards * 0.3 * size, size * 0.9, size * 0.9, _lit(BLUE, 1.25))
    across = np.array([-towards[1], towards[0]])
    for side in (-1, 1):
        bow = hinge - towards * 1.4 * size + across * side * (0.32 + 0.5 * open_) * size
        _rod(picture, hinge, bow, size * 0.3, size * 0.26, STEEL)
        _rod(picture, bow, tip + across * side * 0.35 * open_ * size, size * 0.26, size * 0.2, STEEL)


def _hook(picture: Picture, tip: Vector, towards: Vector, size: float, open_: float) -> None:
    across = np.array([-towards[1], towards[0]])
    heel = tip + across * 1.0 * size + towards * 0.1 * size
    neck = heel + towards * 1.6 * size
    _shaft(picture, neck + towards * 1.6 * size, towards, size, BLACK)
    _rod(picture, neck, neck + towards * 1.8 * size, size * 0.5, size * 0.98, WHITE)
    _rod(picture, heel, neck, size * 0.22, size * 0.24, STEEL)
    _rod(picture, tip, heel, size * 0.18, size * 0.24, STEEL)


def _scissors(picture: Picture, tip: Vector, towards: Vector, size: float, open_: float) -> None:
    hinge = tip + towards * 2.4 * size
    _shaft(picture, hinge + towards * 0.9 * size, towards, size, BLACK)
    _rod(picture, hinge, hinge + towards * 1.1 * size, size * 0.7, size * 0.95, STEEL)
    for side in (-1, 1):
        way = _turn(-towards, side * (0.05 + 0.42 * open_))
        middle, across = hinge + _turn(way, 0.16) * 1.4 * size, _turn(way, np.pi / 2) * size
        blade = [
            hinge - 0.26 * across,
            middle - 0.22 * across,
            hinge + way * 2.7 * size,
            middle + 0.12 * across,
            hinge + 0.26 * across,
        ]
        _fill(picture, blade, _lit(STEEL, 0.72 + 0.3 * (side > 0)))
    cv2.circle(picture, (round(hinge[0]), round(hinge[1])), max(1, round(0.16 * size)), (90, 92, 96), -1, cv2.LINE_AA)


def _clipper(picture: Picture, tip: Vector, towards: Vector, size: float, open_: float) -> None:
    hinge = tip + towards * 2.6 * size
    _shaft(picture, hinge, towards, 1.35 * size, STEEL)
    across = np.array([-towards[1], towards[0]])
    for side in (-1, 1):
        bow = hinge + across * side * (0.45 + 0.4 * open_) * size - towards * 1.1 * size
        end = tip + across * side * (0.16 + 0.42 * open_) * size
        _rod(picture, hinge + across * side * 0.3 * size, bow, 0.5 * size, 0.5 * size, _lit(STEEL, 0.9))
        _rod(picture, bow, end, 0.5 * size, 0.42 * size, _lit(STEEL, 0.8))
    if open_ > 0.3:  # the clip that waits between the jaws
        for side in (-1, 1):
            a = tip + across * side * 0.3 * open_ * size
            _rod(picture, a, tip + towards * 1.0 * size, 0.2 * size, 0.2 * size, (226, 232, 240))


def _irrigator(picture: Picture, tip: Vector, towards: Vector, size: float, open_: float) -> None:
    _shaft(picture, tip, towards, 1.15 * size, _lit(STEEL, 1.05))
    across = np.array([-towards[1], towards[0]])
    _rod(picture, tip - across * 0.5 * size, tip + across * 0.5 * size, 0.5 * size, 0.5 * size, (44, 44, 48))
    for step in (0.9, 1.6, 2.3):
        for side in (-0.18, 0.22):
            x, y = tip + towards * step * size + across * side * size
            cv2.circle(picture, (round(x), round(y)), max(1, round(0.14 * size)), (50, 50, 54), -1, cv2.LINE_AA)
    if open_ > 0.5:  # water
        for number in range(5):
            x, y = tip - towards * (0.8 + 0.5 * number) * size + across * np.sin(9 * open_ + 2 * number) * 0.3 * size
            cv2.circle(
                picture,
                (round(x), round(y)),
                max(1, round((0.3 - 0.04 * number) * size)),
                (214, 206, 206),
                -1,
                cv2.LINE_AA,
            )


_DRAW: dict[str, Callable[[Picture, Vector, Vector, float, float], None]] = {
    "Grasper": _grasper, "Bipolar": _bipolar, "Hook": _hook, "Scissors": _scissors, "Clipper": _clipper, "Irrigator": _irrigator,
}  # fmt: skip


def draw_bag(picture: Picture, centre: Vector, size: float, filled: float, sway: float) -> None:
    """A specimen bag of a clear plastic: a sack with folds under a dark ring; filled: how much of the gallbladder shows within."""
    angles = np.linspace(0, 2 * np.pi, 40)
    drop = 1 + 0.25 * np.sin(angles) + 0.05 * np.sin(3 * angles + 4 * sway)
    outline = centre + np.stack([1.5 * np.cos(angles) * drop + 0.2 * sway, 1.7 * np.sin(angles) * drop], axis=1) * size
    layer = picture.copy()
    _fill(layer, list(outline), (206, 214, 226))
    inner = centre + (outline - centre) * 0.62 * filled + np.array([0, 0.5 * size])
    if filled > 0.05:
        _fill(layer, list(inner), (142, 126, 92))
    for fold in np.linspace(-0.8, 0.8, 5):
        a, b = centre + np.array([fold * 1.1, -1.2]) * size, centre + np.array([fold * 1.3 + 0.2 * sway, 1.5]) * size
        cv2.line(layer, _point(a), _point(b), (240, 244, 250), max(1, round(0.12 * size)), cv2.LINE_AA)
    cv2.addWeighted(layer, 0.78, picture, 0.22, 0, dst=picture)
    ring = centre + np.array([0, -1.25 * size])
    cv2.ellipse(
        picture,
        _point(ring),
        (round(1.25 * size), round(0.4 * size)),
        8 * sway,
        0,
        360,
        (64, 70, 88),
        max(2, round(0.2 * size)),
        cv2.LINE_AA,
    )


def _point(place: Vector) -> tuple[int, int]:
    return round(place[0]), round(place[1])
