"""What opening a video learns of it, remembered by the process: a loader opens a file for every clip, and should pay for that once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MOST_KNOWN = 256  # files
MOST_TIMES = 4_000_000  # of all of them, 8 bytes each: 45 hours of video

Identity = tuple[int, ...]


@dataclass(frozen=True)
class Index:
    """When frames are shown, where decoding can start, and what a frame looks like.

    times, keys: of all frames and of those that need no other, sorted, in the stream's time base. sequential: reached by counting from the
    start. sure: the last frame was seen to decode, so that all that `times` claims can be believed. coded: height and width before turning.
    turns: quarter turns, counter-clockwise.
    """

    times: Sequence[int]
    keys: Sequence[int]
    sequential: bool
    sure: bool
    note: str
    coded: tuple[int, int]
    turns: int
    grey: bool


_known: OrderedDict[Identity, Index] = OrderedDict()  # the least recently used first


def identify(path: Path) -> Identity:
    """A file by what changes with its content: device and number, size, time of change."""
    about = path.stat()
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


def recall(identity: Identity) -> Index | None:
    """What this process learnt of a file, None for one that it has not opened lately."""
    if identity in _known:
        _known.move_to_end(identity)
    return _known.get(identity)


def remember(identity: Identity, index: Index) -> None:
    """Keep it for the next time that the file is opened."""
    _known[identity] = index
    _known.move_to_end(identity)
    while len(_known) > MOST_KNOWN or (len(_known) > 1 and sum(len(one.times) for one in _known.values()) > MOST_TIMES):
        _known.popitem(last=False)


def forget() -> None:
    """Open every file as if for the first time; to measure what that costs."""
    _known.clear()
