"""What every public data set offers, whatever it looks like on disk: recordings, what is labelled in them, and who
must stay together.

A layout reads tables as they were downloaded and opens no picture. Everything is lazy and in order of the tables;
nothing is dropped without a note. Times are seconds from the first frame of the recording, also where a table counts
frames.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from domains.base import TaskSettings
from domains.errors import DataError
from domains.schema import nearest

Value = float | str
Media = Literal["video", "frames", "still", "volume"]
SHOWN = 5  # places or groups that a message names before it only counts


@dataclass(frozen=True, slots=True)
class Recording:
    """One recording of a data set.

    path: relative to the root, with /; a file, or for media "frames" a folder of pictures.
    group: who must never stand on both sides of a split (patient, procedure, surgeon, participant, match), as
        "<origin>/<id>"; the same string in every data set that shares the material. Patient numbers of clinical
        records are digests: no message can show them.
    splits: name of an official split -> "train", "val" or "test".
    labels: what holds for the whole recording: numbers (units: the layout's tasks) or class names; a label that is
        not known is absent.
    media: "video" (a file of domains.media), "frames", "still" (one picture), "volume" (NIfTI or MetaImage; last axis
        is time).
    fps: frames a second where a table or the layout says so, else None: the file knows.
    event, camera: recordings of one event show the same thing (a study, a trial, a round), each through its camera.
    team: whose view it is, within its event; "" where there are no teams, or nobody says. exo: a camera that nobody wears.
    offset, drift: second t of the event is second t * (1 + drift) + offset of this recording; offset None where views are not synchronised.
    signals: name ("imu", "pose") -> path of a table of what else was recorded, by second of this recording.
    listed: the table and line that named it.
    """

    path: str
    group: str
    splits: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, Value] = field(default_factory=dict)
    media: Media = "video"
    fps: float | None = None
    event: str = ""
    camera: str = ""
    team: str = ""
    exo: bool = False
    offset: float | None = None
    drift: float = 0.0
    signals: Mapping[str, str] = field(default_factory=dict)
    listed: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Span:
    """From start up to end (s) of the recording, `label` has the value. Spans of several values of one label may
    overlap (tools in use).

    moment: spans of one moment belong together: the verb and noun of one action, or one moment in synchronous views.
    """

    recording: str
    start: float
    end: float
    label: str
    value: str
    moment: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """What somebody said or wrote about start to end (s) of the recording. source: the column or table it is from, or who said it. level: what
    it is about: a moment ("clip"), a step ("keystep"), the whole ("abstract"); "" where nobody says."""

    recording: str
    start: float
    end: float
    text: str
    source: str
    level: str = ""


@dataclass(frozen=True, slots=True)
class Contour:
    """A line drawn into one frame (0-based). points: (x, y) in pixels of the recording; kind: what was drawn."""

    recording: str
    frame: int
    kind: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Note:
    """Something that was passed over or is odd, how often, and the first places (table:line or path)."""

    what: str
    count: int
    places: tuple[str, ...] = ()


class Notes:
    """Gathers notes while tables are read."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def add(self, what: str, place: str = "") -> None:
        self._counts[what] = self._counts.get(what, 0) + 1
        places = self._places.setdefault(what, [])
        if place and len(places) < SHOWN:
            places.append(place)

    def list(self) -> list[Note]:
        return [Note(what, count, tuple(self._places[what])) for what, count in self._counts.items()]


class Layout(ABC):
    """One data set on disk. All paths are relative to `root`. Raises DataError for tables that cannot be read as they
    should."""

    name: ClassVar[str]  # as `--layout` takes it
    title: str
    domain: str  # the domain it belongs to
    grouped_by: str  # what a group is
    suffixes: ClassVar[tuple[str, ...]]  # of recordings, lower case
    changes: Mapping[str, Any] = {}  # what its recordings need otherwise than the domain says
    opens_recordings: ClassVar[bool] = False  # to read its tables: they must be on this machine
    split_names: tuple[str, ...] = ()  # official splits; the first is the one people mean

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    @classmethod
    @abstractmethod
    def matches(cls, root: Path) -> bool:
        """Whether `root` looks like this data set and no other. Reads names, and at most a header."""

    @abstractmethod
    def _read(self, notes: Notes) -> Iterator[Recording]:
        """Every recording that a table names or that lies where this data set keeps its recordings; on disk or not."""

    def _spans(self, label: str, present: Mapping[str, Recording], notes: Notes) -> Iterator[Span]:
        """The spans of `label` in the recordings that are present."""
        return iter(())

    def _texts(self, present: Mapping[str, Recording], notes: Notes) -> Iterator[Text]:
        return iter(())

    def _contours(self, present: Mapping[str, Recording], notes: Notes) -> Iterator[Contour]:
        return iter(())

    def tasks(self) -> dict[str, TaskSettings]:
        """What the labels define. Keys are names in `Recording.labels` or of `span_labels`; classes are in the order
        of the data set."""
        return {}

    @property
    def span_labels(self) -> tuple[str, ...]:
        """The names that `spans` takes."""
        return ()

    def recordings(self) -> Iterator[Recording]:
        """The recordings on disk."""
        return (recording for recording in self._all(Notes()) if (self.root / recording.path).exists())

    def missing(self) -> list[str]:
        """Paths that tables name and the disk lacks. They may hold identifiers: for the owner's eyes."""
        return [recording.path for recording in self._all(Notes()) if not (self.root / recording.path).exists()]

    def unlisted(self) -> list[str]:
        """Files on disk that could be recordings and that nothing names."""
        known = {recording.path for recording in self._all(Notes())}
        return [
            path
            for path in self.files
            if path.lower().endswith(self.suffixes) and path not in known and not _inside(path, known)
        ]

    def spans(self, label: str) -> Iterator[Span]:
        """Spans of one label, by recording. Raises DataError for a label that this data set does not have."""
        if label not in self.span_labels:
            what = f"{self.title} has no spans of '{label}'"
            known = list(self.span_labels)
            raise DataError(what, do=nearest(label, known) if known else "Its labels are of whole recordings")
        return self._spans(label, self._present, Notes())

    def texts(self) -> Iterator[Text]:
        """Sentences about stretches of recordings; none for most data sets."""
        return self._texts(self._present, Notes())

    def contours(self) -> Iterator[Contour]:
        """What was drawn into frames: outlines and calipers; none for most data sets."""
        return self._contours(self._present, Notes())

    def split(self, name: str = "") -> dict[str, list[Recording]]:
        """The parts of an official split, of recordings on disk; without a name the first. Raises DataError where
        there is none of that name."""
        if not self.split_names:
            do = "Split by group: domains.store.splits"
            raise DataError(f"{self.title} has no official split", where=self.root, do=do)
        name = name or self.split_names[0]
        if name not in self.split_names:
            raise DataError(f"{self.title} has no split '{name}'", do=nearest(name, list(self.split_names)))
        parts: dict[str, list[Recording]] = {}
        for recording in self.recordings():
            if part := recording.splits.get(name):
                parts.setdefault(part, []).append(recording)
        return parts

    def notes(self) -> list[Note]:
        """All that reading passes over, with the reason. Reads every table once."""
        notes = Notes()
        sides: dict[str, dict[str, set[str]]] = {name: {} for name in self.split_names}
        for recording in self._all(notes):
            if not (self.root / recording.path).exists():
                notes.add("named by a table, not on disk", recording.listed)
            for name, part in recording.splits.items():
                sides[name].setdefault(recording.group, set()).add(part)
        for _ in self.unlisted():
            notes.add("on disk, named by no table")
        for label in self.span_labels:
            for _ in self._spans(label, self._present, notes):
                pass
        for _ in self._texts(self._present, notes):
            pass
        for _ in self._contours(self._present, notes):
            pass
        for name, groups in sides.items():
            for _ in (group for group, parts in groups.items() if len(parts) > 1):
                notes.add(f"{self.grouped_by} on more than one side of the official split '{name}'")
        return notes.list()

    def _all(self, notes: Notes) -> Iterator[Recording]:
        """Every recording once. A path that is named twice must be named alike."""
        seen: dict[str, Recording] = {}
        for recording in self._read(notes):
            for path in (recording.path, *recording.signals.values()):
                if path.startswith("/") or ".." in path.split("/"):
                    what = "the path of a recording" if path == recording.path else "the path of a signal"
                    raise DataError(f"{what} leads out of the data set", where=recording.listed)
            before = seen.setdefault(recording.path, recording)
            if before is recording:
                yield recording
            elif before == recording:
                notes.add("named twice", recording.listed)
            else:
                names = [one.name for one in fields(Recording) if one.compare]
                differ = ", ".join(name for name in names if getattr(before, name) != getattr(recording, name))
                what = f"the recording of {before.listed} again, with other {differ}"
                raise DataError(what, where=recording.listed, do="Leave one of the two lines")

    @cached_property
    def _present(self) -> dict[str, Recording]:
        return {recording.path: recording for recording in self.recordings()}

    @cached_property
    def files(self) -> list[str]:
        """Every file below the root, relative, in order; hidden ones are passed over."""
        found: list[str] = []
        for folder, folders, names in os.walk(self.root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            here = Path(folder).relative_to(self.root)
            found += [(here / name).as_posix() for name in sorted(names) if not name.startswith(".")]
        return found


def _inside(path: str, folders: Collection[str]) -> bool:
    parts = path.split("/")
    return any("/".join(parts[:end]) in folders for end in range(1, len(parts)))


def official(part: str) -> dict[str, str]:
    """`Recording.splits` of a data set with one official split; "" is none."""
    return {"official": part} if part else {}


def digest(value: str) -> str:
    """Ten hex digits that stand for an identifier of a clinical record in groups and events: the same everywhere, and
    not legible.

    It keeps identifiers out of messages. It is no pseudonym: whoever has the table can make it again; prepare's
    pseudonyms need the key.
    """
    return hashlib.blake2b(value.encode(), digest_size=5).hexdigest()


def check_disjoint(*parts: Iterable[Recording]) -> None:
    """Raise DataError if a group has recordings in more than one of the parts, naming the groups.

    The parts may come from different data sets: Cholec80's training videos and CholecT50's test videos, for example.
    """
    groups = [{recording.group for recording in part} for part in parts]
    seen: set[str] = set()
    shared: set[str] = set()
    for part in groups:
        shared |= seen & part
        seen |= part
    if shared:
        named = sorted(shared)
        more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        what = f"{len(named)} groups stand on both sides: {', '.join(named[:SHOWN])}{more}"
        raise DataError(what, do="Take all recordings of a group to one side")
