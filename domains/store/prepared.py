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

from domains.errors import DataError, MediaError, MissingError
from domains.remote import storage
from domains.remote.cache import tables
from domains.remote.place import Place, Url, to_place
from domains.store import frames as jpeg
from domains.store.far_frames import RemoteFile
from domains.store.frames import Frames
from domains.store.index import Index, open_index
from domains.store.manifest import ADDED, FORMAT, INFO, MANIFEST, SCHEMA, VideoRow, frame_file, read_row


class Prepared:
    """What `vfm data prepare` left behind. Opened with `Prepared.open`; cheap to send to loader processes of any kind.

    Attributes
        folder: the prepared folder; of one at a URL, the copy of its tables in the cache.
        url: where it lies, None for a folder of this machine. place: `url` or `folder`, for people.
        info: what prepared.json says.
        domain: name of the domain it was prepared for.
        size: S, side of a stored frame in pixels.
    """

    def __init__(self, folder: Path, info: dict[str, Any], index: Index, url: Url | None = None) -> None:
        self.folder, self.info, self._index, self.url = folder, info, index, url
        self.place: Place = url or folder
        self.domain: str = info["domain"]
        self.size: int = info["store"]["size"]
        self._group: tuple[int, pa.Table] | None = None  # of the manifest, the one that was last read

    @classmethod
    def open(cls, folder: str | Place) -> Prepared:
        """folder: a path, or a URL; of one at a URL the tables are fetched first (`domains.remote.cache`).

        Raises DataError where the folder is not a prepared one, is of another format, or is not whole; UnreachableError.
        """
        at = to_place(folder)
        return cls._open(at) if isinstance(at, Path) else cls._open(tables(at, INFO), at)

    @classmethod
    def _open(cls, folder: Path, url: Url | None = None) -> Prepared:
        where: Place = url or folder
        try:
            info = json.loads((folder / INFO).read_text(encoding="utf-8"))
            fmt, _, _ = info["format"], info["domain"], operator.index(info["store"]["size"])
        except FileNotFoundError:
            what = "no such folder" if not folder.exists() else f"not a prepared folder (no {INFO})"
            raise DataError(what, where=where, do="Make one: vfm data prepare SOURCE --out FOLDER") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            what = f"{INFO} cannot be read ({error.__class__.__name__})"
            raise DataError(what, where=where, do="Prepare it again") from None
        if fmt != FORMAT:
            raise DataError(f"prepared in format {fmt}, this vfm reads {FORMAT}", where=where, do="Prepare it again")
        try:
            columns = pq.read_schema(folder / MANIFEST).names
            if missing := set(SCHEMA.names) - set(ADDED) - set(columns):
                raise DataError(f"{MANIFEST} lacks {', '.join(sorted(missing))}", where=where, do="Prepare it again")
            return cls(folder, info, open_index(folder), url)
        except (OSError, pa.ArrowException) as error:
            what = f"{MANIFEST} cannot be read ({error.__class__.__name__})"
            raise DataError(what, where=where, do="Prepare it again") from None

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker maps the manifest itself instead of being sent a copy, and asks no storage for what is in the cache.
        return (Prepared._open, (self.folder, self.url))

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        return f"Prepared({str(self.place)!r}, {len(self)} videos)"

    def row(self, index: int) -> VideoRow:
        """All columns of video `index`. Rows in order are read in blocks. Raises DataError where the manifest is damaged."""
        at = range(len(self))[index]
        if self._group is None or not self._group[0] <= at < self._group[0] + len(self._group[1]):
            self._group = self._read_group(at)
        start, table = self._group
        return read_row(table.slice(at - start, 1).to_pylist()[0])

    def _read_group(self, at: int) -> tuple[int, pa.Table]:
        """(first row, table) of the row group that holds a row."""
        try:
            with pq.ParquetFile(self.folder / MANIFEST) as file:
                start = 0
                for number in range(file.num_row_groups):
                    rows = file.metadata.row_group(number).num_rows
                    if at < start + rows:
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
            there = pq.read_schema(self.folder / MANIFEST).names
            table = pq.read_table(self.folder / MANIFEST, columns=[name] if name in there else [])
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(error) from None
        values: list[Any] = table.column(name).to_pylist() if name in there else [ADDED[name]] * len(self)
        return values

    def _damaged(self, error: Exception) -> DataError:
        what = f"{MANIFEST} cannot be read ({error.__class__.__name__})"
        return DataError(what, where=self.place, do="Prepare it again")

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

    def sha256(self, index: int) -> str:
        """Of the stored frames of video `index`, as they were written."""
        return self._index.sha256(index)

    def outside(self, index: int) -> NDArray[np.int64]:
        """(spans, 2): frames [from, to) of video `index` that are blank or blurred: nothing says that they show the inside of a body."""
        return self._index.outside(index)

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
            raise DataError(f"no video '{video_id}'", where=self.place) from None

    def offsets(self, index: int) -> NDArray[np.int64]:
        """(n_frames + 1,): where the frames of video `index` begin in its file, and where the last one ends."""
        return self._index.offsets(index)

    def frames(self, index: int, indices: Sequence[int]) -> Frames:
        """uint8 (T, S, S, C): frames of video `index`, each in [0, n_frames), in that order, repeats allowed.

        Raises MediaError where the frame file is missing or damaged, IndexError for a frame that does not exist, UnreachableError where its
        storage does not answer.
        """
        n = self.length(index)
        if outside := [i for i in indices if not 0 <= i < n]:
            raise IndexError(f"frame {outside[0]} of {n}")
        path, offsets = frame_file(self.folder, self.video_id(index)), self.offsets(index)
        if self.url is None:
            return jpeg.read(path, offsets, indices, self.size, self.channels(index))
        file = RemoteFile(self.url, path.relative_to(self.folder).as_posix(), self._index.sha256(index))
        return file.read(path, offsets, indices, self.size, self.channels(index))

    def verify(self) -> list[MediaError]:
        """Reads every frame file and compares it with its hash; the list of those that differ (empty: all whole). At a URL, what lies there
        is read, and not the cache. Raises UnreachableError.
        """
        found = []
        for index, video_id in enumerate(self._index.video_ids()):
            path = frame_file(self.folder, video_id)
            try:
                if self.url is None:
                    digest = hashlib.sha256(path.read_bytes()).hexdigest()
                else:
                    entry = storage.at(self.url, path.relative_to(self.folder).as_posix(), int(self.offsets(index)[-1]))
                    digest = storage.sha256(self.url, entry)
                if digest != self._index.sha256(index):
                    found.append(MediaError(path, "differs from what was written; prepare the folder again"))
            except (OSError, MissingError) as error:
                reason = error.strerror if isinstance(error, OSError) else error.what
                found.append(MediaError(path, f"{reason}; prepare the folder again"))
        return found

    def fingerprint(self, rows: Sequence[int] | None = None) -> str:
        """Which recordings these are (`rows` of the manifest; None: all), in which order: 16 hexadecimal digits."""
        names = "\n".join(self.video_id(row) for row in (range(len(self)) if rows is None else rows))
        return hashlib.blake2b(names.encode(), digest_size=8).hexdigest()

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
            **(
                {"outside": hidden}
                if (hidden := sum(sum(one[1::2]) - sum(one[::2]) for one in self.column("outside")))
                else {}
            ),
            "codecs": dict(sorted(Counter(self.column("codec")).items())),
            "excluded": self.info.get("counts", {}).get("excluded", {}),
            **{name: value for name, value in self._layout().items() if value},
        }

    def _layout(self) -> dict[str, Any]:
        """What came with a public data set (see domains.store.annotated); empty for a folder of one's own."""
        told = self.info.get("layout", {})
        return {
            "data_set": told.get("title"),
            **{name: told.get(name) for name in ("labels", "splits", "spans", "texts", "signals")},
        }
