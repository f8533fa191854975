"""Clips a second out of a prepared folder on a storage: frame files fetched whole, against the blocks that hold each clip.

    python benchmarks/remote.py                              # 20 ms away, 100 MB/s
    python benchmarks/remote.py --latency 2 --clips 128

The storage is moto's S3 server in a process of its own; before it answers it waits for the latency, and as long as the bytes would take. Clips of 16
frames, every fourth, from random places, by four threads (as four loader processes would). Three sizes of recordings: a cine of 100 frames,
a minute, twenty minutes. "first": nothing is in the cache yet. "again": the same recordings once more, other places, as in the next
epoch. What is fetched either way is kept.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from domains.remote import cache, storage
from domains.remote.place import Url
from domains.store.frames import encode
from domains.store.manifest import VideoRow, frame_file, write_info, write_manifest
from domains.store.prepared import Prepared

FRAMES, STRIDE, THREADS, SIZE = 16, 4, 4, 144
KINDS = (("cine, 100 frames", 100, 48), ("1 min", 1500, 12), ("20 min", 30_000, 2))


def serve(pipe: Connection, latency: float, rate: float) -> None:
    """An S3 server that is `latency` seconds away and sends `rate` bytes a second on each connection."""
    import logging

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = DomainDispatcherApplication(create_backend_app)

    def far(environ: dict[str, Any], start: Any) -> Any:
        body = list(app(environ, start))
        time.sleep(latency + sum(map(len, body)) / rate)
        return body

    server = make_server("127.0.0.1", 0, far, threaded=True)
    pipe.send(server.server_port)
    server.serve_forever()


def speckle(count: int) -> np.ndarray:
    """(count, SIZE, SIZE, 1) uint8: as hard to compress as ultrasound."""
    rng = np.random.default_rng(0)
    still = [cv2.GaussianBlur(rng.gamma(1.0, 40, (SIZE, SIZE)), (5, 5), 0) for _ in range(24)]
    return np.stack([still[number % 24].clip(0, 255).astype(np.uint8)[..., None] for number in range(count)])


def make(folder: Path, frames: int, videos: int) -> int:
    """A prepared folder of recordings that all look alike; bytes of one."""
    blob, offsets = encode(speckle(frames), 92)
    rows = []
    for number in range(videos):
        name = hashlib.sha256(f"{frames} {number}".encode()).hexdigest()[:16]
        mine = blob[:2] + b"\xff\xfe\x00\x12" + name.encode() + blob[2:]  # a comment, so that no two are the same
        places = (0, *(place + 20 for place in offsets[1:]))
        path = frame_file(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mine)
        rows.append(VideoRow(
            name, name, name, name, name, name, "video", "h264", frames, SIZE, SIZE, 1, 25.0, "file", (0, 0, SIZE, SIZE), "whole", None, "", "",
            "", None, 0.0, 0.0, 0.0, places, len(mine), hashlib.sha256(mine).hexdigest(),
        ))  # fmt: skip
    write_manifest(folder, rows)
    write_info(
        folder, {"domain": "echo", "store": {"size": SIZE, "fit": "pad", "quality": 92, "grey": True}, "counts": {}}
    )
    return len(blob)


def clips_a_second(prepared: Prepared, count: int, seed: int) -> float:
    """Random clips, `count` over all videos, as fast as four threads draw them."""
    rng = np.random.default_rng(seed)
    asked = []
    for number in range(count):
        video = number % len(prepared)
        start = int(rng.integers(0, prepared.length(video) - FRAMES * STRIDE + STRIDE))
        asked.append((video, [min(start + STRIDE * step, prepared.length(video) - 1) for step in range(FRAMES)]))
    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda one: prepared.frames(*one), asked))
    return count / (time.perf_counter() - began)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=20.0, help="ms")
    parser.add_argument("--rate", type=float, default=100.0, help="MB a second and connection")
    parser.add_argument("--clips", type=int, default=96)
    asked = parser.parse_args()
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(keys)
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(theirs, asked.latency / 1e3, asked.rate * 1e6), daemon=True
    )
    server.start()
    theirs.close()  # so that the death of the server is the end of the pipe
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{ours.recv()}"
    home = Path(tempfile.mkdtemp())
    os.environ["VFM_CACHE"] = str(home / "cache")
    cv2.setNumThreads(1)
    storage._opened(Url("s3://bench/x"))[0].mkdir("bench")
    print(f"{asked.latency:g} ms, {asked.rate:g} MB/s")
    print(
        "| recording | MB | whole, first | whole, again | blocks, first | blocks, again | local |\n|---|---|---|---|---|---|---|"
    )
    try:
        for title, frames, videos in KINDS:
            size = make(home / f"{frames}", frames, videos)
            for path in (home / f"{frames}").rglob("*.*"):
                storage.put(path, Url(f"s3://bench/{frames}") / path.relative_to(home / f"{frames}").as_posix())
            cells = []
            for limit in (1 << 40, 0):
                cache.WHOLE = limit
                shutil.rmtree(home / "cache", ignore_errors=True)
                prepared = Prepared.open(Url(f"s3://bench/{frames}"))
                cells += [clips_a_second(prepared, asked.clips, 1), clips_a_second(prepared, asked.clips, 2)]
            cells.append(clips_a_second(Prepared.open(home / f"{frames}"), asked.clips, 2))
            print(f"| {title} | {size / 1e6:.1f} | " + " | ".join(f"{cell:.0f}" for cell in cells) + " |", flush=True)
    finally:
        server.kill()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
