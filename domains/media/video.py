"""Video files through PyAV: exact frames by timestamp, whatever the container says of its own length."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from domains.errors import MediaError
from domains.media.reader import Frames, Reader

MOST_PIXELS = 64_000_000
# Containers whose seeking cannot be trusted: read from the start.
SEQUENTIAL = {"mpegts", "mpeg", "mpegvideo", "h264", "hevc", "gif", "m4v", "obu", "ivf"}
# Streams without a container have no times, and may not say their rate either. FFmpeg then names its default: one that no camera has, so
# that it can be told from a rate that the stream says.
RAW = {"h264", "hevc", "mpegvideo", "m4v", "obu"}
UNSAID = Fraction(7, 1000)
GREY = {"gray", "gray10le", "gray12le", "gray16le", "gray16be"}


@dataclass(frozen=True)
class Index:
    """What opening learns of a file: when its frames are shown, where decoding can start, and what a frame looks like."""

    times: list[int]
    keys: list[int]
    sequential: bool
    note: str
    coded: tuple[int, int]  # height and width before turning
    turns: int  # quarter turns, counter-clockwise
    grey: bool


# Files that this process has opened before, by identity, size and time of change; the least recent first. To learn an index costs the
# decoding of a group of pictures, which a loader that opens a file for every clip should pay once.
_known: OrderedDict[tuple[int, ...], Index] = OrderedDict()
MOST_KNOWN = 256


def forget() -> None:
    """Open every file as if for the first time; to measure what that costs."""
    _known.clear()


class VideoReader(Reader):
    """A video file. `note` says what was odd about it: frames that the container claims but nobody can decode, sizes that change (all are
    scaled to the first).

    The packets are read once without decoding for their timestamps; a frame is reached from the keyframe before it. A file whose last frame
    does not decode, or whose container cannot seek, is decoded once from the start to learn which frames there are.

    inside: opens the video where it lies within the file (as DICOM has it), to be called whenever reading begins anew.
    """

    media = "video"

    def __init__(self, path: Path, inside: Callable[[], BinaryIO] | None = None) -> None:
        self.path, self.header, self.note = path, {}, ""
        self._inside = inside
        self._decoder: Iterator[Any] | None = None  # stands after frame `_reached`
        self._reached = -1
        self._coded: tuple[int, int] = (0, 0)
        try:
            self._container = self._start()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise MediaError(path, f"cannot be opened as a video ({type(error).__name__})") from None
        try:
            self._open()
        except MediaError:
            self._container.close()
            raise
        except Exception as error:  # FFmpeg raises whatever a damaged stream provokes
            self._container.close()
            raise MediaError(path, f"the video is damaged ({type(error).__name__})") from None

    def _start(self) -> Any:
        source = str(self.path) if self._inside is None else self._inside()
        options = {"framerate": f"{UNSAID.numerator}/{UNSAID.denominator}"}
        return av.open(source, metadata_errors="replace", container_options=options)

    def _open(self) -> None:
        if not self._container.streams.video:
            raise MediaError(self.path, "no video in it (sound only?)", category="not a recording")
        self._stream: Any = self._video()
        if self._stream.codec_context is None:
            raise MediaError(self.path, "no decoder for its codec", category="no decoder")
        self._stream.thread_count = 1
        self.codec = self._stream.codec_context.name
        if (self._stream.codec_context.width or 0) * (self._stream.codec_context.height or 0) > MOST_PIXELS:
            raise MediaError(self.path, "claims frames of an absurd size")
        about = self.path.stat()
        identity = about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns
        if identity in _known:
            self._recall(_known[identity])
        else:
            self._learn()
            turned = self._coded, self._turns, self.channels == 1
            _known[identity] = Index(self._times, self._keys, self._sequential, self.note, *turned)
            while len(_known) > MOST_KNOWN:
                _known.popitem(last=False)
        _known.move_to_end(identity)
        self._set_rate()

    def _recall(self, index: Index) -> None:
        self._times, self._keys, self._sequential, self.note = index.times, index.keys, index.sequential, index.note
        self._set_shape(index.coded, index.turns, index.grey)

    def _learn(self) -> None:
        self._sequential = self._container.format.name in SEQUENTIAL
        self._times, self._keys = self._index()
        if not self._sequential and not self._reachable():
            self._sequential = True
        if self._sequential:
            claimed = len(self._times)
            self._times, self._keys = [], []
            for frame in self._decode_all():
                self._describe(frame)
                self._times.append(frame.pts if frame.pts is not None else len(self._times))
            if claimed > len(self._times):
                self._remark(f"{claimed} frames claimed, {len(self._times)} can be decoded")
        if not self._times:
            raise MediaError(self.path, "no frame of it can be decoded", category="unreadable")

    def _video(self) -> Any:
        """The stream to show: cover pictures are streams too."""
        return self._container.streams.best("video") or self._container.streams.video[0]

    def _index(self) -> tuple[list[int], list[int]]:
        """Presentation times of all packets and of the keyframes, both sorted, without decoding."""
        times, keys = [], []
        try:
            for packet in self._container.demux(self._stream):
                time = packet.pts if packet.pts is not None else packet.dts
                if packet.size == 0 or time is None or packet.is_discard or packet.is_corrupt:
                    continue
                times.append(time)
                if packet.is_keyframe:
                    keys.append(time)
        except (av.FFmpegError, OSError):
            self._remark("the file is cut short")
        if len(set(times)) != len(times) or not keys:
            self._sequential = True
        first = min(keys, default=0)  # what comes before the first keyframe of a cut file cannot be decoded
        return sorted(time for time in set(times) if time >= first), sorted(set(keys))

    def _reachable(self) -> bool:
        """Whether first and last frame decode at the times that the packets say."""
        if not self._times:
            return False
        try:
            for time in (self._times[0], self._times[-1]):
                self._describe(self._at(time))
        except (MediaError, av.FFmpegError, OSError, ValueError, StopIteration):
            return False
        return True

    def _describe(self, frame: Any) -> None:
        """Size and channels, from the first decoded frame."""
        if self._coded != (0, 0):
            if (frame.height, frame.width) != self._coded:
                self._remark("the frame size changes; all are scaled to the first")
            return
        if frame.height * frame.width > MOST_PIXELS:
            raise MediaError(self.path, f"frames of {frame.width}x{frame.height} pixels")
        turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
        self._set_shape((frame.height, frame.width), turns, frame.format.name in GREY)

    def _set_shape(self, coded: tuple[int, int], turns: int, grey: bool) -> None:
        self._coded, self._turns, self.channels = coded, turns, 1 if grey else 3
        self.height, self.width = coded if turns % 2 == 0 else coded[::-1]

    def _remark(self, text: str) -> None:
        if text not in self.note:
            self.note = "; ".join(filter(None, [self.note, text]))

    def _set_rate(self) -> None:
        base, raw = self._stream.time_base, self._container.format.name in RAW
        if len(self._times) > 1 and base and self._times[-1] > self._times[0] and not raw:
            self.fps = (len(self._times) - 1) / float((self._times[-1] - self._times[0]) * base)
            self.fps_source = "timestamps"
            return
        rate = self._stream.codec_context.framerate if raw else self._stream.average_rate or self._stream.guessed_rate
        self.fps, self.fps_source = (float(rate), "stream" if raw else "container") if rate else (None, "unknown")
        # Matroska's clock ticks at 1000: a guess from it says nothing.
        if rate == UNSAID or (self.fps is not None and not 0.5 <= self.fps < 1000):
            self.fps, self.fps_source = None, "unknown"

    def __len__(self) -> int:
        return len(self._times)

    def close(self) -> None:
        """See Reader."""
        self._container.close()

    def frames(self, indices: Sequence[int]) -> Frames:
        """See Reader."""
        wanted = [int(index) for index in indices]
        if outside := [index for index in wanted if not 0 <= index < len(self)]:
            raise IndexError(f"frame {outside[0]} of {len(self)}")
        out = np.empty((len(wanted), self.height, self.width, self.channels), np.uint8)
        places: dict[int, list[int]] = {}
        for place, index in enumerate(wanted):
            places.setdefault(index, []).append(place)
        try:
            for index, frame in self._walk(sorted(places)):
                picture = self._picture(frame)
                for place in places[index]:
                    out[place] = picture
        except (av.FFmpegError, OSError, ValueError) as error:
            self._decoder = None
            raise MediaError(self.path, f"frames cannot be decoded ({type(error).__name__})") from None
        except MediaError:
            self._decoder = None
            raise
        return out

    def _walk(self, wanted: list[int]) -> Iterator[tuple[int, Any]]:
        """(index, frame) of the sorted indices, decoding each stretch between keyframes at most once.

        The decoder stays where it is between calls, so that reading a recording piece by piece decodes it once.
        """
        for index in wanted:
            frame = self._next_of_all(index) if self._sequential else self._next_at(index)
            self._reached = index
            yield index, frame

    def _next_of_all(self, index: int) -> Any:
        """Frame `index` by counting: for containers that cannot seek."""
        if self._decoder is None or index <= self._reached:
            self._decoder, self._reached = self._decode_all(), -1
        for _ in range(index - self._reached - 1):
            next(self._decoder, None)
        frame = next(self._decoder, None)
        if frame is None:
            raise MediaError(self.path, f"frame {index} cannot be decoded any more")
        return frame

    def _next_at(self, index: int) -> Any:
        """Frame `index` by its time, going on from where the decoder is unless a seek jumps over something."""
        time = self._times[index]
        key = self._keys[bisect.bisect_right(self._keys, time) - 1]
        skipped = bisect.bisect_left(self._times, key) - self._reached - 1  # frames that a seek would save
        if self._decoder is None or index <= self._reached or skipped > 0:
            self._decoder = self._from(key)
        frame = next((frame for frame in self._decoder if frame.pts is not None and frame.pts >= time), None)
        if frame is not None and frame.pts == time:
            return frame
        self._decoder = None
        return self._at(time)

    def _from(self, key: int) -> Iterator[Any]:
        self._container.seek(key, stream=self._stream, backward=True, any_frame=False)
        return iter(self._container.decode(self._stream))

    def _at(self, time: int) -> Any:
        """The frame shown at `time`, from ever earlier keyframes: open groups of pictures need the one before."""
        place = max(0, bisect.bisect_right(self._keys, time) - 1)
        for back in (0, 1, 2):
            for frame in self._from(self._keys[max(0, place - back)]):
                if frame.pts == time:
                    return frame
                if frame.pts is not None and frame.pts > time and back < 2:
                    break
        raise MediaError(self.path, "a frame that the index names cannot be decoded")

    def _decode_all(self) -> Iterator[Any]:
        """Every frame that decodes, from the start; what follows damage is still used."""
        self._container.close()
        self._container = self._start()
        self._stream = self._video()
        self._stream.thread_count = 1
        try:
            for packet in self._container.demux(self._stream):
                try:
                    yield from packet.decode()
                except av.FFmpegError:
                    self._remark("damaged parts were left out")
        except (av.FFmpegError, OSError):
            self._remark("the file is cut short")

    def _picture(self, frame: Any) -> Frames:
        """(H, W, C) uint8, turned as it is to be shown."""
        if (frame.height, frame.width) != self._coded:
            self._describe(frame)
            frame = frame.reformat(width=self._coded[1], height=self._coded[0])
        if self.channels == 1:
            picture = frame.to_ndarray(format="gray")[..., None]
        else:
            picture = frame.to_ndarray(format="rgb24")
        return np.rot90(picture, self._turns) if self._turns else picture
