"""What a public data set says of its recordings, kept in the prepared folder: labels, official splits, spans, text, views.

All of it is by video_id, so that no name of the source is needed to use it. A folder of one's own has none of these files.

    labels.csv      video_id, then one column a label of the whole recording (read by `domains.store.labels`)
    splits.csv      video_id, then one column an official split: train, val, test, or empty
    spans.parquet   video_id, start, end (s), label, value, moment: from start up to end the label has the value
    texts.parquet   video_id, start, end (s), text, source, level: what somebody said or wrote about that stretch; level: clip, keystep,
                    abstract, or empty
    views.csv       video_id, event, camera, team, exo (0 or 1), offset (s), drift: recordings of one event, seen by several cameras, on clocks of
                    their own (`domains.store.views`)
    signals.parquet what else was recorded, by second of the recording (`domains.store.signals`)
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from domains.base import TaskSettings, load_domain
from domains.errors import ConfigError, DataError
from domains.schema import nearest
from domains.store.prepared import Prepared

LABELS, SPLITS, VIEWS, SPANS, TEXTS = "labels.csv", "splits.csv", "views.csv", "spans.parquet", "texts.parquet"
SIGNALS = "signals.parquet"
FILES = (LABELS, SPLITS, VIEWS, SPANS, TEXTS, SIGNALS)
PARTS = ("train", "val", "test")
SPAN_SCHEMA = pa.schema([
    ("video_id", pa.string()), ("start", pa.float64()), ("end", pa.float64()), ("label", pa.string()),
    ("value", pa.string()), ("moment", pa.string()),
])  # fmt: skip
TEXT_SCHEMA = pa.schema([
    ("video_id", pa.string()), ("start", pa.float64()), ("end", pa.float64()), ("text", pa.string()),
    ("source", pa.string()), ("level", pa.string()),
])  # fmt: skip


def tasks(prepared: Prepared) -> dict[str, TaskSettings]:
    """The tasks that the data set declares; empty for a folder of one's own."""
    declared = prepared.info.get("layout", {}).get("tasks", {})
    return {name: TaskSettings.model_validate(settings) for name, settings in declared.items()}


def task_of(prepared: Prepared, domain: str, name: str) -> TaskSettings:
    """A task by name: the data set's own, else the domain's. Raises ConfigError with the nearest name."""
    own = tasks(prepared)
    return own[name] if name in own else load_domain(domain).task(name)


def labels_of(prepared: Prepared, given: str | Path | None) -> Path:
    """The label file that was given, else the one that came with the data set. Raises ConfigError where there is neither."""
    if given:
        return Path(given)
    path = prepared.folder / LABELS
    if not path.is_file():
        do = "Give a CSV with one row per recording, study or patient: --labels labels.csv"
        raise ConfigError("no labels, and none came with the recordings", where=prepared.place, do=do)
    return path


def split_names(prepared: Prepared) -> list[str]:
    """Official splits, the one people mean first."""
    return list(prepared.info.get("layout", {}).get("splits", {}))


def read_split(prepared: Prepared, name: str) -> list[str]:
    """The part of every video, in row order: train, val, test, or "" for none.

    Raises ConfigError where there is no split of that name, DataError where its table is damaged, or where somebody
    (patient, procedure, participant ...) stands in more than one part: figures of such a split flatter.
    """
    names = split_names(prepared)
    if name not in names:
        what = f"no official split '{name}'" if names else "no official split: the folder holds no known data set"
        do = nearest(name, names) if names else "Leave it out: patients are split by their pseudonyms"
        raise ConfigError(what, where=prepared.place, do=do)
    path = prepared.folder / SPLITS
    parts = [""] * len(prepared)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row[name] and row[name] not in PARTS:
                    raise ValueError(row[name])
                parts[prepared.index_of(row["video_id"])] = row[name]
    except (OSError, ValueError, KeyError, TypeError, csv.Error, DataError) as error:
        what = f"{SPLITS} cannot be read ({error.__class__.__name__})"
        raise DataError(what, where=prepared.place, do="Prepare it again") from None
    sides: dict[str, set[str]] = {}
    for patient, part in zip(prepared.patients, parts, strict=True):
        if part:
            sides.setdefault(patient, set()).add(part)
    if shared := sum(len(found) > 1 for found in sides.values()):
        who = prepared.info["layout"].get("grouped_by", "patients")
        what = f"{shared} of {len(sides)} {who} stand on more than one side of the official split '{name}'"
        raise DataError(what, where=prepared.place, do="Leave the split out: every group is then on one side only")
    return parts


def spans(prepared: Prepared, label: str) -> Iterator[tuple[int, float, float, str, str]]:
    """(row, start, end, value, moment) of a label. Raises ConfigError for one there is not, DataError for a damaged file."""
    known = prepared.info.get("layout", {}).get("spans", {})
    if label not in known:
        do = nearest(label, list(known)) if known else "Only public data sets bring spans: --layout"
        raise ConfigError(f"no spans of '{label}'", where=prepared.place, do=do)
    for line in _lines(prepared, SPANS):
        if line["label"] == label:
            yield prepared.index_of(line["video_id"]), line["start"], line["end"], line["value"], line["moment"]


def texts(prepared: Prepared) -> Iterator[tuple[int, float, float, str, str, str]]:
    """(row, start, end, text, source, level); none for most data sets. level: "" where the data set says none, and in folders of earlier
    versions. Raises DataError for a damaged file."""
    if (prepared.folder / TEXTS).is_file():
        for line in _lines(prepared, TEXTS):
            row = prepared.index_of(line["video_id"])
            yield row, line["start"], line["end"], line["text"], line["source"], line.get("level", "")


def _lines(prepared: Prepared, name: str) -> Iterator[dict[str, Any]]:
    """Rows of a table, a block at a time: a large data set has millions."""
    try:
        with pq.ParquetFile(prepared.folder / name) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        what = f"{name} cannot be read ({error.__class__.__name__})"
        raise DataError(what, where=prepared.place, do="Prepare it again") from None
