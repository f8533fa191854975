"""What happens in an event: teams that go from room to room, and people who open, close, pick up, put down, switch, push and use things.

Whatever is done can be undone, and mostly is: actions and their opposites come equally often, in an order that follows from the state of things (what
is in the fridge is taken out after it is opened), so that the next action can be guessed from the last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from domains.egocentric.house import ROOMS, USES, Point, Station, door, middle, room_at, route, stations

TICK = 0.05  # s from one step of the simulation to the next
SPEED = 1.5  # units a second
TURN = 3.2  # radians a second
STAY = (9.0, 17.0)  # s that a team has one room as its goal
LASTS = {"use": (2.0, 3.2), "door": (1.5, 2.3), "table": (1.3, 1.9), "switch": (1.1, 1.6), "load": (1.6, 2.3)}  # s
PAUSE = (0.15, 0.7)  # s between two actions
LOITER = (0.8, 2.2)  # s of looking about

Track = NDArray[np.float64]


@dataclass(frozen=True)
class Act:
    """Somebody's action, seconds of the event. station: where."""

    person: int
    start: float
    end: float
    verb: str
    noun: str
    station: Station


@dataclass(frozen=True)
class Change:
    """From start to end a state of a station goes from one value to another. what: "open", "item" (0: in there, 1: on the table, 2: in a hand), "on",
    "far"."""

    start: float
    end: float
    room: int
    what: str
    before: float
    after: float
    person: int


@dataclass
class Person:
    """team; looks (numbers that choose skin, hair and shade). xs, ys, headings (one a TICK; radians, unwrapped), steps: the walk's phase."""

    team: int
    looks: tuple[int, int, float]
    xs: list[float] = field(default_factory=list)
    ys: list[float] = field(default_factory=list)
    headings: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Event:
    """seconds: how long. people; acts in order of time; changes; start: (room, what) -> value at 0. light: level at each TICK, 1 by day."""

    seconds: float
    people: tuple[Person, ...]
    acts: tuple[Act, ...]
    changes: tuple[Change, ...]
    start: dict[tuple[int, str], float]
    light: Track
    goals: tuple[tuple[tuple[float, int], ...], ...]

    @property
    def times(self) -> Track:
        """Of the steps of the simulation."""
        return np.arange(len(self.light), dtype=np.float64) * TICK


def smooth(x: float) -> float:
    """0 to 1, slow at both ends."""
    x = min(1.0, max(0.0, x))
    return x * x * (3 - 2 * x)


