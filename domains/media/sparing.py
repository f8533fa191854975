"""Streams whose decoder can be told to pass over frames without changing any other."""

from __future__ import annotations

import struct

SPS = 33  # NAL unit type of a sequence parameter set in HEVC


def can_spare(codec: str, extradata: bytes | None) -> bool:
    """Whether FFmpeg's "NONREF" names frames that nothing else is decoded from.

    In H.264 it does: nal_ref_idc 0 is for good (H.264 7.4.1). In HEVC it means that no frame of the same temporal sub-layer needs it, and a
    higher one may (a sub-layer non-reference picture, in the words of H.265): it does only where the stream has one layer, which the
    parameter sets in the container's header say. Other codecs are decoded whole.

    extradata: of an HEVC stream the configuration record of MP4 and Matroska (ISO/IEC 14496-15).
    """
    return codec == "h264" or (codec == "hevc" and _layers(extradata or b"") == {1})


def _layers(record: bytes) -> set[int]:
    """The number of temporal sub-layers by every sequence parameter set of the record; empty where there is none, or no record."""
    found: set[int] = set()
    try:
        if record[0] != 1:
            return found
        at = 23
        for _ in range(record[22]):
            kind, units = struct.unpack_from(">BH", record, at)
            at += 3
            for _ in range(units):
                (length,) = struct.unpack_from(">H", record, at)
                if (
                    kind & 0x3F == SPS
                ):  # two bytes of NAL header; then 4 bits of an identifier, 3 bits of layers less one
                    found.add((record[at + 4] >> 1 & 7) + 1)
                at += 2 + length
    except (IndexError, struct.error):
        return set()
    return found
