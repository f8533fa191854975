"""The header of NIfTI-1 and NIfTI-2 in one file (.nii, .nii.gz). Layout: nifti1.h and nifti2.h of nifti.nimh.nih.gov."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from domains.errors import MediaError
from domains.media.kinds import inflated, read_head
from domains.media.volume import Block, arrange

KINDS = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 128: "u1", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
RGB = 128
SECONDS = {8: 1.0, 16: 1e-3, 24: 1e-6}  # the time units among the bits of xyzt_units
TIME_BITS = 0x38


@dataclass(frozen=True)
class Fields:
    """Where a version keeps what we read: offset and struct code."""

    size: int
    dim: tuple[int, str]
    datatype: tuple[int, str]
    pixdim: tuple[int, str]
    offset: tuple[int, str]
    scale: tuple[int, str]  # slope, intercept
    window: tuple[int, str]  # largest, smallest
    units: tuple[int, str]


VERSIONS = {
    348: Fields(348, (40, "8h"), (70, "h"), (76, "8f"), (108, "f"), (112, "2f"), (124, "2f"), (123, "B")),
    540: Fields(540, (16, "8q"), (12, "h"), (104, "8d"), (168, "q"), (176, "2d"), (192, "2d"), (500, "i")),
}


def read_nifti(path: Path) -> Block:
    """What the header says, checked. Raises MediaError.

    Pictures over time are (x, y, t), as CAMUS has them, or (x, y, 1, t), where the header may say the time between frames. They are shown with
    y downwards; how they lay in a patient (qform, sform) is not asked.
    """
    head = read_head(path)
    packing: Literal["", "gzip"] = ""
    if head[:2] == b"\x1f\x8b":
        head, packing = inflated(head), "gzip"
    order = "<" if struct.unpack_from("<i", head)[0] in VERSIONS else ">"
    fields = VERSIONS[struct.unpack_from(f"{order}i", head)[0]]
    if len(head) < fields.size:
        raise MediaError(path, "the header is cut short", category="truncated")

    def read(where: tuple[int, str]) -> tuple[float, ...]:
        return struct.unpack_from(f"{order}{where[1]}", head, where[0])

    if head[344:347] == b"ni1" or head[4:7] == b"ni2":
        raise MediaError(path, "NIfTI in two files (.hdr and .img) is not supported", category="no decoder")
    dim = [int(size) for size in read(fields.dim)]
    if not 2 <= dim[0] <= 7:
        raise MediaError(path, "the header has no usable size")
    width, height, frames = arrange(path, dim[1 : dim[0] + 1])
    (datatype,) = read(fields.datatype)
    if datatype not in KINDS:
        raise MediaError(path, f"NIfTI of data type {datatype} is not supported", category="no decoder")
    (offset,) = read(fields.offset)
    if not math.isfinite(offset) or not 0 <= offset <= 1 << 30:
        raise MediaError(path, "the header says that the pixels are nowhere")
    slope, intercept = read(fields.scale)
    if not slope or not math.isfinite(slope) or not math.isfinite(intercept):
        slope, intercept = 1.0, 0.0
    highest, lowest = read(fields.window)
    window = (lowest, highest) if math.isfinite(highest - lowest) and highest > lowest else None
    fps = _rate(dim, read(fields.pixdim)[4], int(read(fields.units)[0]))
    return Block(
        format="NIfTI",
        data=path,
        offset=max(int(offset), fields.size + 4),
        packing=packing,
        kind=np.dtype(f"{order}{KINDS[int(datatype)]}"),
        width=width,
        height=height,
        frames=frames,
        channels=3 if datatype == RGB else 1,
        slope=slope,
        intercept=intercept,
        window=window,
        fps=fps,
        fps_source="unknown" if fps is None else "pixdim",
    )


def _rate(dim: list[int], step: float, units: int) -> float | None:
    """Frames a second, where the fourth axis is the one that runs and has a unit of time."""
    seconds = step * SECONDS.get(units & TIME_BITS, 0.0)
    if dim[0] < 4 or dim[4] < 2 or not math.isfinite(seconds) or not 1e-3 <= seconds <= 2:
        return None
    return 1 / seconds