class _World:
    """What people share: the things and who is at them."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.stations = {(one.room, one.kind): one for one in stations()}
        self.state: dict[tuple[int, str], float] = {}
        for room in range(len(ROOMS)):
            self.state |= {
                (room, "open"): float(rng.random() < 0.3), (room, "item"): float(rng.integers(2)),
                (room, "on"): float(rng.random() < 0.5), (room, "far"): float(rng.random() < 0.5),
            }  # fmt: skip
        self.start = dict(self.state)
        self.taken: dict[tuple[int, str], int] = {}  # (room, group of stations) -> who is there
        self.used: set[int] = set()  # rooms whose item has been used since it came out
        self.acts: list[Act] = []
        self.changes: list[Change] = []


def live(rng: np.random.Generator, teams: list[int], seconds: float) -> Event:
    """An event of `seconds`, of people in teams (the team of each)."""
    world = _World(rng)
    goals = [_goals(rng, seconds) for _ in range(max(teams) + 1)]
    people = []
    scripts: list[Iterator[tuple[float, float, float]]] = []
    for number, team in enumerate(teams):
        looks = (int(rng.integers(4)), int(rng.integers(4)), float(rng.uniform(-1, 1)))
        people.append(Person(team, looks))
        first = goals[team][0][1]
        x, y = middle(first)
        start = (x + float(rng.uniform(-0.7, 0.7)), y + float(rng.uniform(-0.7, 0.7)))
        scripts.append(_walk(rng.spawn(1)[0], world, number, goals[team], start))
    ticks = round(seconds / TICK) + 1
    for _ in range(ticks):
        for person, script in zip(people, scripts, strict=True):
            x, y, heading = next(script)
            moved = np.hypot(x - person.xs[-1], y - person.ys[-1]) if person.xs else 0.0
            person.xs.append(x)
            person.ys.append(y)
            person.headings.append(heading)
            person.steps.append((person.steps[-1] if person.steps else 0.0) + float(moved) * 7.0)
    acts = sorted((act for act in world.acts if act.end <= seconds), key=lambda act: (act.start, act.person))
    changes = tuple(sorted(world.changes, key=lambda change: change.start))
    light = _light(rng, ticks)
    return Event(seconds, tuple(people), tuple(acts), changes, world.start, light, tuple(map(tuple, goals)))


def _goals(rng: np.random.Generator, seconds: float) -> list[tuple[float, int]]:
    """From when on a team has which room as its goal."""
    found, time, room = [], 0.0, int(rng.integers(len(ROOMS)))
    while time < seconds:
        found.append((time, room))
        time += float(rng.uniform(*STAY))
        room = int(rng.choice([other for other in range(len(ROOMS)) if other != room]))
    return found


def _light(rng: np.random.Generator, ticks: int) -> Track:
    """By day, by night, or dusk that falls or lifts."""
    first, last = rng.choice([0.0, 1.0], 2, p=[0.35, 0.65])
    level: Track = np.linspace(first, last, ticks)
    return level


def _walk(
    rng: np.random.Generator, world: _World, me: int, goals: list[tuple[float, int]], at: Point
) -> Iterator[tuple[float, float, float]]:  # fmt: skip
    """x, y and heading of one person, a step a TICK, for ever; acts are added to the world as they begin."""
    mind = _Mind(rng, world, me, goals, at)
    while True:
        yield from mind.next_thing()


class _Mind:
    """One person: where, facing where, and what next."""

    def __init__(
        self, rng: np.random.Generator, world: _World, me: int, goals: list[tuple[float, int]], at: Point
    ) -> None:
        self.rng, self.world, self.me, self.goals = rng, world, me, goals
        self.x, self.y = at
        self.heading = float(rng.uniform(-np.pi, np.pi))
        self.ticks = 0
        self.group: tuple[int, str] | None = None  # the stations that are mine for now
        self.holding = False
        self.towards = 1.0  # where what I hold goes: 1 the table, 0 back

    @property
    def time(self) -> float:
        return self.ticks * TICK

    def goal(self) -> int:
        return [room for start, room in self.goals if start <= self.time][-1]

    def next_thing(self) -> Iterator[tuple[float, float, float]]:
        here = room_at((self.x, self.y))
        if self.goal() != here and not self.holding:
            self.leave()
            yield from self.go_to_room(self.goal())
            return
        if self.group is None:
            self.group = self.choose(here)
        action = self.what_next() if self.group is not None else None
        if action is None:
            self.leave()
            yield from self.look_about()
            return
        verb, station, noun = action
        yield from self.go_to(station.stand, face=station.at)
        yield from self.act(verb, station, noun)

    def leave(self) -> None:
        if self.group is not None:
            self.world.taken.pop(self.group, None)
            self.group = None

    def choose(self, room: int) -> tuple[int, str] | None:
        """Stations of the room that nobody is at."""
        free = [group for group in ("door", "switch", "load") if (room, group) not in self.world.taken]
        if not free or self.rng.random() < 0.15:
            return None
        weights = np.array([3.0 if group == "door" else 1.0 for group in free])
        group = room, str(self.rng.choice(free, p=weights / weights.sum()))
        self.world.taken[group] = self.me
        return group

    def what_next(self) -> tuple[str, Station, str] | None:
        """verb, station and noun; None where it is done."""
        assert self.group is not None
        room, group = self.group
        state, find = self.world.state, self.world.stations
        if group in ("switch", "load"):
            if self.rng.random() < 0.3:
                return None
            on = state[room, "on" if group == "switch" else "far"] > 0.5
            verb = {"switch": ("turn on", "turn off"), "load": ("push", "pull")}[group][int(on)]
            return verb, find[room, group], find[room, group].noun
        door_, table = find[room, "door"], find[room, "table"]
        is_open, item = state[room, "open"] > 0.5, state[room, "item"]
        if self.holding and self.towards:
            return ("close", door_, door_.noun) if is_open else ("put down", table, table.noun)
        if self.holding:
            return ("put down", door_, table.noun) if is_open else ("open", door_, door_.noun)
        if item == 0 and room in self.world.used:  # it is back: close and go
            self.world.used.discard(room)
            return ("close", door_, door_.noun) if is_open else None
        if item == 0:
            return ("pick up", door_, table.noun) if is_open else ("open", door_, door_.noun)
        if room not in self.world.used:
            return USES[table.noun], table, table.noun
        return "pick up", table, table.noun

    def act(self, verb: str, station: Station, noun: str) -> Iterator[tuple[float, float, float]]:
        kind = "use" if verb in USES.values() else station.kind
        lasts = float(self.rng.uniform(*LASTS[kind]))
        start, room = self.time, station.room
        self.world.acts.append(Act(self.me, start, start + lasts, verb, noun, station))
        self.change(verb, room, start + 0.25 * lasts, start + 0.8 * lasts)
        sway = self.rng.uniform(0, 6, 2)
        for _ in range(round(lasts / TICK)):
            self.turn_to(np.arctan2(station.at[1] - self.y, station.at[0] - self.x))
            self.heading += 0.006 * float(np.sin(3 * self.time + sway[0]))
            yield self.here()
        yield from self.wait(float(self.rng.uniform(*PAUSE)), None)

    def change(self, verb: str, room: int, start: float, end: float) -> None:
        """The state of things after an action."""
        what, after = {
            "open": ("open", 1.0), "close": ("open", 0.0), "turn on": ("on", 1.0), "turn off": ("on", 0.0),
            "push": ("far", 1.0), "pull": ("far", 0.0), "pick up": ("item", 2.0), "put down": ("item", self.towards),
        }.get(verb, ("", 0.0))  # fmt: skip
        if not what:
            self.world.used.add(room)
            return
        before = self.world.state[room, what]
        if verb == "pick up":
            self.towards, self.holding = (1.0 if before == 0 else 0.0), True
        elif verb == "put down":
            self.holding = False
        self.world.state[room, what] = after
        self.world.changes.append(Change(start, end, room, what, before, after, self.me))

    def go_to_room(self, goal: int) -> Iterator[tuple[float, float, float]]:
        here = room_at((self.x, self.y))
        for room in route(here, goal):
            yield from self.go_to(door(here, room), face=None)
            here = room
            (x, y), spread = middle(room), self.rng.uniform(-0.5, 0.5, 2)  # around the corner between two doorways
            yield from self.go_to((x + float(spread[0]), y + float(spread[1])), face=None)

    def go_to(self, point: Point, face: Point | None) -> Iterator[tuple[float, float, float]]:
        while (far := float(np.hypot(point[0] - self.x, point[1] - self.y))) > 0.03:
            wanted = float(np.arctan2(point[1] - self.y, point[0] - self.x))
            off = self.turn_to(wanted)
            step = min(far, SPEED * TICK * max(0.15, 1 - abs(off)))  # who turns, walks slower
            self.x += step * (point[0] - self.x) / far
            self.y += step * (point[1] - self.y) / far
            yield self.here()
        if face is not None:
            while abs(self.turn_to(np.arctan2(face[1] - self.y, face[0] - self.x))) > 0.04:
                yield self.here()

    def look_about(self) -> Iterator[tuple[float, float, float]]:
        yield from self.wait(float(self.rng.uniform(*LOITER)), self.heading + float(self.rng.uniform(-2.2, 2.2)))

    def wait(self, seconds: float, heading: float | None) -> Iterator[tuple[float, float, float]]:
        for _ in range(max(1, round(seconds / TICK))):
            if heading is not None:
                self.turn_to(heading)
            yield self.here()

    def turn_to(self, wanted: float) -> float:
        """Turn towards a heading; what is left (radians)."""
        off = float((wanted - self.heading + np.pi) % (2 * np.pi) - np.pi)
        turned = float(np.clip(off * 0.35, -TURN * TICK, TURN * TICK))
        self.heading += turned
        return off - turned

    def here(self) -> tuple[float, float, float]:
        self.ticks += 1
        return self.x, self.y, self.heading
