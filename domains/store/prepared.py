"""A prepared folder, opened for training: a memory-mapped manifest and frames that are addressed one by one."""

from __future__ import annotations

import hashlib
import json
import operator
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from domains.errors import DataError, MediaError
from domains.store import frames as jpeg
from domains.store.frames import Frames
from domains.store.manifest import ADDED, FORMAT, INFO, MANIFEST, SCHEMA, VideoRow, frame_file, read_row


class Prepared:
    """What `vfm data prepare` left behind. Opened with `Prepared.open`; cheap to send to loader processes of any kind.

    Attributes
        folder: the prepared folder.
        info: what prepared.json says.
        domain: name of the domain it was prepared for.
        size: S, side of a stored frame in pixels.
    """

    def __init__(self, folder: Path, info: dict[str, Any], table: pa.Table) -> None:
        self.folder, self.info, self._table = folder, info, table
        self.domain: str = info["domain"]
        self.size: int = info["store"]["size"]
        # Reading a clip must not search a column: what every clip needs is held as plain lists.
        self._ids: list[str] = table.column("video_id").to_pylist()
        self._n_frames: list[int] = table.column("n_frames").to_pylist()
        self._channels: list[int] = table.column("channels").to_pylist()
        self._fps: list[float | None] = table.column("fps").to_pylist()
        self._offsets = table.column("offsets").combine_chunks()

    @classmethod
    def open(cls, folder: str | Path) -> Prepared:
        """Raises DataError where the folder is not a prepared one, is of another format, or is not whole."""
        folder = Path(folder)
        try:
            info = json.loads((folder / INFO).read_text(encoding="utf-8"))
            fmt, _, _ = info["format"], info["domain"], operator.index(info["store"]["size"])
        except FileNotFoundError:
            what = "no such folder" if not folder.exists() else f"not a prepared folder (no {INFO})"
            raise DataError(what, where=folder, do="Make one: vfm data prepare SOURCE --out FOLDER") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{INFO} cannot be read ({error.__class__.__name__})", where=folder, do="Prepare it again"
            ) from None
        if fmt != FORMAT:
            raise DataError(f"prepared in format {fmt}, this vfm reads {FORMAT}", where=folder, do="Prepare it again")
        try:
            # The footer is parsed, pages are read from the mapped file when they are needed.
            table = pq.read_table(folder / MANIFEST, memory_map=True)
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{MANIFEST} cannot be read ({error.__class__.__name__})", where=folder, do="Prepare it again"
            ) from None
        for name in set(ADDED) - set(table.column_names):
            table = table.append_column(name, pa.array([""] * len(table), pa.string()))
        if missing := set(SCHEMA.names) - set(table.column_names):
            raise DataError(f"{MANIFEST} lacks {', '.join(sorted(missing))}", where=folder, do="Prepare it again")
        return cls(folder, info, table.select(SCHEMA.names))

    def __reduce__(self) -> tuple[Any, ...]:
        return (Prepared.open, (self.folder,))  # a worker maps the manifest itself instead of being sent a copy

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        return f"Prepared({str(self.folder)!r}, {len(self)} videos)"

    def row(self, index: int) -> VideoRow:
        """All columns of video `index`."""
        return read_row(self._table.slice(range(len(self))[index], 1).to_pylist()[0])

    def column(self, name: str) -> list[Any]:
        """One manifest column, a value per video. Raises KeyError for an unknown name."""
        values: list[Any] = self._table.column(name).to_pylist()
        return values

    def video_id(self, index: int) -> str:
        """Pseudonym of video `index`."""
        return self._ids[index]

    def length(self, index: int) -> int:
        """Frames of video `index`."""
        return self._n_frames[index]

    def fps(self, index: int) -> float | None:
        """Frames a second of video `index`, None where unknown."""
        return self._fps[index]

    def channels(self, index: int) -> int:
        """1 or 3."""
        return self._channels[index]

    @cached_property
    def patients(self) -> list[str]:
        """Patient pseudonym of every video, in row order."""
        return self.column("patient")

    @cached_property
    def _index(self) -> dict[str, int]:
        return {video_id: index for index, video_id in enumerate(self._ids)}

    def index_of(self, video_id: str) -> int:
        """Row of a video. Raises DataError for an unknown one."""
        try:
            return self._index[video_id]
        except KeyError:
            raise DataError(f"no video '{video_id}'", where=self.folder) from None

    def frames(self, index: int, indices: Sequence[int]) -> Frames:
        """uint8 (T, S, S, C): frames of video `index`, each in [0, n_frames), in that order, repeats allowed.

        Raises MediaError where the frame file is missing or damaged, IndexError for a frame that does not exist.
        """
        n = self._n_frames[index]
        if outside := [i for i in indices if not 0 <= i < n]:
            raise IndexError(f"frame {outside[0]} of {n}")
        offsets = self._offsets[index].values.to_numpy()
        return jpeg.read(frame_file(self.folder, self._ids[index]), offsets, indices, self.size, self._channels[index])

    def verify(self) -> list[MediaError]:
        """Reads every frame file and compares it with its hash; the list of those that differ (empty: all whole)."""
        found = []
        for video_id, sha256 in zip(self._ids, self.column("sha256"), strict=True):
            path = frame_file(self.folder, video_id)
            try:
                if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                    found.append(MediaError(path, "differs from what was written; prepare the folder again"))
            except OSError as error:
                found.append(MediaError(path, f"{error.strerror}; prepare the folder again"))
        return found

    def summary(self) -> dict[str, Any]:
        """Counts and ranges for a person: videos, patients, studies, frames, bytes, fps, codecs, what was set aside."""
        fps = [rate for rate in self._fps if rate]
        return {
            "domain": self.domain,
            "videos": len(self),
            "patients": len(set(self.patients)),
            "studies": len(set(self.column("study"))),
            "frames": sum(self._n_frames),
            "frames_per_video": [min(self._n_frames), max(self._n_frames)] if len(self) else [0, 0],
            "size": self.size,
            "bytes": pc.sum(self._table.column("bytes")).as_py() or 0,
            "fps": [round(min(fps), 2), round(max(fps), 2)] if fps else None,
            "fps_unknown": len(self) - len(fps),
            "codecs": dict(sorted(Counter(self.column("codec")).items())),
            "excluded": self.info.get("counts", {}).get("excluded", {}),
        }
