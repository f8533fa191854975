"""DICOM recordings: any transfer syntax, only the frames that are asked for."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset, read_preamble

from domains.errors import MediaError
from domains.media.decoders import VIDEO, can_decode, missing, name_of
from domains.media.enhanced import Course, read_course
from domains.media.fragments import Joined, Layout, Span, find_fragments, lay_out
from domains.media.greys import ToBytes
from domains.media.kinds import HEAD, kind_of
from domains.media.pixels import CODESTREAMS, DCT, FrameDecoder, read_format
from domains.media.reader import Frames, Reader
from domains.media.timing import frame_rate
from domains.media.video import VideoReader

PIXEL_DATA, FLOATS = 0x7FE00010, (0x7FE00008, 0x7FE00009)
MOST_INFLATED = 400_000_000  # bytes of a deflated data set, which cannot be read piece by piece
LARGE = 1 << 20  # bytes of an element that is left on disk until somebody asks for it


class DicomReader(Reader):
    """A DICOM file. `note` says what was odd about it ("" if nothing): a wrong NumberOfFrames, a file cut short, rates that disagree.

    Frames are pictures over time: of an enhanced file those of one plane, as `domains.media.enhanced` finds them.
    Video inside (MPEG-2, H.264, HEVC) is read as VideoReader reads any video, from where it lies; the header stays the DICOM's. Of all
    others opening reads the header and finds where each frame lies. Frames are then read from the file one by one; only a deflated data
    set has to be held as a whole. What cannot be decoded at all is found at opening, by the transfer syntax and by the first frame.
    """

    media = "dicom"
    header: Dataset

    def __init__(self, path: Path) -> None:
        self.path = path
        self.note = ""
        self._video: VideoReader | None = None
        try:
            self._file: BinaryIO = path.open("rb")
        except OSError as error:
            raise MediaError(path, f"cannot be read ({error.strerror})") from None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._open()
        except MediaError:
            self._file.close()
            raise
        except Exception as error:  # pydicom raises whatever a damaged header provokes
            self._file.close()
            raise MediaError(path, f"the DICOM header is damaged ({type(error).__name__})") from None

    def _open(self) -> None:
        implicit, little = self._read_header()
        order = "<" if little else ">"
        start, length = self._find_pixels(implicit, order)
        if not can_decode(str(self.syntax)):
            raise MediaError(self.path, missing(str(self.syntax)), category="no decoder")
        if str(self.syntax) in VIDEO:
            self._open_video(start, order)
            return
        self._form = form = read_format(self.header, self.path)
        self.height, self.width, self.channels = form.height, form.width, form.channels
        self.photometric = form.photometric
        if form.bits == 1 and self.syntax.is_encapsulated:
            raise MediaError(self.path, f"no decoder for {self.codec} of 1-bit pixels", category="no decoder")
        self._decoder = FrameDecoder(self.path, self.syntax, form)
        self._to_bytes = ToBytes(self.header, form.photometric, form.stored, form.signed)
        self._layout = self._find_frames(start, length, order)
        if not self._layout.frames:
            raise MediaError(self.path, "no whole frame in the pixel data", category="truncated")
        held = len(self._layout.frames)
        course = read_course(self.header, held, self.path) or Course(list(range(held)), None, 1, "")
        self._order = course.order
        # Of a volume the header's rate may be that of its planes.
        self.fps, self.fps_source, disagreement = frame_rate(
            self.header if course.planes == 1 else {}, measured=course.rate
        )
        self.note = "; ".join(filter(None, [self._layout.note, course.note, disagreement]))
        self._try_first()

    def _open_video(self, start: int, order: str) -> None:
        """The fragments, one after the other, are a video: a bare stream, or one in MPEG-TS, MPEG-PS or MP4. It says itself what it is."""
        _, fragments, whole = find_fragments(self._file, start, order, partial=True)
        if not sum(length for _, length in fragments):
            raise MediaError(self.path, "no video in the pixel data", category="truncated")
        if kind_of(Joined(self._file, fragments).read(HEAD)) != "video":  # FFmpeg would also follow a list of addresses
            raise MediaError(self.path, "the pixel data is no video stream")
        self._video = video = VideoReader(self.path, lambda: cast(BinaryIO, Joined(self._file, fragments)))
        self.height, self.width, self.channels = video.height, video.width, video.channels
        said = tuple(
            self.header.get(keyword) or own for keyword, own in (("Rows", self.height), ("Columns", self.width))
        )
        if said != (
            self.height,
            self.width,
        ):  # regions are given in the header's pixels: they would be looked for elsewhere
            video.close()
            reason = f"the header says {said[1]}x{said[0]}, the video is {self.width}x{self.height}"
            raise MediaError(self.path, reason)
        declared = _count(self.header)
        lost = "" if whole else "the pixel data is cut short"
        wrong = (
            f"NumberOfFrames says {declared}, the video holds {len(video)}" if declared not in (0, len(video)) else ""
        )
        self.fps, self.fps_source, disagreement = frame_rate(self.header, video.fps)
        self.note = "; ".join(filter(None, [lost, wrong, disagreement, video.note]))

    def _read_header(self) -> tuple[bool, bool]:
        """Everything before the pixel data, and the file left there. Returns whether the encoding is implicit, and little-endian."""
        meta = read_meta(self._file)
        if meta.get("MediaStorageSOPClassUID") == uid.MediaStorageDirectoryStorage:
            raise MediaError(self.path, "a DICOMDIR: an index, not a recording", category="not a recording")
        if meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian:
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            whole = inflater.decompress(self._file.read(), MOST_INFLATED)
            if inflater.unconsumed_tail:
                raise MediaError(self.path, f"inflates to more than {MOST_INFLATED >> 20} MiB")
            self._file.close()
            self._file = io.BytesIO(whole)
            header = read_dataset(self._file, False, True, stop_when=_is_pixels)
            implicit, little, self.syntax = False, True, uid.DeflatedExplicitVRLittleEndian
        else:
            self._file.seek(0)
            header = pydicom.dcmread(self._file, stop_before_pixels=True, force=True, defer_size=LARGE)
            implicit, little = (bool(value) for value in header.original_encoding)
            syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
            if syntax is None:  # no file meta information: pydicom guessed the encoding, the pixels can only be native
                syntax = (
                    uid.ImplicitVRLittleEndian
                    if implicit
                    else uid.ExplicitVRLittleEndian
                    if little
                    else uid.ExplicitVRBigEndian
                )
            self.syntax = uid.UID(syntax)
        self.header = header
        self.codec = name_of(str(self.syntax))
        return implicit, little

    def _find_pixels(self, implicit: bool, order: str) -> tuple[int, int]:
        """Offset and length of the pixel data's value; the length is 0xFFFFFFFF for encapsulated data."""
        start = self._file.tell()
        head = self._file.read(12)
        tag = 0
        if len(head) == 12 or (implicit and len(head) >= 8):
            group, element = struct.unpack(f"{order}HH", head[:4])
            tag = group << 16 | element
        if tag in FLOATS:
            raise MediaError(self.path, "pixels in floating point are not supported", category="no decoder")
        if tag != PIXEL_DATA:
            raise MediaError(self.path, "no pixel data", category="no pixel data")
        # PS3.5 A.2: 8-bit samples in big-endian words arrive with each pair of bytes swapped.
        self._swapped = (
            order == ">" and not implicit and head[4:6] == b"OW" and int(self.header.get("BitsAllocated") or 0) <= 8
        )
        if implicit:
            return start + 8, struct.unpack(f"{order}I", head[4:8])[0]
        return start + 12, struct.unpack(f"{order}I", head[8:12])[0]

    def _find_frames(self, start: int, length: int, order: str) -> Layout:
        declared = _count(self.header)
        if self.syntax.is_encapsulated:
            table = self.header.get("ExtendedOffsetTable") or b""
            extended = [entry for (entry,) in struct.iter_unpack("<Q", table[: len(table) // 8 * 8])]
            return lay_out(self._file, start, order, declared, extended, ends=self.syntax in CODESTREAMS)
        self._start, size = start, self._form.frame_bits
        there = min(length, self._file.seek(0, io.SEEK_END) - start)
        held = there * 8 // size
        if held == 0:
            raise MediaError(
                self.path,
                f"the pixel data is cut short ({there} of {-(-size // 8)} bytes of a frame)",
                category="truncated",
            )
        number = min(declared, held) if declared else held
        note = f"NumberOfFrames says {declared}, the file holds {number}" if number < declared else ""
        # Frames of one bit a pixel may begin and end within bytes that they share.
        ends = [(frame * size // 8, -(-(frame + 1) * size // 8)) for frame in range(number)]
        return Layout([[(start + first, last - first)] for first, last in ends], note)

    def _try_first(self) -> None:
        """Compressed files only: does the first frame agree with the header, and can the plug-in for it do this kind?"""
        if not self.syntax.is_encapsulated:
            return
        data = self._read(self._layout.frames[self._order[0]])
        head = self._decoder.check(data)
        if self.syntax in DCT and head is not None and head.precision == 8:
            return  # needs no trial: every installation has these
        try:
            self._decoder.decode(data)
        except MediaError:
            raise
        except Exception as error:
            reason = (
                f"the first frame is damaged, or of a kind that no installed decoder reads ({type(error).__name__})"
            )
            raise MediaError(self.path, reason) from None

    def __len__(self) -> int:
        return len(self._video if self._video is not None else self._order)

    def close(self) -> None:
        """See Reader."""
        if self._video is not None:
            self._video.close()
        self._file.close()

    def frames(self, indices: Sequence[int]) -> Frames:
        """See Reader."""
        if self._video is not None:
            return self._video.frames(indices)
        out = np.empty((len(indices), self.height, self.width, self.channels), np.uint8)
        done: dict[int, int] = {}
        for place, index in enumerate(int(index) for index in indices):
            if not 0 <= index < len(self):
                raise IndexError(f"frame {index} of {len(self)}")
            if index in done:
                out[place] = out[done[index]]
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    out[place] = self._decode(index)
            except MediaError:
                raise
            except Exception as error:  # decoders raise whatever a damaged frame provokes
                raise MediaError(self.path, f"frame {index} cannot be decoded ({type(error).__name__})") from None
            done[index] = place
        return out

    def _decode(self, index: int) -> Frames:
        """(H, W, C) uint8."""
        index = self._order[index]
        data = self._read(self._layout.frames[index])
        if self.syntax.is_encapsulated:
            samples = self._decoder.decode(data)
        elif self._form.bits == 1:
            size = self._form.frame_bits
            bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[index * size % 8 :][:size]
            return (bits * np.uint8(255)).reshape(self.height, self.width, 1)
        else:
            samples = self._decoder.by_pydicom(data)
        return self._to_bytes(samples)

    def _read(self, spans: list[Span]) -> bytes:
        parts = []
        for at, length in spans:
            lead = (at - self._start) % 2 if self._swapped else 0  # whole words, then the frame out of them
            self._file.seek(at - lead)
            part = self._file.read(lead + length + ((lead + length) % 2 if self._swapped else 0))
            parts.append(
                np.frombuffer(part, "<u2").byteswap().tobytes()[lead : lead + length] if self._swapped else part
            )
        return b"".join(parts)


def _count(header: Dataset) -> int:
    """NumberOfFrames, 0 where it is missing or no number."""
    try:
        return max(0, int(header.get("NumberOfFrames") or 0))
    except (TypeError, ValueError):
        return 0


def read_meta(file: BinaryIO) -> FileMetaDataset:
    """The file meta information, and the file left after it; empty where there is none."""
    from pydicom.filereader import _read_file_meta_info

    try:
        read_preamble(file, force=False)
        return _read_file_meta_info(file)
    except Exception:  # dcmread makes of it what can be made
        return FileMetaDataset()


def _is_pixels(tag: Any, vr: str | None, length: int) -> bool:
    return int(tag) == PIXEL_DATA or int(tag) in FLOATS
