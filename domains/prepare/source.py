"""One source file, from its bytes to stored frames and a manifest row, or to the reason why not (in a worker)."""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from domains.base import Domain, StoreSettings
from domains.errors import DataError, MediaError, StorageError, UnreachableError
from domains.media import content_files, open_reader, sniff
from domains.media.enhanced import pixel_spacing
from domains.media.reader import Reader
from domains.prepare import classify, letters, region
from domains.prepare.afar import at_hand
from domains.prepare.classify import SetAside
from domains.prepare.find import Source
from domains.prepare.held import held
from domains.prepare.pool import Beat
from domains.prepare.privacy import Pseudonyms, identity, stem, text
from domains.prepare.region import Picture
from domains.store.frames import Frames, encode
from domains.store.manifest import VideoRow, frame_file

SAMPLED = 32  # frames looked at to find the picture
PAIRS = 6  # neighbouring frames looked at to tell a sweeping trace from tissue
HELD = 200_000_000  # bytes of frames held at once: a whole cine of 850 frames of 1024x768 would be 2 GB
ONCE = 100_000_000  # a recording of no more is decoded once, and looked at from memory
STORED = 60_000_000  # of those, while they are being stored
MOST_PIXELS = 64_000_000  # a frame above this is a damaged header, not an ultrasound machine


@dataclass(frozen=True)
class Task:
    """source: what to look at. out: the folder being written; None: every frame is decoded and nothing is written.
    scratch: where a member of an archive, or a file of a storage, lies while it is looked at.
    """

    source: Source
    out: Path | None
    scratch: Path
    domain: Domain
    key: bytes

    @property
    def path(self) -> Path:
        """The file."""
        return self.source.path

    @property
    def relative(self) -> str:
        """Its path in the source, with forward slashes."""
        return self.source.relative


@dataclass(frozen=True)
class Refused:
    """A file set aside. `reason` is for the owner's terminal; `public` holds nothing that came out of the file."""

    category: str
    reason: str
    public: str


@dataclass(frozen=True)
class Usable:
    """row: complete but for files whose header names no patient or study (`patient`, `study` are "" then)."""

    row: VideoRow


@dataclass(frozen=True)
class DiskRefused:
    """The output could not be written."""

    reason: str


@dataclass(frozen=True)
class Unreached:
    """The storage that holds the file does not answer any more: nothing is known of the file."""

    reason: str


Outcome = Usable | Refused | DiskRefused | Unreached


class _DiskError(Exception):
    """An OSError of writing, told apart from those of reading."""


def examine(task: Task, beat: Beat) -> Outcome:
    """Never raises: whatever a file does to the code, the answer is a reason."""
    cv2.setNumThreads(1)
    warnings.simplefilter("ignore")  # libraries warn with values of the header
    try:
        return _examine(task, beat)
    except SetAside as what:
        return Refused(what.category, what.reason, what.reason)
    except MediaError as error:
        return Refused(error.category, error.reason, _public(error.reason, task))
    except _DiskError as error:
        return DiskRefused(str(error))
    except UnreachableError as error:
        return Unreached(error.what)
    except StorageError as error:
        return DiskRefused(error.what)
    except OSError as error:
        return _refused("unreadable", f"cannot be read ({error.strerror or error.__class__.__name__})")
    except MemoryError:
        return _refused("unreadable", "needs more memory than there is")
    except Exception as error:  # a decoder's own exceptions: the class is telling, the message may quote the header
        return _refused("unreadable", f"cannot be decoded ({error.__class__.__name__})")


def _refused(category: str, reason: str) -> Refused:
    return Refused(category, reason, reason)


def _public(reason: str, task: Task) -> str:
    """A reader's reason without the path, should it quote it."""
    for secret in (str(task.path), task.relative, task.path.name, task.path.stem):
        reason = reason.replace(secret, "the file")
    return " ".join(reason.split())[:200]


