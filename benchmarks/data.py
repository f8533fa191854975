"""Clips a second, from a recording to frames in memory: our readers and the prepared store against the usual ways, in the same run.

    python benchmarks/data.py                  # about a minute on two CPU cores
    python benchmarks/data.py --rounds 30 --json

A clip is 16 frames at stride 4 from a random place of a 100-frame cine of 640x480, and every contender opens the file anew for each clip,
as a loader with more recordings than file handles does. The contenders take turns within a round, so that a busy moment of the machine
hits all of them; the figure is the median, of time or with --processor of processor time. Each uses one thread. Frames are compared with
the ones that the file was made of: `wrong` counts those that are another frame than asked for. The H.264 is read once more with uneven
times between its frames and cut off at four fifths, as a camera that lost power leaves it. decord and torchcodec take part where they are
installed. The script makes its own files in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import JPEGBaseline8Bit, generate_uid
from readers import Fetch, installed, opencv_all, opencv_seek, ours, ours_afresh, pyav_all, pydicom_all, pydicom_some

from domains.base import Domain, load_domain
from domains.media.quiet import quiet
from domains.prepare.ingest import prepare
from domains.prepare.privacy import load_key
from domains.store.clips import Clip, draw_views
from domains.store.manifest import frame_file
from domains.store.prepared import Prepared

LENGTH, HEIGHT, WIDTH, FPS = 100, 480, 640, 25
COUNT, STRIDE = 16, 4
UNEVEN = "MKV, H.264, uneven, cut"
MARK = 20  # side of the squares that spell a frame's number
Frames = NDArray[np.uint8]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Result:
    """ms: median for a clip. ratio: its time over that of vfm on the same recording; for the store, on the DICOM file.

    wrong: frames other than asked for; None where a frame's number cannot be read off, in the store.
    """

    source: str
    way: str
    ms: float
    clips_per_second: float
    ratio: float
    wrong: int | None


def make_cine(seed: int = 0) -> Frames:
    """(100, 480, 640, 3): a beating ring of speckle in a fan; every frame carries its number in black and white squares."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    radius, angle = np.hypot(x - 320, y - 30), np.arctan2(x - 320, y - 30)
    fan = (radius < 400) & (radius > 15) & (np.abs(angle) < 0.65)
    noise = cv2.GaussianBlur(rng.gamma(1.0, 40, (HEIGHT, WIDTH)).astype(np.float32), (0, 0), 2)
    frames = np.zeros((LENGTH, HEIGHT, WIDTH, 3), np.uint8)
    for number in range(LENGTH):
        size = 90 + 22 * np.sin(2 * np.pi * number / 22)
        ring = np.exp(-(((np.hypot(x - 320, y - 220) - size) / 18) ** 2))
        shift = (
            (x + 4 * np.sin(number / 3.5 + y / 60)).astype(np.float32),
            (y + 4 * np.cos(number / 3.5)).astype(np.float32),
        )
        moved = cv2.remap(noise, *shift, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        frames[number] = np.where(fan, np.clip(moved * (0.7 + 2.2 * ring), 0, 255), 0).astype(np.uint8)[..., None]
        for bit in range(7):
            frames[number, 200 : 200 + MARK, 280 + bit * MARK : 280 + (bit + 1) * MARK] = (
                235 if number >> bit & 1 else 16
            )
    return frames


def read_number(frame: Frames) -> int:
    """The number that `make_cine` wrote into a frame."""
    centres = [frame[206:214, 280 + bit * MARK + 6 : 280 + bit * MARK + 14].mean() for bit in range(7)]
    return sum(int(centre > 128) << bit for bit, centre in enumerate(centres))


def write_dicom(path: Path, frames: Frames) -> None:
    """JPEG baseline, YBR_FULL_422, with a region: what an ultrasound machine exports."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = JPEGBaseline8Bit, "1.2.840.10008.5.1.4.1.1.3.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID, file.Modality = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
        "US",
    )
    file.PatientID, file.StudyInstanceUID = "benchmark", generate_uid()
    file.Rows, file.Columns, file.NumberOfFrames, file.FrameTime = HEIGHT, WIDTH, len(frames), 1000 / FPS
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PlanarConfiguration = 3, "YBR_FULL_422", 0
    file.BitsAllocated = file.BitsStored = 8
    file.HighBit, file.PixelRepresentation = 7, 0
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0, region.RegionLocationMaxX1, region.RegionLocationMaxY1 = (
        70,
        20,
        570,
        440,
    )
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX = region.PhysicalDeltaY = 0.04
    file.SequenceOfUltrasoundRegions = Items([region])
    sampling = [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422]
    file.PixelData = encapsulate([cv2.imencode(".jpg", frame[..., ::-1], sampling)[1].tobytes() for frame in frames])
    file["PixelData"].is_undefined_length = True
    file.save_as(path, enforce_file_format=True)


def write_video(path: Path, frames: Frames, codec: str, pix_fmt: str, *, uneven: bool = False, **options: str) -> None:
    """A video of the same frames. uneven: shown for a tenth to nine tenths of a second each."""
    times = np.cumsum(np.random.default_rng(0).integers(100, 900, len(frames))).tolist()
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.options = WIDTH, HEIGHT, pix_fmt, options
        if uneven:
            stream.codec_context.time_base = Fraction(1, 1000)
        for frame, time_shown in zip(frames, times, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if uneven:
                picture.pts, picture.time_base = time_shown, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def cut(path: Path, share: float) -> None:
    """Lose what follows that share of the file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def make_store(folder: Path, dicom: Path, domain: Domain) -> Prepared:
    """The DICOM file prepared for training as `vfm data prepare` does it."""
    source = folder / "studies"
    source.mkdir()
    dicom.rename(source / dicom.name)
    prepare(source, folder / "prepared", domain, key=load_key(folder / "key", create=True))
    (source / dicom.name).rename(dicom)
    return Prepared.open(folder / "prepared")


def bare_loop(store: Prepared) -> Fetch:
    """The limit: the same JPEGs, already in memory, decoded one after the other and nothing else."""
    row = store.row(0)
    blob = frame_file(store.folder, row.video_id).read_bytes()
    parts = [np.frombuffer(blob[a:b], np.uint8) for a, b in pairwise(row.offsets)]
    return lambda indices: [cv2.imdecode(parts[index], cv2.IMREAD_GRAYSCALE) for index in indices]


def starts(rounds: int, seed: int, length: int) -> Iterator[list[int]]:
    """The frames of each round's clip."""
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        first = int(rng.integers(0, length - STRIDE * (COUNT - 1)))
        yield list(range(first, first + STRIDE * COUNT, STRIDE))


def race(
    ways: dict[str, Fetch], rounds: int, clock: Clock, truth: list[int] | None = None
) -> dict[str, tuple[float, int | None]]:
    """name -> (median seconds, wrong frames); the first round warms up and does not count.

    truth: the number that each frame of the recording carries; None: nobody looks. A frame that does not come is a wrong one.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    wrong = dict.fromkeys(ways, 0)
    for indices in starts(rounds + 1, seed=1, length=len(truth or range(LENGTH))):
        for name, fetch in ways.items():
            began = clock()
            try:
                frames = fetch(indices)
            except (RuntimeError, ValueError, cv2.error):  # what OpenCV and decord make of a file that ends early
                frames = []
            times[name].append(clock() - began)
            if truth is not None:
                right = sum(read_number(frame) == truth[index] for frame, index in zip(frames, indices, strict=False))
                wrong[name] += len(indices) - right
    return {name: (float(np.median(times[name][1:])), None if truth is None else wrong[name]) for name in ways}


def measure(folder: Path, rounds: int, clock: Clock = time.perf_counter) -> list[Result]:
    """All recordings and the store; ratios of the store are against our own readers."""
    frames = make_cine()
    dicom, avi, mp4, uneven = folder / "cine.dcm", folder / "cine.avi", folder / "cine.mp4", folder / "uneven.mkv"
    write_dicom(dicom, frames)
    write_video(avi, frames, "mjpeg", "yuvj422p", qmin="2", qmax="4")
    write_video(mp4, frames, "libx264", "yuv420p", g="50", bf="2", crf="20")
    write_video(uneven, frames, "libx264", "yuv420p", uneven=True, g="50", bf="2", crf="20")
    cut(uneven, 0.8)
    with av.open(str(uneven)) as container:  # the last frames that a cut file holds are not always neighbours
        left = [read_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    video = {
        "vfm, file not opened before": ours_afresh,
        "OpenCV, from the first frame": opencv_all,
        "OpenCV, seeking": opencv_seek,
        "PyAV, from the first frame": pyav_all,
        **installed(),
    }
    races: dict[str, tuple[Path, dict[str, Callable[[Path], Fetch]]]] = {
        "DICOM, JPEG baseline": (
            dicom,
            {"pydicom pixel_array": pydicom_all, "pydicom iter_pixels(indices)": pydicom_some},
        ),
        "AVI, Motion JPEG": (avi, video),
        "MP4, H.264": (mp4, video),
        UNEVEN: (uneven, video),
    }
    results, own = [], {}
    for source, (path, others) in races.items():
        contenders = {"vfm": ours(path), **{name: way(path) for name, way in others.items()}}
        found = race(contenders, rounds, clock, left if path == uneven else list(range(LENGTH)))
        own[source] = found["vfm"][0]
        results += [Result(source, name, 1000 * s, 1 / s, s / own[source], wrong) for name, (s, wrong) in found.items()]
    domain = load_domain("echo")
    store = make_store(folder, dicom, domain)
    clip = domain.clip.model_copy(update={"frames": COUNT, "stride": STRIDE, "rate": FPS / STRIDE})
    views = {"clip": Clip()}
    draws = {
        "bare loop, from memory": bare_loop(store),
        "frames as stored": lambda indices: store.frames(0, indices),
        "view, cropped and resized": lambda indices: draw_views(store, 0, views, clip, domain.augment, 0, indices[0]),
    }
    for name, (s, _) in race(draws, 5 * rounds, clock).items():
        results.append(Result("prepared store", name, 1000 * s, 1 / s, s / own["DICOM, JPEG baseline"], None))
    return results


def table(results: list[Result]) -> str:
    """For a person."""
    lines = [f"{'recording':23} {'way':30} {'ms/clip':>9} {'clips/s':>9} {'time / vfm':>11} {'wrong':>6}"]
    for result in results:
        wrong = "-" if result.wrong is None else str(result.wrong)
        lines.append(
            f"{result.source:23} {result.way:30} {result.ms:9.1f} {result.clips_per_second:9.1f} {result.ratio:11.2f} {wrong:>6}"
        )
    drawn = results[-1]
    lines.append("A view out of the prepared store (smaller, grey, cropped, resized) comes so many times as fast as")
    lines += [
        f"{other.ms / drawn.ms:8.0f}  {other.source}, {other.way}" for other in results if other.source != drawn.source
    ]
    for source in ("MP4, H.264", UNEVEN):
        there = {result.way: result for result in results if result.source == source}
        best = min(
            (one for way, one in there.items() if not way.startswith("vfm") and not one.wrong), key=lambda one: one.ms
        )
        first = best.ms / there["vfm, file not opened before"].ms
        lines.append(
            f"{source}: vfm is {best.ratio:.2f} times as fast as the best exact other ({best.way}), {first:.2f} at first opening."
        )
    bare, stored = (
        next(r.ms for r in results if r.way == way) for way in ("bare loop, from memory", "frames as stored")
    )
    lines.append(
        f"Frames as stored come at {bare / stored:.0%} of the rate of a bare loop that decodes them from memory."
    )
    return "\n".join(lines)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12, help="clips that count, for each contender")
    parser.add_argument(
        "--processor", action="store_true", help="count processor time: on a machine that is busy otherwise"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    cv2.setNumThreads(1)
    # FFmpeg within OpenCV and decord remarks on the cut file at every reading.
    with tempfile.TemporaryDirectory(prefix="vfm-benchmark-") as folder, quiet():
        results = measure(Path(folder), options.rounds, time.process_time if options.processor else time.perf_counter)
    print(json.dumps([asdict(result) for result in results], indent=1) if options.json else table(results))


if __name__ == "__main__":
    main()
