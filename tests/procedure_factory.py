"""Made-up procedures in a prepared folder, with spans of phases, tools and triplets, as if a public data set had brought them.

A procedure opens (light on the left), cuts (light on the right) and closes. Closing looks as opening does: a single moment cannot tell them apart,
what was before can. A hook (light at the top) is in view while there is cutting, a clip (light at the bottom) now and then.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from store_factory import pseudonym

from domains.store.annotated import SPAN_SCHEMA, SPANS
from domains.store.frames import encode
from domains.store.manifest import VideoRow, frame_file, write_info, write_manifest
from domains.store.prepared import Prepared

PHASES = ("opening", "cutting", "closing")
TOOLS = ("hook", "clip")
TRIPLETS = ("hook,cut,vessel", "clip,hold,vessel", "hook,null_verb,null_target")
TASKS = {
    "phase": {"kind": "phases", "column": "phase", "classes": PHASES},
    "tool": {"kind": "presence", "column": "tool", "classes": TOOLS},
    "triplet": {
        "kind": "presence", "column": "triplet", "classes": TRIPLETS, "parts": ("instrument", "verb", "target"),
        "nothing": ("null_verb", "null_target"),
    },
}  # fmt: skip


def make_procedures(folder: Path, videos: int = 10, seed: int = 0, *, fps: float = 4.0, size: int = 32) -> Prepared:
    """One procedure a patient, half a minute to a minute long."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows, spans = [], []
    for number in range(videos):
        lengths = rng.integers(9, 20, 3)
        starts = np.r_[0, np.cumsum(lengths)]
        video_id = pseudonym(f"procedure {seed} {number}")
        for phase, start, end in zip(PHASES, starts, starts[1:], strict=False):
            spans.append((video_id, start, end, "phase", phase))
        clip_at = sorted(rng.choice(np.arange(2, starts[-1] - 3, 5), 3, replace=False).tolist())
        tools = [("hook", starts[1], starts[2]), *(("clip", at, at + 3) for at in clip_at)]
        spans += [(video_id, start, end, "tool", tool) for tool, start, end in tools]
        spans += [(video_id, start, end, "triplet", TRIPLETS[TOOLS.index(tool)]) for tool, start, end in tools]
        if number % 2:
            spans.append((video_id, 0, 3, "triplet", TRIPLETS[2]))
        frames = film(tools, starts, fps, size, rng)
        blob, offsets = encode(frames, quality=92)
        path = frame_file(folder, video_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blob)
        patient = pseudonym(f"patient {seed} {number}")
        rows.append(
            VideoRow(
                video_id=video_id, patient=patient, study=patient, instance=video_id, source_path=video_id, source_name=video_id,
                media="video", codec="h264", n_frames=len(frames), height=size, width=size, channels=1, fps=fps, fps_source="container",
                region=(0, 0, size, size), region_source="whole", cm_per_pixel=None, manufacturer="", age="", sex="", heart_rate=None,
                mean=float(frames.mean()), std=float(frames.std()), motion=1.0, offsets=offsets, bytes=len(blob),
                sha256=hashlib.sha256(blob).hexdigest(),
            )
        )  # fmt: skip
    write_manifest(folder, rows)
    columns = list(zip(*((v, float(s), float(e), label, value, "") for v, s, e, label, value in spans), strict=True))
    pq.write_table(pa.table([list(column) for column in columns], schema=SPAN_SCHEMA), folder / SPANS)
    layout = {
        "name": "made", "title": "Made up", "grouped_by": "procedures", "tasks": TASKS, "splits": {}, "labels": {}, "texts": 0, "withheld": {},
        "notes": {}, "spans": {label: sum(one[3] == label for one in spans) for label in TASKS},
    }  # fmt: skip
    store = {"size": size, "fit": "pad", "quality": 92, "grey": True}
    counts = {"videos": videos, "patients": videos, "excluded": {}}
    write_info(folder, {"domain": "echo", "store": store, "counts": counts, "key": pseudonym("key")})
    info = json.loads((folder / "prepared.json").read_text())
    (folder / "prepared.json").write_text(json.dumps({**info, "layout": layout}))
    return Prepared.open(folder)


def film(tools: list[tuple[str, int, int]], starts: np.ndarray, fps: float, size: int, rng: np.random.Generator) -> np.ndarray:  # fmt: skip
    """uint8 (n, size, size, 1)."""
    times = np.arange(int(starts[-1] * fps)) / fps
    frames = rng.normal(40, 8, (len(times), size, size, 1))
    half = size // 2
    cutting = (times >= starts[1]) & (times < starts[2])
    frames[cutting, :, half:] += 90
    frames[~cutting, :, :half] += 90
    for tool, start, end in tools:
        seen = (times >= start) & (times < end)
        frames[seen, : size // 4] += 60 if tool == "hook" else 0
        frames[seen, -size // 4 :] += 60 if tool == "clip" else 0
    return np.clip(frames, 0, 255).astype(np.uint8)
