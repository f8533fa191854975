"""A public data set on its way into a prepared folder: which recordings it has, who is in them, and what it says of them."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from domains.base import Domain
from domains.errors import DataError
from domains.layouts import Layout, Note, Recording
from domains.prepare.afar import located
from domains.prepare.find import Source
from domains.prepare.privacy import Pseudonyms
from domains.remote.place import Place, Url
from domains.store import annotated
from domains.store.manifest import VideoRow
from domains.store.signals import write_signals

BLOCK = 65_536  # rows of a table that are held at once
REDACTED = "redacted"  # spans of this label are stored blank, and no clip is drawn there
OLDEST = 89.0  # years; above, an age tells who somebody is (PS3.15, HIPAA)


@dataclass
class Listed:
    """What came of a data set.

    labels: label -> recordings that have it. splits: split -> part -> recordings. spans: label -> how many. texts: how many. signals: name ->
    recordings that have it. withheld: labels that are words of no declared task, and how often: they may be free text. notes: what reading passed
    over; places may hold names, for the owner's eyes.
    """

    layout: Layout
    labels: dict[str, int] = field(default_factory=dict)
    splits: dict[str, dict[str, int]] = field(default_factory=dict)
    spans: dict[str, int] = field(default_factory=dict)
    texts: int = 0
    signals: dict[str, int] = field(default_factory=dict)
    withheld: dict[str, int] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def info(self) -> dict[str, Any]:
        """For prepared.json; nothing in it names a recording."""
        tasks = {
            name: task.model_dump(mode="json", exclude_defaults=True) for name, task in self.layout.tasks().items()
        }
        return {
            "name": self.layout.name, "title": self.layout.title, "grouped_by": self.layout.grouped_by, "tasks": tasks,
            "labels": self.labels, "splits": self.splits, "spans": self.spans, "texts": self.texts, "signals": self.signals,
            "withheld": self.withheld, "notes": {note.what: note.count for note in self.notes},
        }  # fmt: skip


def recordings_of(layout: Layout) -> list[Recording]:
    """Those on disk, in order of path. Raises DataError where there is none, or where a table cannot be read."""
    found = sorted(layout.recordings(), key=lambda recording: recording.path)
    if not found:
        missing = layout.missing()
        what = f"none of the {len(missing)} recordings that the tables of {layout.title} name is on disk"
        raise DataError(what, where=layout.root, do="Give the folder that holds the tables and the recordings")
    for recording in found:  # now, and not when all frames are stored
        for name, path in recording.signals.items():
            if not (layout.root / path).is_file():
                raise DataError(f"no such file, the signal '{name}' of a recording", where=layout.root / path)
    return found


def sources_of(layout: Layout, recordings: list[Recording], source: Place) -> list[Source]:
    """What `prepare` looks at, a source a recording. source: where they are; of a URL, `layout` has read a shadow (`afar.shadow`)."""
    if isinstance(source, Url):
        places = located(source, [recording.path for recording in recordings])
    else:
        places = [Source(layout.root / recording.path, recording.path) for recording in recordings]
    redacted: dict[str, list[tuple[float, float]]] = {}
    if REDACTED in layout.span_labels:
        for span in layout.spans(REDACTED):
            redacted.setdefault(span.recording, []).append((span.start, span.end))
    return [
        replace(place, fps=recording.fps, redacted=tuple(sorted(redacted.get(recording.path, []))))
        for place, recording in zip(places, recordings, strict=True)
    ]


def named(row: VideoRow, recording: Recording, names: Pseudonyms) -> VideoRow:
    """The row with the data set's group as its patient, and its event as its study."""
    study = names.token("study", recording.event or recording.path)
    return replace(row, patient=names.token("patient", recording.group), study=study)


