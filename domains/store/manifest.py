"""What a prepared folder holds: one row per video in `manifest.parquet`, and `prepared.json` beside it."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

FORMAT = 1
MANIFEST, INFO, EXCLUDED, CONTACT_SHEET = "manifest.parquet", "prepared.json", "excluded.csv", "contact_sheet.png"
INDEX = "index.arrow"  # see domains.store.index
ROW_GROUP = 16_384  # rows that are decoded to read one


@dataclass(frozen=True)
class VideoRow:
    """One video of a prepared folder. Every name in it is a keyed pseudonym (16 characters) that leads back to nobody.

    Attributes
        video_id: of the content of the source file. patient, study, instance: of the header's identifiers, else of the
        folder or file.
        source_path, source_name: of the path relative to the source folder, and of the file's stem; labels are joined
        on them.
        media, codec: "dicom" or "video", and transfer syntax or codec name.
        n_frames: frames stored. height, width: pixels of the source region. channels: stored, 1 or 3.
        fps: frames a second, None where unknown; fps_source: the tag or header it came from.
        region: (x0, y0, x1, y1) in source pixels, half open; region_source: what found it.
        cm_per_pixel: of a *stored* pixel, None where unknown.
        manufacturer, age, sex, heart_rate: all that survives of the header ("" or None where absent).
        mean, std: grey levels of the stored frames, 0-255; motion: their mean absolute change from frame to frame.
        note: what was odd about the file and how it was dealt with ("" where nothing was), in the reader's words.
        source_fps: frames a second of the source where fewer are stored (frame i is then the one on screen at i / fps seconds), else None.
        outside: (from, to, from, to, ...), half open: stored frames that do not surely show the inside of a body, blank or blurred.
        frame: (width, height) of a source frame in pixels, () in folders of earlier versions.
        offsets: n_frames + 1 byte positions in the frame file; bytes, sha256: of that file.
    """

    video_id: str
    patient: str
    study: str
    instance: str
    source_path: str
    source_name: str
    media: str
    codec: str
    n_frames: int
    height: int
    width: int
    channels: int
    fps: float | None
    fps_source: str
    region: tuple[int, ...]
    region_source: str
    cm_per_pixel: float | None
    manufacturer: str
    age: str
    sex: str
    heart_rate: float | None
    mean: float
    std: float
    motion: float
    offsets: tuple[int, ...]
    bytes: int
    sha256: str
    note: str = ""
    source_fps: float | None = None
    outside: tuple[int, ...] = ()
    frame: tuple[int, ...] = ()


def _arrow(annotation: Any) -> pa.DataType:
    """The column type of a field of VideoRow."""
    if get_origin(annotation) is tuple:
        return pa.list_(pa.int64())
    if get_origin(annotation) is types.UnionType:
        annotation = get_args(annotation)[0]
    return {str: pa.string(), int: pa.int64(), float: pa.float64()}[annotation]


# Columns that folders of earlier versions lack, and what holds there.
ADDED: dict[str, Any] = {"note": "", "source_fps": None, "outside": (), "frame": ()}
SCHEMA = pa.schema([(name, _arrow(annotation)) for name, annotation in get_type_hints(VideoRow).items()])


def frame_file(folder: Path, video_id: str) -> Path:
    """Where the frames of a video lie: 256 folders, so that none grows too large for a file system."""
    return folder / "frames" / video_id[:2] / f"{video_id}.mjpeg"


def write_manifest(folder: Path, rows: Iterable[VideoRow]) -> None:
    """`manifest.parquet`, one row per video in the order given, and its index."""
    write_table(folder, pa.Table.from_pylist([vars(row) for row in rows], schema=SCHEMA))


def write_table(folder: Path, table: pa.Table) -> None:
    """`write_manifest` of rows that are a table already."""
    from domains.store.index import write_index

    pq.write_table(table, folder / MANIFEST, compression="zstd", row_group_size=ROW_GROUP)
    write_index(folder)


def read_row(values: dict[str, Any]) -> VideoRow:
    """A row of the table as it comes out of pyarrow."""
    known: dict[str, Any] = {
        field.name: values.get(field.name, ADDED.get(field.name)) for field in dataclasses.fields(VideoRow)
    }
    return VideoRow(**{**known, **{name: tuple(known[name]) for name in ("region", "offsets", "outside", "frame")}})


def write_info(folder: Path, values: dict[str, Any]) -> None:
    """`prepared.json`: `values` plus the format and the version of vfm that wrote it."""
    info = {"format": FORMAT, "vfm": vfm_version(), **values}
    (folder / INFO).write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")


def vfm_version() -> str:
    """The installed version, "unknown" in a bare checkout."""
    try:
        return metadata.version("vfm")
    except metadata.PackageNotFoundError:
        return "unknown"
