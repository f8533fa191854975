"""Seconds to prepare a folder: `vfm data prepare` on one core and on two, against a plain pydicom + OpenCV script that does the same job.

    python benchmarks/prepare.py                    # 12 phantom patients
    python benchmarks/prepare.py --patients 40 --rounds 3
    python benchmarks/prepare.py --ray              # and on a Ray cluster of worker processes of this machine (extra: ray)

The plain script is what a careful user writes in an afternoon: pydicom's pixel_array, grey, the header's region, what moves within it, everything
else zero, square, 144 pixels, JPEG, a hash, a row of a CSV. Contenders take turns; the best of the rounds counts. Half of the folder's time is
often spent on files that are no cines, so the phantom's masks and reports are left out: DICOM files only. On Ray the start of the cluster is told
apart (a cluster is there before), the start of its workers counts.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pydicom

from domains.base import load_domain
from domains.echo.phantom import synthesise
from domains.prepare.ingest import prepare
from domains.prepare.pool import Engine

ON_RAY = "vfm on Ray, two workers"


def plain(source: Path, out: Path) -> int:
    """The peer: one process, one file after the other. Returns the recordings that it prepared."""
    cv2.setNumThreads(1)
    warnings.simplefilter("ignore")
    (out / "frames").mkdir(parents=True)
    done = 0
    with (out / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        for path in sorted(source.rglob("*.dcm")):
            try:
                image = pydicom.dcmread(path)
                pixels = image.pixel_array
                if int(image.get("NumberOfFrames", 1)) < 8:
                    continue
                regions = image.SequenceOfUltrasoundRegions
            except Exception:  # damaged, or no ultrasound: passed over
                continue
            if any(int(region.RegionDataType) == 2 for region in regions):  # colour flow
                continue
            box = max(
                regions,
                key=lambda r: (
                    (r.RegionLocationMaxX1 - r.RegionLocationMinX0) * (r.RegionLocationMaxY1 - r.RegionLocationMinY0)
                ),
            )
            x0, y0, x1, y1 = (
                box.RegionLocationMinX0,
                box.RegionLocationMinY0,
                box.RegionLocationMaxX1 + 1,
                box.RegionLocationMaxY1 + 1,
            )
            if pixels.ndim == 4:
                pixels = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in pixels])
            grey = pixels[:, y0:y1, x0:x1]
            moving = (grey.std(axis=0) > 3).astype(np.uint8)
            hull = cv2.convexHull(cv2.findNonZero(cv2.morphologyEx(moving, cv2.MORPH_OPEN, np.ones((7, 7), np.uint8))))
            mask = cv2.fillConvexPoly(np.zeros_like(moving), hull, 1)
            side = max(mask.shape)
            top, left = (side - mask.shape[0]) // 2, (side - mask.shape[1]) // 2
            parts = []
            for frame in grey:
                square = np.zeros((side, side), np.uint8)
                square[top : top + mask.shape[0], left : left + mask.shape[1]] = frame * mask
                small = cv2.resize(square, (144, 144), interpolation=cv2.INTER_AREA)
                parts.append(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
            blob = b"".join(parts)
            (out / "frames" / f"{done:06d}.mjpeg").write_bytes(blob)
            writer.writerow([done, len(parts), *np.cumsum([0, *map(len, parts)]), hashlib.sha256(blob).hexdigest()])
            done += 1
    return done


def ours(workers: int, engine: Engine | None = None) -> Callable[[Path, Path], int]:
    """`vfm data prepare`."""
    return lambda source, out: (
        prepare(source, out, load_domain("echo"), key=b"k" * 32, workers=workers, engine=engine).videos
    )


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ray", action="store_true", help="also on a Ray cluster of two worker processes")
    asked = parser.parse_args()
    if not asked.ray:
        compare(asked.patients, asked.rounds, None)
        return
    from domains.prepare.ray_cluster import cluster

    began = time.perf_counter()
    with cluster(None, 2) as engine:
        print(f"the Ray cluster started in {time.perf_counter() - began:.1f} s")
        compare(asked.patients, asked.rounds, engine)


def compare(patients: int, rounds: int, engine: Engine | None) -> None:
    """Everyone in turn; the table."""
    ways = {"vfm, one worker": ours(1), "vfm, two workers": ours(2), "pydicom + OpenCV script": plain}
    if engine is not None:
        ways[ON_RAY] = ours(2, engine)
    best = dict.fromkeys(ways, float("inf"))
    made = dict.fromkeys(ways, 0)
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "studies"
        synthesise(source, patients, 0, workers=2)
        for path in list(source.rglob("*")):
            if path.is_file() and path.suffix != ".dcm":
                path.unlink()
        for round_number in range(rounds):
            for name, way in ways.items():
                out = Path(temporary) / f"out-{round_number}-{len(name)}"
                began = time.perf_counter()
                made[name] = way(source, out)
                best[name] = min(best[name], time.perf_counter() - began)
                for folder in (out, out.with_name(out.name + ".private")):
                    shutil.rmtree(folder, ignore_errors=True)
    one = best["vfm, one worker"]
    print(f"{'':<26} {'recordings':>10} {'seconds':>8} {'speed against one worker':>25}")
    for name, seconds in best.items():
        print(f"{name:<26} {made[name]:>10} {seconds:>8.2f} {one / seconds:>25.2f}")
    print(f"vfm on two workers is {best['pydicom + OpenCV script'] / best['vfm, two workers']:.2f}x the script")
    if engine is not None:
        print(f"two workers on Ray are {best['vfm, two workers'] / best[ON_RAY]:.2f}x two workers without it")


if __name__ == "__main__":
    main()
