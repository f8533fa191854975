"""How a manifest scales: seconds to open it and memory of a training process that draws from it, against reading the whole table.

    python benchmarks/manifest.py                       # 10,000 to 1,000,000 rows; about three minutes and 2 GB of disk
    python benchmarks/manifest.py --rows 100000

Every row has 60 frames. A fresh process opens the folder, looks up 2,000 random rows as the loader does (name, length, rate, offsets of 16
frames), and says how long that took and how much memory of its own it grew by (anonymous memory: pages of mapped files are shared by all processes).
Beside it, in the same run: `pyarrow.parquet.read_table` of the same manifest. The last line extrapolates to 12,000,000 rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from domains.store.manifest import SCHEMA, write_info, write_table

FRAMES = 60
TARGET = 12_000_000
CHILD = """
import json, sys, time
def own():
    total = 0
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith("Anonymous"):  # pages of a mapped file are the system's, to share and to take back
            total += int(line.split()[1])
    return total / 1024
import numpy as np, pyarrow.parquet as pq
from domains.store.prepared import Prepared
folder, how = sys.argv[1:]
rng = np.random.default_rng(0)
before, began = own(), time.perf_counter()
if how == "prepared":
    store = Prepared.open(folder)
    n = len(store)
    opened = time.perf_counter() - began
    for index in rng.integers(n, size=2000).tolist():
        store.video_id(index), store.length(index), store.fps(index), store.channels(index), store.offsets(index)[:17]
else:
    table = pq.read_table(folder + "/manifest.parquet")
    n = len(table)
    opened = time.perf_counter() - began
    names, offsets = table.column("video_id"), table.column("offsets")
    for index in rng.integers(n, size=2000).tolist():
        names[index].as_py(), offsets[index].values.to_numpy()[:17]
looked = time.perf_counter() - began - opened
print(json.dumps({"rows": n, "open_s": opened, "lookup_us": 1e6 * looked / 2000, "own_mib": own() - before}))
"""


def make(folder: Path, rows: int) -> None:
    """A prepared folder of `rows` recordings without their frames."""
    rng = np.random.default_rng(rows)
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz234567", np.uint8)

    def names() -> pa.Array:
        raw = letters[rng.integers(32, size=(rows, 16))].tobytes()
        return pa.Array.from_buffers(
            pa.string(), rows, [None, pa.py_buffer(np.arange(0, 16 * rows + 1, 16, dtype=np.int32)), pa.py_buffer(raw)]
        )

    sizes = rng.integers(3000, 9000, size=(rows, FRAMES))
    offsets = np.concatenate([np.zeros((rows, 1), np.int64), sizes.cumsum(axis=1)], axis=1)
    lists = pa.ListArray.from_arrays(np.arange(0, (FRAMES + 1) * rows + 1, FRAMES + 1, dtype=np.int32), offsets.ravel())
    made = {
        **{name: names() for name in ("video_id", "patient", "study", "instance", "source_path", "source_name")},
        "n_frames": pa.array(np.full(rows, FRAMES)),
        "channels": pa.array(np.ones(rows, np.int64)),
        "fps": pa.array(np.full(rows, 30.0)),
        "offsets": lists,
        "sha256": pa.array(["0" * 64]).take(pa.array(np.zeros(rows, np.int64))),
    }
    blank = {pa.string(): pa.scalar("", pa.string()), pa.int64(): pa.scalar(0), pa.float64(): pa.scalar(0.0)}
    region = pa.ListArray.from_arrays(np.arange(0, 4 * rows + 1, 4, dtype=np.int32), np.zeros(4 * rows, np.int64))
    columns = [
        made.get(field.name, region if pa.types.is_list(field.type) else pa.repeat(blank.get(field.type, ""), rows))
        for field in SCHEMA
    ]
    folder.mkdir(parents=True)
    write_table(
        folder, pa.Table.from_arrays([c.cast(f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)
    )
    write_info(folder, {"domain": "echo", "store": {"size": 144}, "counts": {}})


def measure(folder: Path, how: str) -> dict[str, float]:
    """One fresh process."""
    done = subprocess.run([sys.executable, "-c", CHILD, str(folder), how], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    asked = parser.parse_args()
    found = []
    print(f"{'rows':>10} {'how':>12} {'open s':>8} {'look-up us':>11} {'own MiB':>12}")
    with tempfile.TemporaryDirectory() as temporary:
        for rows in asked.rows:
            folder = Path(temporary) / str(rows)
            make(folder, rows)
            for how in ("read_table", "prepared"):
                one = measure(folder, how)
                print(
                    f"{rows:>10} {how:>12} {one['open_s']:>8.3f} {one['lookup_us']:>11.1f} {one['own_mib']:>12.1f}",
                    flush=True,
                )
                if how == "prepared":
                    found.append(one)
    if len(found) > 1:
        rows = np.array([one["rows"] for one in found])
        for name in ("open_s", "own_mib"):
            slope, start = np.polyfit(rows, [one[name] for one in found], 1)
            print(f"{name} at {TARGET:,} rows, by a line through these: {start + slope * TARGET:.1f}")


if __name__ == "__main__":
    main()
