"""Recordings of one event by several cameras, on the event's clock; and the moments at which enough of them look on.

`views.csv` of a prepared folder (see `domains.store.annotated`) says of each recording its event, camera, team and clock: second t of the recording
is second (t - offset) / (1 + drift) of the event. Frame i is at i / fps seconds, so recordings of 4 and of 30 frames a second, and clocks that run
apart, meet at the same time of the event.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from domains.errors import DataError
from domains.store import annotated
from domains.store.prepared import Prepared

SLOT = 2.0  # clip lengths of a moment within which the time of its clips is drawn
TEAM = "team"  # spans of this label that several recordings share are moments that the data set itself names (X-Ego)


@dataclass(frozen=True)
class View:
    """One recording of an event.

    row: of the manifest. event, camera, team: pseudonyms; team "" where unknown. exo: a camera that stands beside, not one that is worn. offset (s),
    drift: second t of the event is second t * (1 + drift) + offset of the recording; offset None: not synchronised.
    """

    row: int
    event: str
    camera: str
    team: str = ""
    exo: bool = False
    offset: float | None = None
    drift: float = 0.0

    def own(self, time: float) -> float:
        """Second of the recording at second `time` of the event."""
        assert self.offset is not None
        return time * (1 + self.drift) + self.offset

    def of_event(self, own: float) -> float:
        """Second of the event at second `own` of the recording."""
        assert self.offset is not None
        return (own - self.offset) / (1 + self.drift)


@dataclass(frozen=True)
class Moment:
    """A stretch of an event, and the recordings (rows, in order) that show all of it. start, end: seconds of the event."""

    event: str
    start: float
    end: float
    rows: tuple[int, ...]

    def name(self) -> str:
        """The same whatever other moments there are."""
        return f"{self.event}/{self.start:.3f}/{self.end:.3f}"


class Views:
    """What `views.csv` says, by row. Numbers are the same whichever rows are learned from, and in every process.

    cameras: row -> number of its camera within its event, from 0. teams: row -> number of its team, the same for the recordings of one team within an
    event, -1 where unknown.
    """

    def __init__(self, views: Sequence[View]) -> None:
        self.by_row = {view.row: view for view in views}
        cameras: dict[str, list[str]] = {}
        for event, camera in sorted({(view.event, view.camera) for view in views}):
            cameras.setdefault(event, []).append(camera)
        teams = {team: number for number, team in enumerate(sorted({(v.event, v.team) for v in views if v.team}))}
        self.cameras = {view.row: cameras[view.event].index(view.camera) for view in views}
        self.teams = {view.row: teams.get((view.event, view.team), -1) for view in views}

    def __len__(self) -> int:
        return len(self.by_row)

    def fingerprint(self, moments: Sequence[Moment]) -> str:
        """Which moments of which recordings on which clocks these are: 16 hexadecimal digits."""
        digest = hashlib.blake2b(digest_size=8)
        for moment in moments:
            digest.update(f"{moment.name()} {moment.rows} ".encode())
        for row in sorted({row for moment in moments for row in moment.rows}):
            digest.update(f"{self.by_row[row]} ".encode())
        return digest.hexdigest()


def read_views(prepared: Prepared) -> Views:
    """The views of a prepared folder; none where its data set has no events. Raises DataError for a damaged table."""
    path = prepared.folder / annotated.VIEWS
    if not path.is_file():
        return Views([])
    found = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                offset = float(line["offset"]) if line["offset"] else None
                found.append(
                    View(
                        prepared.index_of(line["video_id"]), line["event"], line["camera"], line.get("team") or "",
                        line.get("exo") == "1", offset, float(line.get("drift") or 0),
                    )
                )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, csv.Error, DataError) as error:
        what = f"{annotated.VIEWS} cannot be read ({error.__class__.__name__})"
        raise DataError(what, where=prepared.place, do="Prepare it again") from None
    return Views(found)


def moments_of(prepared: Prepared, views: Views, rows: Sequence[int], seconds: float) -> list[Moment]:
    """The moments at which at least two of `rows` look on, in order of event and time.

    Where the data set names its moments (spans of "team" that recordings share) those; else each event is cut into equal stretches of about twice
    `seconds`, the length of a clip, and a recording is of a moment where it shows all of it: who has left, or is withheld, is not.
    Raises DataError where there is none.
    """
    learned = {row: views.by_row[row] for row in rows if row in views.by_row}
    usable = {row: view for row, view in learned.items() if view.offset is not None and prepared.fps(row)}
    shown = {row: shown_of(prepared, view) for row, view in usable.items()}
    named = _named(prepared, usable)
    found = []
    for event, start, end, candidates in named or _cut(usable, shown, seconds):
        there = [row for row in candidates if any(low <= start and end <= high for low, high in shown[row])]
        if len(there) > 1:
            found.append(Moment(event, start, end, tuple(sorted(there))))
    if not found:
        what = "no two recordings show the same event at the same time"
        if len(views) and not usable:
            what += " on a known clock (offset)"
        do = "Prepare a data set with events and cameras (docs/egocentric.md), or use a recipe that needs none"
        raise DataError(what, where=prepared.place, do=do)
    return sorted(found, key=lambda moment: (moment.event, moment.start, moment.end))


def shown_of(prepared: Prepared, view: View) -> list[tuple[float, float]]:
    """Stretches (s) of the event that a recording shows: from its first to its last frame, without what is withheld."""
    fps, length = prepared.fps(view.row), prepared.length(view.row)
    assert fps
    edges = [0, *np.ravel(prepared.outside(view.row)).tolist(), length]
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [(view.of_event(low / fps), view.of_event(high / fps)) for low, high in pairs if high > low]


def _cut(
    usable: dict[int, View], shown: dict[int, list[tuple[float, float]]], seconds: float
) -> list[tuple[str, float, float, list[int]]]:
    """event, start, end and recordings of equal stretches of the time in which two recordings or more of an event look on."""
    events: dict[str, list[int]] = defaultdict(list)
    for row, view in usable.items():
        events[view.event].append(row)
    found = []
    for event, rows in sorted(events.items()):
        starts = sorted(shown[row][0][0] for row in rows if shown[row])
        ends = sorted(shown[row][-1][1] for row in rows if shown[row])
        if len(starts) < 2 or ends[-2] <= starts[1]:
            continue
        patience = SLOT * seconds / 2  # those who begin a little later, or end a little sooner, are waited for
        first = max(start for start in starts if start <= starts[1] + patience)
        last = min(end for end in ends if end >= ends[-2] - patience)
        count = max(1, math.floor((last - first) / (SLOT * seconds)))
        edges: NDArray[np.float64] = np.linspace(first, last, count + 1)
        found += [(event, float(low), float(high), rows) for low, high in pairwise(edges)]
    return found


def _named(prepared: Prepared, usable: dict[int, View]) -> list[tuple[str, float, float, list[int]]]:
    """The same of the moments that the data set names; of two teams at the same time one. [] where it names none."""
    if TEAM not in prepared.info.get("layout", {}).get("spans", {}):
        return []
    times: dict[str, tuple[str, float, float]] = {}
    members: dict[tuple[str, float, float], set[int]] = defaultdict(set)
    for row, start, end, _, moment in annotated.spans(prepared, TEAM):
        if not moment or row not in usable:
            continue
        view = usable[row]
        # of the first recording that tells: clocks are exact to less than what is rounded here
        key = times.setdefault(moment, (view.event, round(view.of_event(start), 3), round(view.of_event(end), 3)))
        members[key].add(row)
    return [(*key, sorted(rows)) for key, rows in members.items()]


class OtherCameras:
    """What the other cameras of an event show at a moment of one of its recordings. rows: the recordings that may be shown, and asked about."""

    def __init__(self, prepared: Prepared, rows: Sequence[int]) -> None:
        self.views = read_views(prepared)
        learned = (self.views.by_row[row] for row in sorted(rows) if row in self.views.by_row)
        self.usable = {view.row: view for view in learned if view.offset is not None and prepared.fps(view.row)}
        self.shown = {row: shown_of(prepared, view) for row, view in self.usable.items()}
        self._by_event: dict[str, list[int]] = defaultdict(list)
        for row, view in self.usable.items():
            self._by_event[view.event].append(row)

    def of_event(self, row: int) -> list[int]:
        """All recordings of its event on a known clock, itself among them; none where its own clock is not known."""
        return self._by_event[self.usable[row].event] if row in self.usable else []

    def of(self, row: int) -> list[int]:
        """Those of them by another camera."""
        own = self.views.cameras.get(row)
        return [other for other in self.of_event(row) if self.views.cameras[other] != own]

    def any(self, seconds: float) -> bool:
        """Whether anything of that length was seen by two cameras."""
        return any(
            min(end, high) - max(start, low) >= seconds
            for row in self.usable
            for other in self.of(row)
            for start, end in self.shown[row]
            for low, high in self.shown[other]
        )

    def at(self, row: int, second: float, seconds: float) -> list[tuple[int, float]]:
        """(recording, second of its own) of every other camera that shows all of the `seconds` about that `second` of a recording."""
        if row not in self.usable:
            return []
        time = self.usable[row].of_event(second)
        first, last = time - seconds / 2, time + seconds / 2
        return [
            (other, self.usable[other].own(time))
            for other in self.of(row)
            if any(low <= first and last <= high for low, high in self.shown[other])
        ]

    def elsewhere(
        self, row: int, second: float, seconds: float, random: np.random.Generator
    ) -> list[tuple[int, float]]:
        """The same at another time of the event, drawn for each, so that its `seconds` and those about `second` do not overlap."""
        if row not in self.usable:
            return []
        time, found = self.usable[row].of_event(second), []
        for other in self.of(row):
            free = [
                (low, high)
                for start, end in self.shown[other]
                for low, high in (
                    (start + seconds / 2, min(end - seconds / 2, time - seconds)),
                    (max(start + seconds / 2, time + seconds), end - seconds / 2),
                )
                if low < high
            ]
            if free:
                lengths = np.array([high - low for low, high in free])
                low, high = free[int(random.choice(len(free), p=lengths / lengths.sum()))]
                found.append((other, self.usable[other].own(float(random.uniform(low, high)))))
        return found

    def fingerprint(self) -> str:
        """Which recordings on which clocks these are: 16 hexadecimal digits."""
        return hashlib.blake2b(repr(sorted(self.usable.items())).encode(), digest_size=8).hexdigest()
