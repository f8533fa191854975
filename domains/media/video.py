"""Video files through PyAV: exact frames by timestamp, whatever the container says of its own length."""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from domains.errors import MediaError
from domains.media.codecs import codec_of
from domains.media.decoders import CODECS, package
from domains.media.reader import Frames, Reader
from domains.media.sparing import can_spare
from domains.media.video_index import Index, identify, recall, remember

MOST_PIXELS = 64_000_000
# Containers whose seeking cannot be trusted: read from the start.
SEQUENTIAL = {"mpegts", "mpeg", "mpegvideo", "h264", "hevc", "gif", "m4v", "obu", "ivf"}
# Streams without a container have no times, and may not say their rate either. FFmpeg then names its default: one that no camera has, so
# that it can be told from a rate that the stream says.
RAW = {"h264", "hevc", "mpegvideo", "m4v", "obu"}
UNSAID = Fraction(7, 1000)
GREY = {"gray", "gray10le", "gray12le", "gray16le", "gray16be"}
FAILURES = (av.FFmpegError, OSError, ValueError)  # of decoding


class VideoReader(Reader):
    """A video file. `note` says what was odd about it: frames that the container claims but nobody can decode, sizes that change (all are
    scaled to the first).

    At the first opening the packets are read once without decoding, for their times; a frame is reached from the keyframe before it, and of
    those between the ones that no other leans on are passed over. Whether the last frame decodes is tried when `len` is asked for, or when
    something does not decode: only then `len` and `note` are final. A file where it does not, or whose container cannot seek, is decoded
    once from the start to learn which frames there are.

    inside: opens the video where it lies within the file (as DICOM has it), to be called whenever reading begins anew.
    """

    media = "video"

    def __init__(self, path: Path, inside: Callable[[], BinaryIO] | None = None) -> None:
        self.path, self.header, self.note = path, {}, ""
        self._inside = inside
        self._decoder: Iterator[Any] | None = None  # stands after frame `_reached`, which is `_frame`
        self._reached, self._frame = -1, None
        self._asked: set[int] = set()  # times; what lies between them, up to the last, may be passed over
        self._last = 0
        self._coded: tuple[int, int] = (0, 0)
        # Left alone every frame makes one of its own, which costs more than the conversion.
        self._reformatter = VideoReformatter()
        try:
            self._container = self._start()
        except FAILURES as error:
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
            raise MediaError(self.path, self._no_decoder(), category="no decoder")
        self.codec = self._stream.codec_context.name
        self._sparing = can_spare(self.codec, self._stream.codec_context.extradata)
        if (self._stream.codec_context.width or 0) * (self._stream.codec_context.height or 0) > MOST_PIXELS:
            raise MediaError(self.path, "claims frames of an absurd size")
        self._identity = identify(self.path)
        if (known := recall(self._identity)) is not None:
            self._times, self._keys, self.note = known.times, known.keys, known.note
            self._sequential, self._sure = known.sequential, known.sure
            self._set_shape(known.coded, known.turns, known.grey)
        else:
            self._learn()
            self._keep()
        self._set_rate()

    def _no_decoder(self) -> str:
        with self.path.open("rb") as file:
            codec = codec_of(file)
        return f"no decoder for {CODECS[codec]}: install {package(codec)}" if codec else "no decoder for its codec"

    def _learn(self) -> None:
        """What the packets say; of containers that cannot seek, and where the first frame is not what they say, what decodes."""
        self._sequential, self._sure = self._container.format.name in SEQUENTIAL, False
        self._times, self._keys = self._index()
        if self._sequential or not self._times:
            self._survey()
            return
        try:
            _, first = next(self._walk([0]))
            self._describe(first)
        except (MediaError, *FAILURES):
            self._survey()

    def _survey(self) -> None:
        """Decode everything once: the frames that there are, to be counted from now on."""
        claimed = len(self._times)
        self._sequential = self._sure = True
        self._times, self._keys = [], []
        for frame in self._decode_all():
            self._describe(frame)
            self._times.append(frame.pts if frame.pts is not None else len(self._times))
        self._rewind()
        if claimed > len(self._times):
            self._remark(f"{claimed} frames claimed, {len(self._times)} can be decoded")
        if not self._times:
            raise MediaError(self.path, "no frame of it can be decoded", category="unreadable")

    def _make_sure(self) -> None:
        """Whether the last frame decodes, at the time that its packet says; else count all that do. Asked once, of a file once."""
        if self._sure:
            return
        try:
            self._describe(self._at(self._times[-1]))
            self._sure = True
        except (MediaError, *FAILURES):
            self._survey()
            self._set_rate()
        self._rewind()
        self._keep()

    def _keep(self) -> None:
        shape = self._coded, self._turns, self.channels == 1
        # There may be hours of it: a list of integers takes five times as much.
        times, keys = array("q", self._times), array("q", self._keys)
        remember(self._identity, Index(times, keys, self._sequential, self._sure, self.note, *shape))

    def _rewind(self) -> None:
        """The next frame is sought anew."""
        self._decoder, self._reached, self._frame = None, -1, None

    def _video(self) -> Any:
        """The stream to show: cover pictures are streams too. One thread: whoever reads many videos has as many processes."""
        stream = self._container.streams.best("video") or self._container.streams.video[0]
        if stream.codec_context is not None:
            stream.thread_count = 1
        return stream

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
        if not self._sure:
            try:
                self._make_sure()
            except FAILURES as error:
                raise MediaError(self.path, f"the video is damaged ({type(error).__name__})") from None
        return len(self._times)

    def times(self) -> NDArray[np.float64] | None:
        """See Reader. Those of the stream: phones and capture cards leave frames out."""
        if len(self) < 2 or self.fps_source != "timestamps":
            return super().times()
        ticks = np.asarray(self._times, np.float64)
        return (ticks - ticks[0]) * float(self._stream.time_base)

    def close(self) -> None:
        """See Reader."""
        self._rewind()
        self._container.close()

    def frames(self, indices: Sequence[int]) -> Frames:
        """See Reader."""
        wanted = [int(index) for index in indices]
        if outside := [index for index in wanted if not 0 <= index < len(self._times)]:
            raise IndexError(f"frame {outside[0]} of {len(self._times)}")
        try:
            return self._read(wanted)
        except (MediaError, *FAILURES) as error:
            self._rewind()
            if not self._sure and len(self) and self._sequential:  # it is not what its packets say
                return self.frames(wanted)
            if isinstance(error, MediaError):
                raise
            raise MediaError(self.path, f"frames cannot be decoded ({type(error).__name__})") from None

    def _read(self, wanted: list[int]) -> Frames:
        out = np.empty((len(wanted), self.height, self.width, self.channels), np.uint8)
        places: dict[int, list[int]] = {}
        for place, index in enumerate(wanted):
            places.setdefault(index, []).append(place)
        for index, frame in self._walk(sorted(places)):
            picture = self._picture(frame)
            for place in places[index]:
                out[place] = picture
        return out

    def _walk(self, wanted: list[int]) -> Iterator[tuple[int, Any]]:
        """(index, frame) of the sorted indices, decoding each stretch between keyframes at most once.

        The decoder stays where it is between calls, so that reading a recording piece by piece decodes it once.
        """
        self._asked = {self._times[index] for index in wanted}
        self._last = self._times[wanted[-1]] if wanted else 0
        for index in wanted:
            if index != self._reached or self._frame is None:
                self._frame = self._next_of_all(index) if self._sequential else self._next_at(index)
                self._reached = index
            yield index, self._frame

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
        self._decoder, self._sparing = None, False
        return self._at(time)

    def _from(self, key: int, *, every: bool = False) -> Iterator[Any]:
        self._container.seek(key, stream=self._stream, backward=True, any_frame=False)
        return self._frames(every)

    def _frames(self, every: bool) -> Iterator[Any]:
        """Frames from where the container stands. every: also those that were not asked for and that no other is decoded from.

        Nothing is passed over behind the last that was asked for: it may be what is asked for next.
        """
        decoder = self._stream.codec_context
        passing, decoder.skip_frame = False, "DEFAULT"
        for packet in self._container.demux(self._stream):
            if self._sparing and not every:
                between = packet.pts is not None and packet.pts < self._last and packet.pts not in self._asked
                if between != passing:
                    passing, decoder.skip_frame = between, "NONREF" if between else "DEFAULT"
            # What FFmpeg marks as corrupt shows in part what its memory held before: another picture at every reading.
            yield from (frame for frame in packet.decode() if not frame.is_corrupt)

    def _at(self, time: int) -> Any:
        """The frame shown at `time`, from ever earlier keyframes: open groups of pictures need the one before."""
        place = max(0, bisect.bisect_right(self._keys, time) - 1)
        for back in (0, 1, 2):
            for frame in self._from(self._keys[max(0, place - back)], every=True):
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
        try:
            for packet in self._container.demux(self._stream):
                try:
                    frames = packet.decode()
                    if any(frame.is_corrupt for frame in frames):
                        self._remark("damaged parts were left out")
                    yield from (frame for frame in frames if not frame.is_corrupt)
                except av.FFmpegError:
                    self._remark("damaged parts were left out")
        except (av.FFmpegError, OSError):
            self._remark("the file is cut short")

    def _picture(self, frame: Any) -> Frames:
        """(H, W, C) uint8, turned as it is to be shown."""
        if (frame.height, frame.width) != self._coded:
            self._describe(frame)
        height, width = self._coded
        flat = self._reformatter.reformat(frame, width, height, "gray" if self.channels == 1 else "rgb24", threads=1)
        plane: Any = flat.planes[0]
        rows = np.frombuffer(plane, np.uint8).reshape(height, plane.line_size)[:, : width * self.channels]
        picture = rows.reshape(height, width, self.channels)
        return np.rot90(picture, self._turns) if self._turns else picture
