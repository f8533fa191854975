"""Who films an event, from when to when, on which clock; and what a camera shows, feels and sees of people at any second of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from domains.egocentric.eyes import EYE, VIEW, Camera, House, Met
from domains.egocentric.figures import JOINTS, TEAMS
from domains.egocentric.house import CELLS, USES, room_at
from domains.egocentric.life import TICK
from domains.egocentric.stage import Stage

RATES = (8.0, 10.0, 12.0)  # frames a second of cameras
IMU_RATE = 50.0  # samples a second
IMU = ("ax", "ay", "az", "gx", "gy", "gz")  # m/s2 ahead, to the left and up; radians a second
UNIT = 0.9  # m
BESIDE = 1.25  # units from the person that the standing camera films
DOWN, AT_WORK = -5.0, -16.0  # pixels that the horizon is moved: people look down a little, and at what they do
SHOWN = 0.3  # share of a figure that must be in sight for its pose to count
MAP = 30  # pixels of the map that a head-up display has
DISPLAY = (
    (0.0, 0.0, (MAP + 4) / VIEW, (MAP + 4) / VIEW),
    (1 - 36 / VIEW, 0.0, 1.0, 16 / VIEW),
)  # where it is, in shares of the view: map and clock

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Clock:
    """A camera of an event. person: who wears it, or (exo) is filmed. Second t of the event is t * (1 + drift) + offset of the recording, which lasts
    `seconds` of its own."""

    name: str
    person: int
    exo: bool
    fps: float
    offset: float
    drift: float
    seconds: float

    def own(self, time: float) -> float:
        """Second of the recording."""
        return time * (1 + self.drift) + self.offset

    def of_event(self, own: float) -> float:
        """Second of the event."""
        return (own - self.offset) / (1 + self.drift)

    @property
    def frames(self) -> int:
        """Of the recording."""
        return int(self.seconds * self.fps)


def clocks(rng: np.random.Generator, people: int, seconds: float, exo: bool) -> list[Clock]:
    """A camera of each person, and one beside the first. They begin within the first seconds; a third are switched off before the end."""
    found = []
    for number in range(people + exo):
        beside = number == people
        start = float(rng.uniform(0, min(2.0, 0.1 * seconds)))
        end = seconds * float(rng.uniform(0.5, 0.85) if rng.random() < 1 / 3 and number else rng.uniform(0.97, 1.0))
        drift, fps = float(rng.uniform(-2e-3, 2e-3)), float(rng.choice(RATES))
        offset = -start * (1 + drift)
        name = "exo" if beside else f"person_{number}"
        found.append(Clock(name, 0 if beside else number, beside, fps, offset, drift, (end - start) * (1 + drift)))
    return found


class Filming:
    """One camera at work."""

    def __init__(self, house: House, clock: Clock, *, hud: bool = False) -> None:
        self.house, self.clock, self.hud = house, clock, hud
        self.stage: Stage = house.stage
        self._aim: float | None = None
        self.poses: list[NDArray[np.float64] | None] = []  # of each frame that was made, (J, 2) or nobody in sight

    def __iter__(self) -> Iterator[Picture]:
        self._aim, self.poses = None, []
        for number in range(self.clock.frames):
            time = self.clock.of_event(number / self.clock.fps)
            picture, met = self.house.look(self.at(time), time, None if self.clock.exo else self.clock.person)
            self.poses.append(self._pose(met))
            yield draw_display(picture, self.stage, self.clock, time) if self.hud and not self.clock.exo else picture

    def at(self, time: float) -> Camera:
        """Where the camera is; of one that stands beside, after the times before."""
        body = self.stage.body(self.clock.person, time)
        if not self.clock.exo:
            bob = 0.02 * math.sin(2 * body.step) if body.speed > 0.1 else 0.0
            look = 0.015 * math.sin(1.7 * time + self.clock.person)
            return Camera(body.x, body.y, body.heading + look, EYE + bob, DOWN + (AT_WORK - DOWN) * body.reach)
        wanted = body.heading + math.pi - 0.9  # behind, and to the side
        if self._aim is None:
            self._aim = wanted
        self._aim += 0.12 * ((wanted - self._aim + math.pi) % (2 * math.pi) - math.pi)
        far = min(BESIDE, self.house.clear((body.x, body.y), self._aim) - 0.12)
        x, y = body.x + far * math.cos(self._aim), body.y + far * math.sin(self._aim)
        return Camera(x, y, self._aim + math.pi, 1.05, -16.0, lamp=False)

    def _pose(self, met: list[Met]) -> NDArray[np.float64] | None:
        """Of the person that is filmed, or else of the nearest in sight."""
        seen = [one for one in met if one.shown >= SHOWN]
        if self.clock.exo:
            seen = [one for one in seen if one.number == self.clock.person]
        return min(seen, key=lambda one: one.depth).joints if seen else None


def draw_display(picture: Picture, stage: Stage, clock: Clock, time: float) -> Picture:
    """What games show over the picture: a map of where all teammates are, and a clock. It gives away what a method is asked."""
    picture = picture.copy()
    picture[2 : MAP + 2, 2 : MAP + 2] = (30, 34, 30)
    own = stage.event.people[clock.person].team
    for number, person in enumerate(stage.event.people):
        if person.team == own:
            body = stage.body(number, time)
            x, y = (round(2 + MAP * one / CELLS) for one in (body.x, body.y))
            cv2.circle(picture, (x, y), 2, TEAMS[own % len(TEAMS)], -1)
    cv2.putText(
        picture,
        f"{int(time) // 60}:{int(time) % 60:02d}",
        (VIEW - 34, 12),
        cv2.FONT_HERSHEY_SIMPLEX,
        0.35,
        (255, 255, 255),
        1,
    )
    return picture


def inertia(stage: Stage, clock: Clock, rng: np.random.Generator) -> NDArray[np.float64]:
    """(n, 7): seconds of the recording, then IMU, as the wrist of the wearer feels it: walking, turning, reaching, and what is done with a tool."""
    own = np.arange(0, clock.seconds, 1 / IMU_RATE)
    times = np.array([clock.of_event(one) for one in own])
    person = stage.event.people[clock.person]
    grid = np.arange(len(person.xs)) * TICK
    kernel = np.hanning(9) / np.hanning(9).sum()

    def track(values: list[float]) -> NDArray[np.float64]:
        padded = np.pad(np.array(values), 4, mode="edge")
        return np.convolve(padded, kernel, mode="valid")

    x, y, heading = (track(values) for values in (person.xs, person.ys, person.headings))
    ax, ay = (np.gradient(np.gradient(one * UNIT, TICK), TICK) for one in (x, y))
    ahead, aside = ax * np.cos(heading) + ay * np.sin(heading), -ax * np.sin(heading) + ay * np.cos(heading)
    speed = np.hypot(np.gradient(x, TICK), np.gradient(y, TICK))
    step = np.array(person.steps)
    up = 9.81 + 2.2 * speed * np.sin(2 * step)
    bodies = [stage.body(clock.person, float(time)) for time in times]
    reach = np.array([body.reach for body in bodies])
    pushed = 2.2 * np.gradient(np.gradient(reach, 1 / IMU_RATE), 1 / IMU_RATE) * 0.12
    shake = np.array(
        [
            _tool(body.act.verb, body.done * (body.act.end - body.act.start)) * (body.reach > 0.9) if body.act else 0.0
            for body in bodies
        ]
    )
    columns = [np.interp(times, grid, one) for one in (ahead, aside, up)]
    columns[0] += pushed
    columns[2] += shake
    turning = np.gradient(heading, TICK)
    columns += [
        0.4 * np.interp(times, grid, speed * np.sin(step)),
        0.5 * np.gradient(reach, 1 / IMU_RATE),
        np.interp(times, grid, turning),
    ]
    noise = rng.normal(0, (0.08, 0.08, 0.08, 0.02, 0.02, 0.02), (len(own), 6))
    return np.column_stack([own, np.column_stack(columns) + noise])


def _tool(verb: str, seconds: float) -> float:
    """What the wrist feels of a tool, m/s2."""
    if verb not in USES.values():
        return 0.0
    rate = {"hammer": 1.7, "cut": 2.4, "wipe": 1.4, "stir": 1.7, "shake": 3.4}.get(verb, 0.3)
    return (6.0 if verb == "hammer" else 3.0) * math.sin(2 * math.pi * rate * seconds)


def where(stage: Stage, number: int) -> NDArray[np.int64]:
    """(ticks,): the room that a person is in."""
    person = stage.event.people[number]
    return np.array([room_at(point) for point in zip(person.xs, person.ys, strict=True)])


__all__ = ["IMU", "JOINTS", "Clock", "Filming", "clocks", "inertia", "where"]
