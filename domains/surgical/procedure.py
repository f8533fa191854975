"""The script of a cholecystectomy: phases, what each tool does and when, what is on the lens, and when the endoscope is outside.

Durations, order and tools follow what is published of Cholec80 (Twinanda et al., IEEE TMI 2017): medians of the phases in `SECONDS`, orders in
`ENDINGS`, shares of time in `TOOLS`. A phantom is `pace` times faster than an operation; nothing else is shortened.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from domains.layouts.cholec import PHASES

PREPARATION, CALOT, CLIPPING, DISSECTION, PACKAGING, CLEANING, RETRACTION = PHASES
# Seconds that a phase takes in the median, and the spread of their logarithm.
SECONDS = {PREPARATION: 100, CALOT: 800, CLIPPING: 150, DISSECTION: 740, PACKAGING: 85, CLEANING: 150, RETRACTION: 75}
SPREAD = 0.35
# What follows the dissection of the gallbladder, and how often: cleaning comes before, after, twice or not at all.
ENDINGS = (
    (0.45, (PACKAGING, CLEANING, RETRACTION)),
    (0.20, (CLEANING, PACKAGING, RETRACTION)),
    (0.15, (PACKAGING, RETRACTION)),
    (0.10, (PACKAGING, CLEANING, RETRACTION, CLEANING)),
    (0.10, (PACKAGING, RETRACTION, CLEANING)),
)
AGAIN = 0.12  # probability that after the first clips the triangle is dissected further
# Share of the time of a phase that a tool is in view, and the part of the phase in which it comes at all.
TOOLS: dict[str, dict[str, tuple[float, float, float]]] = {
    PREPARATION: {"Grasper": (0.6, 0.1, 1), "Hook": (0.05, 0.5, 1), "Bipolar": (0.03, 0.5, 1)},
    CALOT: {"Grasper": (0.8, 0, 1), "Hook": (0.75, 0, 1), "Bipolar": (0.07, 0.2, 1), "Irrigator": (0.04, 0.3, 1)},
    CLIPPING: {"Grasper": (0.75, 0, 1), "Clipper": (0.8, 0.05, 0.55), "Scissors": (0.75, 0.55, 0.9), "Hook": (0.3, 0.85, 1)},
    DISSECTION: {"Grasper": (0.85, 0, 1), "Hook": (0.8, 0, 1), "Bipolar": (0.08, 0.2, 1), "Irrigator": (0.05, 0.3, 1)},
    PACKAGING: {"Grasper": (0.85, 0, 1), "SpecimenBag": (0.95, 0.2, 1)},
    CLEANING: {"Irrigator": (0.65, 0, 1), "Bipolar": (0.4, 0.1, 0.9), "Grasper": (0.4, 0, 1)},
    RETRACTION: {"Grasper": (0.8, 0, 1), "SpecimenBag": (0.9, 0, 0.85)},
}  # fmt: skip
IN_VIEW = (5.0, 14.0)  # seconds of the phantom that a tool stays
# Instrument, verb, target of CholecT50 that a tool stands for; the bag is none.
ACTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "Grasper": {
        PREPARATION: ("grasper,grasp,gallbladder", "grasper,retract,omentum"),
        PACKAGING: ("grasper,grasp,specimen_bag", "grasper,pack,gallbladder"),
        CLEANING: ("grasper,retract,liver",),
        RETRACTION: ("grasper,grasp,specimen_bag",),
        "": ("grasper,retract,gallbladder",),
    },
    "Hook": {
        CALOT: ("hook,dissect,cystic_duct", "hook,dissect,cystic_artery", "hook,cut,peritoneum"),
        DISSECTION: ("hook,dissect,gallbladder", "hook,dissect,cystic_plate"),
        "": ("hook,dissect,omentum",),
    },
    "Bipolar": {
        CALOT: ("bipolar,coagulate,blood_vessel",),
        DISSECTION: ("bipolar,coagulate,cystic_plate",),
        "": ("bipolar,coagulate,liver",),
    },
    "Scissors": {"": ("scissors,cut,cystic_duct", "scissors,cut,cystic_artery")},
    "Clipper": {"": ("clipper,clip,cystic_duct", "clipper,clip,cystic_artery")},
    "Irrigator": {
        CLEANING: ("irrigator,irrigate,liver", "irrigator,aspirate,fluid"),
        "": ("irrigator,aspirate,fluid",),
    },
}
BURNS = {"Hook", "Bipolar"}


@dataclass(frozen=True)
class Stretch:
    """From start up to end (s), something holds. value: a phase, a place outside ("trocar", "room"), a kind of event."""

    start: float
    end: float
    value: str


@dataclass(frozen=True)
class Act:
    """A tool in view from start up to end (s). action: instrument,verb,target ("" for the bag)."""

    start: float
    end: float
    tool: str
    action: str
    phase: str


@dataclass(frozen=True)
class Procedure:
    """What happens, in order of time. outside: where the endoscope is not in the body; bleeding: when it begins, and how much there is."""

    phases: tuple[Stretch, ...]
    acts: tuple[Act, ...]
    outside: tuple[Stretch, ...]
    bleeding: tuple[tuple[float, float], ...] = field(default=())

    @property
    def seconds(self) -> float:
        return self.phases[-1].end

    def phase_at(self, time: float) -> Stretch:
        """The phase at a time; the last one after the end."""
        return next((one for one in self.phases if one.start <= time < one.end), self.phases[-1])

    def progress(self, phase: str, time: float) -> float:
        """How much of all stretches of a phase is over, in [0, 1]; 0 where there is none."""
        spans = [one for one in self.phases if one.value == phase]
        total = sum(one.end - one.start for one in spans)
        gone = sum(min(max(time - one.start, 0.0), one.end - one.start) for one in spans)
        return gone / total if total else 0.0

    def outside_at(self, time: float) -> Stretch | None:
        """The stretch outside of the body that a time lies in."""
        return next((one for one in self.outside if one.start <= time < one.end), None)


def draw_procedure(rng: np.random.Generator, pace: float) -> Procedure:
    """A procedure; pace: how many times faster than an operation."""
    phases = _draw_phases(rng, pace)
    outside = _draw_outside(phases, rng)
    acts = tuple(sorted(_draw_acts(phases, outside, rng), key=lambda act: (act.start, act.tool)))
    bleeding = []
    for one in phases:
        if one.value in (CALOT, DISSECTION):
            for _ in range(int(rng.poisson(0.8))):
                bleeding.append((float(rng.uniform(one.start, one.end)), float(rng.uniform(0.3, 1.0))))
    return Procedure(phases, acts, outside, tuple(sorted(bleeding)))


def _draw_phases(rng: np.random.Generator, pace: float) -> tuple[Stretch, ...]:
    order = [PREPARATION] if rng.random() < 0.95 else []
    order += [CALOT, CLIPPING]
    if rng.random() < AGAIN:
        order += [CALOT, CLIPPING]
    weights = [weight for weight, _ in ENDINGS]
    order += [DISSECTION, *ENDINGS[int(rng.choice(len(ENDINGS), p=weights))][1]]
    now, phases = 0.0, []
    for phase in order:
        share = 1 / order.count(phase)
        length = SECONDS[phase] / pace * share * float(np.exp(rng.normal(0, SPREAD)))
        end = round(now + max(length, 2.0), 1)
        phases.append(Stretch(now, end, phase))
        now = end
    return tuple(phases)


def _draw_outside(phases: tuple[Stretch, ...], rng: np.random.Generator) -> tuple[Stretch, ...]:
    """Before the endoscope goes in, after it came out, and between, where the lens is cleaned. Through the trocar each time."""
    end = phases[-1].end
    short = min(1.0, end / 120)  # of the quickest operations not everything is outside
    found: list[Stretch] = []
    if rng.random() < 0.6:
        found += _way(0.0, ("room", "trocar"), short, rng)
    long = [one for one in phases if one.value in (CALOT, DISSECTION)]
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


def _draw_acts(phases: tuple[Stretch, ...], outside: tuple[Stretch, ...], rng: np.random.Generator) -> Iterator[Act]:
    for phase in phases:
        for tool, (share, first, last) in TOOLS[phase.value].items():
            length = phase.end - phase.start
            begin, end = phase.start + first * length, phase.start + last * length
            for start, stop in _visits(begin, end, share, rng):
                known = ACTIONS.get(tool, {})
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
