"""From videos to one feature vector each. A video that cannot be read is left out, counted and named; it is never
replaced by another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domains.base import ClipSettings
from domains.errors import DataError, MediaError
from domains.store.clips import evaluation_clips
from domains.store.frames import Frames
from domains.store.prepared import Prepared
from recipes.encoders.base import Geometry, VideoEncoder
from recipes.evaluate.metrics import Array
from recipes.evaluate.pixels import pixel_features
from recipes.training.data import plain_pixel_values

Task = TypeVar("Task")
Result = TypeVar("Result")
Extractor = Callable[[Frames], Array]
ReadProgress = Callable[[int, int], None]
READ_AHEAD = 8  # videos decoded before they are needed; at 3 clips of 16 x 112 x 112 about 5 MB


@dataclass(frozen=True)
class Failure:
    """A video that could not be read, by its pseudonym, and why."""

    video_id: str
    reason: str


@dataclass(frozen=True)
class Features:
    """Feature vectors of the videos that could be read.

    Attributes
        index: (n,) rows of the manifest, in the order asked for, without those that failed.
        values: (n, D).
        failed: the others.
    """

    index: NDArray[np.int64]
    values: Array
    failed: tuple[Failure, ...] = ()

    def at(self, index: Sequence[int] | NDArray[np.int64]) -> Array:
        """(len(index), D): the rows of these videos, all of which must have been read."""
        place = {row: position for position, row in enumerate(self.index.tolist())}
        return self.values[[place[int(row)] for row in index]]


def clip_of(geometry: Geometry) -> ClipSettings:
    """The clip that an encoder of this geometry was made to see."""
    return ClipSettings(frames=geometry.frames, size=geometry.size, rate=geometry.rate, stride=geometry.stride)


def default_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def extract(
    encoder: VideoEncoder,
    prepared: Prepared,
    index: Sequence[int] | NDArray[np.int64],
    clip: ClipSettings | None = None,
    clips_per_video: int = 3,
    *,
    device: torch.device | None = None,
    progress: ReadProgress | None = None,
) -> Features:
    """Descriptions (n, D) of videos `index` (`VideoEncoder.describe_recording`), of clips spread evenly over the video.

    `clip` None: what the encoder was made to see. `progress(done, total)` counts videos. Raises DataError where no
    video can be read.
    """
    with embedding(encoder, device) as extractor:
        clip = clip or clip_of(encoder.geometry)
        return extract_all({"": extractor}, prepared, index, clip, clips_per_video, progress=progress)[""]


def pixel_statistics(
    prepared: Prepared,
    index: Sequence[int] | NDArray[np.int64],
    clip: ClipSettings,
    clips_per_video: int = 3,
    *,
    progress: ReadProgress | None = None,
) -> Features:
    """(n, 512) pixel statistics of the same clips that an encoder would see."""
    return extract_all({"": pixel_features}, prepared, index, clip, clips_per_video, progress=progress)[""]


@contextmanager
def embedding(encoder: VideoEncoder, device: torch.device | None = None) -> Iterator[Extractor]:
    """The encoder as an extractor of one description (D,) from the clips of a recording; see `asked`."""
    with asked(encoder, device) as answer:
        yield lambda clips: answer(clips, encoder.describe_recording)


@contextmanager
def describing(encoder: VideoEncoder, device: torch.device | None = None) -> Iterator[Extractor]:
    """The encoder as an extractor of a description (n, D) of each of n clips; see `asked`."""
    with asked(encoder, device) as answer:
        yield lambda clips: answer(clips, encoder.describe)


@contextmanager
def asked(
    encoder: VideoEncoder, device: torch.device | None = None
) -> Iterator[Callable[[Frames, Callable[[Tensor], Tensor]], Array]]:
    """The encoder in evaluation mode, no gradients, full precision; its mode is restored afterwards. Answers (clips, a method of it)."""
    device = device or default_device()
    was_training = encoder.training
    encoder.to(device).eval()

    def answer(clips: Frames, method: Callable[[Tensor], Tensor]) -> Array:
        with torch.inference_mode():
            pixels = plain_pixel_values(torch.from_numpy(clips), encoder.geometry, device)
            return method(pixels).float().cpu().numpy().astype(np.float64)

    try:
        yield answer
    finally:
        encoder.train(was_training)


def extract_all(
    extractors: Mapping[str, Extractor],
    prepared: Prepared,
    index: Sequence[int] | NDArray[np.int64],
    clip: ClipSettings,
    clips_per_video: int,
    *,
    progress: ReadProgress | None = None,
) -> dict[str, Features]:
    """Several kinds of features of the same clips; every video is decoded once, and a video that fails is missing from
    all of them.

    Raises DataError where no video can be read.
    """
    rows: list[int] = []
    failed: list[Failure] = []
    values: dict[str, list[Array]] = {name: [] for name in extractors}
    for done, (row, clips) in enumerate(_read_ahead(prepared, [int(row) for row in index], clip, clips_per_video), 1):
        if isinstance(clips, MediaError):
            failed.append(Failure(prepared.video_id(row), clips.reason))
        else:
            rows.append(row)
            for name, extractor in extractors.items():
                values[name].append(extractor(clips))
        if progress is not None:
            progress(done, len(index))
    if not rows:
        why = f"; the first: {failed[0].reason}" if failed else ""
        raise DataError(f"none of {len(index)} videos could be read{why}", where=prepared.place)
    return {name: Features(np.array(rows), np.stack(found), tuple(failed)) for name, found in values.items()}


def _read_ahead(
    prepared: Prepared, index: list[int], clip: ClipSettings, count: int
) -> Iterator[tuple[int, Frames | MediaError]]:
    """Clips of each video in order, decoded while the encoder works on those before."""

    def read(row: int) -> Frames | MediaError:
        try:
            return evaluation_clips(prepared, row, clip, count)
        except MediaError as error:
            return error

    return read_ahead(index, read)


def read_ahead(
    tasks: Iterable[Task], read: Callable[[Task], Result], depth: int = READ_AHEAD
) -> Iterator[tuple[Task, Result]]:
    """(task, what it read) in order; read in a thread of its own, no more than `depth` before they are asked for."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: deque[tuple[Task, Future[Result]]] = deque()
        for task in tasks:
            waiting.append((task, pool.submit(read, task)))
            if len(waiting) > depth:
                first, found = waiting.popleft()
                yield first, found.result()
        while waiting:
            first, found = waiting.popleft()
            yield first, found.result()
