"""The egocentric phantom: events in a house that is not, filmed by the people in it at the same time, each on a clock of its own.

Same seed, same bytes, whatever the number of workers. Nobody is in it, no licence, no network. It is written in the layout `annotated`
(domains/layouts/annotated.py), as a laboratory would write its own.
"""

from __future__ import annotations

import csv
import math
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from domains.egocentric.cameras import DISPLAY, IMU, JOINTS, Clock, Filming, clocks, inertia, where
from domains.egocentric.eyes import VIEW, House
from domains.egocentric.house import HELD, NOUNS, OPPOSITES, ROOMS, VERBS
from domains.egocentric.life import TICK, Event, live
from domains.egocentric.narration import narrate
from domains.egocentric.stage import Stage
from domains.errors import StorageError
from domains.layouts.annotated import ABOUT, RECORDINGS, SIGNALS, SPANS, TEXTS

SECONDS = 40.0  # of an event
QUALITY = "26"  # constant rate factor of H.264
TESTED, VALIDATED = 0.3, 0.15  # shares of the events
LEAST = 0.2  # s: what is shorter after a camera went off is no span

Progress = Callable[[int, int], None]
Row = Sequence[Any]


@dataclass(frozen=True)
class PhantomResult:
    """What was written: events, recordings, seconds of video, spans, texts."""

    events: int
    recordings: int
    seconds: float
    spans: int
    texts: int


@dataclass(frozen=True)
class _Task:
    out: str
    seed: int
    number: int
    people: int
    seconds: float
    exo: bool
    hud: bool
    part: str


@dataclass(frozen=True)
class _Written:
    recordings: list[Row]
    spans: list[Row]
    texts: list[Row]
    signals: list[Row]
    seconds: float


def synthesise(
    out: str | Path,
    events: int,
    people: int = 4,
    seed: int = 0,
    *,
    seconds: float = SECONDS,
    exo: bool = False,
    hud: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> PhantomResult:
    """Write `events` events of `people` people below `out`: a video of each, dataset.yaml, recordings.csv, spans.csv, texts.csv and signals.csv.

    Spans: verb, noun and action of what the wearer does; room, mates and opponents: the rooms of the wearer, of teammates and of others at each time.
    Texts: a narration of each action. Signals: imu (50 a second) and pose (a row a frame) as CSV. exo: also a camera that stands beside the first
    person. hud: with a head-up display whose map gives the teammates away. progress(done, total) counts events. Raises StorageError.
    """
    out = Path(out)
    parts = split(events, seed)
    tasks = [_Task(str(out), seed, number, people, seconds, exo, hud, parts[number]) for number in range(events)]
    made: list[_Written] = []
    try:
        for folder in ("videos", "signals"):
            (out / folder).mkdir(parents=True, exist_ok=True)
        for done, written in enumerate(_each(tasks, workers), 1):
            made.append(written)
            if progress is not None:
                progress(done, events)
        columns = ("recording", "group", "event", "camera", "team", "exo", "offset", "drift", "official")
        _write(out / RECORDINGS, columns, [row for one in made for row in one.recordings])
        _write(
            out / SPANS,
            ("recording", "start", "end", "label", "value", "moment"),
            [row for one in made for row in one.spans],
        )
        _write(
            out / TEXTS,
            ("recording", "start", "end", "text", "source", "level"),
            [row for one in made for row in one.texts],
        )
        _write(out / SIGNALS, ("recording", "name", "file"), [row for one in made for row in one.signals])
        (out / ABOUT).write_text(yaml.safe_dump(about(hud), sort_keys=False, width=140), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"the phantom cannot be written ({error.strerror})", where=out) from None
    return PhantomResult(
        events, sum(len(one.recordings) for one in made), sum(one.seconds for one in made), sum(len(one.spans) for one in made),
        sum(len(one.texts) for one in made),
    )  # fmt: skip


def actions() -> list[str]:
    """Every "verb,noun" that may be done, in order."""
    found = set()
    for door, item, switch, load in HELD.values():
        pairs = ((door, OPPOSITES[0]), (item, OPPOSITES[1]), (switch, OPPOSITES[2]), (load, OPPOSITES[3]))
        found |= {f"{verb},{noun}" for noun, verbs in pairs for verb in verbs} | {f"{_use(item)},{item}"}
    return sorted(found)


def _use(item: str) -> str:
    from domains.egocentric.house import USES

    return USES[item]


def about(hud: bool = False) -> dict[str, Any]:
    """`dataset.yaml`; of recordings with a head-up display also where it is, so that it is blanked."""
    one_at_a_time = {"verb": VERBS, "noun": NOUNS, "action": actions(), "room": ROOMS}
    tasks: dict[str, dict[str, Any]] = {
        name: {"kind": "phases", "column": name, "classes": list(names)} for name, names in one_at_a_time.items()
    }
    tasks["verb"]["opposites"] = [list(pair) for pair in OPPOSITES]
    tasks |= {name: {"kind": "presence", "column": name, "classes": list(ROOMS)} for name in ("mates", "opponents")}
    changes: dict[str, Any] = {"store": {"size": VIEW}}
    if hud:
        changes["region"] = {"blank": [list(box) for box in DISPLAY]}
    return {
        "title": "Egocentric phantom",
        "domain": "egocentric",
        "grouped_by": "events",
        "changes": changes,
        "tasks": tasks,
    }


def split(events: int, seed: int) -> list[str]:
    """The official part of each event; of two and more one at least is tested, of four and more one validates."""
    tested = max(round(TESTED * events), int(events > 1))
    validated = max(round(VALIDATED * events), int(events > 3))
    parts = ["test"] * tested + ["val"] * validated + ["train"] * (events - tested - validated)
    order = np.random.default_rng([seed, 1 << 20]).permutation(events)
    return [parts[place] for place in order]


def make(seed: int, number: int, people: int, seconds: float, exo: bool) -> tuple[Stage, House, list[Clock]]:
    """Event `number` of a seed: what happens, the house, and its cameras. Teams are as equal as the number of people lets them, or not."""
    rng = np.random.default_rng([seed, number])
    first = people // 2 + int(people > 2 and rng.random() < 0.4)
    teams = [0] * first + [1] * (people - first)
    event = live(rng, teams, seconds)
    stage = Stage(event)
    return stage, House(stage, rng), clocks(rng, people, seconds, exo)


def _each(tasks: list[_Task], workers: int) -> Iterable[_Written]:
    if workers == 1:
        yield from map(_write_event, tasks)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_write_event, tasks)


