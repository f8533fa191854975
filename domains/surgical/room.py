"""What the endoscope sees on its way: the tube of the trocar, and outside drapes, gowns, people, a lamp and gauze that wipes the lens."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from domains.generic.textures import spectrum

Picture = NDArray[np.uint8]
SIDE = 480  # pixels of the square that a room is painted on
GOWNS = ((66, 118, 122), (70, 104, 150), (88, 128, 108))
WALLS = ((196, 190, 172), (176, 188, 190), (204, 204, 200))
SKINS = ((224, 182, 156), (196, 146, 116), (128, 88, 66), (238, 200, 178))


def draw_room(rng: np.random.Generator) -> Picture:
    """(SIDE, SIDE, 3): one of three views: people at the table, drapes close by, gauze on the lens."""
    kind = int(rng.choice(3, p=(0.5, 0.3, 0.2)))
    gown = GOWNS[int(rng.integers(len(GOWNS)))]
    if kind == 2:
        return _gauze(rng)
    if kind == 1:
        picture = _drapes(gown, rng)
        _hand(picture, rng)
        return picture
    picture = np.empty((SIDE, SIDE, 3), np.uint8)
    wall = np.array(WALLS[int(rng.integers(len(WALLS)))], np.float32)
    picture[:] = np.clip(np.linspace(1.1, 0.8, SIDE)[:, None, None] * wall, 0, 255).astype(np.uint8)
    _lamp(picture, rng)
    _screen(picture, rng)
    for x in rng.permutation([110, 250, 385])[: int(rng.integers(2, 4))]:
        _person(picture, int(x + rng.integers(-20, 20)), gown, rng)
    table = _drapes(gown, rng)
    picture[350:] = table[350:]
    return picture


def _drapes(gown: tuple[int, int, int], rng: np.random.Generator) -> Picture:
    """Cloth with folds."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) / SIDE
    sway = spectrum(SIDE, 6, 1.0, rng)
    folds = 0.84 + 0.16 * np.sin(26 * (x + 0.4 * y + 0.12 * sway)) + 0.05 * spectrum(SIDE, 64, 0.4, rng)
    return np.clip(folds[..., None] * np.array(gown, np.float32) * (1.25 - 0.4 * y[..., None]), 0, 255).astype(np.uint8)


def _lamp(picture: Picture, rng: np.random.Generator) -> None:
    x, y = int(rng.integers(90, 390)), int(rng.integers(40, 110))
    cv2.line(picture, (x, 0), (x, y), (150, 152, 156), 9, cv2.LINE_AA)
    cv2.ellipse(picture, (x, y), (92, 46), float(rng.uniform(-12, 12)), 0, 360, (214, 218, 222), -1, cv2.LINE_AA)
    for turn in range(7):
        at = (x + round(58 * np.cos(turn * 0.9) * (turn > 0)), y + round(26 * np.sin(turn * 0.9) * (turn > 0)))
        cv2.ellipse(picture, at, (17, 11), 0, 0, 360, (255, 255, 250), -1, cv2.LINE_AA)


def _screen(picture: Picture, rng: np.random.Generator) -> None:
    x, y = int(rng.integers(20, 330)), int(rng.integers(130, 180))
    cv2.rectangle(picture, (x, y), (x + 130, y + 84), (36, 38, 42), -1)
    cv2.rectangle(picture, (x + 6, y + 6), (x + 124, y + 78), (28, 62, 118), -1)
    for line in range(4):
        beat = [(x + 12 + 12 * k, y + 20 + 15 * line - (8 if k % 4 == 1 else 0)) for k in range(9)]
        colour = ((90, 230, 110), (240, 220, 90), (110, 200, 250), (240, 110, 110))[line]
        cv2.polylines(picture, [np.array(beat, np.int32)], False, colour, 2, cv2.LINE_AA)


def _person(picture: Picture, x: int, gown: tuple[int, int, int], rng: np.random.Generator) -> None:
    """Gown, head, cap, mask, eyes."""
    y = int(rng.integers(150, 200))
    body = np.array(
        [(x - 95, 480), (x - 78, y + 95), (x - 30, y + 62), (x + 30, y + 62), (x + 78, y + 95), (x + 95, 480)], np.int32
    )
    cv2.fillPoly(picture, [body], gown, cv2.LINE_AA)
    cv2.line(picture, (x, y + 70), (x, 480), tuple(round(c * 0.8) for c in gown), 3, cv2.LINE_AA)
    skin = SKINS[int(rng.integers(len(SKINS)))]
    cv2.ellipse(picture, (x, y), (38, 50), 0, 0, 360, skin, -1, cv2.LINE_AA)
    cv2.ellipse(picture, (x, y - 16), (42, 40), 0, 180, 360, (96, 152, 176), -1, cv2.LINE_AA)
    mask = np.array([(x - 37, y + 4), (x + 37, y + 4), (x + 28, y + 44), (x, y + 54), (x - 28, y + 44)], np.int32)
    cv2.fillPoly(picture, [mask], (176, 208, 220), cv2.LINE_AA)
    for side in (-1, 1):
        cv2.ellipse(picture, (x + side * 16, y - 6), (8, 4), 0, 0, 360, (244, 244, 240), -1, cv2.LINE_AA)
        cv2.circle(picture, (x + side * 16, y - 6), 3, (52, 40, 34), -1, cv2.LINE_AA)


def _hand(picture: Picture, rng: np.random.Generator) -> None:
    """A gloved hand with gauze."""
    x, y = int(rng.integers(180, 300)), int(rng.integers(220, 320))
    glove = ((236, 228, 204), (150, 186, 214))[int(rng.integers(2))]
    for finger in range(4):
        end = (x - 70 + 42 * finger, y - 120 + 14 * abs(finger - 1))
        cv2.line(picture, (x - 30 + 22 * finger, y), end, glove, 30, cv2.LINE_AA)
        cv2.circle(picture, end, 4, tuple(round(c * 0.85) for c in glove), -1, cv2.LINE_AA)
    cv2.ellipse(picture, (x, y + 60), (78, 90), 0, 0, 360, glove, -1, cv2.LINE_AA)
    cloth = _gauze(rng)[:110, :150]
    picture[y - 150 : y - 40, x - 70 : x + 80] = cloth


def _gauze(rng: np.random.Generator) -> Picture:
    weave = 232 + 7 * spectrum(SIDE, 120, 0.1, rng) + 12 * spectrum(SIDE, 5, 1.0, rng)
    return np.clip(weave[..., None] * np.array([1.0, 0.99, 0.96], np.float32), 0, 255).astype(np.uint8)


def draw_tube(body: Picture, hole: float, aside: float) -> Picture:
    """The view out of a trocar: `body` (H, W, 3) through its end, `hole` of the picture wide, within a grey tube seen from `aside`."""
    height, width = body.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    radius = np.hypot(x - width * (0.5 + 0.06 * aside), y - height * (0.5 - 0.05 * aside)) / (0.5 * width)
    light = np.clip(0.92 - 0.34 * radius + 0.05 * np.sin(24 * radius), 0.1, 1)
    tube = light[..., None] * np.array([186, 190, 200], np.float32)
    inside = np.clip((hole - radius) * 0.5 * width / 3 + 0.5, 0, 1)[..., None]
    return np.clip(tube + (body * 0.75 - tube) * inside, 0, 255).astype(np.uint8)
