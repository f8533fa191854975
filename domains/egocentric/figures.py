"""People, furniture and things of the phantom as flat pictures: RGBA, uint8, anchored at the middle of their lower edge."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from domains.egocentric.house import Point

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

TEAMS: tuple[Colour, ...] = ((214, 58, 48), (44, 96, 214), (52, 160, 72), (226, 180, 40))
SKINS: tuple[Colour, ...] = ((244, 204, 170), (214, 164, 120), (160, 108, 74), (104, 70, 50))
HAIR: tuple[Colour, ...] = ((40, 30, 24), (112, 70, 36), (214, 176, 92), (130, 130, 134))
THINGS: dict[str, Colour] = {
    "bottle": (40, 150, 70), "pot": (120, 124, 132), "cloth": (240, 140, 170), "book": (60, 70, 180), "hammer": (150, 100, 50),
    "knife": (200, 205, 210), "cup": (230, 220, 60),
}  # fmt: skip
BODIES: dict[str, Colour] = {
    "fridge": (226, 230, 232), "cupboard": (150, 96, 52), "drawer": (196, 160, 110), "locker": (78, 110, 140),
}  # fmt: skip
LEVELS = 12  # steps in which a door or a switch is drawn

JOINTS = (
    "head", "neck", "left shoulder", "right shoulder", "left elbow", "right elbow", "left hand", "right hand", "left hip", "right hip",
    "left knee", "right knee", "left foot", "right foot",
)  # fmt: skip
PERSON = (96, 64)  # height, width of the picture of a person
PERSON_HEIGHT = 0.98  # units


@dataclass(frozen=True)
class Sprite:
    """picture: RGBA. height: in units; its width follows. lift: units above the floor at which it begins."""

    picture: Picture
    height: float
    lift: float = 0.0

    @property
    def width(self) -> float:
        """In units."""
        return self.height * self.picture.shape[1] / self.picture.shape[0]


def _canvas(height: int, width: int) -> Picture:
    return np.zeros((height, width, 4), np.uint8)


def _ink(colour: Colour, light: float = 1.0) -> tuple[int, int, int, int]:
    return (*(int(min(255, max(0, one * light))) for one in colour), 255)  # type: ignore[return-value]


def _poly(picture: Picture, points: list[Point], colour: Colour, light: float = 1.0) -> None:
    cv2.fillPoly(picture, [np.round(np.array(points)).astype(np.int32)], _ink(colour, light))


def _box(picture: Picture, x0: float, y0: float, x1: float, y1: float, colour: Colour, light: float = 1.0) -> None:
    cv2.rectangle(picture, (round(x0), round(y0)), (round(x1), round(y1)), _ink(colour, light), -1)


def _limb(picture: Picture, start: Point, end: Point, width: int, colour: Colour, light: float = 1.0) -> None:
    a, b = (tuple(round(one) for one in point) for point in (start, end))
    cv2.line(picture, a, b, _ink(colour, light), width, cv2.LINE_8)


def joints(facing: int, stride: float, reach: float) -> dict[str, Point]:
    """Where each of JOINTS is in the picture of a person, (x, y) in pixels of PERSON. facing: 0 to the viewer, 1 to the right, 2 away, 3 to the left;
    stride: the walk's phase in [-1, 1]; reach: 0 arms down, 1 hands forward."""
    side = facing in (1, 3)
    ahead = {0: 0.0, 1: 1.0, 2: 0.0, 3: -1.0}[facing]
    mirror = -1.0 if facing == 0 else 1.0  # whose left is on the right
    half, hip = (3.0, 2.0) if side else (11.0, 6.0)
    swing = 9.0 * stride
    found = {"head": (32.0 + 2 * ahead, 12.0), "neck": (32.0, 24.0)}
    for name, sign in (("left", -1.0), ("right", 1.0)):
        out = sign * mirror
        leg = swing * sign
        found[f"{name} shoulder"] = (32 + half * out, 29.0)
        found[f"{name} hip"] = (32 + hip * out, 56.0)
        shift = leg if side else 0.0
        lift = 0.0 if side else max(0.0, leg) * 0.7
        found[f"{name} knee"] = (32 + hip * out + 0.6 * shift + 2 * ahead, 74.0 - 0.5 * lift)
        found[f"{name} foot"] = (32 + hip * out + shift, 92.0 - lift)
        down = (32 + (half + 1) * out - 0.6 * shift, 52.0)
        forward = (32 + (22 * ahead if side else 7 * out), 40.0 - (0 if facing != 0 else 2))
        hand = (down[0] + (forward[0] - down[0]) * reach, down[1] + (forward[1] - down[1]) * reach)
        shoulder = found[f"{name} shoulder"]
        found[f"{name} hand"] = hand
        found[f"{name} elbow"] = (
            (shoulder[0] + hand[0]) / 2 + (2.5 * out if not side else -1.5 * ahead),
            (shoulder[1] + hand[1]) / 2 + 2,
        )
    return found


