"""DICOM recordings: any transfer syntax, only the frames that are asked for."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import pydicom
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

from domains.errors import MediaError
from domains.media.decoders import can_decode, missing
from domains.media.fragments import Layout, Span, lay_out
from domains.media.greys import to_bytes
from domains.media.jpeg import read_head
from domains.media.reader import Frames, Reader
from domains.media.timing import frame_rate

MOST_PIXELS = 64_000_000  # a frame; larger ones are damage or an attack, not ultrasound
PIXEL_TAGS = {0x7FE00008: "float", 0x7FE00009: "double", 0x7FE00010: "PixelData"}


class DicomReader(Reader):
    """A DICOM file. `note` says what was odd about it ("" if nothing): a wrong NumberOfFrames, a file cut short."""

    media = "dicom"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.note = ""
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
        header = pydicom.dcmread(self._file, stop_before_pixels=True, force=True)
        self.header = header
        implicit, little = header.original_encoding
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
        self.codec = self.syntax.name if self.syntax.name != str(self.syntax) else f"transfer syntax {self.syntax}"
        order = "<" if little else ">"
        start = self._file.tell()
        if self.syntax == uid.DeflatedExplicitVRLittleEndian:
            whole = pydicom.dcmread(self.path, force=True)
            pixels = whole.get("PixelData")
            self._file.close()
            self._file = io.BytesIO(pixels or b"")
            found: tuple[int, int] | None = (0, len(pixels)) if pixels else None
        else:
            found = self._find_pixels(start, bool(implicit), order)
        if found is None:
            raise MediaError(self.path, "no pixel data", category="no pixel data")
        self._describe()
        if not can_decode(str(self.syntax)):
            raise MediaError(self.path, missing(str(self.syntax)), category="no decoder")
        self._layout = self._find_frames(*found, order)
        self.note = self._layout.note
        if not self._layout.frames:
            raise MediaError(self.path, "no whole frame in the pixel data", category="truncated")
        self.fps, self.fps_source, disagreement = frame_rate(header)
        self.note = "; ".join(filter(None, [self.note, disagreement]))

    def _find_pixels(self, start: int, implicit: bool, order: str) -> tuple[int, int] | None:
        """(offset, length) of the pixel data's value, length 0xFFFFFFFF for encapsulated; None where there is none."""
        self._file.seek(start)
        head = self._file.read(12)
        if len(head) < 8:
            return None
        group, element = struct.unpack(f"{order}HH", head[:4])
        if PIXEL_TAGS.get(group << 16 | element) != "PixelData":
            return None
        if implicit:
            return start + 8, struct.unpack(f"{order}I", head[4:8])[0]
        if len(head) < 12:
            return None
        return start + 12, struct.unpack(f"{order}I", head[8:12])[0]

    def _describe(self) -> None:
        """Size and pixel format from the header; raises MediaError for what is missing or absurd."""
        header = self.header
        values = {}
        for keyword in ("Rows", "Columns", "BitsAllocated"):
            value = header.get(keyword)
            if not isinstance(value, int) or value < 1:
                raise MediaError(self.path, f"the header has no usable {keyword}", category="unreadable")
            values[keyword] = value
        self.height, self.width, self._bits = values["Rows"], values["Columns"], values["BitsAllocated"]
        if self.height * self.width > MOST_PIXELS:
            raise MediaError(self.path, f"claims frames of {self.width}x{self.height} pixels")
        self._samples = int(header.get("SamplesPerPixel") or 1)
        self.photometric = str(header.get("PhotometricInterpretation") or "MONOCHROME2").strip().upper()
        if self._samples not in (1, 3) or self._bits not in (1, 8, 16, 32):
            raise MediaError(self.path, f"{self._samples} samples of {self._bits} bits a pixel are not supported")
        self.channels = 3 if self._samples == 3 or self.photometric == "PALETTE COLOR" else 1
        self._stored = int(header.get("BitsStored") or self._bits)
        self._signed = int(header.get("PixelRepresentation") or 0)
        self._planar = int(header.get("PlanarConfiguration") or 0)
        try:
            self._declared = max(0, int(header.get("NumberOfFrames") or 0))
        except (TypeError, ValueError):
            self._declared = 0

    def _find_frames(self, start: int, length: int, order: str) -> Layout:
        if self.syntax.is_encapsulated:
            extended: list[int] = []
            if table := self.header.get("ExtendedOffsetTable"):
                extended = list(struct.unpack(f"<{len(table) // 8}Q", table[: len(table) // 8 * 8]))
            return lay_out(self._file, start, order, self._declared, extended)
        self._file.seek(0, io.SEEK_END)
        there = min(length, self._file.tell() - start)
        bits = self.height * self.width * self._samples * self._bits
        if self.photometric == "YBR_FULL_422":
            bits = bits * 2 // 3
        if self._bits == 1:  # frames are not aligned to bytes: the decoder takes them from the whole
            number = min(self._declared or 1, there * 8 // bits)
            return Layout([[(start, there)]] * number)
        size = bits // 8
        held = there // size
        number = min(self._declared, held) if self._declared else held
        note = f"NumberOfFrames says {self._declared}, the file holds {number}" if 0 < number < self._declared else ""
        if number == 0:
            raise MediaError(
                self.path, f"the pixel data is cut short ({there} of {size} bytes of a frame)", category="truncated"
            )
        return Layout([[(start + frame * size, size)] for frame in range(number)], note)

    def __len__(self) -> int:
        return len(self._layout.frames)

    def close(self) -> None:
        """See Reader."""
        self._file.close()

    def frames(self, indices: Sequence[int]) -> Frames:
        """See Reader."""
        out = np.empty((len(indices), self.height, self.width, self.channels), np.uint8)
        done: dict[int, int] = {}
        for place, index in enumerate(indices):
            index = int(index)
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

    def _read(self, spans: list[Span]) -> bytes:
        parts = []
        for at, length in spans:
            self._file.seek(at)
            parts.append(self._file.read(length))
        return b"".join(parts)

    def _decode(self, index: int) -> Frames:
        """(H, W, C) uint8."""
        data = self._read(self._layout.frames[index])
        if (
            self.syntax in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
            and (picture := self._by_opencv(data)) is not None
        ):
            return picture
        if self.syntax.is_encapsulated:
            array = self._by_pydicom(encapsulate([data]), 0, 1)
        elif self._bits == 1:
            array = self._by_pydicom(data, index, len(self))
        else:
            array = self._by_pydicom(data, 0, 1)
        return to_bytes(array, self.header, self.photometric, self._stored, bool(self._signed))

    def _by_opencv(self, data: bytes) -> Frames | None:
        """8-bit JPEG at the speed of libjpeg-turbo; None where OpenCV would take the colours for something they are not."""
        head = read_head(data)
        if head is None:
            raise MediaError(self.path, "a frame is not a JPEG stream")
        if (head.height, head.width) != (self.height, self.width):
            raise MediaError(
                self.path, f"the header says {self.width}x{self.height}, a frame is {head.width}x{head.height}"
            )
        if (
            not head.baseline
            or head.precision != 8
            or head.components != self._samples
            or self.photometric.startswith(("PAL", "MONOCHROME1"))
        ):
            return None
        if head.colour == "unsaid" and not self.photometric.startswith("YBR"):
            return None  # three components of no stated meaning, tagged RGB: OpenCV would convert them
        flag = cv2.IMREAD_GRAYSCALE if self.channels == 1 else cv2.IMREAD_COLOR_BGR
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
        if picture is None:
            raise MediaError(self.path, "a frame is a damaged JPEG stream")
        return picture[..., None] if self.channels == 1 else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)

    def _by_pydicom(self, data: bytes, index: int, number: int) -> Any:
        """The decoded samples; YCbCr is converted to RGB once, by pydicom, from what the decoder says it returned."""
        options: dict[str, Any] = {
            "rows": self.height, "columns": self.width, "number_of_frames": number, "samples_per_pixel": self._samples,
            "photometric_interpretation": self.photometric, "bits_allocated": self._bits, "bits_stored": self._stored,
            "pixel_representation": self._signed, "pixel_keyword": "PixelData",
        }  # fmt: skip
        if self._samples > 1:
            options["planar_configuration"] = self._planar
        decoder = get_decoder(self.syntax)
        array, _ = decoder.as_array(data, index=index, validate=True, **options)
        return array
