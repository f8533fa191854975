"""What else was recorded beside a video: inertial signals, poses. A table of numbers by second of the recording.

`signals.parquet` of a prepared folder holds a row a recording and signal: video_id, name, channels, times (s), values, float32, one line of channels
after the other, NaN where nothing was measured, and the names of the columns. A row is a group of its own, so that one is read without the others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from domains.errors import ConfigError, DataError
from domains.schema import nearest
from domains.store import annotated
from domains.store.prepared import Prepared

SCHEMA = pa.schema([
    ("video_id", pa.string()), ("name", pa.string()), ("channels", pa.int64()), ("times", pa.list_(pa.float64())), ("values", pa.list_(pa.float32())),
    ("columns", pa.list_(pa.string())),
])  # fmt: skip


SIDES = re.compile("left|right")


@dataclass(frozen=True)
class Signal:
    """times (n,) seconds of the recording, rising; values (n, C) float32, NaN where nothing was measured; columns: their C names, () in folders of
    earlier versions."""

    times: NDArray[np.float64]
    values: NDArray[np.float32]
    columns: tuple[str, ...] = ()

    def at(self, wanted: NDArray[np.float64]) -> NDArray[np.float32]:
        """(len(wanted), C): values at times (s), in straight lines between those that were measured; NaN beyond the first and the last."""
        found = np.empty((len(wanted), self.values.shape[1]), np.float32)
        for channel, values in enumerate(self.values.T):
            found[:, channel] = np.interp(wanted, self.times, values, left=np.nan, right=np.nan)
        return found


def read_table(path: Path) -> Signal:
    """A CSV whose first column is seconds and whose others are numbers or empty. Raises DataError."""
    do = "Give a table of numbers with a header, its first column seconds"
    try:
        table = pyarrow.csv.read_csv(path)
        times, *channels = (column.cast(pa.float64()).to_numpy(zero_copy_only=False) for column in table.columns)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"not a signal ({error.__class__.__name__})", where=path, do=do) from None
    if not channels or not len(times) or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise DataError("not a signal: no rows, no channel, or seconds that do not rise", where=path, do=do)
    return Signal(times.astype(np.float64), np.stack(channels, 1).astype(np.float32), tuple(table.column_names[1:]))


def other_side(columns: Sequence[str]) -> NDArray[np.int64]:
    """(J,): for each joint of a pose, the one that it is taken for in a mirror: "left hand" for "right hand", and itself where no column of the other
    name is there. columns: names of x and y of one joint after the other, (2 J,)."""
    names = [name.casefold() for name in columns[::2]]
    swapped = [SIDES.sub(lambda found: "right" if found[0] == "left" else "left", name) for name in names]
    return np.array([names.index(one) if one in names else place for place, one in enumerate(swapped)], np.int64)


def write_signals(draft: Path, root: Path, signals: Mapping[str, Mapping[str, str]]) -> dict[str, int]:
    """`signals.parquet` of tables below `root`: video_id -> name -> path; none where there is no signal. Returns recordings by name.

    Raises DataError for a table that is no signal, or that has other channels than those of that name before; OSError.
    """
    counts: Counter[str] = Counter()
    channels: dict[str, int] = {}
    if not signals:
        return {}
    with pq.ParquetWriter(draft / annotated.SIGNALS, SCHEMA, compression="zstd") as writer:
        for video_id in sorted(signals):
            for name, path in sorted(signals[video_id].items()):
                signal = read_table(root / path)
                width = channels.setdefault(name, signal.values.shape[1])
                if width != signal.values.shape[1]:
                    what = f"{signal.values.shape[1]} channels, where other recordings have {width}"
                    raise DataError(what, where=root / path, do="Give every recording the same columns")
                row = [[video_id], [name], [width], [signal.times], [signal.values.ravel()], [list(signal.columns)]]
                writer.write_table(pa.table(row, schema=SCHEMA))
                counts[name] += 1
    return dict(sorted(counts.items()))


class Signals:
    """The signals of one name of a prepared folder, by row. Cheap to send to loader processes.

    Raises ConfigError for a name that there is not, DataError where the table is damaged.
    """

    def __init__(self, prepared: Prepared, name: str) -> None:
        self.name, self.path, self.place = name, prepared.folder / annotated.SIGNALS, prepared.place
        known = prepared.info.get("layout", {}).get("signals", {})
        if name not in known:
            do = nearest(name, list(known)) if known else "Prepare a data set with signals (docs/egocentric.md)"
            raise ConfigError(f"no signal '{name}' was recorded", where=self.place, do=do)
        try:
            table = pq.read_table(self.path, columns=["video_id", "name", "channels"])
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(error) from None
        self.groups = {
            prepared.index_of(video_id): group
            for group, (video_id, other) in enumerate(
                zip(table["video_id"].to_pylist(), table["name"].to_pylist(), strict=True)
            )
            if other == name
        }
        self.channels: int = next(
            n
            for n, other in zip(table["channels"].to_pylist(), table["name"].to_pylist(), strict=True)
            if other == name
        )

    def of(self, row: int) -> Signal | None:
        """That of a recording; None where there is none."""
        if row not in self.groups:
            return None
        try:
            return _read(self.path, self.groups[row], self.channels)
        except (OSError, pa.ArrowException, ValueError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> DataError:
        what = f"{annotated.SIGNALS} cannot be read ({error.__class__.__name__})"
        return DataError(what, where=self.place, do="Prepare it again")


@lru_cache(maxsize=256)
def _read(path: Path, group: int, channels: int) -> Signal:
    with pq.ParquetFile(path) as file:
        row = file.read_row_group(group)
    times, values = (row[name][0].values.to_numpy() for name in ("times", "values"))
    columns = row["columns"][0].as_py() if "columns" in row.column_names else ()
    return Signal(times, values.reshape(len(times), channels), tuple(columns))