@lru_cache(maxsize=4096)
def person(team: int, skin: int, hair: int, shade: int, facing: int, stride: int, reach: int, held: str = "") -> Sprite:
    """stride, reach: in LEVELS; shade: in tenths, of the shirt."""
    picture = _canvas(*PERSON)
    at = joints(facing, 2 * stride / LEVELS - 1, reach / LEVELS)
    shirt, trousers = TEAMS[team % len(TEAMS)], (52, 56, 70)
    light = 1 + 0.02 * shade
    order = ("left", "right") if facing != 1 else ("right", "left")
    for name in order:
        _limb(picture, at[f"{name} hip"], at[f"{name} knee"], 8, trousers)
        _limb(picture, at[f"{name} knee"], at[f"{name} foot"], 7, trousers, 0.9)
        x, y = at[f"{name} foot"]
        _box(picture, x - 4, y - 1, x + 4, y + 3, (28, 26, 26))
    if facing == 2:
        _arms(picture, at, order, shirt, skin, light, held)
    half = 8 if facing in (1, 3) else 13
    _poly(picture, [(32 - half, 26), (32 + half, 26), (32 + half - 2, 58), (32 - half + 2, 58)], shirt, light)
    _box(picture, 29, 20, 35, 27, SKINS[skin])
    if facing != 2:
        _arms(picture, at, order, shirt, skin, light, held)
    x, y = at["head"]
    centre = (round(x), round(y))
    cv2.circle(picture, centre, 10, _ink(SKINS[skin]), -1)
    if facing == 2:
        cv2.circle(picture, centre, 10, _ink(HAIR[hair]), -1)
    else:
        cv2.ellipse(picture, (centre[0], centre[1] - 2), (10, 9), 0, 180, 360, _ink(HAIR[hair]), -1)
        ahead = {0: 0, 1: 5, 3: -5}[facing]
        for eye in (-4, 4) if facing == 0 else (0,):
            cv2.circle(picture, (centre[0] + ahead + eye, centre[1] + 1), 1, (20, 20, 30, 255), -1)
        if facing == 0:
            cv2.line(picture, (centre[0] - 3, centre[1] + 6), (centre[0] + 3, centre[1] + 6), (150, 60, 60, 255), 1)
        else:
            _box(
                picture, *sorted_box(centre[0] - 2 * ahead, centre[1] - 6, centre[0] - ahead, centre[1] + 6), HAIR[hair]
            )
    return Sprite(picture, PERSON_HEIGHT)


def sorted_box(x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float, float]:
    """The same box, its corners in order."""
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _arms(
    picture: Picture, at: dict[str, Point], order: tuple[str, ...], shirt: Colour, skin: int, light: float, held: str
) -> None:
    for name in order:
        _limb(picture, at[f"{name} shoulder"], at[f"{name} elbow"], 7, shirt, 0.86 * light)
        _limb(picture, at[f"{name} elbow"], at[f"{name} hand"], 6, shirt, 0.8 * light)
        x, y = at[f"{name} hand"]
        if held and name == "right":
            small = cv2.resize(thing(held).picture, (14, 14), interpolation=cv2.INTER_AREA)
            paste(picture, small, round(x) - 7, round(y) - 12)
        cv2.circle(picture, (round(x), round(y)), 4, _ink(SKINS[skin]), -1)


def paste(picture: Picture, small: Picture, x: int, y: int) -> None:
    """Lay one RGBA picture over another; what reaches out of it is cut off."""
    x0, y0 = max(0, x), max(0, y)
    x1, y1 = min(picture.shape[1], x + small.shape[1]), min(picture.shape[0], y + small.shape[0])
    if x1 <= x0 or y1 <= y0:
        return
    over = small[y0 - y : y1 - y, x0 - x : x1 - x]
    solid = over[..., 3] > 127
    picture[y0:y1, x0:x1][solid] = over[solid]


