"""What a file is, by its content and never by its name."""

from __future__ import annotations

import re
import tarfile
import zlib
from pathlib import Path
from typing import Literal

from domains.errors import MediaError

Kind = Literal["dicom", "video", "frames", "chunks", "nifti", "metaimage"]
Packing = Literal["zip", "tar", "tar.gz", "7z", "rar", "bz2", "xz", "zstd"]
HEAD = 4096  # bytes that a kind is told by

# First bytes of the containers that PyAV opens; at the offset given.
SIGNATURES: tuple[tuple[int, bytes], ...] = (
    (4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"free"), (4, b"skip"), (4, b"wide"), (4, b"pnot"),
    (0, b"\x1aE\xdf\xa3"), (0, b"GIF8"), (0, b"OggS"), (0, b"FLV"), (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    (0, b"YUV4MPEG2"), (0, b"\x06\x0e\x2b\x34"),
    (0, b"\x00\x00\x01\xba"), (0, b"\x00\x00\x01\xb3"), (0, b"\x00\x00\x00\x01"), (0, b"\x00\x00\x01"),
)  # fmt: skip

# Brands of pictures that share the container of MP4.
STILLS = {b"heic", b"heix", b"heim", b"mif1", b"avif", b"avis", b"crx ", b"jxl ", b"jp2 "}
# MPEG-TS: bytes from one packet to the next, and bytes before the sync byte of each (cameras put a time there, tuners a checksum behind).
PACKETS = ((188, 0), (192, 4), (204, 0))
FEWEST_PACKETS = 3  # two could be chance: one byte in 256 is a sync byte
METAIMAGE = re.compile(
    rb"\s*(ObjectType|ObjectSubType|Comment|NDims)[ \t]*=.*^(DimSize)[ \t]*=", re.DOTALL | re.MULTILINE
)

# Archives; the first two are opened by domains.media.archive.
ARCHIVES: tuple[tuple[bytes, Packing], ...] = (
    (b"PK\x03\x04", "zip"), (b"PK\x05\x06", "zip"), (b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!\x1a\x07", "rar"), (b"BZh", "bz2"),
    (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"),
)  # fmt: skip
DOCUMENTS = (
    b"[Content_Types].xml",
    b"mimetype",
    b"_rels/.rels",
    b"META-INF/",
)  # first in office files and Java's, which are zips


def sniff_file(path: Path) -> Kind | None:
    """The kind of one file, None for anything that is no recording. Raises MediaError where it cannot be read."""
    return kind_of(read_head(path))


def read_head(path: Path) -> bytes:
    """The first bytes of a file. Raises MediaError where it cannot be read."""
    try:
        if not path.is_file() and path.exists():  # a pipe would be waited for
            raise MediaError(path, "not a file", category="not a recording")
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as error:
        raise MediaError(path, f"cannot be read ({error.strerror})") from None


def why(otherwise: str, error: Exception) -> str:
    """A reason for what a library raised: the system's where it is one (no permission), else what is the matter with the file."""
    return f"cannot be read ({error.strerror})" if isinstance(error, OSError) and error.strerror else otherwise


def kind_of(head: bytes) -> Kind | None:
    """The same, of the first `HEAD` bytes of a file."""
    if head[128:132] == b"DICM" or _bare_dicom(head):
        return "dicom"
    if _nifti(inflated(head) if head[:2] == b"\x1f\x8b" else head):
        return "nifti"
    if METAIMAGE.match(head):
        return "metaimage"
    if head[:4] == b"RIFF":
        return "video" if head[8:12] == b"AVI " else None
    if (head[4:8] == b"ftyp" and head[8:12] in STILLS) or head[:4] == b"\x00\x00\x01\x00":  # the last is an icon
        return None
    if any(head[at : at + len(sign)] == sign for at, sign in SIGNATURES) or _transport_stream(head):
        return "video"
    return None


def packed_as(head: bytes) -> Packing | None:
    """The format of an archive by its first bytes; None for what is no archive."""
    if head[:2] == b"\x1f\x8b":
        return "tar.gz" if _begins_tar(inflated(head)) else None
    for sign, name in ARCHIVES:
        if head.startswith(sign):
            return None if name == "zip" and head[30:].startswith(DOCUMENTS) else name
    return "tar" if _begins_tar(head) else None


def inflated(head: bytes) -> bytes:
    """What the first bytes of a gzip file unpack to, as far as they go; nothing where they are damaged."""
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(head, HEAD)
    except zlib.error:
        return b""


def _begins_tar(head: bytes) -> bool:
    """Whether the first block is a header of tar: its checksum is right."""
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _nifti(head: bytes) -> bool:
    """NIfTI-1 or NIfTI-2, of either endianness: the size of its header, and its magic."""
    if head[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c"):
        return head[344:348] in (b"n+1\0", b"ni1\0")
    return head[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") and head[4:8] in (b"n+2\0", b"ni2\0")


def _transport_stream(head: bytes) -> bool:
    """MPEG-TS: a sync byte begins every packet."""
    return any(len(marks := head[before::step]) >= FEWEST_PACKETS and set(marks) == {0x47} for step, before in PACKETS)


def _bare_dicom(head: bytes) -> bool:
    """A data set without the preamble that files should have: begins with an element of group 0002 or 0008, in either endianness."""
    if len(head) < 12:
        return False
    group, element = head[:2], head[2:4]
    if group in (b"\x02\x00", b"\x08\x00"):
        explicit = head[4:6].isalpha() and head[4:6].isupper()
        return explicit or (int.from_bytes(head[4:8], "little") < 1024 and int.from_bytes(element, "little") < 0x2000)
    return group in (b"\x00\x02", b"\x00\x08") and head[4:6].isalpha() and head[4:6].isupper()
