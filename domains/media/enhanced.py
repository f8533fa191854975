"""What the frames of an enhanced multi-frame DICOM are: planes, times and kinds, by its functional groups (PS3.3 C.7.6.16 and C.7.6.17).

A recording is one plane over time. Frames are told apart by where they lie (Plane Position in volume or patient, stack position), by what they
show (Data Type; other dimensions, such as segments) and by when they were taken. Of a volume over time the plane in the middle is taken, and
the note says so; a volume at one time is no recording, and is refused. What nothing tells apart is never taken for time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.valuerep import DT

from domains.errors import MediaError

US_VOLUME = "1.2.840.10008.5.1.4.1.1.6.2"
# Enhanced CT, MR, PET and their legacy-converted kin: stacks as often as recordings.
VOLUMES = {
    f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2.1", "2.2", "4.1", "4.3", "4.4", "128.1", "130")
}  # fmt: skip
TISSUE = "TISSUE_INTENSITY"
DATA_TYPES = {
    TISSUE, "TISSUE_VELOCITY", "FLOW_VELOCITY", "FLOW_POWER", "DIRECTION_POWER", "FLOW_VARIANCE", "ELASTICITY", "PERFUSION", "SOUND_SPEED",
    "ATTENUATION",
}  # fmt: skip
DOPPLER = {kind for kind in DATA_TYPES if kind.endswith(("VELOCITY", "POWER", "VARIANCE"))}
# Attributes that dimensions point to, or the groups that hold them.
TIMES = {
    0x0020930D, 0x00209310, 0x00209128, 0x00189151, 0x00189074, 0x00209156, 0x00209153, 0x00209252, 0x00209241, 0x00189118,
}  # fmt: skip
PLACES = {0x00209301, 0x0020930E, 0x00209302, 0x0020930F, 0x00200032, 0x00209113, 0x00209116, 0x00209056, 0x00209057}
KINDS = {0x00189808, 0x00189807}

# Group and its orientation's group: of an ultrasound volume, of the patient.
POSITIONS = (
    ("PlanePositionVolumeSequence", "PlaneOrientationVolumeSequence", "Volume"),
    ("PlanePositionSequence", "PlaneOrientationSequence", "Patient"),
)
UNSURE = "the header does not say whether its frames are pictures over time"

Clock = Callable[["Frame"], float | None]


class Place(NamedTuple):
    """Where a plane lies. at: its corner in mm, its number in a stack, or the indices of its dimensions. facing: of rows and columns."""

    at: tuple[float, ...] = ()
    facing: tuple[float, ...] = ()
    stack: str = ""


@dataclass(frozen=True)
class Course:
    """order: the stored frames that are the recording, in order of time. rate: frames a second, with the keyword that says so, or None.

    planes: how many the file holds. note: what was left out or chosen, "" if nothing.
    """

    order: list[int]
    rate: tuple[float, str] | None
    planes: int
    note: str


@dataclass(frozen=True)
class Frame:
    """The functional groups of one stored frame: its own, and those shared by all."""

    number: int
    own: Any
    shared: Any
    dimensions: tuple[int, ...]  # the attribute that each of its indices counts

    def item(self, group: str) -> Any:
        """The one item of a group, an empty mapping where there is none."""
        return next((items[0] for part in (self.own, self.shared) if (items := part.get(group))), {})

    def indices(self) -> Iterator[tuple[int, int]]:
        """(attribute, index) of every dimension."""
        values = self.item("FrameContentSequence").get("DimensionIndexValues")
        values = [values] if isinstance(values, int) else list(values or [])
        return zip(self.dimensions, values, strict=False)

    def place(self) -> Place:
        """Where it lies; that of no field where nothing is said."""
        for position, orientation, suffix in POSITIONS:
            at = self.item(position).get(f"ImagePosition{suffix}")
            if at is not None:
                facing = self.item(orientation).get(f"ImageOrientation{suffix}") or ()
                return Place(at=_rounded(at, 3), facing=_rounded(facing, 4))
        content = self.item("FrameContentSequence")
        if content.get("InStackPositionNumber") is not None:
            return Place(at=(float(content.get("InStackPositionNumber")),), stack=str(content.get("StackID") or ""))
        return Place(at=tuple(float(index) for attribute, index in self.indices() if attribute in PLACES))

    def data_type(self) -> str:
        """Of what is measured: one of DATA_TYPES, "" where nothing or nothing known is said."""
        said = str(self.item("ImageDataTypeSequence").get("DataType") or "").strip().upper()
        return said if said in DATA_TYPES else ""

    def kind(self) -> tuple[str, Hashable]:
        """What two frames of one recording have in common beside the plane: data type, and dimensions that are no time and no place."""
        rest = tuple(pair for pair in self.indices() if pair[0] not in TIMES | PLACES | KINDS)
        return self.data_type(), rest


def _value(group: str, keyword: str, unit: float) -> Clock:
    def read(frame: Frame) -> float | None:
        value = frame.item(group).get(keyword)
        return None if value is None or value == "" else float(value) * unit

    return read


def _datetime(keyword: str) -> Clock:
    def read(frame: Frame) -> float | None:
        value = frame.item("FrameContentSequence").get(keyword)
        return DT(str(value)).timestamp() if value else None

    return read


def _index(frame: Frame) -> float | None:
    return next((float(index) for attribute, index in frame.indices() if attribute in TIMES), None)


# What may say when a frame was taken, the best first. The last two only count.
CLOCKS: dict[str, Clock] = {
    "TemporalPositionTimeOffset": _value("TemporalPositionSequence", "TemporalPositionTimeOffset", 1.0),
    "FrameReferenceDateTime": _datetime("FrameReferenceDateTime"),
    "FrameAcquisitionDateTime": _datetime("FrameAcquisitionDateTime"),
    "NominalCardiacTriggerDelayTime": _value("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", 1e-3),
    "TemporalPositionIndex": _value("FrameContentSequence", "TemporalPositionIndex", 1.0),
    "DimensionIndexValues": _index,
}
COUNTERS = {"TemporalPositionIndex", "DimensionIndexValues"}


def read_course(header: Any, held: int, path: Path) -> Course | None:
    """The frames of `held` stored ones that are a recording; None for a file without functional groups, whose frames are as they lie.

    Raises MediaError (category "volume") where they are no pictures over time.
    """
    organised = str(header.get("DimensionOrganizationType") or "").upper()
    sop_class = str(header.get("SOPClassUID") or "")
    if organised.startswith("TILED"):
        raise MediaError(path, "tiles of one picture, not pictures over time", category="volume")
    frames = _frames(header, held)
    spatial = sop_class == US_VOLUME or organised.startswith("3D")
    if not frames:
        if spatial and held > 1:
            raise MediaError(path, "a volume whose header does not say where its frames lie", category="volume")
        if sop_class in VOLUMES and held > 1:
            return Course(list(range(held)), None, 1, UNSURE)
        return None
    notes = [f"{held - len(frames)} frames without a place in the header are left out"] if len(frames) < held else []
    frames, left_out = _of_one_kind(frames)
    planes: dict[Place, list[Frame]] = {}
    for frame in frames:
        planes.setdefault(frame.place(), []).append(frame)
    ordered = _in_space(list(planes))
    longest = max(map(len, planes.values()))
    if len(planes) > 1 and longest == 1:
        raise MediaError(
            path, f"a volume of {len(planes)} planes at one time, not pictures over time", category="volume"
        )
    middle = (len(ordered) - 1) / 2
    whole = [number for number, place in enumerate(ordered) if len(planes[place]) == longest]
    taken = min(whole, key=lambda number: abs(number - middle))
    order, rate, sure = _in_time(planes[ordered[taken]])
    if not sure and len(order) > 1:
        if len(planes) > 1 or (spatial and not ordered[0].at):
            raise MediaError(path, "a volume: nothing says which plane and time each frame is of", category="volume")
        notes += [UNSURE] if sop_class in VOLUMES else []
    notes += [f"a volume over time: plane {taken + 1} of {len(ordered)} is taken"] if len(planes) > 1 else []
    return Course(order, rate, len(planes), "; ".join(notes + left_out))


def pixel_spacing(header: Any) -> float | None:
    """Centimetres of a pixel by the Pixel Measures of an enhanced file, where both directions say the same; None for others."""
    try:
        frames = _frames(header, 1)
        measures = frames[0].item("PixelMeasuresSequence") if frames else {}
        spacing = [float(value) for value in measures.get("PixelSpacing") or []]
    except Exception:  # a damaged sequence is as good as none
        return None
    if len(spacing) != 2 or not 0 < spacing[0] < 10 or abs(spacing[0] - spacing[1]) > 0.02 * spacing[0]:
        return None
    return spacing[0] / 10


def data_types(header: Any) -> set[str]:
    """The data types of an enhanced file's frames; empty for others, and where nothing known is said."""
    try:
        return {frame.data_type() for frame in _frames(header, 1 << 30)} - {""}
    except Exception:  # a damaged sequence is as good as none
        return set()


