"""Damaged recordings by the thousand: no crash, no hang, bounded memory, and a reason for every file that is set aside.

    python benchmarks/fuzz.py --count 2000 --seed 0                      # made-up seeds: DICOM of several syntaxes, AVI, MP4, MKV, WebM
    python benchmarks/fuzz.py --count 2000 --seeds ../shared/data/echo   # files of your own as well

Every seed is mutated (bit flips, zeroed and copied stretches, cut tails, lengths and counts replaced by absurd ones) and looked at exactly as
`vfm data check` does, each in a worker process that may die. Prints outcomes, the slowest file and the largest worker; exit code 1 where a file
crashed or hung its worker, took more than 10 s, or where a worker grew beyond 1 GiB.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from domains.base import Domain, RegionSettings, StoreSettings
from domains.machine import cores
from domains.prepare import pool
from domains.prepare.find import Source
from domains.prepare.source import Outcome, Refused, Task, Usable, examine

SLOWEST, LARGEST = 10.0, 1024.0  # seconds, MiB
LARGEST_SEED = 8_000_000  # bytes; more would measure the disk
ECHO = Domain(
    name="echo", title="Echo", region=RegionSettings(policy="ultrasound"), store=StoreSettings(size=64, grey=True)
)
WHOLE = Domain(name="scenes", title="Scenes", region=RegionSettings(text="keep"), store=StoreSettings(size=64))


def watched(task: Task, beat: pool.Beat) -> tuple[Outcome, float, float]:
    """(outcome, seconds, MiB that this worker has ever held)."""
    began = time.perf_counter()
    outcome = examine(task, beat)
    return outcome, time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def flip_bits(data: bytearray, rng: random.Random) -> None:
    """1 to 64 bits anywhere, more often near the beginning, where headers are."""
    for _ in range(rng.choice((1, 4, 16, 64))):
        data[int(len(data) * rng.random() ** rng.choice((1, 3)))] ^= 1 << rng.randrange(8)


def zero(data: bytearray, rng: random.Random) -> None:
    """A stretch of up to 4 KiB becomes zero."""
    start = rng.randrange(len(data))
    stop = min(len(data), start + rng.randrange(1, 4096))
    data[start:stop] = bytes(stop - start)


def copy_over(data: bytearray, rng: random.Random) -> None:
    """A stretch is written over another."""
    size = min(len(data) // 2, rng.randrange(1, 2048))
    start, to = rng.randrange(len(data) - size), rng.randrange(len(data) - size)
    data[to : to + size] = data[start : start + size]


def cut(data: bytearray, rng: random.Random) -> None:
    """The end is lost."""
    del data[rng.randrange(1, len(data)) :]


def drop(data: bytearray, rng: random.Random) -> None:
    """A stretch is lost, so that all that follows lies too early."""
    start = rng.randrange(len(data))
    del data[start : start + rng.randrange(1, 512)]


def absurd_number(data: bytearray, rng: random.Random) -> None:
    """Two or four bytes in the first 4 KiB become the largest number there is, or another that no header should hold."""
    at = rng.randrange(max(1, min(len(data), 4096) - 4))
    value = rng.choice(
        (b"\xff\xff", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x00\x00", b"\xfe\xff\xff\xff")
    )
    data[at : at + len(value)] = value


def absurd_dicom(data: bytearray, rng: random.Random) -> None:
    """A DICOM's own counts: 65,535 pixels, 100,000 frames, 16 bits where there are 8; anything else gets an absurd number."""
    known = {
        b"\x28\x00\x10\x00US": 2,
        b"\x28\x00\x11\x00US": 2,
        b"\x28\x00\x02\x00US": 2,
        b"\x28\x00\x00\x01US": 2,
        b"\x28\x00\x08\x00IS": 0,
    }
    tag, width = rng.choice(sorted(known.items()))
    at = data.find(tag)
    if at < 0:
        absurd_number(data, rng)
    elif width:
        data[at + 8 : at + 10] = rng.choice((b"\xff\xff", b"\x00\x00", b"\x10\x00", b"\x00\x80"))
    else:
        length = int.from_bytes(data[at + 6 : at + 8], "little")
        data[at + 8 : at + 8 + length] = rng.choice((b"100000", b"999999999999", b"-5", b"1e99"))[:length].ljust(length)


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip_bits, zero, copy_over, cut, drop, absurd_number, absurd_dicom,
)  # fmt: skip


