"""A procedure as an endoscope films it: a camera that wanders, tools that act, smoke, blood, reflections, a lens that gets dirty, a black border."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from domains.generic.textures import spectrum
from domains.surgical.instruments import draw_bag, draw_tool
from domains.surgical.operation import Operation
from domains.surgical.procedure import Act, Procedure
from domains.surgical.room import SIDE, draw_room, draw_tube
from domains.surgical.tissue import State, between

VIEW = (240, 320)  # height, width of a frame
SHOWN = 448.0  # pixels of the field that the width of a frame shows at zoom 1
SLIDE = 0.6  # seconds in which a tool comes in or leaves
Picture = NDArray[np.uint8]
Vector = NDArray[np.float64]

FROM = {
    "Grasper": 172.0,
    "Hook": 28.0,
    "Bipolar": 40.0,
    "Scissors": 24.0,
    "Clipper": 34.0,
    "Irrigator": 48.0,
}  # degrees, y down
REACH = 34.0  # pixels about a grasper that follow it
WIDTH = 11.0  # pixels of a shaft at its tip, at zoom 1
BURNS = {"Hook", "Bipolar"}  # and smoke


@dataclass
class Look:
    """Where the camera is: centre of the view in the field, zoom, roll in radians."""

    x: float
    y: float
    zoom: float
    roll: float

    def matrix(self) -> NDArray[np.float64]:
        """(2, 3): from the field to the view."""
        scale = self.zoom * VIEW[1] / SHOWN
        c, s = scale * np.cos(self.roll), scale * np.sin(self.roll)
        turn = np.array([[c, -s], [s, c]])
        shift = np.array([VIEW[1] / 2, VIEW[0] / 2]) - turn @ np.array([self.x, self.y])
        return np.column_stack([turn, shift])


class Film:
    """Frames of a procedure, (*VIEW, 3) uint8 RGB, `fps` a second; iterate once. glass: what they are seen through."""

    def __init__(self, operation: Operation, procedure: Procedure, rng: np.random.Generator, fps: float) -> None:
        self._operation, self._procedure, self._rng, self._fps = operation, procedure, rng, fps
        self._field = operation.field(rng)
        self._painted: tuple[State, Picture] | None = None
        self.glass = Glass(rng)
        self._smoke, self._clouds = 0.0, _clouds(rng)
        self._phase_of = {act: float(rng.uniform(0, 6)) for act in procedure.acts}
        self._angle_of = {act: np.deg2rad(FROM.get(act.tool, 90.0) + rng.normal(0, 9)) for act in procedure.acts}
        self._rooms = {one: draw_room(rng) for one in procedure.outside if one.value == "room"}
        self._roll = float(rng.normal(0, 0.05))
        self._wander = rng.normal(0, 1, 4)

    def __iter__(self) -> Iterator[Picture]:
        look = Look(*self._operation.gaze[self._procedure.phases[0].value], self._roll)
        cleaned = 0.0
        for number in range(int(self._procedure.seconds * self._fps)):
            time = number / self._fps
            self._move(look, time)
            out = self._procedure.outside_at(time)
            if out is not None and out.value == "room":
                self._smoke, cleaned = 0.0, time
                room = self._rooms[out]
                yield self.glass.show(self._pan(room, time), 0.0, self._rng)
                continue
            dirt = min(1.0, (time - cleaned) / 150) + 0.25 * self._blood(time)
            picture = self._body(look, time)
            if out is not None:
                gone = (time - out.start) / (out.end - out.start)
                inwards = self._procedure.outside_at(out.start - 0.01) is not None
                picture = draw_tube(picture, 0.08 + 0.95 * (gone if inwards else 1 - gone), self._wander[0])
            yield self.glass.show(picture, dirt, self._rng)

    def _move(self, look: Look, time: float) -> None:
        """A step towards where the phase looks, with the wandering and trembling of a hand, and breath."""
        x, y, zoom = self._operation.gaze[self._procedure.phase_at(time).value]
        self._wander = 0.94 * self._wander + 0.34 * self._rng.normal(0, 1, 4)
        goal = (x + 16 * self._wander[0], y + 12 * self._wander[1], zoom * np.exp(0.07 * self._wander[2]))
        pull = 1 - np.exp(-1.1 / self._fps)
        look.x += pull * (goal[0] - look.x) + 0.5 * self._rng.normal()
        look.y += pull * (goal[1] - look.y) + 0.5 * self._rng.normal() + 0.5 * np.cos(2 * np.pi * time / 4)
        look.zoom += pull * (float(goal[2]) - look.zoom)
        look.roll = self._roll + 0.03 * float(self._wander[3])

    def _blood(self, time: float) -> float:
        """Blood that lies about: it wells up in seconds, and is sucked away when the field is cleaned."""
        found = 0.0
        for begun, much in self._procedure.bleeding:
            if time > begun:
                found += much * (1 - np.exp(-(time - begun) / 3)) * np.exp(-(time - begun) / 45)
        return min(1.0, found) * (1 - 0.9 * self._procedure.progress(self._operation.cleaning, time))

    def _body(self, look: Look, time: float) -> Picture:
        """The view within the body, before the glass."""
        state = self._field.state(lambda phase: self._procedure.progress(phase, time), self._blood(time))
        shown = replace(state, raised=0.0)  # the bag is drawn into the view, not painted
        if self._painted is None or shown != self._painted[0]:
            self._painted = shown, self._field.paint(shown)
        matrix = look.matrix()
        acts = [act for act in self._procedure.acts if act.start <= time < act.end]
        tips = {act: self._tip(act, time, matrix, state) for act in acts if act.tool != "SpecimenBag"}
        picture = self._warp(self._painted[1], matrix, acts, tips, time)
        size = WIDTH * look.zoom
        for act in acts:
            if act.tool == "SpecimenBag":
                way = between(self._field.bag, self._field.dome, min(1.0, 1.15 * state.raised))
                place = _at(matrix, np.array(way)) + (1 - _eased(act, time)) * np.array([0.0, -VIEW[0]])
                draw_bag(picture, place, 2.6 * size * (1 - 0.35 * state.raised), state.bagged, np.sin(time))
        burning = False
        for act in acts:
            if act.tool != "SpecimenBag":
                angle = self._angle_of[act]
                towards = np.array([np.cos(angle), np.sin(angle)])
                draw_tool(picture, act.tool, tips[act], towards, size, self._open(act, time))
                burning |= act.tool in BURNS and np.sin(2.1 * time + self._phase_of[act]) > 0.1
        self._smoke = min(1.0, self._smoke * np.exp(-0.4 / self._fps) + (0.16 / self._fps if burning else 0.0))
        return self._fog(picture, time)

    def _tip(self, act: Act, time: float, matrix: NDArray[np.float64], state: State) -> Vector:
        """Where the tip is in the view: at what it works on, in strokes; out of the picture when it comes and goes."""
        place = np.array(self._field.target(act, state))
        phase = self._phase_of[act]
        reach = {"Grasper": (7, 5), "Hook": (15, 11), "Irrigator": (20, 10), "Bipolar": (7, 6)}.get(act.tool, (4, 4))
        place = place + np.array([reach[0] * np.sin(1.7 * time + phase), reach[1] * np.sin(2.9 * time + 2 * phase)])
        place = place + 14 * np.array([np.cos(phase * 3), np.sin(phase * 5)])
        angle = self._angle_of[act]
        away = (1 - _eased(act, time)) * 0.75 * VIEW[1]
        tip = _at(matrix, place)
        middle = np.array([VIEW[1] / 2, VIEW[0] / 2])
        tip = middle + np.clip(tip - middle, [-0.36 * VIEW[1], -0.40 * VIEW[0]], [0.36 * VIEW[1], 0.40 * VIEW[0]])
        return tip + away * np.array([np.cos(angle), np.sin(angle)])

    def _open(self, act: Act, time: float) -> float:
        """How far jaws are apart, or whether water flows."""
        if act.tool == "Grasper":
            return float(1 - _eased(act, time)) + 0.06
        if act.tool == "Irrigator":
            return float("irrigate" in act.action) * (0.6 + 0.3 * np.sin(7 * time))
        return float(0.5 + 0.5 * np.sin(2.4 * time + self._phase_of[act]))

    def _warp(
        self, field: Picture, matrix: NDArray[np.float64], acts: list[Act], tips: dict[Act, Vector], time: float
    ) -> Picture:
        """The field through the camera, pulled along by graspers, with reflections that wander as it moves."""
        back = cv2.invertAffineTransform(matrix).astype(np.float32)
        mx, my = (row[0] * _X[None, :] + (row[1] * _Y + row[2])[:, None] for row in back)
        for act in acts:
            if act.tool == "Grasper" and "retract" in act.action:
                near = np.outer(
                    *(
                        np.exp(-((line - at) ** 2) / (2 * REACH**2))
                        for line, at in zip((_Y, _X), tips[act][::-1], strict=True)
                    )
                )
                pull = (
                    9 * _eased(act, time) * np.array([np.sin(0.9 * time), 0.6 + 0.4 * np.cos(0.7 * time)], np.float32)
                )
                mx += pull[0] * near
                my += pull[1] * near
        mx, my = np.asarray(mx, np.float32), np.asarray(my, np.float32)
        picture = cv2.remap(field, mx, my, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        turn = 0.03 * (matrix[0, 2] + matrix[1, 2])
        # At half the size: a third of the time, and reflections are soft.
        shine = cv2.remap(
            self._field.gloss, mx[::2, ::2], my[::2, ::2], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        glint = cv2.transform(shine, np.array([[np.cos(turn), np.sin(turn)]]) * 200.0) - 2.6 * 200
        glint = cv2.resize(np.clip(glint, 0, 190).astype(np.uint8), VIEW[::-1], interpolation=cv2.INTER_LINEAR)
        return np.asarray(cv2.add(picture, cv2.merge([glint, glint, glint])), np.uint8)

    def _fog(self, picture: Picture, time: float) -> Picture:
        if self._smoke < 0.03:
            return picture
        height, width = VIEW
        x, y = int(37 * time) % (512 - width), int(512 - height - (23 * time) % (512 - height)) - 1
        cloud = self._clouds[max(0, y) : max(0, y) + height, x : x + width]
        return _veil(
            picture, cv2.merge([cv2.convertScaleAbs(cloud, alpha=min(0.75, self._smoke))] * 3), (196, 188, 186)
        )

    def _pan(self, room: Picture, time: float) -> Picture:
        x = SIDE / 2 + 50 * np.sin(0.7 * time + self._wander[0])
        y = SIDE / 2 + 40 * np.sin(0.5 * time + 1)
        turn = cv2.getRotationMatrix2D((float(x), float(y)), 10 * float(np.sin(0.4 * time)), 0.82)
        turn[:, 2] += (VIEW[1] / 2 - x, VIEW[0] / 2 - y)
        return np.asarray(
            cv2.warpAffine(room, turn, (VIEW[1], VIEW[0]), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT),
            np.uint8,
        )


class Glass:
    """What stands between: lens, light that falls off, the border and what the tower writes into it, the sensor's noise.

    picture, letters: (H, W), True within the border, and where something is written.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        height, width = VIEW
        y, x = np.mgrid[:height, :width].astype(np.float32)
        round_ = rng.random() < 0.8
        centre = (width / 2 + float(rng.normal(0, 3)), height / 2 + float(rng.normal(0, 2)))
        self.radius = float(rng.uniform(0.40, 0.47)) * width if round_ else 2.0 * width
        distance = np.hypot(x - centre[0], y - centre[1])
        light = 1.08 - 0.5 * (distance / (0.5 * width)) ** 2
        self.picture = distance <= self.radius
        rim = np.clip((self.radius - distance) / 1.5, 0, 1)
        self._light = cv2.merge([np.clip(255 * light * rim, 0, 255).astype(np.uint8)] * 3)
        self._noise = [rng.normal(0, 2.2, (height, width, 3)).astype(np.int16) for _ in range(3)]
        self._drops = _drops(rng)
        self._text = np.zeros((height, width, 3), np.uint8)
        if round_ and rng.random() < 0.6:
            name = NAMES[int(rng.integers(len(NAMES)))]
            for line, (text, row) in enumerate(
                ((name, 12), (str(int(rng.integers(1940, 2000))), 24), ("CO2", height - 14), ("12", height - 4))
            ):
                colour = (220, 220, 220) if line < 2 else (120, 210, 220)
                cv2.putText(self._text, text, (3, row), cv2.FONT_HERSHEY_SIMPLEX, 0.34, colour, 1, cv2.LINE_AA)

    @property
    def letters(self) -> NDArray[np.bool_]:
        return np.asarray(self._text.max(axis=2) > 90)

    def show(self, picture: Picture, dirt: float, rng: np.random.Generator) -> Picture:
        """dirt: of the lens, in [0, 1]."""
        if dirt > 0.3:
            picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), 0.3 + 1.1 * dirt), np.uint8)
            thick = cv2.convertScaleAbs(self._drops, alpha=min(1.0, dirt) * 0.8)
            picture = _veil(picture, thick, (96, 20, 20))
        lit = cv2.multiply(picture, self._light, scale=1 / 255 * (1 + 0.02 * rng.normal()))
        noisy = np.clip(lit + self._noise[int(rng.integers(3))], 0, 255).astype(np.uint8)
        return np.maximum(noisy, self._text)


