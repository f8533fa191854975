"""A short recording, decoded once: it is looked at three times (picture, sweep, store), and decoding is what takes the time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from domains.media.reader import Frames, Reader


class Held(Reader):
    """All frames of a recording in memory; everything else is the reader's own."""

    def __init__(self, reader: Reader, frames: Frames) -> None:
        self._frames, self._times = frames, reader.times()
        self.path, self.header, self.note = reader.path, reader.header, reader.note
        self.height, self.width, self.channels = reader.height, reader.width, reader.channels
        self.fps, self.fps_source, self.media, self.codec = reader.fps, reader.fps_source, reader.media, reader.codec

    def __len__(self) -> int:
        return len(self._frames)

    def times(self) -> NDArray[np.float64] | None:
        """See Reader."""
        return self._times

    def frames(self, indices: Sequence[int]) -> Frames:
        """See Reader. Copies: who writes into a frame changes no other's."""
        found: Frames = self._frames[np.asarray(indices, np.int64)]
        return found


def held(reader: Reader, most: int, beat: Callable[[], None]) -> Reader:
    """`reader`, or what it holds in memory where that is at most `most` bytes. Raises MediaError where a frame is damaged."""
    each = reader.height * reader.width * reader.channels
    if len(reader) * each > most:
        return reader
    frames = np.empty((len(reader), reader.height, reader.width, reader.channels), np.uint8)
    step = max(1, 16_000_000 // each)
    for start in range(0, len(frames), step):
        part = range(start, min(start + step, len(frames)))
        frames[start : part.stop] = reader.frames(part)
        beat()
    return Held(reader, frames)
