"""What a video file says of its codec, told without FFmpeg: nothing here runs native code, or needs a decoder."""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

# FFmpeg's name of a codec by its four characters in AVI and MP4, in upper case.
FOURCC = {
    "h264": "AVC1 AVC3 H264 X264 DAVC", "hevc": "HVC1 HEV1 HEVC H265 X265", "vp8": "VP80 VP08", "vp9": "VP90 VP09", "av1": "AV01",
    "mpeg4": "MP4V XVID DIVX DX50 FMP4", "mpeg2video": "MPG2 MPEG M2V1", "mjpeg": "MJPG JPEG MJPA",
}  # fmt: skip
BY_FOURCC = {sign: codec for codec, signs in FOURCC.items() for sign in signs.split()}
# The same for Matroska and WebM, where the name stands in letters.
MATROSKA = {
    b"V_MPEG4/ISO/AVC": "h264", b"V_MPEGH/ISO/HEVC": "hevc", b"V_VP8": "vp8", b"V_VP9": "vp9", b"V_AV1": "av1", b"V_MPEG4/ISO/SP": "mpeg4",
    b"V_MPEG4/ISO/ASP": "mpeg4", b"V_MPEG2": "mpeg2video", b"V_MJPEG": "mjpeg",
}  # fmt: skip
TRACKS = 1 << 16  # bytes within which Matroska and AVI say their codec
MOST_BOXES = 1000  # an MP4 has a dozen at its top; one in pieces two for each piece, behind the one that is looked for
MOVIE = 1 << 20  # bytes of an MP4's movie box that are looked at


def codec_of(file: BinaryIO) -> str:
    """FFmpeg's name of the codec of an AVI, MP4, MOV, Matroska or WebM, read from its beginning; "" for others and what is not known."""
    head = file.read(TRACKS)
    if head[:4] == b"RIFF":
        found = re.search(
            rb"strh.{4}vids(.{4}).*?strf.{20}(.{4})", head, re.DOTALL
        )  # the second is what decoders go by
        signs = [] if found is None else [found[2], found[1]]
        return next((codec for sign in signs if (codec := _named(sign))), "")
    if head[:4] == b"\x1aE\xdf\xa3":
        found = re.search(rb"\x86[\x80-\xbf](V_[A-Z0-9/_]+)", head)
        return "" if found is None else MATROSKA.get(found[1], "")
    movie = _movie(file)
    # stsd: length, name, version, count; then the first entry: length, four characters.
    entries = re.findall(rb"stsd.{12}(.{4})", movie, re.DOTALL)
    return next((codec for sign in entries if (codec := _named(sign))), "")


def _named(sign: bytes) -> str:
    return BY_FOURCC.get(sign.decode("latin-1").upper(), "")


def _movie(file: BinaryIO) -> bytes:
    """The movie box of an MP4, wherever it lies; nothing where there is none."""
    at = 0
    for _ in range(MOST_BOXES):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            break
        size, name = struct.unpack(">I4s", head[:8])
        if name == b"moov":
            return file.read(MOVIE)
        if size == 1 and len(head) == 16:
            (size,) = struct.unpack(">Q", head[8:])
        if size < 8:  # 0: it goes on to the end
            break
        at += size
    return b""
