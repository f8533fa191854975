"""Where the frames of a DICOM file lie, without reading them."""

from __future__ import annotations

import bisect
import io
import os
import struct
from collections.abc import Sequence
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


class Joined(io.RawIOBase):
    """Pieces of a file read as one file, from the disk and only when asked for. Closing it leaves the file open."""

    def __init__(self, file: BinaryIO, pieces: Sequence[Span]) -> None:
        self._file, self._pieces, self._at = file, [piece for piece in pieces if piece[1]], 0
        self._begins = [0]
        for _, length in self._pieces:
            self._begins.append(self._begins[-1] + length)

    def readable(self) -> bool:
        """See io.IOBase."""
        return True

    def seekable(self) -> bool:
        """See io.IOBase."""
        return True

    def tell(self) -> int:
        """See io.IOBase."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See io.IOBase."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._begins[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes, fewer at the end only; all that is left where it is negative."""
        left = max(0, self._begins[-1] - self._at)
        left = left if size is None or size < 0 else min(size, left)
        parts = []
        while left:
            number = bisect.bisect_right(self._begins, self._at) - 1
            (start, length), within = self._pieces[number], self._at - self._begins[number]
            self._file.seek(start + within)
            part = self._file.read(min(left, length - within))
            if not part:  # the file has become shorter
                break
            parts.append(part)
            self._at += len(part)
            left -= len(part)
        return b"".join(parts)


def find_fragments(
    file: BinaryIO, start: int, order: str, *, partial: bool = False
) -> tuple[list[int], list[Span], bool]:
    """Walk the items of encapsulated pixel data from `start`. Returns basic offsets, whole fragments, and whether the end was reached.

    partial: of a cut file what is there of the last fragment counts too.
    """
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
            if tag == ITEM and partial:
                fragments.append((at, size - at))
            return offsets, fragments, False
        fragments.append((at, length))
        file.seek(at + length)
    return offsets, fragments, False


def lay_out(file: BinaryIO, start: int, order: str, declared: int, extended: list[int], *, ends: bool) -> Layout:
    """Frames of encapsulated pixel data; what a cut file holds only a part of is left out.

    By the extended or basic offset table where there is one that fits; else one fragment each where the numbers agree; else a frame begins
    with each fragment that begins an image. `declared` is NumberOfFrames, 0 where it is missing. `ends`: frames end in an end marker, by
    which the last one of a cut file is judged.
    """
    offsets, fragments, whole = find_fragments(file, start, order)
    notes = [] if whole else ["the pixel data is cut short"]
    if not fragments:
        return Layout([], "".join(notes))
    begins = (
        _by_table(extended, fragments, declared)
        or _by_table(offsets, fragments, declared)
        or _by_content(file, fragments, declared)
    )
    frames = [fragments[begin:end] for begin, end in zip(begins, [*begins[1:], len(fragments)], strict=True)]
    if ends and not whole and not _ends_image(file, *frames[-1][-1]):
        frames.pop()
    if declared and len(frames) != declared:
        notes.append(f"NumberOfFrames says {declared}, the file holds {len(frames)}")
    return Layout(frames, "; ".join(notes))


def _by_table(table: list[int], fragments: list[Span], declared: int) -> list[int]:
    """Numbers of the fragments that begin a frame; empty where the table does not fit what is there, or says too little to go by."""
    base = fragments[0][0] - 8  # offsets count from the first item's header
    by_start = {at - 8 - base: number for number, (at, _) in enumerate(fragments)}
    there = [entry for entry in table if entry <= fragments[-1][0] - 8 - base]  # a cut file lacks the rest
    if not there or there[0] != 0 or any(entry not in by_start for entry in there) or sorted(set(there)) != there:
        return []
    return [by_start[entry] for entry in there] if len(table) > 1 or declared == 1 else []


def _by_content(file: BinaryIO, fragments: list[Span], declared: int) -> list[int]:
    """The same without a table."""
    if len(fragments) == declared:
        return list(range(len(fragments)))
    begins = [number for number, fragment in enumerate(fragments) if _begins_image(file, *fragment)]
    if declared == 1 and len(begins) <= 1:
        return [0]
    return begins if begins and begins[0] == 0 else list(range(len(fragments)))  # RLE: a fragment is a frame


def _begins_image(file: BinaryIO, at: int, length: int) -> bool:
    file.seek(at)
    return file.read(min(4, length)).startswith(STARTS)


def _ends_image(file: BinaryIO, at: int, length: int) -> bool:
    tail = min(64, length)  # padding may follow the marker
    file.seek(at + length - tail)
    return b"\xff\xd9" in file.read(tail)
