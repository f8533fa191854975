"""A tiny prepared folder of events that several cameras saw, on clocks of their own, without video: a frame's grey says which second it shows.

from views_factory import make_views, second_of
prepared = make_views(tmp_path / "prepared")
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from store_factory import pseudonym

from domains.store.frames import encode
from domains.store.manifest import VideoRow, frame_file, write_info, write_manifest
from domains.store.prepared import Prepared
from domains.store.signals import write_signals

SIZE = 16
GREY, STEP = 10.0, 6.0  # grey level of second 0, and how much brighter the next is


class Camera(NamedTuple):
    """name, team, exo; fps of the recording; offset (None: no clock), drift; the second of the event at which it ends; frames withheld."""

    name: str
    team: str = ""
    exo: bool = False
    fps: float = 10.0
    offset: float | None = 0.0
    drift: float = 0.0
    end: float = 40.0
    outside: tuple[int, ...] = ()


CAMERAS = (
    Camera("a", "red", fps=30.0),
    Camera("b", "red", fps=4.0, offset=1.25),
    Camera("c", "blue", fps=10.0, offset=-2.0, drift=2e-2),
    Camera("d", "blue", fps=15.0, end=20.0),  # leaves half-way
    Camera("e", exo=True, fps=10.0, offset=3.5),
)


def second_of(frames: np.ndarray) -> np.ndarray:
    """(T,) the seconds of the event that frames (T, H, W, C) show."""
    return (frames.reshape(len(frames), -1).astype(float).mean(1) - GREY) / STEP


def make_views(
    folder: Path,
    events: int = 2,
    cameras: tuple[Camera, ...] = CAMERAS,
    moments: tuple[tuple[str, float, float], ...] = (),
    signals: bool = False,
) -> Prepared:
    """Write and open `events` events, each seen by `cameras`. moments: (team, start, end) of the event that the data set names. signals: each but the
    last camera has an `imu`, 20 a second, of its own second and that of the event; all have a `pose` of one joint at (event's second / 100, 0.5)."""
    folder.mkdir(parents=True)
    rows, views, spans = [], [], []
    for event in range(events):
        for camera in cameras:
            offset = camera.offset or 0.0
            n_frames = int((camera.end * (1 + camera.drift) + offset) * camera.fps)
            seconds = (np.arange(n_frames) / camera.fps - offset) / (1 + camera.drift)
            grey = np.clip(GREY + STEP * seconds, 0, 255).round().astype(np.uint8)
            clip = np.broadcast_to(grey[:, None, None, None], (n_frames, SIZE, SIZE, 1)).copy()
            clip[:, 0, 0] = event  # no two recordings alike
            blob, offsets = encode(clip, quality=98)
            video_id = pseudonym(f"view {event} {camera.name}")
            path = frame_file(folder, video_id)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(blob)
            rows.append(_row(video_id, f"event {event}", camera, n_frames, offsets, blob))
            told = "" if camera.offset is None else camera.offset
            names = [
                pseudonym(f"{kind} {name}") if name else ""
                for kind, name in (("camera", camera.name), ("team", camera.team))
            ]
            views.append([video_id, pseudonym(f"event {event}"), *names, int(camera.exo), told, camera.drift])
            for team, start, end in moments:
                if team == camera.team and camera.end >= end:
                    own = [time * (1 + camera.drift) + offset for time in (start, end)]
                    spans.append((video_id, *own, "team", team, pseudonym(f"{event} {team} {start}")))
    write_manifest(folder, rows)
    write_info(folder, {
        "domain": "echo", "store": {"size": SIZE, "fit": "pad", "quality": 98, "grey": True}, "key": pseudonym("key"),
        "counts": {"videos": len(rows), "patients": events, "excluded": {}},
    })  # fmt: skip
    with (folder / "views.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["video_id", "event", "camera", "team", "exo", "offset", "drift"], *views])
    if spans:
        _name_moments(folder, spans)
    if signals:
        _measure(folder, rows, events, cameras)
    return Prepared.open(folder)


def _measure(folder: Path, rows: list[VideoRow], events: int, cameras: tuple[Camera, ...]) -> None:
    tables: dict[str, dict[str, str]] = {}
    for number, row in enumerate(rows):
        camera = cameras[number % len(cameras)]
        own = np.arange(0, row.n_frames / camera.fps, 0.05)
        second = (own - (camera.offset or 0.0)) / (1 + camera.drift)
        kinds = {"imu": [own, own, second], "pose": [own, second / 100, np.full(len(own), 0.5)]}
        if number % len(cameras) == len(cameras) - 1:
            del kinds["imu"]
        for kind, columns in kinds.items():
            np.savetxt(
                folder / f"{number}.{kind}",
                np.stack(columns, 1),
                delimiter=",",
                header="seconds,x,y",
                comments="",
                fmt="%.6f",
            )
            tables.setdefault(row.video_id, {})[kind] = f"{number}.{kind}"
    counts = write_signals(folder, folder, tables)
    info = json.loads((folder / "prepared.json").read_text())
    told = {
        "name": "seen",
        "title": "Seen",
        "grouped_by": "events",
        "tasks": {},
        "splits": {},
        "labels": {},
        "spans": {},
        "signals": counts,
    }
    (folder / "prepared.json").write_text(json.dumps({**info, "layout": told}))


def _row(video_id: str, event: str, camera: Camera, n_frames: int, offsets: Any, blob: bytes) -> VideoRow:
    return VideoRow(
        video_id=video_id, patient=pseudonym(event), study=pseudonym(event), instance=video_id, source_path=video_id, source_name=video_id,
        media="video", codec="h264", n_frames=n_frames, height=SIZE, width=SIZE, channels=1, fps=camera.fps, fps_source="container",
        region=(0, 0, SIZE, SIZE), region_source="whole", cm_per_pixel=None, manufacturer="", age="", sex="", heart_rate=None, mean=0.0, std=0.0,
        motion=0.0, offsets=offsets, bytes=len(blob), sha256=hashlib.sha256(blob).hexdigest(), outside=camera.outside,
    )  # fmt: skip


def _name_moments(folder: Path, spans: list[tuple[Any, ...]]) -> None:
    add_spans(folder, spans, {})


def add_spans(
    folder: Path, spans: list[tuple[Any, ...]], tasks: dict[str, Any], parts: list[str] | None = None
) -> Prepared:
    """Write spans (video_id, start, end, label, value, moment), tasks, and the official part of each row, as if they came with a data set."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from domains.store.annotated import SPAN_SCHEMA, SPANS

    columns = [list(column) for column in zip(*spans, strict=True)]
    pq.write_table(pa.table(columns, schema=SPAN_SCHEMA), folder / SPANS)
    prepared = Prepared.open(folder)
    told: dict[str, Any] = {
        "name": "seen",
        "title": "Seen",
        "grouped_by": "events",
        "tasks": tasks,
        "splits": {},
        "labels": {},
    }
    told["spans"] = dict(Counter(span[3] for span in spans))
    if parts is not None:
        with (folder / "splits.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(
                [["video_id", "official"], *([prepared.video_id(row), part] for row, part in enumerate(parts))]
            )
        told["splits"] = {"official": dict(Counter(parts))}
    info = json.loads((folder / "prepared.json").read_text())
    (folder / "prepared.json").write_text(json.dumps({**info, "layout": told}))
    return Prepared.open(folder)
