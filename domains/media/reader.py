"""The one way to look at a recording, whatever file it lies in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]


class Reader(ABC):
    """A recording opened for reading; decodes only the frames it is asked for.

    Attributes
        path: the file, or the folder of numbered pictures.
        height, width: pixels of a frame as it is shown (rotation applied).
        channels: 1 (monochrome) or 3 (RGB; whatever colour space the file uses).
        fps: frames a second, or None where the file does not say; `fps_source` names the tag or header it came from ("unknown" without
            one, "none" where the format has no place for it).
        note: what was odd about the file ("" if nothing): fewer frames than claimed, damage that was left out, rates that disagree. Complete
            once the length was asked for.
        header: what the format knows beside pixels: a pydicom Dataset for DICOM, an empty mapping for all others.

    Errors are always `domains.errors.MediaError` with the file and the reason.
    """

    path: Path
    height: int
    width: int
    channels: int
    fps: float | None
    fps_source: str
    note: str
    header: Any
    media: str  # "dicom", or "video" for all that has no such header
    codec: str  # transfer syntax name, video codec or format of pictures, for the record

    @abstractmethod
    def __len__(self) -> int:
        """Number of frames that can be decoded."""

    @abstractmethod
    def frames(self, indices: Sequence[int]) -> Frames:
        """uint8 (T, H, W, C): the frames at `indices` (each in [0, len)), in that order, repeats allowed."""

    def times(self) -> NDArray[np.float64] | None:
        """(len,): seconds from the first frame to each; None where the frame rate is unknown."""
        return np.arange(len(self)) / self.fps if self.fps else None

    def close(self) -> None:  # noqa: B027  readers without a handle have nothing to do
        """Release the file."""

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
