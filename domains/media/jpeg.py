"""What a JPEG, JPEG-LS or JPEG 2000 stream says of itself: size and colour space, from its markers."""

from __future__ import annotations

from dataclasses import dataclass

SOF_LS = 0xF7  # the frame header of JPEG-LS


@dataclass(frozen=True)
class JPEGHead:
    """height, width, components, precision in bits; `baseline`: Huffman-coded sequential or progressive DCT, which OpenCV decodes.

    colour: what the components are by the markers: "YCbCr", "RGB", "grey", or "unsaid" where only the DICOM tag can tell.
    """

    height: int
    width: int
    components: int
    precision: int
    baseline: bool
    colour: str


def read_head(data: bytes) -> JPEGHead | None:
    """The frame header of a stream; None where there is none. The Adobe marker outranks JFIF, JFIF the component names."""
    if data[:4] == b"\xff\x4f\xff\x51":
        return _read_size(data)
    if data[:2] != b"\xff\xd8":
        return None
    at, jfif, adobe = 2, False, -1
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD9:
            at += 2
            continue
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if marker == 0xE0 and body[:5] == b"JFIF\0":
            jfif = True
        elif marker == 0xEE and body[:5] == b"Adobe" and len(body) >= 12:
            adobe = body[11]
        elif marker == SOF_LS or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            if len(body) < 6 or len(body) < 6 + 3 * body[5]:
                return None
            names = bytes(body[6 + 3 * i] for i in range(body[5]))
            colour = _colour(body[5], names, jfif, adobe)
            size = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            return JPEGHead(*size, body[5], body[0], marker in (0xC0, 0xC1, 0xC2), colour)
        elif marker == 0xDA:
            return None
        at += 2 + length
    return None


def _colour(components: int, names: bytes, jfif: bool, adobe: int) -> str:
    if components == 1:
        return "grey"
    if components != 3:
        return "unsaid"
    if adobe >= 0:
        return "RGB" if adobe == 0 else "YCbCr"
    if jfif:
        return "YCbCr"
    return "RGB" if names == b"RGB" else "unsaid"


def _read_size(data: bytes) -> JPEGHead | None:
    """From the SIZ marker segment, which begins every JPEG 2000 codestream (ISO 15444-1 A.5.1)."""
    if len(data) < 43:
        return None
    width, height, left, top = (int.from_bytes(data[at : at + 4], "big") for at in (8, 12, 16, 20))
    components = int.from_bytes(data[40:42], "big")
    return JPEGHead(
        height - top, width - left, components, (data[42] & 0x7F) + 1, False, "unsaid" if components > 1 else "grey"
    )


def is_whole(data: bytes) -> bool:
    """Whether a stream has its end marker (the same in JPEG, JPEG-LS and JPEG 2000); padding may follow it."""
    return data.rfind(b"\xff\xd9") > 0