def _frames(header: Any, held: int) -> list[Frame]:
    shared: Any = next(iter(header.get("SharedFunctionalGroupsSequence") or []), {})
    dimensions = tuple(
        int(item.get("DimensionIndexPointer") or 0) for item in header.get("DimensionIndexSequence") or []
    )
    own = list(header.get("PerFrameFunctionalGroupsSequence") or [])[:held]
    return [Frame(number, groups, shared, dimensions) for number, groups in enumerate(own)]


def _rounded(values: Sequence[Any], digits: int) -> tuple[float, ...]:
    return tuple(round(float(value), digits) + 0.0 for value in values)


def _of_one_kind(frames: list[Frame]) -> tuple[list[Frame], list[str]]:
    """The frames that show tissue, else those of the kind that there are most of; and what to say of the others."""
    kinds: dict[Hashable, list[Frame]] = {}
    for frame in frames:
        kinds.setdefault(frame.kind(), []).append(frame)
    best = max(kinds.values(), key=lambda those: (those[0].data_type() == TISSUE, len(those)))
    if len(kinds) == 1:
        return best, []
    other = sorted({frame.data_type() for frame in frames} - {best[0].data_type(), ""})
    what = f" ({', '.join(other)})" if other else ""
    return best, [f"{len(frames) - len(best)} frames of another kind{what} are left out"]


