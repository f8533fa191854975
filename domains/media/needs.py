"""What decoder a file needs, by its header and without decoding: asked of all files before work starts.

Nothing here runs native code, so that a damaged file cannot end the process that asks.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom import uid

from domains.errors import MediaError
from domains.media.archive import Member, peek
from domains.media.codecs import codec_of
from domains.media.decoders import TWELVE_BITS, can_decode
from domains.media.dicom import read_meta
from domains.media.kinds import HEAD, kind_of

HEADER = 1 << 20  # bytes of a DICOM file that are looked at, whatever lengths it claims


def needed(source: Path | Member | bytes) -> str:
    """The transfer syntax of a DICOM file, FFmpeg's name of a video's codec; "" for what needs none, or does not say. Of a file's first bytes
    alone (64 KiB) as much as they tell.

    Of a video within DICOM the transfer syntax says enough. Never raises: what cannot be read is found out by the reader.
    """
    try:
        if isinstance(source, bytes):
            return _needed(io.BytesIO(source))
        if isinstance(source, Member):
            return _needed(io.BytesIO(peek(source)))
        with source.open("rb") as file:
            return _needed(file)
    except (MediaError, OSError):
        return ""


def _needed(file: BinaryIO) -> str:
    kind = kind_of(file.read(HEAD))
    file.seek(0)
    if kind == "dicom":
        return _syntax(file.read(HEADER))
    return codec_of(file) if kind == "video" else ""


def _syntax(head: bytes) -> str:
    syntax = str(read_meta(io.BytesIO(head)).get("TransferSyntaxUID") or "")
    if syntax != uid.JPEGExtended12Bit or can_decode(TWELVE_BITS):
        return syntax
    try:
        header = pydicom.dcmread(io.BytesIO(head), stop_before_pixels=True, force=True, specific_tags=["BitsStored"])
        return TWELVE_BITS if int(header.get("BitsStored") or 8) > 8 else syntax
    except Exception:  # pydicom raises whatever a damaged header provokes
        return syntax
