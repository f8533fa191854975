"""The ways to 16 frames of a recording that benchmarks/data.py compares. Each opens the file anew and decodes with one thread."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels import iter_pixels

from domains.media import open_reader
from domains.media.video_index import forget

Frames = NDArray[np.uint8]
Fetch = Callable[[list[int]], Any]


def ours(path: Path) -> Fetch:
    """Our reader, opened for every clip."""

    def fetch(indices: list[int]) -> Frames:
        with open_reader(path) as reader:
            return reader.frames(indices)

    return fetch


def ours_afresh(path: Path) -> Fetch:
    """The same for a file that this process has not opened before: its index is learnt anew."""
    fetch = ours(path)

    def forgetful(indices: list[int]) -> Frames:
        forget()
        return fetch(indices)

    return forgetful


def pydicom_all(path: Path) -> Fetch:
    """What most code does: decode everything, take some."""
    return lambda indices: pydicom.dcmread(path).pixel_array[indices]


def pydicom_some(path: Path) -> Fetch:
    """pydicom's own lazy way."""
    return lambda indices: list(iter_pixels(path, indices=indices))


def capture(path: Path) -> Any:
    """OpenCV's reader with one thread."""
    return cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])


def opencv_all(path: Path) -> Fetch:
    """OpenCV from the first frame to the last one wanted."""

    def fetch(indices: list[int]) -> list[Frames]:
        video, kept, wanted = capture(path), [], set(indices)
        for number in range(max(indices) + 1):
            video.grab()
            if number in wanted:
                kept.append(cv2.cvtColor(video.retrieve()[1], cv2.COLOR_BGR2RGB))
        video.release()
        return kept

    return fetch


def opencv_seek(path: Path) -> Fetch:
    """OpenCV told to go to each frame."""

    def fetch(indices: list[int]) -> list[Frames]:
        video, kept = capture(path), []
        for index in indices:
            video.set(cv2.CAP_PROP_POS_FRAMES, index)
            kept.append(cv2.cvtColor(video.read()[1], cv2.COLOR_BGR2RGB))
        video.release()
        return kept

    return fetch


def pyav_all(path: Path) -> Fetch:
    """PyAV from the first frame to the last one wanted."""

    def fetch(indices: list[int]) -> list[Frames]:
        kept, wanted = [], set(indices)
        with av.open(str(path)) as container:
            container.streams.video[0].thread_count = 1
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    kept.append(frame.to_ndarray(format="rgb24"))
                if number == max(indices):
                    break
        return kept

    return fetch


def decord_batch(path: Path) -> Fetch:
    """decord with one thread."""
    import decord

    return lambda indices: decord.VideoReader(str(path), num_threads=1).get_batch(indices).asnumpy()


def torchcodec_at(path: Path) -> Fetch:
    """torchcodec with one thread; seek_mode="exact", its default, reads the times of all packets."""
    from torchcodec.decoders import VideoDecoder

    def fetch(indices: list[int]) -> Frames:
        decoder = VideoDecoder(str(path), num_ffmpeg_threads=1, dimension_order="NHWC")
        frames: Frames = decoder.get_frames_at(indices).data.numpy()
        return frames

    return fetch


def installed() -> dict[str, Callable[[Path], Fetch]]:
    """The readers that nobody has to have and that load on this machine."""
    ways: dict[str, tuple[str, Callable[[Path], Fetch]]] = {
        "decord": ("decord", decord_batch),
        "torchcodec": ("torchcodec.decoders", torchcodec_at),
    }
    found = {}
    for name, (module, way) in ways.items():
        try:
            importlib.import_module(module)
        except (ImportError, OSError, RuntimeError):  # not installed, or without the FFmpeg that it was built for
            continue
        found[name] = way
    return found