def _in_space(places: list[Place]) -> list[Place]:
    """Planes from one end of a volume to the other: along their normal, or by their numbers."""
    if any(len(place.at) != 3 or place.stack for place in places):
        return sorted(places)
    points: NDArray[np.float64] = np.array([place.at for place in places], dtype=np.float64)
    facing = places[0].facing
    if len(facing) == 6:
        normal = np.cross(facing[:3], facing[3:])
    else:
        normal = np.linalg.svd(points - points.mean(axis=0))[2][0]
    return [places[number] for number in np.argsort(points @ normal, kind="stable")]


def _in_time(frames: list[Frame]) -> tuple[list[int], tuple[float, str] | None, bool]:
    """(stored numbers in order of time, the rate with what says so, whether every frame has a time of its own).

    By the best clock that tells all frames apart; else by the best that tells some apart, those of one time as they are stored.
    """
    stored = [frame.number for frame in frames]
    told: dict[str, list[float]] = {}
    for name, clock in CLOCKS.items():
        times = [time for frame in frames if (time := clock(frame)) is not None]
        if len(times) == len(frames) and len(set(times)) > 1:
            told[name] = times
    if not told:
        return stored, None, False
    name = next((name for name, times in told.items() if len(set(times)) == len(times)), next(iter(told)))
    times = told[name]
    order = [stored[place] for place in sorted(range(len(stored)), key=times.__getitem__)]
    sure = len(set(times)) == len(times)
    rate = (1 / float(np.median(np.diff(sorted(times)))), name) if sure and name not in COUNTERS else None
    return order, rate, sure
