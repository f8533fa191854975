"""Where the frames of a DICOM file lie, without reading them."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

ITEM, END = 0xFFFEE000, 0xFFFEE0DD
STARTS = (b"\xff\xd8", b"\xff\x4f\xff\x51")  # JPEG and JPEG-LS; JPEG 2000

Span = tuple[int, int]  # offset and length in the file


@dataclass(frozen=True)
class Layout:
    """frames: the pieces of each frame in file order; note: what was odd, "" if nothing."""

    frames: list[list[Span]]
    note: str = ""


def read_item(file: BinaryIO, order: str) -> tuple[int, int] | None:
    """(tag, length) of the item header at the file's position; None at the end of the file."""
    head = file.read(8)
    if len(head) < 8:
        return None
    group, element, length = struct.unpack(f"{order}HHI", head)
    return group << 16 | element, length


def find_fragments(file: BinaryIO, start: int, order: str) -> tuple[list[int], list[Span], bool]:
    """Walk the items of encapsulated pixel data from `start`. Returns basic offsets, whole fragments, and whether the end was reached."""
    size = os.fstat(file.fileno()).st_size
    file.seek(start)
    first = read_item(file, order)
    if first is None or first[0] != ITEM:
        return [], [], False
    table = file.read(min(first[1], size))
    offsets = list(struct.unpack(f"{order}{len(table) // 4}I", table[: len(table) // 4 * 4]))
    fragments: list[Span] = []
    while (item := read_item(file, order)) is not None:
        tag, length = item
        if tag == END:
            return offsets, fragments, True
        at = file.tell()
        if tag != ITEM or at + length > size:
            return offsets, fragments, False
        fragments.append((at, length))
        file.seek(at + length)
    return offsets, fragments, False


def lay_out(file: BinaryIO, start: int, order: str, declared: int, extended: list[int]) -> Layout:
    """Frames of encapsulated pixel data.

    By the extended or basic offset table where there is one that fits; else one fragment each where the numbers agree; else a frame begins
    with each fragment that begins an image. `declared` is NumberOfFrames, 0 where it is missing.
    """
    offsets, fragments, whole = find_fragments(file, start, order)
    note = "" if whole else "the pixel data is cut short"
    if not fragments:
        return Layout([], note)
    base = fragments[0][0] - 8
    by_start = {at - 8 - base: number for number, (at, _) in enumerate(fragments)}
    for table in (extended, offsets):
        if (
            table
            and table[0] == 0
            and all(entry in by_start for entry in table[: len(fragments)] if entry < fragments[-1][0])
        ):
            begins = sorted(by_start[entry] for entry in table if entry in by_start)
            if len(begins) > 1 or declared == 1:
                return Layout(_group(fragments, begins, whole), note)
    if len(fragments) == declared:
        return Layout([[fragment] for fragment in fragments], note)
    begins = [number for number, (at, length) in enumerate(fragments) if _begins_image(file, at, length)]
    if declared == 1 and len(begins) <= 1:
        return Layout([fragments], note)
    if not begins or begins[0] != 0:  # RLE: a fragment is a frame
        begins = list(range(len(fragments)))
    frames = _group(fragments, begins, whole)
    if declared and len(frames) != declared:
        note = "; ".join(filter(None, [note, f"NumberOfFrames says {declared}, the file holds {len(frames)}"]))
    return Layout(frames, note)


def _group(fragments: list[Span], begins: list[int], whole: bool) -> list[list[Span]]:
    ends = [*begins[1:], len(fragments)]
    frames = [fragments[begin:end] for begin, end in zip(begins, ends, strict=True)]
    # The last frame of a file that was cut short is whole only if frames are single fragments.
    return frames if whole or all(len(frame) == 1 for frame in frames) else frames[:-1]


def _begins_image(file: BinaryIO, at: int, length: int) -> bool:
    file.seek(at)
    return file.read(min(4, length)).startswith(STARTS)
