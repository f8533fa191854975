"""The house of the phantom: nine rooms with doorways, each with its paper on the walls, and four things that something is done with.

Lengths are in units of a doorway's width. Cell (i, j) of the plan covers [i, i + 1) x [j, j + 1); walls are cells. Room r has its column r % 3 and
row r // 3; within it the 3 x 3 cells between the walls are free.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDE = 3  # rooms along each side
PITCH = 4  # cells from one wall to the next
CELLS = SIDE * PITCH + 1
ROOMS = ("kitchen", "pantry", "bathroom", "office", "hall", "workshop", "bedroom", "lounge", "nursery")
DOORWAY = len(ROOMS)  # what a doorway is in `ROOM_OF`
WALL = -1

Point = tuple[float, float]

# What each room holds: something with a door, what lies in it, something to switch on, something to push. Words repeat from room to room, as they do
# in narrations.
HELD: dict[str, tuple[str, str, str, str]] = {
    "kitchen": ("fridge", "bottle", "kettle", "chair"),
    "pantry": ("cupboard", "pot", "lamp", "box"),
    "bathroom": ("cupboard", "cloth", "fan", "box"),
    "office": ("drawer", "book", "lamp", "chair"),
    "hall": ("locker", "hammer", "radio", "cart"),
    "workshop": ("drawer", "knife", "fan", "cart"),
    "bedroom": ("locker", "cloth", "lamp", "chair"),
    "lounge": ("fridge", "cup", "tv", "chair"),
    "nursery": ("drawer", "cup", "radio", "box"),
}
USES = {
    "bottle": "shake", "pot": "stir", "cloth": "wipe", "book": "read", "hammer": "hammer", "knife": "cut", "cup": "drink",
}  # fmt: skip
OPPOSITES = (("open", "close"), ("pick up", "put down"), ("turn on", "turn off"), ("push", "pull"))
VERBS = (*(verb for pair in OPPOSITES for verb in pair), *sorted(set(USES.values())))
NOUNS = tuple(sorted({noun for held in HELD.values() for noun in held}))
PLACES = ("door", "table", "switch", "load")  # of a room, in the corners


@dataclass(frozen=True)
class Station:
    """A place in a room at which something is done. kind: of PLACES; noun: what stands there ("table": the thing that is put on it). at: where it
    stands; stand: where one stands to do it."""

    room: int
    kind: str
    noun: str
    at: Point
    stand: Point


def plan() -> NDArray[np.int64]:
    """(CELLS, CELLS), [x, y]: the room of a free cell, DOORWAY, or WALL."""
    cells = np.full((CELLS, CELLS), WALL)
    for room in range(SIDE * SIDE):
        x, y = corner(room)
        cells[x : x + 3, y : y + 3] = room
        if room % SIDE < SIDE - 1:
            cells[x + 3, y + 1] = DOORWAY
        if room // SIDE < SIDE - 1:
            cells[x + 1, y + 3] = DOORWAY
    return cells


def corner(room: int) -> tuple[int, int]:
    """The first free cell of a room."""
    return room % SIDE * PITCH + 1, room // SIDE * PITCH + 1


def middle(room: int) -> Point:
    """Its centre."""
    x, y = corner(room)
    return x + 1.5, y + 1.5


def room_at(point: Point) -> int:
    """The room of a point, doorways counted to the nearer side."""
    return min(SIDE - 1, int((point[0] - 0.5) / PITCH)) + SIDE * min(SIDE - 1, int((point[1] - 0.5) / PITCH))


def neighbours(room: int) -> list[int]:
    """Rooms that a doorway leads to."""
    x, y = room % SIDE, room // SIDE
    around = [(x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)]
    return [a + SIDE * b for a, b in around if 0 <= a < SIDE and 0 <= b < SIDE]


def door(room: int, other: int) -> Point:
    """The middle of the doorway between two neighbouring rooms."""
    (x0, y0), (x1, y1) = middle(room), middle(other)
    return (x0 + x1) / 2, (y0 + y1) / 2


def route(room: int, goal: int) -> list[int]:
    """The rooms on the shortest way, without the first."""
    before: dict[int, int] = {room: room}
    edge = [room]
    while goal not in before:
        further = [(other, one) for one in edge for other in neighbours(one) if other not in before]
        before |= dict(further)
        edge = [other for other, _ in further]
    way = []
    while goal != room:
        way.append(goal)
        goal = before[goal]
    return way[::-1]


def stations() -> list[Station]:
    """Four of each room, in its corners."""
    found = []
    for room, name in enumerate(ROOMS):
        x, y = middle(room)
        for number, kind in enumerate(PLACES):
            dx, dy = (-1, 1)[number % 2], (-1, 1)[number // 2]
            at, stand = (x + 1.02 * dx, y + 1.12 * dy), (x + 0.62 * dx, y + 0.2 * dy)
            held = dict(zip(PLACES, HELD[name], strict=True))
            found.append(Station(room, kind, held[kind], at, stand))
    return found