NAMES = ("ADL", "BRA", "CAS", "DUA", "EKH", "FAR", "GRI", "HAL")
_X, _Y = np.arange(VIEW[1], dtype=np.float32), np.arange(VIEW[0], dtype=np.float32)


def _veil(picture: Picture, thick: Picture, colour: tuple[int, int, int]) -> Picture:
    """A colour over the picture, as thick as `thick` (H, W, 3) says in [0, 255]."""
    tint = cv2.multiply(thick, (*map(float, colour), 0.0), scale=1 / 255)
    return np.asarray(cv2.add(cv2.multiply(picture, 255 - thick, scale=1 / 255), tint), np.uint8)


def _at(matrix: NDArray[np.float64], place: Vector) -> Vector:
    """A place of the field in the view."""
    found: Vector = matrix[:, :2] @ np.asarray(place, float) + matrix[:, 2]
    return found


def _eased(act: Act, time: float) -> float:
    """0 out of the picture, 1 at work."""
    return float(np.clip(min(time - act.start + 0.2, act.end - time) / SLIDE, 0, 1))


def _clouds(rng: np.random.Generator) -> NDArray[np.uint8]:
    """(512, 512): how thick smoke is."""
    noise = spectrum(512, 24, 1.0, rng)
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    return (60 + 195 * noise).astype(np.uint8)


def _drops(rng: np.random.Generator) -> Picture:
    """Splashes on the lens."""
    drops = np.zeros(VIEW, np.uint8)
    for _ in range(int(rng.integers(3, 9))):
        x, y = int(rng.integers(0, VIEW[1])), int(rng.integers(0, VIEW[0]))
        cv2.ellipse(
            drops,
            (x, y),
            (int(rng.integers(3, 12)), int(rng.integers(3, 10))),
            0,
            0,
            360,
            int(rng.integers(90, 200)),
            -1,
            cv2.LINE_AA,
        )
    soft = cv2.GaussianBlur(drops, (0, 0), 3)
    return np.asarray(cv2.merge([soft] * 3), np.uint8)