@lru_cache(maxsize=64)
def thing(noun: str) -> Sprite:
    """What is picked up, 48 x 48 pixels."""
    picture = _canvas(48, 48)
    colour = THINGS[noun]
    if noun == "bottle":
        _box(picture, 16, 16, 32, 47, colour)
        _box(picture, 21, 3, 27, 16, colour, 0.9)
        _box(picture, 16, 26, 32, 36, (240, 240, 230))
        _box(picture, 20, 1, 28, 5, (200, 50, 40))
    elif noun == "pot":
        _box(picture, 8, 20, 40, 46, colour)
        _box(picture, 5, 16, 43, 21, colour, 1.3)
        _box(picture, 1, 26, 8, 30, (30, 30, 30))
        _box(picture, 40, 26, 47, 30, (30, 30, 30))
    elif noun == "cloth":
        _poly(picture, [(4, 30), (16, 22), (30, 26), (44, 22), (46, 44), (30, 47), (6, 46)], colour)
        for x in (12, 22, 32):
            _limb(picture, (x, 28), (x + 3, 45), 1, colour, 0.75)
    elif noun == "book":
        _poly(picture, [(6, 14), (40, 10), (43, 44), (9, 47)], colour)
        _poly(picture, [(9, 45), (43, 42), (43, 45), (10, 47)], (250, 250, 240))
        _box(picture, 15, 20, 34, 26, (240, 220, 120))
    elif noun == "hammer":
        _limb(picture, (24, 14), (24, 46), 5, colour)
        _box(picture, 8, 6, 38, 17, (120, 124, 130))
    elif noun == "knife":
        _poly(picture, [(20, 2), (27, 8), (27, 30), (20, 30)], colour)
        _box(picture, 19, 30, 28, 47, (40, 34, 30))
    else:  # a cup
        _box(picture, 12, 18, 34, 46, colour)
        cv2.ellipse(picture, (36, 31), (8, 8), 0, -90, 90, _ink(colour, 0.8), 3)
        cv2.ellipse(picture, (23, 18), (11, 4), 0, 0, 360, _ink(colour, 0.5), -1)
    return Sprite(picture, 0.2)


@lru_cache(maxsize=1024)
def with_door(noun: str, level: int, inside: str) -> Sprite:
    """A piece of furniture with a door; level of LEVELS: how far it is open; inside: what lies in it, "" for nothing."""
    height = {"fridge": 112, "locker": 112, "cupboard": 84, "drawer": 66}[noun]
    picture = _canvas(height, 120)
    body, done = BODIES[noun], level / LEVELS
    x0, x1 = 40, 106
    _box(picture, x0, 0, x1, height - 1, body, 0.8)
    _box(picture, x0 + 4, 4, x1 - 4, height - 8, (34, 32, 36) if noun != "fridge" else (196, 214, 226))
    for y in range(26, height - 14, 28):
        _box(picture, x0 + 4, y, x1 - 4, y + 2, body, 0.6)
    if inside:
        small = cv2.resize(thing(inside).picture, (26, 26), interpolation=cv2.INTER_AREA)
        paste(picture, small, x0 + 20, height - 38 if noun != "drawer" else 24)
    if noun == "drawer":  # its front comes towards the one who pulls
        grown = 1 + 0.22 * done
        drop = 16 * done
        wide = (x1 - x0) / 2 * grown
        top = 4 + drop + (height - 30) * 0.5 * done
        _poly(
            picture, [(73 - wide, top), (73 + wide, top), (73 + wide, height - 4), (73 - wide, height - 4)], body, 1.05
        )
        _box(picture, 66, (top + height) / 2 - 3, 80, (top + height) / 2 + 1, (60, 50, 40))
        return Sprite(picture, 0.62)
    angle = done * np.deg2rad(112)
    free = x0 + (x1 - x0) * np.cos(angle)
    nearer = 10 * np.sin(angle)
    door_ = [(x0, 0), (free, -nearer), (free, height - 1 + nearer), (x0, height - 1)]
    _poly(picture, door_, body, 1.0 - 0.25 * done)
    handle = free - 8 * np.sign(np.cos(angle)) if abs(np.cos(angle)) > 0.15 else free
    _limb(picture, (handle, height * 0.42), (handle, height * 0.58), 4, (70, 70, 76))
    return Sprite(picture, {"fridge": 1.05, "locker": 1.05, "cupboard": 0.8}[noun])


def handle_at(noun: str, level: float) -> Point:
    """Where the handle of such a door is, (x, y) in shares of the picture; level in [0, 1]."""
    if noun == "drawer":
        return 73 / 120, 0.5 + 0.35 * level
    angle = level * np.deg2rad(112)
    return float(40 + 66 * np.cos(angle)) / 120, 0.5