def _write_event(task: _Task) -> _Written:
    """The recordings of one event, and their rows of the tables."""
    cv2.setNumThreads(1)
    stage, house, cameras = make(task.seed, task.number, task.people, task.seconds, task.exo)
    written = _Written([], [], [], [], sum(clock.seconds for clock in cameras))
    name = f"event_{task.number:04d}"
    for place, clock in enumerate(cameras):
        stem = f"{name}_{clock.name}"
        path = f"videos/{stem}.mp4"
        rng = np.random.default_rng([task.seed, task.number, 1 + place])
        filming = Filming(house, clock, hud=task.hud)
        write_video(Path(task.out) / path, filming, clock.fps)
        team = f"team {stage.event.people[clock.person].team}"
        written.recordings.append(
            (path, name, name, clock.name, "" if clock.exo else team, int(clock.exo), _second(clock.offset, 6), f"{clock.drift:.9f}", task.part)
        )  # fmt: skip
        written.spans.extend((path, *row) for row in spans_of(stage, clock, name))
        written.texts.extend((path, *row) for row in texts_of(stage.event, clock, rng))
        for kind, columns, rows in signals_of(stage, clock, filming, rng):
            file = f"signals/{stem}.{kind}.csv"
            _write(Path(task.out) / file, columns, rows)
            written.signals.append((path, kind, file))
    return written


def spans_of(stage: Stage, clock: Clock, event: str) -> list[Row]:
    """(start, end, label, value, moment) of all that is labelled in a recording, in its own seconds."""
    rows: list[Row] = []
    for number, act in enumerate(stage.event.acts):
        if act.person == clock.person and (times := _within(clock, act.start, act.end)):
            values = (("verb", act.verb), ("noun", act.noun), ("action", f"{act.verb},{act.noun}"))
            rows += [(*times, label, value, f"{event}/act {number}") for label, value in values]
    rooms = [where(stage, number) for number in range(len(stage.event.people))]
    team = stage.event.people[clock.person].team
    labels: dict[str, list[int]] = {"room": [clock.person]}
    if not clock.exo:
        others = [number for number in range(len(rooms)) if number != clock.person]
        labels["mates"] = [number for number in others if stage.event.people[number].team == team]
        labels["opponents"] = [number for number in others if stage.event.people[number].team != team]
    for label, numbers in labels.items():
        for room, value in enumerate(ROOMS):
            there: NDArray[np.bool_] = (
                np.any([rooms[number] == room for number in numbers], axis=0) if numbers else np.zeros(1, bool)
            )
            rows += [(*times, label, value, "") for start, end in _runs(there) if (times := _within(clock, start, end))]
    return rows


def _runs(there: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """(start, end) in seconds of the stretches that are True, of steps of the simulation."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], there.astype(np.int8), [0]])))
    return [(float(a) * TICK, float(b) * TICK) for a, b in pairwise(edges.tolist())][::2]


def _within(clock: Clock, start: float, end: float) -> tuple[str, str] | None:
    """A stretch of the event in seconds of the recording, cut to it; None where nothing, or nearly, is left."""
    low, high = max(0.0, clock.own(start)), min(clock.frames / clock.fps, clock.own(end))
    return (_second(low), _second(high)) if high - low > LEAST else None


def _second(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}"


def texts_of(event: Event, clock: Clock, rng: np.random.Generator) -> list[Row]:
    """(start, end, text, source, level): a narration of every action that is in the recording."""
    rows: list[Row] = []
    for act in event.acts:
        said = narrate(act.verb, act.noun, event.people[act.person].team, clock.exo, rng)
        if act.person == clock.person and (times := _within(clock, act.start, act.end)):
            rows.append((*times, said, "narration", "clip"))
    return rows


def signals_of(
    stage: Stage, clock: Clock, filming: Filming, rng: np.random.Generator
) -> list[tuple[str, list[str], Iterable[Row]]]:  # fmt: skip
    """Kind, columns and rows of what else was recorded; of poses after the frames were made."""
    axes = [f"{joint} {axis}" for joint in JOINTS for axis in "xy"]
    times = [_second(number / clock.fps, 4) for number in range(len(filming.poses))]
    poses = [
        (time, *("" for _ in axes)) if pose is None else (time, *(f"{value:.4f}" for value in pose.ravel()))
        for time, pose in zip(times, filming.poses, strict=True)
    ]
    found: list[tuple[str, list[str], Iterable[Row]]] = [("pose", ["seconds", *axes], poses)]
    if not clock.exo:
        felt = inertia(stage, clock, rng)
        found.append(("imu", ["seconds", *IMU], ([f"{value:.4f}" for value in row] for row in felt)))
    return found


def write_video(path: Path, frames: Iterable[Any], fps: float) -> None:
    """H.264 in MP4. Raises OSError."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.height = stream.width = VIEW
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        stream.options = {"preset": "veryfast", "crf": QUALITY, "g": str(math.ceil(4 * fps))}
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)


def _write(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
