"""A tiny prepared folder for tests, written in milliseconds and without DICOM.

Blobs that beat: how much and in which shape follows a label, so that a probe has something to find. Use:

    from store_factory import make_prepared
    prepared, labels = make_prepared(tmp_path / "prepared", videos=12, patients=6)
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from domains.store.frames import encode
from domains.store.manifest import VideoRow, frame_file, write_info, write_manifest
from domains.store.prepared import Prepared
from domains.store.signals import write_signals

VIEWS = ("A2C", "A4C", "PLAX")


class Made(NamedTuple):
    """The opened store, and the labels written beside it (columns video_id, patient, ef, view)."""

    prepared: Prepared
    labels: Path


def pseudonym(text: str) -> str:
    """Looks like a pseudonym; the same for the same text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def beating_blob(
    ef: float, view: str, n_frames: int, size: int, channels: int, rng: np.random.Generator, fading: bool = False
) -> np.ndarray:
    """uint8 (n_frames, size, size, channels): a ring whose hole shrinks by `ef` per cent, 20 frames a beat; `fading` to a fifth of its light."""
    y, x = np.mgrid[:size, :size] / size - 0.5
    x, y = x + rng.uniform(-0.05, 0.05), y + rng.uniform(-0.05, 0.05)
    stretch = {"A2C": 0.6, "A4C": 1.0, "PLAX": 1.7}[view]
    speckle = cv2.GaussianBlur(rng.normal(0, 1, (size, size)), (3, 3), 0)
    distance = np.hypot(x * stretch, y / stretch)
    phase = 2 * np.pi * np.arange(n_frames) / 20 + rng.uniform(0, 6)
    area = 1 - ef / 100 * (0.5 - 0.5 * np.cos(phase))
    radius = 0.2 * np.sqrt(area)[:, None, None]
    wall = np.exp(-(((distance - radius) / 0.06) ** 2))
    if fading:
        wall *= np.linspace(1, 0.2, n_frames)[:, None, None]
    grey = np.clip(140 * wall + 25 * (1 + speckle) + rng.normal(0, 3, wall.shape), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], channels, axis=-1)