def write(
    draft: Path, layout: Layout, domain: Domain, kept: Mapping[str, tuple[str, Recording]], names: Pseudonyms
) -> Listed:
    """Write the tables of `domains.store.annotated` for the recordings in `kept` (path -> video_id, recording).

    Raises OSError.
    """
    found = Listed(layout, notes=layout.notes())
    _write_labels(draft, domain, kept, found)
    _write_splits(draft, kept, found)
    _write_views(draft, kept, names)
    found.signals = write_signals(
        draft, layout.root, {video: told.signals for video, told in kept.values() if told.signals}
    )

    def spans() -> Iterator[tuple[Any, ...]]:
        for label in layout.span_labels:
            for span in layout.spans(label):
                if span.recording in kept:
                    found.spans[label] = found.spans.get(label, 0) + 1
                    moment = names.token("moment", span.moment) if span.moment else ""
                    yield kept[span.recording][0], span.start, span.end, label, span.value, moment

    def texts() -> Iterator[tuple[Any, ...]]:
        for text in layout.texts():
            if text.recording in kept:
                found.texts += 1
                yield kept[text.recording][0], text.start, text.end, text.text, text.source, text.level

    _write_table(draft / annotated.SPANS, annotated.SPAN_SCHEMA, spans())
    _write_table(draft / annotated.TEXTS, annotated.TEXT_SCHEMA, texts())
    return found


def _write_labels(draft: Path, domain: Domain, kept: Mapping[str, tuple[str, Recording]], found: Listed) -> None:
    declared = {**domain.tasks, **found.layout.tasks()}
    withheld, counts = Counter[str](), Counter[str]()
    rows: list[tuple[str, dict[str, str]]] = []
    for video_id, recording in kept.values():
        cells: dict[str, str] = {}
        for label, value in recording.labels.items():
            if isinstance(value, str):
                if label not in declared or declared[label].kind != "classification":
                    withheld[label] += 1
                    continue
                cells[label] = value
            elif math.isfinite(value):
                cells[label] = f"{min(value, OLDEST + 1) if label == 'age' else value:.10g}"
        counts.update(cells.keys())
        rows.append((video_id, cells))
    found.labels, found.withheld = dict(sorted(counts.items())), dict(sorted(withheld.items()))
    if found.labels:
        lines = ([video_id, *(cells.get(label, "") for label in found.labels)] for video_id, cells in sorted(rows))
        _write_csv(draft / annotated.LABELS, ["video_id", *found.labels], lines)


def _write_splits(draft: Path, kept: Mapping[str, tuple[str, Recording]], found: Listed) -> None:
    for name in found.layout.split_names:
        count = Counter(recording.splits.get(name, "") for _, recording in kept.values())
        if parts := {part: count[part] for part in annotated.PARTS if count[part]}:
            found.splits[name] = parts
    if found.splits:
        lines = [[video, *(told.splits.get(name, "") for name in found.splits)] for video, told in kept.values()]
        _write_csv(draft / annotated.SPLITS, ["video_id", *found.splits], sorted(lines))


def _write_views(draft: Path, kept: Mapping[str, tuple[str, Recording]], names: Pseudonyms) -> None:
    lines = []
    for video_id, recording in kept.values():
        if recording.camera:
            event, camera = names.token("study", recording.event), names.token("camera", recording.camera)
            team = names.token("team", recording.team) if recording.team else ""
            offset = "" if recording.offset is None else f"{recording.offset:.9g}"
            lines.append([video_id, event, camera, team, str(int(recording.exo)), offset, f"{recording.drift:.9g}"])
    if lines:
        columns = ["video_id", "event", "camera", "team", "exo", "offset", "drift"]
        _write_csv(draft / annotated.VIEWS, columns, sorted(lines))


def _write_csv(path: Path, columns: list[str], lines: Any) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(lines)


def _write_table(path: Path, schema: pa.Schema, rows: Iterator[tuple[Any, ...]]) -> None:
    """Block by block; no file where there is no row."""
    block = list(islice(rows, BLOCK))
    if not block:
        return
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        while block:
            columns = [list(column) for column in zip(*block, strict=True)]
            writer.write_table(pa.table(columns, schema=schema))
            block = list(islice(rows, BLOCK))
