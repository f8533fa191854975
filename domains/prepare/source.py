"""One source file, from its bytes to stored frames and a manifest row, or to the reason why not (in a worker)."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import secrets
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from numpy.typing import NDArray

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
from domains.prepare.outside import Withheld, blanked, joined, redacted_frames
from domains.prepare.pool import Beat
from domains.prepare.privacy import Pseudonyms, identity, stem, text
from domains.prepare.region import Picture
from domains.store.frames import Frames, jpegs
from domains.store.manifest import VideoRow, frame_file
from domains.store.square import square

SAMPLED = 32  # frames looked at to find the picture
PAIRS = 6  # neighbouring frames looked at to tell a sweeping trace from tissue
HELD = 200_000_000  # bytes of frames held at once: a whole cine of 850 frames of 1024x768 would be 2 GB
ONCE = 100_000_000  # a recording of no more is decoded once, and looked at from memory
STORED = 60_000_000  # of those, while they are being stored
DECODED = 512  # frames decoded between two signs of life
RATES_AGREE = 0.01  # relative: 29.97 and 30
SAME = 0.002  # seconds: the clocks of some containers tick a thousand times a second
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
            return _examine(
                dataclasses.replace(
                    task, source=Source(path, task.relative, fps=task.source.fps, redacted=task.source.redacted)
                ),
                beat,
            )
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
        if domain.region.policy == "ultrasound" and reader.media == "dicom":
            classify.judge_header(reader.header, len(reader), domain.min_frames, domain.colour_doppler)
        classify.judge_length(len(reader), domain.min_frames)
        reader = held(reader, ONCE, beat)
        sample = _sample(reader, beat)
        picture = _picture(reader, sample, domain)
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


def _sample(reader: Reader, beat: Beat) -> Frames:
    """Frames spread over the recording."""
    count = min(SAMPLED, len(reader), max(8, _at_once(reader, HELD)))
    sample = np.empty((count, reader.height, reader.width, reader.channels), np.uint8)
    for place, index in enumerate(np.linspace(0, len(reader) - 1, count).round().astype(int).tolist()):
        sample[place] = reader.frames([index])[0]  # of hours of video, each may take a second to reach
        beat()
    return sample


def _picture(reader: Reader, sample: Frames, domain: Domain) -> Picture:
    """Where the picture is, as the domain finds it, without the boxes that it blanks. Raises SetAside."""
    if domain.region.policy == "ultrasound":
        found = _sector(reader, sample, domain)
    elif domain.region.policy == "endoscope":
        found = region.endoscope(sample, domain.region.min_fraction)
    else:
        found = region.whole(reader.height, reader.width)
    return region.without(found, domain.region.blank)


def _sector(reader: Reader, sample: Frames, domain: Domain) -> Picture:
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
    settings, policy = task.domain.store, task.domain.out_of_body
    rate = _rate(reader, task.source.fps)
    kept, fps = _kept(len(reader), rate.times, settings.rate)
    measures, withheld = _Measures(), Withheld(policy, fps or rate.fps)
    frames = _square(reader, kept, picture, settings, beat)
    redacted = redacted_frames(task.source.redacted, len(kept), fps or rate.fps)
    frames = blanked(frames if policy == "keep" else withheld.pass_on(frames), redacted)
    frames = measures.watch(frames)
    video_id = names.token("content", content)
    with _writing(None if task.out is None else frame_file(task.out, video_id)) as written:
        for jpeg in jpegs(frames, settings.quality):
            written.add(jpeg)
        if policy != "keep" and not withheld.understood:
            what = f"{withheld.withheld} of {withheld.total} frames do not surely show the inside of a body"
            raise SetAside("out of body", what)
    offsets = tuple(written.offsets)
    header, known = reader.header, identity(reader.header)
    x0, y0, x1, y1 = picture.box
    _, _, side = square(x1 - x0, y1 - y0, settings.fit)
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
        fps=fps or rate.fps,
        fps_source=rate.source,
        region=picture.box,
        region_source=picture.source,
        cm_per_pixel=picture.cm_per_pixel * side / settings.size if picture.cm_per_pixel else None,
        manufacturer=known.manufacturer,
        age=known.age,
        sex=known.sex,
        heart_rate=known.heart_rate,
        mean=measures.mean,
        std=measures.std,
        motion=measures.motion,
        offsets=offsets,
        bytes=offsets[-1],
        sha256=written.digest.hexdigest(),
        note="; ".join(filter(None, [_public(reader.note, task), rate.note])),
        source_fps=rate.fps if fps else None,
        outside=joined(withheld.spans, redacted),
        frame=(reader.width, reader.height),
    )


@dataclass(frozen=True)
class _Rate:
    """Frames a second of the source, who says so, and the time of each frame (n,) in seconds; None where unknown. note: what was odd."""

    fps: float | None
    source: str
    times: NDArray[np.float64] | None
    note: str = ""


def _rate(reader: Reader, told: float | None) -> _Rate:
    """told: by the table of a public data set. It wins over the file: the times of its labels were computed with it."""
    own = float(reader.fps) if reader.fps else None
    if not told:
        return _Rate(own, reader.fps_source, reader.times())
    note = ""
    if own is not None and abs(own - told) > RATES_AGREE * told:
        note = f"{own:g} frames a second in the file, {told:g} in the data set's table: the table's is used"
    return _Rate(told, "layout", np.arange(len(reader)) / told, note)


def _kept(frames: int, times: NDArray[np.float64] | None, rate: float | None) -> tuple[Sequence[int], float | None]:
    """Which of the frames are stored, and how many a second: the one on screen at every 1 / rate seconds. All, and None, where there are no
    more of them than that, or nobody knows when they were shown.
    """
    if rate is None or times is None or frames < 2 or (frames - 1) / times[-1] <= rate * (1 + RATES_AGREE):
        return range(frames), None
    moments = np.arange(int(times[-1] * rate + SAME) + 1) / rate
    return (np.searchsorted(times, moments + SAME, side="right") - 1).tolist(), rate


class _Written:
    """What has been added: where each part ends, and the hash of all."""

    def __init__(self, file: IO[bytes] | None) -> None:
        self._file, self.offsets, self.digest = file, [0], hashlib.sha256()

    def add(self, part: bytes) -> None:
        self.digest.update(part)
        self.offsets.append(self.offsets[-1] + len(part))
        if self._file is not None:
            try:
                self._file.write(part)
            except OSError as error:
                raise _disk_error(error) from None


@contextlib.contextmanager
def _writing(path: Path | None) -> Iterator[_Written]:
    """A file part by part, whole or not at all; two files of one content write the same. None: nothing is written."""
    if path is None:
        yield _Written(None)
        return
    draft = path.with_name(f"{path.name}.{secrets.token_hex(6)}")  # process ids of two machines may be the same
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = draft.open("wb")
    except OSError as error:
        raise _disk_error(error) from None
    try:
        yield _Written(file)
        try:
            file.close()
            draft.replace(path)
        except OSError as error:
            raise _disk_error(error) from None
    finally:
        with contextlib.suppress(OSError):
            file.close()
            draft.unlink(missing_ok=True)


def stored_frames(
    path: Path, domain: Domain, store: StoreSettings, wanted: Callable[[int, float | None], Sequence[int]]
) -> Frames:
    """Frames of a recording in the form in which they would be stored, uint8 (n, size, size, C); nothing is written, and nothing is judged but where
    the picture is. wanted(how many would be stored, at how many a second) -> which. Raises MediaError; DataError where no picture is found.
    """

    def beat() -> None:
        """Nobody waits for a sign of life."""

    with open_reader(path) as reader:
        try:
            picture = _picture(reader, _sample(reader, beat), domain)
        except SetAside as what:
            raise DataError(what.reason, where=path) from None
        rate = _rate(reader, None)
        kept, fps = _kept(len(reader), rate.times, store.rate)
        chosen = [kept[place] for place in wanted(len(kept), fps or rate.fps)]
        return np.stack(list(_square(reader, chosen, picture, store, beat)))


def _disk_error(error: OSError) -> _DiskError:
    return _DiskError(error.strerror or error.__class__.__name__)


def _square(
    reader: Reader, kept: Sequence[int], picture: Picture, settings: StoreSettings, beat: Beat
) -> Iterator[Frames]:
    """Every frame that is kept: (size, size, 1 or 3), zero outside the picture, cropped to it, made square, scaled."""
    grey = settings.grey
    x0, y0, x1, y1 = picture.box
    inside = picture.mask[y0:y1, x0:x1].astype(np.uint8)[..., None]
    # Between two that are kept many may have to be decoded; a sign of life is due meanwhile.
    chunk = max(1, min(_at_once(reader, STORED), DECODED * len(kept) // len(reader)))
    for start in range(0, len(kept), chunk):
        for frame in reader.frames(kept[start : start + chunk]):
            cut = np.ascontiguousarray(frame[y0:y1, x0:x1])
            if grey and cut.shape[-1] == 3:
                cut = cv2.cvtColor(cut, cv2.COLOR_RGB2GRAY)[..., None]
            elif not grey and cut.shape[-1] == 1:
                cut = np.repeat(cut, 3, axis=-1)
            yield _fit(cut * inside, settings.size, settings.fit)
        beat()


def _at_once(reader: Reader, held: int) -> int:
    """How many frames fit into so many bytes."""
    return max(1, min(64, held // (reader.height * reader.width * reader.channels)))


def _fit(frame: Frames, size: int, fit: str) -> Frames:
    height, width, channels = frame.shape
    x, y, side = square(width, height, fit)
    if fit == "crop":
        frame = frame[y : y + side, x : x + side]
    else:
        frame = np.pad(frame, ((-y, side - height + y), (-x, side - width + x), (0, 0)))
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