def make_prepared(
    folder: Path,
    videos: int = 12,
    patients: int = 6,
    seed: int = 0,
    *,
    size: int = 64,
    frames: int = 40,
    channels: int = 1,
    fps: float | None = 25.0,
    domain: str = "echo",
    fading: bool = False,
) -> Made:
    """Write and open a prepared folder of `videos` of `patients` patients; labels go to `<folder>.labels.csv`."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    rows, labels = [], []
    efs = rng.uniform(20, 75, patients)
    for number in range(videos):
        who = number % patients
        view = VIEWS[(number // patients + who) % len(VIEWS)]
        clip = beating_blob(efs[who], view, frames, size, channels, rng, fading)
        blob, offsets = encode(clip, quality=92)
        video_id = pseudonym(f"video {seed} {number}")
        path = frame_file(folder, video_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blob)
        patient = pseudonym(f"patient {seed} {who}")
        rows.append(
            VideoRow(
                video_id=video_id, patient=patient, study=patient, instance=video_id, source_path=video_id,
                source_name=video_id, media="dicom", codec="JPEG Baseline", n_frames=frames, height=size, width=size,
                channels=channels, fps=fps, fps_source="CineRate" if fps else "unknown", region=(0, 0, size, size),
                region_source="regions", cm_per_pixel=0.1, manufacturer="GE", age="060Y", sex="F", heart_rate=75.0,
                mean=float(clip.mean()), std=float(clip.std()), motion=float(cv2.absdiff(clip[1:], clip[:-1]).mean()),
                offsets=offsets, bytes=len(blob), sha256=hashlib.sha256(blob).hexdigest(), frame=(size, size),
            )
        )  # fmt: skip
        labels.append({"video_id": video_id, "patient": patient, "ef": f"{efs[who]:.2f}", "view": view})
    write_manifest(folder, rows)
    store = {"size": size, "fit": "pad", "quality": 92, "grey": channels == 1}
    counts = {"videos": videos, "patients": patients, "excluded": {}}
    write_info(folder, {"domain": domain, "store": store, "counts": counts, "key": pseudonym("key")})
    table = folder.with_name(folder.name + ".labels.csv")
    with table.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fieldnames=list(labels[0]))
        writer.writeheader()
        writer.writerows(labels)
    return Made(Prepared.open(folder), table)


def write_events(made: Made, table: Path, members: int = 4) -> None:
    """`views.csv`: recordings of one view, `members` at a time, as if they were of one event; two teams, one camera that nobody wears."""
    with made.labels.open(newline="", encoding="utf-8") as file:
        lines = sorted(csv.DictReader(file), key=lambda line: (line["view"], float(line["ef"])))
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["video_id", "event", "camera", "team", "exo", "offset", "drift"])
        for number, line in enumerate(lines):
            event, camera = divmod(number, members)
            names = [
                pseudonym(f"{kind} {name}")
                for kind, name in (("event", event), ("camera", camera), ("team", camera // 2))
            ]
            writer.writerow([line["video_id"], *names, int(camera == members - 1), 0.0, 0.0])


def write_measured(made: Made, channels: int, joints: int) -> None:
    """Signals beside the recordings: `imu`, which swings as far as a ring beats, and `pose`, whose joints stand about the middle, turned as the
    view says; every fifth has none."""
    folder = made.prepared.folder
    with made.labels.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    tables: dict[str, dict[str, str]] = {}
    for number, line in enumerate(lines):
        seconds = np.arange(0, 1.6, 0.02)
        swing = float(line["ef"]) / 10 * np.sin(2 * np.pi * 1.25 * seconds)
        turned = 2 * np.pi * (np.arange(joints) / joints + VIEWS.index(line["view"]) / len(VIEWS))
        places = 0.5 + 0.25 * np.stack([np.cos(turned), np.sin(turned)], 1).ravel()
        for name, columns in (
            ("imu", [swing] * channels),
            ("pose", [np.full_like(seconds, place) for place in places]),
        ):
            if number % 5:
                table = folder / f"{number}.{name}.csv"
                header = ",".join("s" + "x" * column for column in range(len(columns) + 1))
                np.savetxt(table, np.stack([seconds, *columns], 1), delimiter=",", comments="", header=header)
                tables.setdefault(line["video_id"], {})[name] = table.name
    counts = write_signals(folder, folder, tables)
    told = {
        "name": "rings",
        "title": "Rings",
        "grouped_by": "patients",
        "tasks": {},
        "splits": {},
        "labels": {},
        "spans": {},
        "signals": counts,
    }
    info = json.loads((folder / "prepared.json").read_text())
    (folder / "prepared.json").write_text(json.dumps({**info, "layout": told}))


def as_data_set(made: Made, test: int, val: int = 0) -> Prepared:
    """The same folder as if it came from a public data set: labels.csv, and an official split by patient in their order."""
    folder = made.prepared.folder
    with made.labels.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    people = sorted({line["patient"] for line in lines})
    part_of = dict(zip(people, ["test"] * test + ["val"] * val + ["train"] * len(people), strict=False))
    for name, columns in (("labels.csv", ["video_id", "ef", "view"]), ("splits.csv", ["video_id", "official"])):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows({**line, "official": part_of[line["patient"]]} for line in lines)
    counts = Counter(part_of[line["patient"]] for line in lines)
    tasks = {
        "ef": {"kind": "regression", "column": "ef", "unit": "%"},
        "view": {"kind": "classification", "column": "view"},
    }
    told = {
        "name": "miniature", "title": "Miniature", "grouped_by": "procedures", "tasks": tasks, "splits": {"official": dict(counts)},
        "labels": {"ef": len(lines), "view": len(lines)}, "spans": {}, "texts": 0, "withheld": {}, "notes": {},
    }  # fmt: skip
    info = json.loads((folder / "prepared.json").read_text())
    (folder / "prepared.json").write_text(json.dumps({**info, "layout": told}))
    return Prepared.open(folder)
