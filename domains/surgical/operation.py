"""A kind of operation, as far as the phantom knows it, and how one of them is drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from domains.surgical.procedure import Act, Procedure, Stretch
from domains.surgical.tissue import Field

SPREAD = 0.35  # of the logarithm of the seconds that a phase takes
IN_VIEW = (5.0, 14.0)  # seconds of the phantom that a tool stays
Actions = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Operation:
    """A kind of operation: what happens in it, what is said of it, how it looks.

    name: of the class. title: what a video of it is called. seconds: of each phase in the median, at the pace of an operation. order(rng): phases as
    they come. tools: by phase and tool, the share of the time that it is in view and the part of the phase in which it comes at all. actions: by
    tool and phase ("" for all others), instrument,verb,target; a tool without any does nothing that has a name. long: phases in which blood flows and
    the lens is cleaned. cleaning: the phase in which blood is sucked away. gaze: where the camera looks, x and y of the field and zoom.

    opening, steps: what is said when a phase begins, and what an author writes of it. spoken: what is said of an action. told(procedure): further
    sentences of the abstract, before those that all operations have.
    """

    name: str
    title: str
    seconds: Mapping[str, float]
    order: Callable[[np.random.Generator], list[str]]
    tools: Mapping[str, Mapping[str, tuple[float, float, float]]]
    actions: Mapping[str, Actions]
    long: tuple[str, ...]
    cleaning: str
    gaze: Mapping[str, tuple[float, float, float]]
    opening: Actions
    spoken: Actions
    steps: Mapping[str, str]
    told: Callable[[Procedure], list[str]]
    field: Callable[[np.random.Generator], Field]

    @property
    def phases(self) -> tuple[str, ...]:
        """In the usual order."""
        return tuple(self.seconds)

    def draw(self, rng: np.random.Generator, pace: float) -> Procedure:
        """One of them; pace: how many times faster than an operation. Nothing else is shortened."""
        phases = _draw_phases(self, rng, pace)
        outside = _draw_outside(self, phases, rng)
        acts = tuple(sorted(_draw_acts(self, phases, outside, rng), key=lambda act: (act.start, act.tool)))
        bleeding = []
        for one in phases:
            if one.value in self.long:
                for _ in range(int(rng.poisson(0.8))):
                    bleeding.append((float(rng.uniform(one.start, one.end)), float(rng.uniform(0.3, 1.0))))
        return Procedure(phases, acts, outside, tuple(sorted(bleeding)))


def draw_ending(endings: Sequence[tuple[float, tuple[str, ...]]], rng: np.random.Generator) -> tuple[str, ...]:
    """One of several ways to go on, each with how often it is taken."""
    return endings[int(rng.choice(len(endings), p=[weight for weight, _ in endings]))][1]


def _draw_phases(operation: Operation, rng: np.random.Generator, pace: float) -> tuple[Stretch, ...]:
    order = operation.order(rng)
    now, phases = 0.0, []
    for phase in order:
        share = 1 / order.count(phase)
        length = operation.seconds[phase] / pace * share * float(np.exp(rng.normal(0, SPREAD)))
        end = round(now + max(length, 2.0), 1)
        phases.append(Stretch(now, end, phase))
        now = end
    return tuple(phases)


def _draw_outside(operation: Operation, phases: tuple[Stretch, ...], rng: np.random.Generator) -> tuple[Stretch, ...]:
    """Before the endoscope goes in, after it came out, and between, where the lens is cleaned. Through the trocar each time."""
    end = phases[-1].end
    short = min(1.0, end / 120)  # of the quickest operations not everything is outside
    found: list[Stretch] = []
    if rng.random() < 0.6:
        found += _way(0.0, ("room", "trocar"), short, rng)
    long = [one for one in phases if one.value in operation.long]
    for one in long:
        for _ in range(int(rng.poisson(0.6 * min(1.0, (one.end - one.start) / 40)))):
            way = _way(float(rng.uniform(one.start, one.end)), ("trocar", "room", "trocar"), short, rng)
            if (found and way[0].start < found[-1].end + 15) or way[-1].end > end - 20:
                continue
            found += way
    if rng.random() < 0.7:
        last = _way(0.0, ("trocar", "room"), short, rng)
        shift = end - last[-1].end
        found += [Stretch(round(one.start + shift, 1), round(one.end + shift, 1), one.value) for one in last]
    ordered = sorted(found, key=lambda one: one.start)
    return tuple(one for n, one in enumerate(ordered) if n == 0 or one.start >= ordered[n - 1].end - 1e-6)


def _way(start: float, places: tuple[str, ...], short: float, rng: np.random.Generator) -> list[Stretch]:
    found, now = [], round(start, 1)
    for place in places:
        low, high = (1.4, 2.6) if place == "trocar" else (3.0, 8.0)
        end = round(now + short * float(rng.uniform(low, high)), 1)
        found.append(Stretch(now, end, place))
        now = end
    return found


def _draw_acts(
    operation: Operation, phases: tuple[Stretch, ...], outside: tuple[Stretch, ...], rng: np.random.Generator
) -> Iterator[Act]:
    for phase in phases:
        for tool, (share, first, last) in operation.tools[phase.value].items():
            length = phase.end - phase.start
            begin, end = phase.start + first * length, phase.start + last * length
            for start, stop in _visits(begin, end, share, rng):
                known = operation.actions.get(tool, {})
                actions = known.get(phase.value, known.get("", ("",)))
                action = str(rng.choice(actions))
                for one in _inside(start, stop, outside):
                    yield Act(*one, tool, action, phase.value)


def _visits(begin: float, end: float, share: float, rng: np.random.Generator) -> Iterator[tuple[float, float]]:
    """Stretches that cover about `share` of begin to end."""
    mean = (IN_VIEW[0] + IN_VIEW[1]) / 2
    away = mean * (1 - share) / share
    now = begin + (0.0 if rng.random() < share else float(rng.uniform(0, min(away, end - begin))))
    while now < end - 0.5:
        stop = min(end, now + float(rng.uniform(*IN_VIEW)))
        yield round(now, 1), round(stop, 1)
        now = stop + away * float(rng.uniform(0.4, 1.6))


def _inside(start: float, stop: float, outside: tuple[Stretch, ...]) -> Iterator[tuple[float, float]]:
    """The parts of a stretch during which the endoscope is in the body."""
    for one in outside:
        if one.end <= start or one.start >= stop:
            continue
        if one.start > start:
            yield start, one.start
        start = one.end
    if start < stop:
        yield start, stop
