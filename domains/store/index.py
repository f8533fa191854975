"""What every clip needs of the manifest, in a form that is mapped and not read: `index.arrow` beside `manifest.parquet`.

A Parquet file must be decoded to be read, by every process for itself. This copy of a few columns lies on disk as it lies in memory: it opens
in milliseconds, and however many processes draw clips from it, there is one copy, the operating system's. The manifest stays the truth: an
index that was not made from it is made anew, in memory.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from domains.store.manifest import INDEX, MANIFEST

COLUMNS = ("video_id", "n_frames", "channels", "fps", "offsets", "sha256", "outside")  # the last is not in every folder
FOOTER = (
    1 << 16
)  # bytes at the end of a Parquet file that tell two of them apart: sizes, places and ranges of all columns
MADE_FROM = b"vfm.manifest"


class Index:
    """n_frames, channels (n,) int64; fps (n,) float64, NaN where unknown: views of the mapped file."""

    def __init__(self, table: pa.Table) -> None:
        self._ids, self._sha256 = _one(table.column("video_id")), _one(table.column("sha256"))
        self.n_frames, self.channels, self.fps = (
            _numbers(table.column(name)) for name in ("n_frames", "channels", "fps")
        )
        self._outside = _one(table.column("outside")) if "outside" in table.column_names else None
        lists = _one(table.column("offsets"))
        self._starts, self._offsets = lists.offsets.to_numpy(), lists.values.to_numpy()

    def __len__(self) -> int:
        return len(self._ids)

    def video_id(self, index: int) -> str:
        """Pseudonym of row `index`; negative numbers count from the end."""
        name: str = self._ids[range(len(self))[index]].as_py()
        return name

    def video_ids(self) -> list[str]:
        """All of them."""
        names: list[str] = self._ids.to_pylist()
        return names

    def sha256(self, index: int) -> str:
        """Of the frame file of row `index`."""
        digest: str = self._sha256[range(len(self))[index]].as_py()
        return digest

    def outside(self, index: int) -> NDArray[np.int64]:
        """(spans, 2): frames [from, to) of row `index` that are blank or blurred."""
        pairs = [] if self._outside is None else self._outside[range(len(self))[index]].as_py()
        return np.asarray(pairs, np.int64).reshape(-1, 2)

    def offsets(self, index: int) -> NDArray[np.int64]:
        """(n_frames + 1,) byte positions in the frame file of row `index`."""
        row = range(len(self))[index]
        found: NDArray[np.int64] = self._offsets[self._starts[row] : self._starts[row + 1]]
        return found


def write_index(folder: Path) -> None:
    """Write `index.arrow` from the manifest that lies in `folder`. Raises OSError."""
    table = _from_manifest(folder).replace_schema_metadata({MADE_FROM: _footer(folder / MANIFEST)})
    with pa.OSFile(str(folder / INDEX), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)  # one batch, so that every column is one piece of memory


def open_index(folder: Path) -> Index:
    """The index of a prepared folder, mapped; made in memory where it is absent, damaged, or of another manifest.

    Raises OSError or pyarrow's errors where the manifest itself cannot be read.
    """
    try:
        table = pa.ipc.open_file(pa.memory_map(str(folder / INDEX))).read_all()
        if (table.schema.metadata or {}).get(MADE_FROM) == _footer(folder / MANIFEST):
            return Index(table)
    except (OSError, pa.ArrowException, KeyError):
        pass
    return Index(_from_manifest(folder))


def _from_manifest(folder: Path) -> pa.Table:
    there = pq.read_schema(folder / MANIFEST).names
    table = pq.read_table(folder / MANIFEST, columns=[name for name in COLUMNS if name in there]).combine_chunks()
    rates = table.column("fps").fill_null(float("nan"))
    offsets = table.column("offsets").cast(
        pa.large_list(pa.int64())
    )  # 12 million videos have more offsets than 32 bits count
    table = table.set_column(COLUMNS.index("fps"), "fps", rates)
    return table.set_column(COLUMNS.index("offsets"), "offsets", offsets).combine_chunks().replace_schema_metadata(None)


def _footer(path: Path) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - FOOTER))
        return hashlib.sha256(size.to_bytes(8, "little") + file.read()).hexdigest().encode()


def _one(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece, without a copy where it is one already."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _numbers(column: pa.ChunkedArray) -> NDArray[np.generic]:
    values: NDArray[np.generic] = _one(column).to_numpy(zero_copy_only=False)
    return values