def _examine(task: Task, beat: Beat) -> Outcome:
    if task.source.member is not None or task.source.remote is not None:
        with at_hand(task.source, task.scratch, beat) as path:
            return _examine(dataclasses.replace(task, source=Source(path, task.relative)), beat)
    content = _hash(task.path, beat)
    kind = sniff(task.path)
    if kind is None:
        return _refused(*_not_a_recording(task.path))
    names, domain = Pseudonyms(task.key), task.domain
    with open_reader(task.path) as opened_reader:
        beat()
        reader: Reader = opened_reader
        if reader.height * reader.width > MOST_PIXELS:
            return _refused("unreadable", f"claims frames of {reader.width}x{reader.height} pixels")
        ultrasound = domain.region.policy == "ultrasound"
        if ultrasound and reader.media == "dicom":
            classify.judge_header(reader.header, len(reader), domain.min_frames, domain.colour_doppler)
        classify.judge_length(len(reader), domain.min_frames)
        reader = held(reader, ONCE, beat)
        sample = _sample(reader)
        picture = _picture(reader, sample, domain) if ultrasound else region.whole(reader.height, reader.width)
        if domain.region.text == "exclude" and letters.find_rows(sample, picture.mask):
            raise SetAside("burned-in text", "text is drawn inside the picture")  # it may be a name
        del sample  # up to HELD bytes
        beat()
        return Usable(_store(reader, picture, task, names, content, beat))


def _hash(path: Path, beat: Beat) -> str:
    digest = hashlib.sha256()
    for part in content_files(path):
        with part.open("rb") as handle:
            while block := handle.read(1 << 22):
                digest.update(block)
                beat()
    return digest.hexdigest()


def _not_a_recording(path: Path) -> tuple[str, str]:
    if path.stat().st_size == 0:
        return "unreadable", "empty file"
    if path.suffix.lower() in {".dcm", ".dicom", ".avi", ".mp4", ".mov", ".mkv", ".m4v", ".mpg", ".wmv"}:
        return "unreadable", f"the name ends in {path.suffix.lower()}, but the content is something else"
    return "not a recording", "neither DICOM nor video"


def _sample(reader: Reader) -> Frames:
    """Frames spread over the recording."""
    count = min(SAMPLED, len(reader), max(8, _at_once(reader, HELD)))
    return reader.frames(np.linspace(0, len(reader) - 1, count).round().astype(int).tolist())


def _picture(reader: Reader, sample: Frames, domain: Domain) -> Picture:
    regions = classify.read_regions(reader.header) if reader.media == "dicom" else []
    picture = region.find(sample, regions, domain.region.min_fraction)
    if picture.cm_per_pixel is None and (spacing := pixel_spacing(reader.header)) is not None:
        picture = dataclasses.replace(picture, cm_per_pixel=spacing)
    if reader.media == "video":
        classify.judge_camera(sample, picture.mask)
    if domain.colour_doppler == "exclude":
        classify.judge_colour(sample, picture.mask, reader.header)
    first = np.linspace(0, len(reader) - 2, PAIRS).round().astype(int)
    classify.judge_sweep(reader.frames(np.stack([first, first + 1], axis=1).ravel().tolist()), picture.mask)
    return picture


def _store(reader: Reader, picture: Picture, task: Task, names: Pseudonyms, content: str, beat: Beat) -> VideoRow:
    settings = task.domain.store
    measures = _Measures()
    frames = measures.watch(_square(reader, picture, settings.size, settings.fit, settings.grey, beat))
    blob, offsets = encode(frames, settings.quality)
    video_id = names.token("content", content)
    if task.out is not None:
        _write(frame_file(task.out, video_id), blob)
    header, kept = reader.header, identity(reader.header)
    x0, y0, x1, y1 = picture.box
    side = max(x1 - x0, y1 - y0) if settings.fit == "pad" else min(x1 - x0, y1 - y0)
    patient, study, instance = (text(header, tag) for tag in ("PatientID", "StudyInstanceUID", "SOPInstanceUID"))
    return VideoRow(
        video_id=video_id,
        patient=names.token("patient", patient) if patient else "",
        study=names.token("study", study) if study else "",
        instance=names.token("instance", instance or task.relative),
        source_path=names.token("path", task.relative),
        source_name=names.token("name", stem(task.path.name)),
        media=reader.media,
        codec=reader.codec,
        n_frames=len(offsets) - 1,
        height=y1 - y0,
        width=x1 - x0,
        channels=1 if settings.grey else 3,
        fps=float(reader.fps) if reader.fps else None,
        fps_source=reader.fps_source,
        region=picture.box,
        region_source=picture.source,
        cm_per_pixel=picture.cm_per_pixel * side / settings.size if picture.cm_per_pixel else None,
        manufacturer=kept.manufacturer,
        age=kept.age,
        sex=kept.sex,
        heart_rate=kept.heart_rate,
        mean=measures.mean,
        std=measures.std,
        motion=measures.motion,
        offsets=offsets,
        bytes=len(blob),
        sha256=hashlib.sha256(blob).hexdigest(),
        note=_public(reader.note, task),
    )


