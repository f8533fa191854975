"""The hands of the one who wears the camera: they come up from below, do something at a thing, and carry things."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from domains.egocentric import figures
from domains.egocentric.house import USES, Point
from domains.egocentric.stage import REACHED, Body

Box = tuple[float, float, float, float]
HOLD = (0.72, 0.83)  # where a hand that carries something is, in shares of the view
REST = {"right": (0.78, 1.2), "left": (0.22, 1.2)}


def draw_hands(picture: NDArray[np.float32], body: Body, spots: dict[str, Box], light: float) -> None:
    """Paint them into a view (H, W, 3) float, in place. spots: where each station is in it, by room and kind."""
    size = picture.shape[0]
    bob = 0.012 * math.sin(body.step) if body.speed > 0.1 else 0.0
    act = body.act
    if act is None:
        if body.held:
            _arm(picture, body, "right", (HOLD[0], HOLD[1] + bob), light, body.held)
        return
    box = spots.get(f"{act.station.room} {act.station.kind}")
    if box is None:  # it is out of sight: the hand moves all the same
        box = (0.3 * size, 0.4 * size, 0.7 * size, 0.8 * size)
    at = _target(box, body, size)
    near, done = body.reach, body.done
    if act.verb in ("pick up", "put down"):
        carried = _carried(done) if act.verb == "pick up" else _carried(1 - done)
        seen = done > REACHED if act.verb == "pick up" else done < 1 - REACHED
        start = REST["right"] if act.verb == "pick up" else HOLD
        goal = HOLD if act.verb == "pick up" else REST["right"]
        first, last = (start, goal) if act.verb == "pick up" else (goal, start)
        hand = _between(at, last, carried) if seen or carried > 0 else _between(first, at, near)
        if act.verb == "put down" and not seen:
            hand = _between(REST["right"], at, near)
        held = act.noun if seen else ""
        _arm(picture, body, "right", hand, light, held)
        return
    if act.verb in USES.values():
        _arm(picture, body, "right", _between(REST["right"], _shaken(act.verb, at, body.done, act.end - act.start), near), light,
             act.noun if near > 0.95 else "")  # fmt: skip
        return
    if body.held:  # the other hand is free
        _arm(picture, body, "right", (HOLD[0], HOLD[1] + bob), light, body.held)
        _arm(picture, body, "left", _between(REST["left"], at, near), light)
        return
    _arm(picture, body, "right", _between(REST["right"], at, near), light)
    if act.verb in ("push", "pull"):
        _arm(picture, body, "left", _between(REST["left"], (at[0] - 0.16, at[1]), near), light)


def _carried(done: float) -> float:
    """How far a thing is on its way from where it lay to the hand's place, for an action that is `done`."""
    x = min(1.0, max(0.0, (done - 0.25) / 0.55))
    return x * x * (3 - 2 * x)


def _between(a: Point, b: Point, share: float) -> Point:
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share


def _target(box: Box, body: Body, size: int) -> Point:
    """Where at a thing the hand goes, in shares of the view."""
    assert body.act is not None
    act = body.act
    u, v = 0.5, 0.4
    if act.station.kind == "door" and act.verb in ("open", "close"):
        level = _carried(body.done) if act.verb == "open" else 1 - _carried(body.done)
        u, v = figures.handle_at(act.station.noun, level)
    elif act.station.kind == "door":
        u, v = 0.6, 0.72
    elif act.station.kind == "table":
        u, v = 0.5, 0.32
    elif act.station.kind == "switch":
        u, v = 0.55, 0.72
    x, y = box[0] + u * (box[2] - box[0]), box[1] + v * (box[3] - box[1])
    return min(0.97, max(0.03, x / size)), min(0.98, max(0.25, y / size))


def _shaken(verb: str, at: Point, done: float, lasts: float) -> Point:
    """The hand's place while a thing is used."""
    beat = 2 * math.pi * 1.7 * done * lasts
    x, y = at
    if verb in ("cut", "hammer"):
        return x, y - 0.09 * abs(math.sin(beat * (1.0 if verb == "hammer" else 1.4)))
    if verb == "wipe":
        return x + 0.16 * math.sin(0.8 * beat), y + 0.04
    if verb == "stir":
        return x + 0.07 * math.cos(beat), y + 0.035 * math.sin(beat)
    if verb == "drink":
        return 0.5, 0.7 - 0.18 * math.sin(min(1.0, done) * math.pi)
    if verb == "read":
        return 0.5, 0.66
    return x + 0.03 * math.sin(1.6 * beat), y - 0.12 + 0.05 * math.sin(2 * beat)  # shake


def _arm(
    picture: NDArray[np.float32], body: Body, side: str, hand: Point, light: float, held: str = ""
) -> None:  # fmt: skip
    """Sleeve, hand, and what it holds."""
    size = picture.shape[0]
    start = (REST[side][0] * size, 1.1 * size)
    end = (hand[0] * size, hand[1] * size)
    if end[1] > 1.12 * size:
        return
    wrist = _between(start, end, 0.86)
    shirt = np.array(figures.TEAMS[body.team % len(figures.TEAMS)]) * 0.9 * light
    skin = np.array(figures.SKINS[body.looks[0]]) * light
    a, b, c = (tuple(round(one) for one in point) for point in (start, wrist, end))
    cv2.line(picture, a, b, shirt.tolist(), round(0.12 * size))
    cv2.line(picture, b, c, skin.tolist(), round(0.08 * size))
    if held:
        wide = round(0.3 * size)
        thing = cv2.resize(figures.thing(held).picture, (wide, wide), interpolation=cv2.INTER_LINEAR)
        x, y = c[0] - wide // 2, c[1] - round(0.8 * wide)
        x0, y0, x1, y1 = max(0, x), max(0, y), min(size, x + wide), min(size, y + wide)
        if x1 > x0 and y1 > y0:
            over = thing[y0 - y : y1 - y, x0 - x : x1 - x]
            solid = over[..., 3] > 127
            picture[y0:y1, x0:x1][solid] = over[..., :3][solid] * light
    cv2.circle(picture, c, round(0.055 * size), skin.tolist(), -1)
    for finger in range(3):
        angle = -math.pi / 2 + (finger - 1) * 0.5
        tip = (round(c[0] + 0.085 * size * math.cos(angle)), round(c[1] + 0.085 * size * math.sin(angle)))
        cv2.line(picture, c, tip, (skin * 0.94).tolist(), max(2, round(0.028 * size)))
