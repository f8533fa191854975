"""Which container for prepared frames: bytes a video, clips a second on one core, and what is lost, for each candidate on the same frames.

    python benchmarks/store.py                 # 8 phantom patients; two minutes
    python benchmarks/store.py --size 224 --clips 400

Frames are the phantom's, prepared at JPEG quality 100. A clip is 16 frames, 3 apart, from a random place of a random video, every file opened
anew, as a loader with random access does. `frame-addressable`: any frame without decoding another. Ratios are against the first line, what
`vfm data prepare` writes.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from domains.base import load_domain
from domains.echo.phantom import synthesise
from domains.prepare.ingest import prepare
from domains.store import frames as jpeg
from domains.store.prepared import Prepared

Pictures = NDArray[np.uint8]  # (T, S, S) grey
FRAMES, STRIDE = 16, 3


@dataclass(frozen=True)
class Container:
    """write(path, frames) stores a video; read(path, indices, about) gives frames back; `about` is what write returned."""

    name: str
    addressable: bool
    write: Callable[[Path, Pictures], object]
    read: Callable[[Path, Sequence[int], object], Pictures]


def joined(extension: str, flags: list[int]) -> Container:
    """Single pictures one after the other in one file, with offsets."""

    def write(path: Path, video: Pictures) -> object:
        parts = [cv2.imencode(extension, frame, flags)[1].tobytes() for frame in video]
        path.write_bytes(b"".join(parts))
        return np.cumsum([0, *map(len, parts)])

    def read(path: Path, indices: Sequence[int], offsets: object) -> Pictures:
        assert isinstance(offsets, np.ndarray)
        with path.open("rb") as file:
            found = []
            for index in indices:
                file.seek(offsets[index])
                part = np.frombuffer(file.read(offsets[index + 1] - offsets[index]), np.uint8)
                found.append(cv2.imdecode(part, cv2.IMREAD_GRAYSCALE))
        return np.stack(found)

    quality = f" q{flags[1]}" if flags and extension != ".png" else ""
    names = {".jpg": "JPEG", ".webp": "WebP", ".png": "PNG"}
    return Container(f"{names[extension]}{quality}, joined", True, write, read)


def ours(quality: int) -> Container:
    """What the store does."""

    def write(path: Path, video: Pictures) -> object:
        blob, offsets = jpeg.encode(video[..., None], quality)
        path.write_bytes(blob)
        return offsets

    def read(path: Path, indices: Sequence[int], offsets: object) -> Pictures:
        size, channels = SIZE[0], 1
        return jpeg.read(path, offsets, indices, size, channels)[..., 0]  # type: ignore[arg-type]

    return Container(f"vfm store (JPEG q{quality})", True, write, read)


SIZE = [144]


def raw() -> Container:
    """Uncompressed."""

    def write(path: Path, video: Pictures) -> object:
        path.write_bytes(video.tobytes())
        return video.shape

    def read(path: Path, indices: Sequence[int], shape: object) -> Pictures:
        mapped = np.memmap(path, np.uint8, "r", shape=shape)  # type: ignore[call-overload]
        return np.stack([mapped[index] for index in indices])

    return Container("raw, mapped", True, write, read)


def coded(codec: str, gop: int, options: dict[str, str]) -> Container:
    """A video codec through PyAV; gop 1: every frame stands for itself."""
    import av

    def write(path: Path, video: Pictures) -> object:
        with av.open(str(path), "w", format="mp4") as container:
            stream = container.add_stream(codec, rate=25, options=options)
            stream.width, stream.height, stream.pix_fmt, stream.gop_size = (
                video.shape[2],
                video.shape[1],
                "yuvj420p",
                gop,
            )
            for frame in video:
                container.mux(
                    stream.encode(av.VideoFrame.from_ndarray(frame, format="gray").reformat(format="yuvj420p"))
                )
            container.mux(stream.encode(None))
        return None

    def read(path: Path, indices: Sequence[int], about: object) -> Pictures:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            base = float(stream.time_base)
            container.seek(int(indices[0] / 25 / base), stream=stream)
            found, wanted = {}, set(indices)
            for frame in container.decode(stream):
                at = round(frame.pts * base * 25)
                if at in wanted:
                    plane = frame.planes[
                        0
                    ]  # full-range luma is the grey picture; a conversion would cost more than decoding
                    found[at] = (
                        np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width].copy()
                    )
                if at >= indices[-1]:
                    break
        return np.stack([found[index] for index in indices])

    return Container(
        f"{codec} {'intra' if gop == 1 else f'gop {gop}'} {next(iter(options.items()))}", gop == 1, write, read
    )


def reference(folder: Path, patients: int, size: int) -> list[Pictures]:
    """The phantom's frames, nearly as they were before compression."""
    domain = load_domain("echo")
    domain = domain.model_copy(update={"store": domain.store.model_copy(update={"quality": 100, "size": size})})
    synthesise(folder / "studies", patients, 0)
    prepare(folder / "studies", folder / "prepared", domain, key=b"k" * 32)
    store = Prepared.open(folder / "prepared")
    return [store.frames(index, range(store.length(index)))[..., 0] for index in range(len(store))]


