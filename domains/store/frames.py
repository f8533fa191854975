"""Frames as they are kept: JPEGs one after the other in one file, addressed by byte offsets."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from domains.errors import MediaError

Frames = NDArray[np.uint8]


def encode(frames: Iterable[Frames], quality: int) -> tuple[bytes, tuple[int, ...]]:
    """The JPEGs of `frames` joined, and the n + 1 offsets between them."""
    parts = list(jpegs(frames, quality))
    return b"".join(parts), tuple(itertools.accumulate(map(len, parts), initial=0))


def jpegs(frames: Iterable[Frames], quality: int) -> Iterator[bytes]:
    """(H, W, C) uint8 frames with C 1 or 3 (RGB), each as a JPEG."""
    for frame in frames:
        picture = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) if frame.shape[-1] == 3 else frame
        done, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if not done:
            raise ValueError(f"frame of shape {frame.shape} cannot be encoded as JPEG")
        yield jpeg.tobytes()


def decode(jpeg: bytes, channels: int) -> Frames | None:
    """One JPEG -> (H, W, channels) uint8 RGB or grey; None where it is damaged."""
    if not jpeg:
        return None
    flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), flag)
    if picture is None:
        return None
    return picture[..., None] if channels == 1 else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def read(
    path: Path, offsets: Sequence[int] | NDArray[np.int64], indices: Sequence[int], size: int, channels: int
) -> Frames:
    """uint8 (T, size, size, channels): the frames at `indices`, in that order; a frame asked for twice is decoded once.

    Nothing stays open between calls, so that processes can be forked at any time. Raises MediaError.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        reason = "the frame file is missing" if isinstance(error, FileNotFoundError) else f"{error.strerror}"
        raise MediaError(path, f"{reason}; prepare the folder again") from None
    try:
        return assemble(path, lambda start, end: os.pread(handle, end - start, start), offsets, indices, size, channels)
    except OSError as error:
        raise MediaError(path, f"{error.strerror}") from None
    finally:
        os.close(handle)


def assemble(
    path: Path,
    part: Callable[[int, int], bytes],
    offsets: Sequence[int] | NDArray[np.int64],
    indices: Sequence[int],
    size: int,
    channels: int,
) -> Frames:
    """As `read`, from wherever `part(start, end)` takes the bytes of the frame file. path: for the error. Raises MediaError."""
    clip = np.empty((len(indices), size, size, channels), np.uint8)
    places: dict[int, list[int]] = {}
    for place, index in enumerate(indices):
        places.setdefault(int(index), []).append(place)
    for index, at in places.items():
        frame = decode(part(int(offsets[index]), int(offsets[index + 1])), channels)
        if frame is None or frame.shape != clip.shape[1:]:
            raise MediaError(path, f"frame {index} is damaged; prepare the folder again")
        clip[at] = frame
    return clip
