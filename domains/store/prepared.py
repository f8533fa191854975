"""A prepared folder, opened for training: a memory-mapped index of the manifest and frames that are addressed one by one."""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from domains.errors import DataError, MediaError
from domains.store import frames as jpeg
from domains.store.frames import Frames
from domains.store.index import Index, open_index
from domains.store.manifest import ADDED, FORMAT, INFO, MANIFEST, SCHEMA, VideoRow, frame_file, read_row


class Prepared:
    """What `vfm data prepare` left behind. Opened with `Prepared.open`; cheap to send to loader processes of any kind.

    Attributes
        folder: the prepared folder.
        info: what prepared.json says.
        domain: name of the domain it was prepared for.
        size: S, side of a stored frame in pixels.
    """

    def __init__(self, folder: Path, info: dict[str, Any], index: Index) -> None:
        self.folder, self.info, self._index = folder, info, index
        self.domain: str = info["domain"]
        self.size: int = info["store"]["size"]
        self._group: tuple[int, pa.Table] | None = None  # of the manifest, the one that was last read

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
            columns = pq.read_schema(folder / MANIFEST).names
            if missing := set(SCHEMA.names) - set(ADDED) - set(columns):
                raise DataError(f"{MANIFEST} lacks {', '.join(sorted(missing))}", where=folder, do="Prepare it again")
            return cls(folder, info, open_index(folder))
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"{MANIFEST} cannot be read ({error.__class__.__name__})", where=folder, do="Prepare it again"
            ) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return (Prepared.open, (self.folder,))  # a worker maps the manifest itself instead of being sent a copy

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        return f"Prepared({str(self.folder)!r}, {len(self)} videos)"

    def row(self, index: int) -> VideoRow:
        """All columns of video `index`. Rows in order are read in blocks. Raises DataError where the manifest is damaged."""
        place = range(len(self))[index]
        if self._group is None or not self._group[0] <= place < self._group[0] + len(self._group[1]):
            self._group = self._read_group(place)
        start, table = self._group
        return read_row(table.slice(place - start, 1).to_pylist()[0])

    def _read_group(self, place: int) -> tuple[int, pa.Table]:
        """(first row, table) of the row group that holds a row."""
        try:
            with pq.ParquetFile(self.folder / MANIFEST) as file:
                start = 0
                for number in range(file.num_row_groups):
                    rows = file.metadata.row_group(number).num_rows
                    if place < start + rows:
                        return start, file.read_row_group(number)
                    start += rows
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(error) from None
        raise self._damaged(IndexError())

    def column(self, name: str) -> list[Any]:
        """One manifest column, a value per video. Raises KeyError for an unknown name, DataError where the manifest is damaged."""
        if name not in SCHEMA.names:
            raise KeyError(name)
        try:
            table = pq.read_table(self.folder / MANIFEST, columns=[name])
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(error) from None
        values: list[Any] = table.column(name).to_pylist() if name in table.column_names else [""] * len(self)
        return values

    def _damaged(self, error: Exception) -> DataError:
        what = f"{MANIFEST} cannot be read ({error.__class__.__name__})"
        return DataError(what, where=self.folder, do="Prepare it again")

    def video_id(self, index: int) -> str:
        """Pseudonym of video `index`."""
        return self._index.video_id(index)

    def length(self, index: int) -> int:
        """Frames of video `index`."""
        return int(self._index.n_frames[index])

    def fps(self, index: int) -> float | None:
        """Frames a second of video `index`, None where unknown."""
        rate = float(self._index.fps[index])
        return None if math.isnan(rate) else rate

    def channels(self, index: int) -> int:
        """1 or 3."""
        return int(self._index.channels[index])

    @cached_property
    def patients(self) -> list[str]:
        """Patient pseudonym of every video, in row order."""
        return self.column("patient")

    @cached_property
    def _places(self) -> dict[str, int]:
        return {video_id: index for index, video_id in enumerate(self._index.video_ids())}

    def index_of(self, video_id: str) -> int:
        """Row of a video. Raises DataError for an unknown one."""
        try:
            return self._places[video_id]
        except KeyError:
            raise DataError(f"no video '{video_id}'", where=self.folder) from None

    def offsets(self, index: int) -> NDArray[np.int64]:
        """(n_frames + 1,): where the frames of video `index` begin in its file, and where the last one ends."""
        return self._index.offsets(index)

    def frames(self, index: int, indices: Sequence[int]) -> Frames:
        """uint8 (T, S, S, C): frames of video `index`, each in [0, n_frames), in that order, repeats allowed.

        Raises MediaError where the frame file is missing or damaged, IndexError for a frame that does not exist.
        """
        n = self.length(index)
        if outside := [i for i in indices if not 0 <= i < n]:
            raise IndexError(f"frame {outside[0]} of {n}")
        return jpeg.read(
            frame_file(self.folder, self.video_id(index)), self.offsets(index), indices, self.size, self.channels(index)
        )

    def verify(self) -> list[MediaError]:
        """Reads every frame file and compares it with its hash; the list of those that differ (empty: all whole)."""
        found = []
        for video_id, sha256 in zip(self._index.video_ids(), self.column("sha256"), strict=True):
            path = frame_file(self.folder, video_id)
            try:
                if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                    found.append(MediaError(path, "differs from what was written; prepare the folder again"))
            except OSError as error:
                found.append(MediaError(path, f"{error.strerror}; prepare the folder again"))
        return found

    def summary(self) -> dict[str, Any]:
        """Counts and ranges for a person: videos, patients, studies, frames, bytes, fps, codecs, what was set aside."""
        fps = self._index.fps[np.isfinite(self._index.fps)]
        lengths = self._index.n_frames
        return {
            "domain": self.domain,
            "videos": len(self),
            "patients": len(set(self.patients)),
            "studies": len(set(self.column("study"))),
            "frames": int(lengths.sum()),
            "frames_per_video": [int(lengths.min()), int(lengths.max())] if len(self) else [0, 0],
            "size": self.size,
            "bytes": sum(self.column("bytes")),
            "fps": [round(float(fps.min()), 2), round(float(fps.max()), 2)] if len(fps) else None,
            "fps_unknown": len(self) - len(fps),
            "codecs": dict(sorted(Counter(self.column("codec")).items())),
            "excluded": self.info.get("counts", {}).get("excluded", {}),
            **{name: value for name, value in self._layout().items() if value},
        }

    def _layout(self) -> dict[str, Any]:
        """What came with a public data set (see domains.store.annotated); empty for a folder of one's own."""
        told = self.info.get("layout", {})
        return {
            "data_set": told.get("title"),
            **{name: told.get(name) for name in ("labels", "splits", "spans", "texts")},
        }
