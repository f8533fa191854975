"""A folder of numbered videos that follow each other (0.mp4, 1.mp4, ... of 600 s each, as Ego4D's are cut), read as one recording.

Only a data set's table says that they do: a folder of numbered videos that nobody names is a folder of recordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domains.errors import MediaError
from domains.media.frame_folder import NUMBERED
from domains.media.kinds import sniff_file
from domains.media.reader import Frames, Reader
from domains.media.video import VideoReader

RATES_AGREE = 0.01  # relative
FEWEST = 2


def chunk_files(path: Path) -> list[Path] | None:
    """The videos of a folder in the order of their numbers; None where it does not hold two or more that are named alike but for a number, and
    nothing else that is a recording."""
    if not path.is_dir():
        return None
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".") and entry.is_file()]
    numbered: list[tuple[int, str, Path]] = []
    for entry in entries:
        if sniff_file(entry) is None:
            continue
        parts = NUMBERED.fullmatch(entry.stem)
        if sniff_file(entry) != "video" or not parts:
            return None
        numbered.append((int(parts[2]), parts[1] + entry.suffix.lower(), entry))
    if len(numbered) < FEWEST or len({name for _, name, _ in numbered}) > 1:
        return None
    return [entry for _, _, entry in sorted(numbered)]


class ChunksReader(Reader):
    """Videos one after the other: the first frame of a chunk follows the last of the one before by one frame's time. No more than one is open.

    Raises MediaError where one cannot be read, a number is missing, or sizes or frame rates differ.
    """

    media = "video"

    def __init__(self, path: Path) -> None:
        files = chunk_files(path)
        if files is None:
            raise MediaError(path, "a folder, but not of numbered videos alone", category="not a recording")
        numbers = [int(match[2]) for file in files if (match := NUMBERED.fullmatch(file.stem))]
        if missing := sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers)):
            raise MediaError(path, f"chunk {missing[0]} is missing: times after it would be wrong")
        self.path, self.header, self._files = path, {}, files
        self._open: tuple[int, VideoReader] | None = None
        lengths, times, notes, start = [], [], [], 0.0
        for number, file in enumerate(files):
            reader = self._chunk(number)
            own = reader.times()
            if number == 0:
                self.height, self.width, self.channels = reader.height, reader.width, reader.channels
                self.fps, self.fps_source, self.codec = reader.fps, reader.fps_source, reader.codec
            if (reader.height, reader.width) != (self.height, self.width):
                raise MediaError(
                    file, f"chunk {number} is {reader.width}x{reader.height}, the first is {self.width}x{self.height}"
                )
            if not self.fps or not reader.fps or own is None or abs(reader.fps - self.fps) > RATES_AGREE * self.fps:
                raise MediaError(
                    file, f"chunk {number} has {reader.fps or 'no'} frames a second, the first {self.fps or 'none'}"
                )
            lengths.append(len(reader))
            times.append(start + own)
            start += float(own[-1]) + 1 / reader.fps
            notes.append(reader.note)
        self._starts = np.cumsum([0, *lengths])
        self._times: NDArray[np.float64] = np.concatenate(times)
        odd = "; ".join(f"chunk {number}: {note}" for number, note in enumerate(notes) if note)
        self.note = "; ".join(filter(None, [f"{len(files)} chunks in a row", odd]))

    def _chunk(self, number: int) -> VideoReader:
        if self._open is None or self._open[0] != number:
            self.close()
            self._open = (number, VideoReader(self._files[number]))
        return self._open[1]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def times(self) -> NDArray[np.float64]:
        """See Reader: times go on from chunk to chunk."""
        return self._times

    def frames(self, indices: Sequence[int]) -> Frames:
        """See Reader."""
        wanted = [int(index) for index in indices]
        if outside := [index for index in wanted if not 0 <= index < len(self)]:
            raise IndexError(f"frame {outside[0]} of {len(self)}")
        of = (np.searchsorted(self._starts, wanted, side="right") - 1).tolist()
        out = np.empty((len(wanted), self.height, self.width, self.channels), np.uint8)
        for number, places in groupby(range(len(wanted)), key=of.__getitem__):
            held = list(places)
            out[held] = self._chunk(number).frames([wanted[place] - int(self._starts[number]) for place in held])
        return out

    def close(self) -> None:
        """Release the chunk that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None
