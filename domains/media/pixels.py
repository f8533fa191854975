"""One DICOM frame, from its bytes to samples, with the fastest decoder that takes its colours for what they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

from domains.errors import MediaError
from domains.media.greys import PALETTES
from domains.media.jpeg import JPEGHead, is_whole, read_head
from domains.media.quiet import quiet

MOST_PIXELS = 64_000_000  # a frame; larger ones are damage or an attack, not ultrasound
MOST_BYTES = 200_000_000  # the same, decoded
RLE_BEST = 64  # two bytes can stand for 128
DCT = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit)
CODESTREAMS = (
    *DCT,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    *uid.JPEGLSTransferSyntaxes,
    *uid.JPEG2000TransferSyntaxes,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.HTJ2K,
)


@dataclass(frozen=True)
class PixelFormat:
    """How the samples lie, by the header: the attributes of the Image Pixel module under short names."""

    height: int
    width: int
    samples: int
    bits: int
    stored: int
    signed: bool
    planar: int
    photometric: str

    @property
    def channels(self) -> int:
        """Of a frame as we return it: palettes become RGB."""
        return 3 if self.samples == 3 or self.photometric == "PALETTE COLOR" else 1

    @property
    def frame_bits(self) -> int:
        """Of an uncompressed frame."""
        bits = self.height * self.width * self.samples * self.bits
        return bits * 2 // 3 if self.photometric == "YBR_FULL_422" else bits


def read_format(header: Any, path: Path) -> PixelFormat:
    """Raises MediaError for what is missing, absurd or unknown; values that have an obvious default may be missing."""

    def number(keyword: str, default: int | None = None) -> int:
        value = header.get(keyword, default)
        value = default if value is None or value == "" else value
        if not isinstance(value, int) or value < (1 if default is None else 0):
            raise MediaError(path, f"the header has no usable {keyword}")
        return value

    height, width, bits = number("Rows"), number("Columns"), number("BitsAllocated")
    samples, stored = number("SamplesPerPixel", 1), number("BitsStored", bits) or bits
    photometric = (
        str(header.get("PhotometricInterpretation") or ("RGB" if samples == 3 else "MONOCHROME2")).strip().upper()
    )
    if height * width > MOST_PIXELS or height * width * samples * bits // 8 > MOST_BYTES:
        raise MediaError(path, f"claims frames of {width}x{height} pixels, {samples} samples of {bits} bits each")
    if samples not in (1, 3) or bits not in (1, 8, 16, 32) or stored > bits or (bits == 1 and samples > 1):
        raise MediaError(
            path, f"{samples} samples of {stored} in {bits} bits a pixel are not supported", category="no decoder"
        )
    if photometric == "PALETTE COLOR" and not all(name in header or f"Segmented{name}" in header for name in PALETTES):
        raise MediaError(path, "palette colour without its table")
    signed, planar = bool(number("PixelRepresentation", 0)), number("PlanarConfiguration", 0)
    return PixelFormat(height, width, samples, bits, stored, signed, planar, photometric)


class FrameDecoder:
    """decode(data) -> samples (H, W) or (H, W, 3) of any depth; RGB wherever the file holds YCbCr. Raises whatever decoders raise."""

    def __init__(self, path: Path, syntax: uid.UID, form: PixelFormat) -> None:
        self._path, self._syntax, self._form = path, syntax, form

    def check(self, data: bytes) -> JPEGHead | None:
        """The stream's own header, held against the file's before any memory is claimed. Raises MediaError where they disagree."""
        form = self._form
        if self._syntax == uid.RLELossless and len(data) * RLE_BEST < form.frame_bits // 8:
            raise MediaError(
                self._path,
                f"{len(data)} bytes cannot hold a frame of {form.width}x{form.height} pixels",
                category="truncated",
            )
        if self._syntax not in CODESTREAMS:
            return None
        head = read_head(data)
        if head is None:
            raise MediaError(self._path, f"a frame is not a {self._syntax.name.split(' (')[0]} stream")
        if (head.height, head.width) != (form.height, form.width):
            raise MediaError(
                self._path, f"the header says {form.width}x{form.height}, a frame is {head.width}x{head.height}"
            )
        if not is_whole(data):
            raise MediaError(self._path, "a frame is cut short", category="truncated")
        return head

    def decode(self, data: bytes) -> NDArray[Any]:
        """One encapsulated frame."""
        head = self.check(data)
        with quiet():  # gdcm says that 12 bits are not 8 before it tries 12; libjpeg comments on every damaged block
            if head is not None and self._syntax in DCT:
                if head.baseline and head.precision > 8:
                    return self._by_gdcm(data, head)
                if self._suits_opencv(head):
                    return self._by_opencv(data)
            return self.by_pydicom(encapsulate([data]))

    def _suits_opencv(self, head: JPEGHead) -> bool:
        """Whether libjpeg-turbo sees the colours as they are: it goes by the markers, and takes what is unsaid for YCbCr."""
        form = self._form
        known = head.colour != "unsaid" or form.photometric.startswith("YBR")
        return head.baseline and head.components == form.samples and known

    def _by_opencv(self, data: bytes) -> NDArray[np.uint8]:
        """8-bit DCT, several times as fast as the other decoders."""
        flag = cv2.IMREAD_GRAYSCALE if self._form.samples == 1 else cv2.IMREAD_COLOR_RGB
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
        if picture is None:
            raise MediaError(self._path, "a frame is a damaged JPEG stream")
        return picture  # type: ignore[no-any-return,unused-ignore]

    def _by_gdcm(self, data: bytes, head: JPEGHead) -> NDArray[np.uint16]:
        """12-bit DCT, which pydicom keeps from gdcm and neither OpenCV nor Pillow can do."""
        import gdcm

        form = self._form
        if form.samples != 1:
            raise MediaError(self._path, "no decoder for 12-bit JPEG in colour", category="no decoder")
        fragment = gdcm.Fragment()
        fragment.SetByteStringValue(data)
        fragments = gdcm.SequenceOfFragments.New()
        fragments.AddFragment(fragment)
        element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
        element.SetValue(fragments.__ref__())
        image = gdcm.Image()
        image.SetNumberOfDimensions(2)
        image.SetDimensions((form.width, form.height, 1))
        image.SetDataElement(element)
        monochrome = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
        image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(monochrome))
        image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(self._syntax))))
        image.SetPixelFormat(gdcm.PixelFormat(1, 16, head.precision, head.precision - 1, int(form.signed)))
        buffer = image.GetBuffer().encode("utf-8", "surrogateescape")  # gdcm hands bytes over as str
        return np.frombuffer(buffer, "<i2" if form.signed else "<u2").reshape(form.height, form.width)

    def by_pydicom(self, data: bytes) -> NDArray[Any]:
        """One frame by pydicom and its plug-ins; YCbCr is converted to RGB once, from what the plug-in says it returned."""
        form = self._form
        options: dict[str, Any] = {
            "rows": form.height, "columns": form.width, "number_of_frames": 1, "samples_per_pixel": form.samples,
            "photometric_interpretation": form.photometric, "bits_allocated": form.bits, "bits_stored": form.stored,
            "pixel_representation": int(form.signed), "pixel_keyword": "PixelData",
        }  # fmt: skip
        if form.samples > 1:
            options["planar_configuration"] = form.planar
        array, _ = get_decoder(self._syntax).as_array(data, index=0, validate=True, **options)
        return array
