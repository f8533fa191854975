"""Image sequences as research formats hold them, NIfTI and MetaImage: one block of samples behind a header."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from domains.errors import MediaError
from domains.media.greys import spread
from domains.media.kinds import why
from domains.media.reader import Frames, Reader

MOST_PIXELS = 64_000_000
MOST_BYTES = 200_000_000  # of a frame
MOST_INFLATED = 1 << 30  # bytes of a zlib stream, which is held as a whole: it cannot be read from the middle
BEST = 1100  # bytes that one byte of DEFLATE can stand for, and a little more
DAMAGE = (OSError, EOFError, zlib.error)


@dataclass(frozen=True)
class Block:
    """How samples lie. The first axis (x) runs fastest, then y, then time, as both formats have it: a frame is rows of y as it stands.

    data: the file that holds them, from `offset` on (of a gzip file: once unpacked). kind: of a sample, with its byte order. channels: 1, or 3
    for RGB side by side. value = sample * slope + intercept. window: the values that are black and white, where the header says. fps: where
    it says.
    """

    format: str
    data: Path
    offset: int
    packing: Literal["", "gzip", "zlib"]
    kind: np.dtype[Any]
    width: int
    height: int
    frames: int
    channels: int = 1
    slope: float = 1.0
    intercept: float = 0.0
    window: tuple[float, float] | None = None
    fps: float | None = None
    fps_source: str = "unknown"

    @property
    def frame_bytes(self) -> int:
        """Of one frame, as it lies."""
        return self.width * self.height * self.channels * self.kind.itemsize


def arrange(path: Path, sizes: Sequence[int]) -> tuple[int, int, int]:
    """(width, height, frames) of the sizes of all axes, x first. Raises MediaError where they are absurd, or more than pictures over time."""
    if len(sizes) < 2 or min(sizes) < 1:
        raise MediaError(path, "the header has no usable size")
    width, height, *rest = sizes
    longer = [size for size in rest if size > 1]
    if width * height > MOST_PIXELS:
        raise MediaError(path, f"claims frames of {width}x{height} pixels")
    if len(longer) > 1:
        raise MediaError(path, "a volume over time, not pictures over time", category="volume")
    return width, height, longer[0] if longer else 1


class VolumeReader(Reader):
    """Pictures over time in one block. `note` says how many of the claimed frames are there, if not all.

    8-bit samples are shown as they are. All others: the header's window where it has one, else from the smallest to the largest value of the
    whole file, for which it is read through once at opening, as packed files are to learn where they end.
    """

    media = "video"

    def __init__(self, path: Path, block: Block) -> None:
        self.path, self.header, self._block = path, {}, block
        self.codec, self.fps, self.fps_source = block.format, block.fps, block.fps_source
        self.height, self.width, self.channels = block.height, block.width, block.channels
        if block.frame_bytes > MOST_BYTES:
            raise MediaError(path, f"claims frames of {block.frame_bytes >> 20} MiB")
        try:
            self._file = self._start()
        except DAMAGE as error:
            raise MediaError(path, why("the pixels are damaged", error)) from None
        self._length, self._window = self._survey()
        if not self._length:
            self._file.close()
            raise MediaError(path, "no whole frame in the pixel data", category="truncated")
        short = self._length < block.frames
        self.note = f"the header says {block.frames} frames, the file holds {self._length}" if short else ""

    def _start(self) -> BinaryIO:
        block, size = self._block, self._block.data.stat().st_size
        wanted = block.frames * block.frame_bytes
        if block.packing and wanted > max(1, size) * BEST:
            reason = f"{size} bytes cannot hold {block.frames} frames of {block.width}x{block.height}"
            raise MediaError(self.path, reason, category="truncated")
        if block.packing == "gzip":
            return gzip.open(block.data, "rb")  # type: ignore[return-value]
        file: BinaryIO = block.data.open("rb")
        if not block.packing:
            return file
        with file:
            file.seek(block.offset)
            if wanted > MOST_INFLATED:
                raise MediaError(
                    self.path, f"packed frames of more than {MOST_INFLATED >> 20} MiB", category="no decoder"
                )
            inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
            packed = file.read(wanted + (1 << 24))  # what cannot be packed becomes a little longer
            return io.BytesIO(inflater.decompress(packed, wanted))

    def _survey(self) -> tuple[int, tuple[float, float] | None]:
        """How many frames are there, and the values that become black and white (None: as they are)."""
        block = self._block
        as_they_are = block.kind == np.uint8
        if not block.packing and (as_they_are or block.window):
            there = max(0, block.data.stat().st_size - block.offset) // block.frame_bytes
            return min(block.frames, there), None if as_they_are else block.window
        count, low, high = 0, np.inf, -np.inf
        for samples in self._all():
            count += 1
            if as_they_are or block.window:
                continue
            values = self._values(samples)
            values = values[np.isfinite(values)]
            low, high = min(low, values.min(initial=np.inf)), max(high, values.max(initial=-np.inf))
        return count, None if as_they_are else block.window or (float(low), float(high))

    def _all(self) -> Iterator[NDArray[Any]]:
        """Every whole frame, up to where the file ends or is damaged."""
        for index in range(self._block.frames):
            try:
                yield self._samples(index)
            except DAMAGE:
                return

    def __len__(self) -> int:
        return self._length

    def close(self) -> None:
        """See Reader."""
        self._file.close()

    def frames(self, indices: Sequence[int]) -> Frames:
        """See Reader."""
        wanted = [int(index) for index in indices]
        if outside := [index for index in wanted if not 0 <= index < len(self)]:
            raise IndexError(f"frame {outside[0]} of {len(self)}")
        out = np.empty((len(wanted), self.height, self.width, self.channels), np.uint8)
        done = {}
        for index in sorted(set(wanted)):  # a packed file is read forwards
            try:
                done[index] = self._picture(self._samples(index))
            except DAMAGE as error:
                raise MediaError(self.path, why(f"frame {index} is damaged", error)) from None
        for place, index in enumerate(wanted):
            out[place] = done[index]
        return out

    def _samples(self, index: int) -> NDArray[Any]:
        """(H, W, C), of the file's own type. Raises one of DAMAGE."""
        block = self._block
        begin = 0 if block.packing == "zlib" else block.offset
        self._file.seek(begin + index * block.frame_bytes)
        data = self._file.read(block.frame_bytes)
        if len(data) < block.frame_bytes:
            raise EOFError
        return np.frombuffer(data, block.kind).reshape(block.height, block.width, block.channels)

    def _values(self, samples: NDArray[Any]) -> NDArray[np.float64]:
        with np.errstate(all="ignore"):  # damage makes numbers that are none
            return samples.astype(np.float64) * self._block.slope + self._block.intercept

    def _picture(self, samples: NDArray[Any]) -> Frames:
        """(H, W, C) uint8."""
        if self._window is None:
            return samples
        low, high = self._window
        if not low < high:  # one value everywhere
            return np.zeros(samples.shape, np.uint8)
        return spread(self._values(samples), low, high)
