"""An event as it looks at any time: where people are and what they do with their hands, and in which state things are."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from domains.egocentric.house import HELD, ROOMS, USES, Point, Station, stations
from domains.egocentric.life import TICK, Act, Change, Event, smooth

REACHED = 0.22  # share of an action after which the hand is there; it leaves as long before the end


@dataclass(frozen=True)
class Body:
    """One person now. step: phase of the walk (radians); speed: units a second; act: what is being done, and how far (0 to 1); held: the thing in the
    hand, "" for none."""

    number: int
    team: int
    looks: tuple[int, int, float]
    x: float
    y: float
    heading: float
    step: float
    speed: float
    act: Act | None
    done: float
    held: str

    @property
    def reach(self) -> float:
        """0: hands at rest, 1: at the thing."""
        if self.act is None:
            return 0.0
        return smooth(min(self.done, 1 - self.done) / REACHED)


class Stage:
    """Looks up an event by time (s)."""

    def __init__(self, event: Event) -> None:
        self.event = event
        self.stations = stations()
        self._changes: dict[tuple[int, str], list[Change]] = defaultdict(list)
        for change in event.changes:
            self._changes[change.room, change.what].append(change)
        self._acts: dict[int, list[Act]] = defaultdict(list)
        for act in event.acts:
            self._acts[act.person].append(act)
        self._held = self._holding()
        self._uses: dict[int, list[tuple[float, float]]] = defaultdict(list)  # of each room's thing, where it lies
        for act in event.acts:
            if act.verb in USES.values():
                aside = REACHED * (act.end - act.start)
                self._uses[act.station.room].append((act.start + aside, act.end - aside))
        self._tracks = [np.array([person.xs, person.ys, person.headings, person.steps]) for person in event.people]

    def _holding(self) -> dict[int, list[tuple[float, float, str]]]:
        """person -> from when to when what is in the hand."""
        found: dict[int, list[tuple[float, float, str]]] = defaultdict(list)
        begun: dict[int, tuple[float, str]] = {}
        for change in self.event.changes:
            if change.what != "item":
                continue
            if change.after == 2:
                begun[change.person] = change.start, HELD[ROOMS[change.room]][1]
            elif change.person in begun:
                start, noun = begun.pop(change.person)
                found[change.person].append((start, change.end, noun))
        for person, (start, noun) in begun.items():
            found[person].append((start, self.event.seconds + 1, noun))
        return found

    def light(self, time: float) -> float:
        """0 by night, 1 by day."""
        return float(np.interp(time, self.event.times, self.event.light))

    def lit(self, time: float) -> list[float]:
        """What lamps add to each room, 0 to 1."""
        share = {"lamp": 1.0, "tv": 0.5}
        return [share.get(HELD[name][2], 0.0) * self.state(room, "on", time) for room, name in enumerate(ROOMS)]

    def state(self, room: int, what: str, time: float) -> float:
        """A state of a room's things, between its values while it changes."""
        value = self.event.start[room, what]
        for change in self._changes[room, what]:
            if change.start > time:
                break
            done = (time - change.start) / max(1e-6, change.end - change.start)
            value = change.before + (change.after - change.before) * smooth(done)
        return value

    def lying(self, room: int, time: float) -> int | None:
        """Where a room's thing lies: 0 behind the door, 1 on the table; None in somebody's hand."""
        value = self.event.start[room, "item"]
        for change in self._changes[room, "item"]:
            if change.start > time:
                break
            value = change.after if time >= change.end else 2.0
        in_use = any(start <= time <= end for start, end in self._uses[room])
        return None if value == 2 or in_use else int(value)

    def place_of(self, station: Station, time: float) -> Point:
        """Where a station's thing stands: what is pushed is further away."""
        if station.kind != "load":
            return station.at
        near = 1 - self.state(station.room, "far", time)
        (x, y), (u, v) = station.at, station.stand
        return x + (u - x) * 0.42 * near, y + (v - y) * 0.42 * near

    def body(self, number: int, time: float) -> Body:
        """Person `number` now."""
        person, track = self.event.people[number], self._tracks[number]
        at = min(max(time / TICK, 0.0), track.shape[1] - 1.001)
        low, share = int(at), at % 1
        x, y, heading, step = track[:, low] + (track[:, low + 1] - track[:, low]) * share
        speed = float(np.hypot(*(track[:2, low + 1] - track[:2, low]))) / TICK
        act = next((one for one in self._acts[number] if one.start <= time < one.end), None)
        done = (time - act.start) / (act.end - act.start) if act is not None else 0.0
        held = next((noun for start, end, noun in self._held[number] if start <= time < end), "")
        return Body(
            number, person.team, person.looks, float(x), float(y), float(heading), float(step), speed, act, done, held
        )  # fmt: skip
