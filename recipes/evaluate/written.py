"""Descriptions of whole procedures, moment by moment, written once: what temporal heads read.

At each moment the encoder sees a clip that ends there, so nothing of the future is in what it says. A folder of them belongs to one encoder and one
way of looking; hours of video are mapped, never read as a whole.

    FOLDER/<key>/about.json                     what the key stands for
    FOLDER/<key>/<video_id>-<hash>.npy          (T, D) float32, moment k at k / rate seconds; hash: of the prepared frames
    FOLDER/<key>/<video_id>-<hash>.npy.partial  one that is being written; its .done says how many moments are in it
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from domains.base import ClipSettings
from domains.errors import DataError, MediaError, StorageError
from domains.store.clips import clips_until
from domains.store.frames import Frames
from domains.store.moments import moments
from domains.store.prepared import Prepared
from recipes.encoders.base import VideoEncoder
from recipes.evaluate.features import Extractor, Failure, describing, read_ahead
from recipes.training.lock import FolderLock

FORMAT = 1  # of these files, and of what is shown at a moment
BATCH = 16  # moments that are read and described at once
KEEP = 20.0  # seconds of work that a kill may cost
Told = Callable[[int, int, float], None]


@dataclass(frozen=True)
class Written:
    """Descriptions in `folder`, `rate` moments a second, (T, `channels`) of each recording."""

    folder: Path
    prepared: Prepared
    rate: float
    channels: int

    def moments(self, row: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Times (s) and native frames of a recording."""
        try:
            return moments(self.prepared.length(row), self.prepared.fps(row), self.rate)
        except DataError as error:
            raise DataError(error.what, where=f"video {self.prepared.video_id(row)}", do=error.do) from None

    def file(self, row: int) -> Path:
        """Where the descriptions of a recording lie."""
        content = hashlib.blake2b(self.prepared.sha256(row).encode(), digest_size=4).hexdigest()
        return self.folder / f"{self.prepared.video_id(row)}-{content}.npy"

    def read(self, row: int) -> NDArray[np.float32]:
        """(T, D), mapped into memory. Raises DataError where it was not written, or not by this encoder."""
        try:
            found = np.load(self.file(row), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            what = f"descriptions of video {self.prepared.video_id(row)} cannot be read ({error.__class__.__name__})"
            raise DataError(what, where=self.folder, do="Run it again: what is missing is written") from None
        if found.shape != (len(self.moments(row)[0]), self.channels):
            raise DataError("descriptions of another length", where=self.file(row), do="Delete it; it is written again")
        return found


def fingerprint(encoder: VideoEncoder) -> str:
    """16 hexadecimal digits of an encoder's weights and of what it expects to see."""
    return digest_of(encoder, encoder.geometry.model_dump_json(), but=encoder.unused())


def digest_of(module: nn.Module, *said: str, but: Iterable[nn.Parameter] = ()) -> str:
    """16 hexadecimal digits of a module's weights, and of what else is said of it. but: parameters that nothing depends on; where a folder lacks
    them, they are drawn anew every time it is opened."""
    digest = hashlib.blake2b("".join(said).encode(), digest_size=8)
    skipped = {id(parameter) for parameter in but}
    left_out = {name for name, parameter in module.named_parameters() if id(parameter) in skipped}
    for name, tensor in sorted(module.state_dict().items()):
        if name not in left_out:
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def write_descriptions(
    encoder: VideoEncoder,
    prepared: Prepared,
    rows: Sequence[int],
    clip: ClipSettings,
    rate: float,
    place: Path,
    told: Told | None = None,
) -> tuple[Written, tuple[Failure, ...]]:
    """Describe `rows` at `rate` moments a second, those that were not before; goes on where it was killed.

    clip: what the encoder is shown at a moment. place: where folders of descriptions lie. told(done, all, seconds left): moments, now and then.
    Returns the descriptions, and the recordings that could not be read. Raises StorageError (a disk that refuses, another run that writes there),
    DataError for a recording without frame rate.
    """
    about = {"format": FORMAT, "encoder": fingerprint(encoder), "clip": clip.model_dump(mode="json"), "rate": rate}
    key = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=8).hexdigest()
    written = Written(place / key, prepared, rate, encoder.description)
    missing = [row for row in rows if not written.file(row).is_file()]
    counts = {row: len(written.moments(row)[0]) for row in rows}
    if not missing:
        return written, ()
    try:
        written.folder.mkdir(parents=True, exist_ok=True)
        (written.folder / "about.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        lock = FolderLock(written.folder)
        lock.take()
        try:
            with describing(encoder) as describe:
                pace = Pace(sum(counts[row] for row in missing), told)
                failed = [_write(written, row, clip, describe, pace) for row in missing]
        finally:
            lock.release()
    except OSError as error:
        what = f"descriptions cannot be written ({error.strerror})"
        raise StorageError(what, where=written.folder, do="Free some space, then run it again: it goes on") from None
    return written, tuple(one for one in failed if one is not None)


class Pace:
    """How far a long piece of work is, told after a few seconds and then ever more seldom."""

    def __init__(self, total: int, told: Told | None) -> None:
        self.total, self.told, self.done, self.skipped = total, told, 0, 0
        self.began, self.next = time.perf_counter(), 5.0

    def skip(self, count: int) -> None:
        """What an earlier run did."""
        self.done, self.skipped = self.done + count, self.skipped + count

    def add(self, count: int) -> None:
        """What was done just now."""
        self.done += count
        spent = time.perf_counter() - self.began
        if self.told is not None and spent >= self.next and self.done < self.total:
            left = spent / max(1, self.done - self.skipped) * (self.total - self.done)
            self.told(self.done, self.total, left)
            self.next = spent + min(300.0, max(15.0, spent))


def _write(written: Written, row: int, clip: ClipSettings, describe: Extractor, pace: Pace) -> Failure | None:
    """All moments of one recording, from the first that is not there. Raises OSError."""
    final, (_, ends) = written.file(row), written.moments(row)
    draft, mark = final.with_name(final.name + ".partial"), final.with_name(final.name + ".done")
    done, table = _begun(draft, mark, (len(ends), written.channels))
    pace.skip(done)
    saved = time.perf_counter()
    for first, clips in _clips(written.prepared, row, clip, ends, done):
        if isinstance(clips, MediaError):
            pace.add(len(ends) - first)
            return Failure(written.prepared.video_id(row), clips.reason)
        table[first : first + len(clips)] = describe(clips)
        pace.add(len(clips))
        if time.perf_counter() - saved > KEEP:
            table.flush()
            _mark(mark, first + len(clips))
            saved = time.perf_counter()
    table.flush()
    draft.replace(final)
    mark.unlink(missing_ok=True)
    return None


def _begun(draft: Path, mark: Path, shape: tuple[int, int]) -> tuple[int, Any]:
    """(moments that are there, the mapped table) of a recording that was begun, or of a new one."""
    try:
        done = int(mark.read_text(encoding="utf-8"))
        table = np.lib.format.open_memmap(draft, mode="r+")
        if table.shape == shape and 0 <= done <= len(table):
            return done, table
    except (OSError, ValueError):
        pass
    mark.unlink(missing_ok=True)
    return 0, np.lib.format.open_memmap(draft, mode="w+", dtype=np.float32, shape=shape)


def _mark(mark: Path, done: int) -> None:
    draft = mark.with_name(mark.name + ".tmp")
    draft.write_text(str(done), encoding="utf-8")
    draft.replace(mark)


def _clips(
    prepared: Prepared, row: int, clip: ClipSettings, ends: NDArray[np.int64], first: int
) -> Iterator[tuple[int, Frames | MediaError]]:
    """(first moment, clips that end at it and the moments after it), BATCH at a time."""

    def read(start: int) -> Frames | MediaError:
        try:
            return clips_until(prepared, row, clip, ends[start : start + BATCH])
        except MediaError as error:
            return error

    return read_ahead(range(first, len(ends), BATCH), read, depth=2)  # at 224 pixels a batch is 40 MB