@lru_cache(maxsize=64)
def table(on_it: str) -> Sprite:
    """A table; on_it: what lies there, "" for nothing."""
    picture = _canvas(80, 96)
    _box(picture, 6, 42, 14, 79, (96, 62, 36))
    _box(picture, 82, 42, 90, 79, (96, 62, 36))
    _poly(picture, [(12, 30), (84, 30), (95, 42), (1, 42)], (176, 124, 74))
    _box(picture, 1, 42, 95, 48, (130, 88, 52))
    if on_it:
        small = cv2.resize(thing(on_it).picture, (30, 30), interpolation=cv2.INTER_AREA)
        paste(picture, small, 33, 7)
    return Sprite(picture, 0.62)


@lru_cache(maxsize=1024)
def switched(noun: str, level: int, beat: int) -> Sprite:
    """Something that is on or off; level of LEVELS; beat: a number that goes round while it is on, 0 to 5."""
    on = level / LEVELS
    picture = _canvas(100, 80)
    if noun == "lamp":
        _limb(picture, (40, 40), (40, 92), 4, (90, 80, 70))
        _box(picture, 24, 92, 56, 99, (90, 80, 70))
        glow = tuple(int(90 + (165 if band < 2 else 90) * on) for band in range(3))
        _poly(picture, [(26, 10), (54, 10), (66, 42), (14, 42)], glow)  # type: ignore[arg-type]
    elif noun == "tv":
        _box(picture, 2, 14, 78, 66, (26, 26, 30))
        _box(picture, 30, 66, 50, 99, (40, 40, 44))
        if on > 0.5:
            for bar in range(6):
                shade = ((220, 60, 60), (240, 200, 60), (60, 200, 90), (60, 180, 220), (80, 80, 220), (220, 90, 200))
                _box(picture, 6 + 12 * bar, 18, 17 + 12 * bar, 62, shade[(bar + beat) % 6])
    elif noun == "radio":
        _box(picture, 8, 50, 72, 99, (170, 90, 50))
        cv2.circle(picture, (28, 74), 15, _ink((60, 44, 36)), -1)
        cv2.circle(picture, (56, 66), 6, _ink((240, 240, 200) if on > 0.5 else (90, 80, 70)), -1)
        if on > 0.5:
            for ring in range(3):
                cv2.ellipse(
                    picture, (40, 46), (8 + 8 * ring + beat, 8 + 8 * ring + beat), 0, 220, 320, _ink((250, 240, 120)), 2
                )
    elif noun == "fan":
        _limb(picture, (40, 40), (40, 94), 5, (120, 124, 130))
        _box(picture, 22, 92, 58, 99, (120, 124, 130))
        cv2.circle(picture, (40, 34), 32, _ink((70, 74, 80)), 2)
        turn = beat * 20 if on > 0.5 else 0
        for blade in range(3):
            angle = np.deg2rad(120 * blade + turn)
            tip = (40 + 28 * np.cos(angle), 34 + 28 * np.sin(angle))
            _limb(picture, (40, 34), tip, 10, (150, 200, 220))
    else:  # a kettle
        _poly(picture, [(20, 99), (60, 99), (54, 56), (26, 56)], (190, 50, 50))
        _limb(picture, (56, 66), (70, 58), 5, (190, 50, 50), 0.8)
        cv2.ellipse(picture, (40, 56), (14, 12), 0, 180, 360, _ink((30, 30, 30)), 3)
        if on > 0.5:
            for puff in range(3):
                cv2.circle(picture, (66 + 3 * puff, 48 - 12 * puff - beat), 4 + puff, _ink((235, 235, 240)), -1)
    return Sprite(picture, 0.66)


@lru_cache(maxsize=16)
def load(noun: str) -> Sprite:
    """Something that is pushed and pulled."""
    picture = _canvas(80, 80)
    if noun == "box":
        _box(picture, 8, 24, 72, 79, (190, 150, 96))
        _poly(picture, [(8, 24), (18, 14), (78, 14), (72, 24)], (214, 176, 120))
        _box(picture, 36, 24, 44, 79, (230, 214, 170))
    elif noun == "chair":
        _box(picture, 18, 2, 62, 40, (60, 110, 120))
        _poly(picture, [(16, 40), (64, 40), (72, 52), (8, 52)], (80, 140, 150))
        for x in (12, 66):
            _box(picture, x, 52, x + 4, 79, (50, 40, 34))
    else:  # a cart
        _box(picture, 6, 20, 74, 62, (210, 210, 60))
        _limb(picture, (70, 20), (78, 4), 4, (60, 60, 60))
        for x in (18, 62):
            cv2.circle(picture, (x, 70), 9, _ink((30, 30, 30)), -1)
    return Sprite(picture, 0.55)