def mutate(seed: bytes, rng: random.Random) -> bytes:
    """One to three mutations of a file."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if len(data) > 8:
            rng.choice(MUTATIONS)(data, rng)
    return bytes(data)


def make_seeds(folder: Path) -> list[Path]:
    """A moving sector as DICOM (uncompressed, RLE, JPEG baseline, JPEG 2000, a volume over time) and as video (MJPEG, H.264, VP9)."""
    import av
    import pydicom
    from pydicom.encaps import encapsulate

    rng = np.random.default_rng(0)
    frames = np.zeros((12, 120, 160, 3), np.uint8)
    ys, xs = np.mgrid[:120, :160]
    sector = (np.abs(xs - 80) < 0.8 * ys) & (ys < 112)
    for frame in frames:
        frame[sector] = rng.integers(0, 255, (int(sector.sum()), 1), np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    plain = folder / "plain.dcm"
    image = dicom_of(frames)
    image.save_as(plain, enforce_file_format=True)
    paths = [plain]
    for name, syntax in (("rle", pydicom.uid.RLELossless), ("j2k", pydicom.uid.JPEG2000Lossless)):
        packed = pydicom.dcmread(plain)
        packed.compress(syntax, generate_instance_uid=False)
        packed.save_as(folder / f"{name}.dcm", enforce_file_format=True)
        paths.append(folder / f"{name}.dcm")
    import cv2

    volume = pydicom.dcmread(plain)
    place_in_space(volume, frames)
    volume.save_as(folder / "volume.dcm", enforce_file_format=True)
    paths.append(folder / "volume.dcm")
    baseline = pydicom.dcmread(plain)
    baseline.PixelData = encapsulate([cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames])
    baseline["PixelData"].is_undefined_length = True
    baseline.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    baseline.PhotometricInterpretation = "YBR_FULL_422"
    baseline.save_as(folder / "jpeg.dcm", enforce_file_format=True)
    paths.append(folder / "jpeg.dcm")
    for name, codec in (("a.avi", "mjpeg"), ("b.mp4", "libx264"), ("c.mkv", "libx264"), ("d.webm", "libvpx-vp9")):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 160, 120, "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        paths.append(folder / name)
    return paths


def place_in_space(image: Any, frames: np.ndarray) -> None:
    """Make it an enhanced ultrasound volume over time: three planes, the frames in the middle one."""
    from pydicom.dataset import Dataset

    def item(**values: object) -> list[Dataset]:
        one = Dataset()
        one.update(values)
        return [one]

    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.6.2"
    image.DimensionOrganizationType, image.NumberOfFrames = "3D_TEMPORAL", 3 * len(frames)
    image.PixelData = np.repeat(frames, 3, axis=0).tobytes()
    measures = item(PixelSpacing=[0.5, 0.5])
    image.SharedFunctionalGroupsSequence = item(PixelMeasuresSequence=measures)
    image.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionVolumeSequence=item(ImagePositionVolume=[0.0, 0.0, 0.8 * plane]),
            TemporalPositionSequence=item(TemporalPositionTimeOffset=0.05 * time),
        )[0]
        for time in range(len(frames))
        for plane in range(3)
    ]


def dicom_of(frames: np.ndarray) -> object:
    """An uncompressed ultrasound cine."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = "1.2.826.0.1.3680043.10.1"
    image.Modality, image.PatientID, image.FrameTime = "US", "FUZZ", 40.0
    image.NumberOfFrames, image.Rows, image.Columns = len(frames), *frames.shape[1:3]
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PlanarConfiguration = 3, "RGB", 0
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit, image.PixelRepresentation, image.PixelData = 7, 0, frames.tobytes()
    return image


def fuzz(seeds: list[Path], count: int, seed: int, folder: Path, workers: int) -> dict[str, object]:
    """Mutate, look, count. Returns outcomes by reason, the worst time and memory, and the files that took their worker along."""
    rng = random.Random(seed)
    key, outcomes, lost = b"f" * 32, Counter[str](), []
    slowest, largest, unexplained = (0.0, ""), (0.0, ""), 0
    contents = [(path, path.read_bytes()) for path in seeds]
    for start in range(0, count, 100):
        tasks = []
        for number in range(start, min(count, start + 100)):
            path, content = contents[number % len(contents)]
            target = folder / f"{number:06d}{path.suffix}"
            target.write_bytes(mutate(content, rng))
            tasks.append(Task(Source(target, target.name), None, folder, WHOLE if number % 3 == 2 else ECHO, key))
        for number, result in pool.run(watched, tasks, workers, patience=30.0):
            if isinstance(result, str):
                outcomes[result] += 1
                lost.append(tasks[number].path.read_bytes())
                (folder / f"lost-{len(lost)}-{tasks[number].path.name}").write_bytes(lost[-1])
                continue
            outcome, seconds, memory = result
            source = contents[int(tasks[number].path.stem) % len(contents)][0].name
            slowest, largest = max(slowest, (seconds, source)), max(largest, (memory, source))
            reason = "usable" if isinstance(outcome, Usable) else getattr(outcome, "category", "disk")
            unexplained += isinstance(outcome, Refused) and not (outcome.reason and outcome.public)
            outcomes[reason] += 1
        for task in tasks:
            task.path.unlink()
    return {
        "outcomes": dict(outcomes.most_common()),
        "seconds": slowest[0],
        "slowest": slowest[1],
        "mib": largest[0],
        "largest": largest[1],
        "lost": len(lost),
        "unexplained": unexplained,
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=Path, default=None, help="a folder of files to mutate as well")
    parser.add_argument("--keep", type=Path, default=None, help="where files that took their worker along are kept")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        seeds = make_seeds(Path(temporary) / "seeds")
        if asked.seeds:
            own = sorted(
                path for path in asked.seeds.rglob("*") if path.is_file() and 0 < path.stat().st_size < LARGEST_SEED
            )
            seeds += own
        began = time.perf_counter()
        found = fuzz(seeds, asked.count, asked.seed, folder, cores())
    print(f"{asked.count} files from {len(seeds)} seeds in {time.perf_counter() - began:.0f} s")
    for name, value in found.items():
        print(f"  {name}: {value}")
    bad = (
        found["lost"]
        or found["unexplained"]
        or float(str(found["seconds"])) > SLOWEST
        or float(str(found["mib"])) > LARGEST
    )
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