def _write(path: Path, blob: bytes) -> None:
    """Whole or not at all; two files of one content write the same."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(6)}")  # process ids of two machines may be the same
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(blob)
        draft.replace(path)
    except OSError as error:
        raise _DiskError(error.strerror or error.__class__.__name__) from None


def stored_frames(
    path: Path, domain: Domain, store: StoreSettings, indices: Callable[[Reader], Sequence[int]]
) -> Frames:
    """Frames of a recording in the form in which they would be stored, uint8 (n, size, size, C); nothing is written, and nothing is asked but where
    the picture is. indices: which of them, once the recording is open. Raises MediaError; DataError where no picture is found.
    """
    with open_reader(path) as reader:
        try:
            ultrasound = domain.region.policy == "ultrasound"
            picture = (
                _picture(reader, _sample(reader), domain) if ultrasound else region.whole(reader.height, reader.width)
            )
        except SetAside as what:
            raise DataError(what.reason, where=path) from None
        return np.stack(
            list(_square(reader, picture, store.size, store.fit, store.grey, lambda: None, indices(reader)))
        )


def _square(
    reader: Reader, picture: Picture, size: int, fit: str, grey: bool, beat: Beat, indices: Sequence[int] | None = None
) -> Iterator[Frames]:
    """Every frame, or those at `indices`: (size, size, 1 or 3), zero outside the picture, cropped to it, made square, scaled."""
    wanted = range(len(reader)) if indices is None else indices
    x0, y0, x1, y1 = picture.box
    inside = picture.mask[y0:y1, x0:x1].astype(np.uint8)[..., None]
    chunk = _at_once(reader, STORED)
    for start in range(0, len(wanted), chunk):
        for frame in reader.frames(wanted[start : start + chunk]):
            cut = np.ascontiguousarray(frame[y0:y1, x0:x1])
            if grey and cut.shape[-1] == 3:
                cut = cv2.cvtColor(cut, cv2.COLOR_RGB2GRAY)[..., None]
            elif not grey and cut.shape[-1] == 1:
                cut = np.repeat(cut, 3, axis=-1)
            yield _fit(cut * inside, size, fit)
        beat()


def _at_once(reader: Reader, held: int) -> int:
    """How many frames fit into so many bytes."""
    return max(1, min(64, held // (reader.height * reader.width * reader.channels)))


def _fit(frame: Frames, size: int, fit: str) -> Frames:
    height, width, channels = frame.shape
    if fit == "crop":
        side = min(height, width)
        y, x = (height - side) // 2, (width - side) // 2
        frame = frame[y : y + side, x : x + side]
    else:
        side = max(height, width)
        y, x = (side - height) // 2, (side - width) // 2
        frame = np.pad(frame, ((y, side - height - y), (x, side - width - x), (0, 0)))
    how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    small: Frames = cv2.resize(frame, (size, size), interpolation=how).reshape(size, size, channels)
    return small


class _Measures:
    """Mean and deviation of the grey levels that pass, and how much they change from frame to frame."""

    def __init__(self) -> None:
        self.frames = self.steps = 0
        self.total = self.squares = self.change = 0.0
        self._last: Frames | None = None

    def watch(self, frames: Iterator[Frames]) -> Iterator[Frames]:
        for frame in frames:
            mean, deviation = cv2.meanStdDev(frame.reshape(-1))
            self.total += mean.item()
            self.squares += deviation.item() ** 2 + mean.item() ** 2
            self.frames += 1
            if self._last is not None:
                self.change += float(cv2.absdiff(frame, self._last).mean())
                self.steps += 1
            self._last = frame
            yield frame

    @property
    def mean(self) -> float:
        return self.total / self.frames

    @property
    def std(self) -> float:
        return float(np.sqrt(max(0.0, self.squares / self.frames - self.mean**2)))

    @property
    def motion(self) -> float:
        return self.change / self.steps if self.steps else 0.0
