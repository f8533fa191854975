"""What a frozen encoder says of each recording of a prepared folder, written once: what heads over whole studies read.

FOLDER/<key>/about.json       what the key stands for: encoder, clip, how many, which folder
FOLDER/<key>/described.npy    (recordings, D) float32, a row of it a row of the manifest; mapped, never read as a whole
FOLDER/<key>/done.npy         (recordings,) uint8: 1 where that row is written
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from domains.base import ClipSettings
from domains.errors import DataError, MediaError, StorageError
from domains.store.clips import evaluation_clips
from domains.store.frames import Frames
from domains.store.prepared import Prepared
from recipes.encoders.base import VideoEncoder
from recipes.evaluate.features import Failure, embedding, extract, read_ahead
from recipes.evaluate.written import KEEP, Pace, Told, fingerprint
from recipes.finetune.temporal import PIECE
from recipes.training.lock import FolderLock

FORMAT = 1
TABLE, DONE, ABOUT = "described.npy", "done.npy", "about.json"


class Descriptions(Protocol):
    """What is said of recordings, one row of numbers each."""

    def read(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """(len(rows), D)."""
        ...


@dataclass(frozen=True)
class Said:
    """What an encoder says of recordings now: they are read and described again every time, as `describe_recordings` would. While an encoder learns,
    nothing is worth keeping."""

    encoder: VideoEncoder
    prepared: Prepared
    clip: ClipSettings
    clips: int

    def read(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """(len(rows), D). Raises DataError where one cannot be read."""
        found = extract(self.encoder, self.prepared, rows, self.clip, self.clips)
        for failure in found.failed:
            what = f"video {failure.video_id} cannot be read any more: {failure.reason}"
            raise DataError(what, where=self.prepared.place, do="Mend it, then --resume")
        return found.values.astype(np.float32)


@dataclass(frozen=True)
class Described:
    """Descriptions in `folder`, of `channels` numbers each."""

    folder: Path
    prepared: Prepared
    channels: int

    def read(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """(len(rows), D). Raises DataError where one was not written."""
        try:
            table = np.load(self.folder / TABLE, mmap_mode="r", allow_pickle=False)
            done = np.load(self.folder / DONE, mmap_mode="r", allow_pickle=False)
            found, there = np.array(table[list(rows)], np.float32), np.asarray(done)[list(rows)]
        except (OSError, ValueError, IndexError) as error:
            what = f"descriptions cannot be read ({error.__class__.__name__})"
            raise DataError(what, where=self.folder, do="Delete the folder: it is written again") from None
        if not there.all():
            missing = self.prepared.video_id(int(rows[int(np.flatnonzero(there == 0)[0])]))
            raise DataError(f"video {missing} was not described", where=self.folder, do="Run it again")
        return found

    def pieces(self, rows: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """The same, PIECE of them at a time."""
        for first in range(0, len(rows), PIECE):
            yield self.read(rows[first : first + PIECE])


def describe_recordings(
    encoder: VideoEncoder,
    prepared: Prepared,
    rows: Sequence[int],
    clip: ClipSettings,
    clips: int,
    place: Path,
    told: Told | None = None,
) -> tuple[Described, tuple[Failure, ...]]:
    """Describe `rows`, those that were not before, by `clips` clips each (`VideoEncoder.describe_recording`); goes on where it was killed.

    place: where folders of descriptions lie. told(done, all, seconds left): recordings, now and then. Returns the descriptions, and the recordings
    that could not be read. Raises StorageError for a disk that refuses, ConfigError where another run writes there.
    """
    content = hashlib.blake2b("".join(prepared.column("sha256")).encode(), digest_size=8).hexdigest()
    about = {
        "format": FORMAT, "encoder": fingerprint(encoder), "clip": clip.model_dump(mode="json"), "clips": clips, "frames": content,
        "recordings": len(prepared),
    }  # fmt: skip
    key = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=8).hexdigest()
    described = Described(place / key, prepared, encoder.description)
    try:
        described.folder.mkdir(parents=True, exist_ok=True)
        (described.folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        lock = FolderLock(described.folder)
        lock.take()
        try:
            failed = _fill(described, encoder, rows, clip, clips, told)
        finally:
            lock.release()
    except OSError as error:
        what = f"descriptions cannot be written ({error.strerror})"
        raise StorageError(what, where=described.folder, do="Free some space, then run it again: it goes on") from None
    return described, failed


def _fill(
    described: Described,
    encoder: VideoEncoder,
    rows: Sequence[int],
    clip: ClipSettings,
    clips: int,
    told: Told | None,
) -> tuple[Failure, ...]:
    """Write what is missing. Raises OSError."""
    prepared = described.prepared
    if not (described.folder / TABLE).is_file():
        (described.folder / DONE).unlink(missing_ok=True)
    table = _opened(described.folder / TABLE, (len(prepared), described.channels), np.float32)
    done = _opened(described.folder / DONE, (len(prepared),), np.uint8)
    missing = [row for row in rows if not done[row]]
    failed: list[Failure] = []

    def read(row: int) -> Frames | MediaError:
        try:
            return evaluation_clips(prepared, row, clip, clips)
        except MediaError as error:
            return error

    pace, finished, saved = Pace(len(missing), told), [], time.perf_counter()
    with embedding(encoder) as describe:
        for row, seen in read_ahead(missing, read):
            if isinstance(seen, MediaError):
                failed.append(Failure(prepared.video_id(row), seen.reason))
            else:
                table[row] = describe(seen)
                finished.append(row)
            pace.add(1)
            if time.perf_counter() - saved > KEEP or row == missing[-1]:
                table.flush()
                done[finished] = 1  # only now: a row that counts as done is on the disk
                done.flush()
                finished, saved = [], time.perf_counter()
    return tuple(failed)


def _opened(path: Path, shape: tuple[int, ...], kind: type[np.generic]) -> Any:
    """A mapped table of zeros, or the one that an earlier run began."""
    try:
        table = np.lib.format.open_memmap(path, mode="r+")
        if table.shape == shape and table.dtype == kind:
            return table
    except (OSError, ValueError):
        pass
    return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
