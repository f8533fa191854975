"""Recordings of any kind, opened the same way: `sniff` tells what a file is by its content, `open_reader` opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from domains.errors import MediaError
from domains.media.decoders import Decoder, decoders
from domains.media.reader import Frames, Reader

__all__ = ["Decoder", "Frames", "Reader", "decoders", "open_reader", "sniff"]

# First bytes of the containers that PyAV opens; at the offset given.
SIGNATURES: tuple[tuple[int, bytes], ...] = (
    (4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"free"), (4, b"skip"), (4, b"wide"), (4, b"pnot"),
    (0, b"\x1aE\xdf\xa3"), (0, b"GIF8"), (0, b"OggS"), (0, b"FLV"), (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    (0, b"YUV4MPEG2"), (0, b"\x06\x0e\x2b\x34"),
    (0, b"\x00\x00\x01\xba"), (0, b"\x00\x00\x01\xb3"), (0, b"\x00\x00\x00\x01"), (0, b"\x00\x00\x01"),
)  # fmt: skip


# Brands of pictures that share the container of MP4.
STILLS = {b"heic", b"heix", b"heim", b"mif1", b"avif", b"avis", b"crx ", b"jxl ", b"jp2 "}


def sniff(path: str | Path) -> Literal["dicom", "video"] | None:
    """What a file is by its first bytes, whatever its name; None for anything else. Raises MediaError where it cannot be read."""
    try:
        if not Path(path).is_file() and Path(path).exists():  # a pipe would be waited for
            raise MediaError(path, "not a file", category="not a recording")
        with Path(path).open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise MediaError(path, f"cannot be read ({error.strerror})") from None
    if head[128:132] == b"DICM" or _bare_dicom(head):
        return "dicom"
    if head[:4] == b"RIFF":
        return "video" if head[8:12] == b"AVI " else None
    if (head[4:8] == b"ftyp" and head[8:12] in STILLS) or head[:4] == b"\x00\x00\x01\x00":  # the last is an icon
        return None
    if any(head[at : at + len(sign)] == sign for at, sign in SIGNATURES) or (
        head[:1] == b"G" and head[188:189] == b"G"
    ):
        return "video"
    return None


def open_reader(path: str | Path) -> Reader:
    """Open a recording. Raises MediaError with a short reason and a category for everything that cannot be used."""
    path = Path(path)
    kind = sniff(path)
    if kind is None:
        empty = path.stat().st_size == 0
        raise MediaError(
            path, "the file is empty" if empty else "neither DICOM nor a known video format", category="not a recording"
        )
    if kind == "dicom":
        from domains.media.dicom import DicomReader

        return DicomReader(path)
    from domains.media.video import VideoReader

    return VideoReader(path)


def _transport_stream(head: bytes) -> bool:
    """MPEG-TS: a sync byte begins every packet of 188 bytes; camera files put four bytes of time before each."""
    return any(head[at : at + 1] == head[at + step : at + step + 1] == b"G" for at, step in ((0, 188), (4, 192)))


def _bare_dicom(head: bytes) -> bool:
    """A data set without the preamble that files should have: begins with an element of group 0002 or 0008, in either endianness."""
    if len(head) < 12:
        return False
    group, element = head[:2], head[2:4]
    if group in (b"\x02\x00", b"\x08\x00"):
        explicit = head[4:6].isalpha() and head[4:6].isupper()
        return explicit or (int.from_bytes(head[4:8], "little") < 1024 and int.from_bytes(element, "little") < 0x2000)
    return group in (b"\x00\x02", b"\x00\x08") and head[4:6].isalpha() and head[4:6].isupper()