def psnr(a: Pictures, b: Pictures) -> float:
    """Decibels."""
    error = float(np.square(a.astype(np.float64) - b).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def measure(container: Container, videos: list[Pictures], folder: Path, clips: int) -> tuple[float, float, float]:
    """(bytes a video, clips a second, PSNR)."""
    paths = [folder / f"{number}.bin" for number in range(len(videos))]
    about = [container.write(path, video) for path, video in zip(paths, videos, strict=True)]
    size = float(np.mean([path.stat().st_size for path in paths]))
    decoded = [container.read(path, range(len(video)), a) for path, video, a in zip(paths, videos, about, strict=True)]
    quality = float(np.mean([psnr(video, back) for video, back in zip(videos, decoded, strict=True)]))
    rng = np.random.default_rng(0)
    draws = []
    for number in rng.integers(len(videos), size=clips).tolist():
        start = rng.integers(max(1, len(videos[number]) - FRAMES * STRIDE))
        draws.append((number, np.minimum(start + STRIDE * np.arange(FRAMES), len(videos[number]) - 1).tolist()))
    began = time.perf_counter()
    for number, indices in draws:
        container.read(paths[number], sorted(set(indices)), about[number])
    return size, clips / (time.perf_counter() - began), quality


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=8)
    parser.add_argument("--size", type=int, default=144)
    parser.add_argument("--clips", type=int, default=400)
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    SIZE[0] = asked.size
    containers = [
        ours(92), joined(".jpg", [cv2.IMWRITE_JPEG_QUALITY, 85]), joined(".jpg", [cv2.IMWRITE_JPEG_QUALITY, 97]),
        joined(".webp", [cv2.IMWRITE_WEBP_QUALITY, 90]), joined(".png", []), raw(),
        coded("libx264", 1, {"crf": "18"}), coded("libx264", 12, {"crf": "18"}), coded("libx264", 250, {"crf": "18"}),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        videos = reference(Path(temporary), asked.patients, asked.size)
        print(
            f"{len(videos)} videos of {np.mean([len(v) for v in videos]):.0f} frames of {asked.size} px; clips of {FRAMES} frames"
        )
        print(f"{'container':<36} {'any frame':>9} {'KiB/video':>10} {'clips/s':>8} {'ratio':>6} {'PSNR dB':>8}")
        first = 0.0
        for container in containers:
            size, rate, quality = measure(container, videos, Path(temporary), asked.clips)
            first = first or rate
            print(
                f"{container.name:<36} {'yes' if container.addressable else 'no':>9} {size / 1024:>10.0f} {rate:>8.0f} "
                f"{rate / first:>6.2f} {quality:>8.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
