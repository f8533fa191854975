"""What is true at each moment of a recording: spans (from start up to end a label has a value) as targets at evenly spaced times.

Spans come with a public data set (`domains.store.annotated.spans`) or in a table of one's own:

    recording,start,end,phase        identifier as in any label table; seconds from the first frame
    video01.mp4,0,95.5,Preparation

The column of values is called as the task, or `value`; with a column `label` beside it, only the lines of this task's label are read. An empty value
says that somebody looked: of phases nothing is known there, of presence there was nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domains.base import TaskSettings
from domains.errors import ConfigError, DataError
from domains.prepare.privacy import Pseudonyms
from domains.schema import nearest
from domains.store.annotated import spans, tasks
from domains.store.labels import EMPTY, Line, best_join, read_lines
from domains.store.prepared import Prepared

UNLABELLED = -1
ROUNDING = 1e-6  # seconds: 0.1 + 0.2 is still 0.3


@dataclass(frozen=True)
class Stretch:
    """From start up to end (s) `value` holds; "": somebody looked, and nothing holds. where: file and line, or the data set's table.
    moment: stretches of one moment belong together; "" where the data set names none."""

    start: float
    end: float
    value: str
    where: str
    moment: str = ""


@dataclass(frozen=True)
class MomentLabels:
    """Labels of moments, by row of the prepared folder.

    stretches: row -> its spans in order of start; only recordings that somebody labelled. classes: names in order. unmatched: lines of the table that
    match no recording.
    """

    task: TaskSettings
    stretches: Mapping[int, list[Stretch]]
    classes: tuple[str, ...]
    unmatched: int = 0

    @property
    def rows(self) -> list[int]:
        """Labelled recordings, in order."""
        return sorted(self.stretches)

    def targets(self, row: int, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """phases: (T,) class numbers, UNLABELLED in gaps. presence: (T, C) of 0 and 1; a recording that somebody labelled is labelled throughout.

        A moment belongs to the span that has begun and not ended. Raises DataError where two phases hold at once.
        """
        phases = self.task.kind == "phases"
        found = np.full(len(times), UNLABELLED, np.int64) if phases else np.zeros((len(times), len(self.classes)), np.int64)  # fmt: skip
        for stretch in self.stretches[row]:
            if not stretch.value:
                continue
            held = slice(*np.searchsorted(times, [stretch.start - ROUNDING, stretch.end - ROUNDING]))
            number = self.classes.index(stretch.value)
            if not phases:
                found[held, number] = 1
                continue
            if (other := set(found[held].tolist()) - {UNLABELLED, number}) and len(found[held]):
                what = f"'{stretch.value}' and '{self.classes[other.pop()]}' of '{self.task.column}' hold at once"
                raise DataError(f"{what} between {stretch.start:g} and {stretch.end:g} s", where=stretch.where)
            found[held] = number
        return found


def moments(n_frames: int, fps: float | None, rate: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(T,) seconds 0, 1 / rate, 2 / rate, ... of a recording, and the native frame that is on show at each.

    Raises DataError where the recording's frame rate is not known: spans could not be placed in it.
    """
    if fps is None:
        raise DataError("its frame rate is not known, so times of spans mean nothing in it", do="Prepare it with one")
    count = math.floor((n_frames / fps - ROUNDING) * rate) + 1
    times = np.arange(count) / rate
    return times, np.minimum(np.floor(times * fps + ROUNDING), n_frames - 1).astype(np.int64)


def read_moments(prepared: Prepared, task: TaskSettings, labels: str | Path | None, key: bytes | None) -> MomentLabels:
    """Labels of moments: of the table that was given, else those that came with the data set.

    key: needed where the table names original identifiers. Raises ConfigError where there are none, DataError (with the line) for a table that cannot
    be used.
    """
    stretches: dict[int, list[Stretch]] = {}
    unmatched = 0
    if labels:
        unmatched = _read_table(Path(labels), prepared, task, key, stretches)
    else:
        for row, start, end, value, moment in spans(prepared, _span_label(prepared, task)):
            stretches.setdefault(row, []).append(Stretch(start, end, value, str(prepared.place), moment))
    for found in stretches.values():
        found.sort(key=lambda stretch: (stretch.start, stretch.end))
    named = {stretch.value: stretch.where for found in stretches.values() for stretch in found if stretch.value}
    if not named:
        raise DataError(f"no recording has a span of '{task.column}'", where=labels or prepared.place)
    classes = task.classes or tuple(sorted(named))
    if unknown := sorted(set(named) - set(classes)):
        what = f"'{unknown[0]}' is no class of '{task.column}'"
        raise DataError(what, where=named[unknown[0]], do=nearest(unknown[0], list(classes)))
    return MomentLabels(task, stretches, classes, unmatched)


def _span_label(prepared: Prepared, task: TaskSettings) -> str:
    """The label of the task among the spans that came along. Raises ConfigError."""
    known = prepared.info.get("layout", {}).get("spans", {})
    for name in (task.column, *task.aliases):
        if name in known:
            return name
    if known or tasks(prepared):
        return task.column  # whose absence `spans` says best
    do = "Give a CSV with recording, start, end (s) and value: --labels spans.csv"
    raise ConfigError(f"no spans of '{task.column}' came with the recordings", where=prepared.place, do=do)


def _read_table(
    path: Path, prepared: Prepared, task: TaskSettings, key: bytes | None, stretches: dict[int, list[Stretch]]
) -> int:
    """Fill `stretches` by the lines of a table; how many matched nothing."""
    columns, lines = read_lines(path)
    start, end = (_column(path, columns, (name,)) for name in ("start", "end"))
    own = (task.column, *task.aliases)
    value = _column(path, columns, (*own, "value"))
    label = next((name for name in columns if name.lower() == "label" and name != value), None)
    if label is not None:
        lines = [line for line in lines if line.cells[label] in own]
        if not lines:
            raise DataError(f"no line has the label '{task.column}'", where=path)
    join = best_join(path, columns, value, lines, prepared, Pseudonyms(key) if key else None)
    unmatched = 0
    for line, videos in zip(lines, join.videos, strict=True):
        where = f"{path}:{line.number}"
        if len(videos) > 1:
            what = f"'{join.column}' names {len(videos)} recordings; times are those of one"
            raise DataError(what, where=where, do="Name the recording: its file name or path")
        cell = line.cells[value]
        first, last = _seconds(line, start, where), _seconds(line, end, where)
        if last <= first:
            raise DataError(f"'{end}' {last:g} is not after '{start}' {first:g}", where=where, do="Mend the line")
        unmatched += not videos
        for row in videos:
            found = stretches.setdefault(row, [])
            found.append(Stretch(first, last, "" if cell.lower() in EMPTY else cell, where))
    return unmatched


def _column(path: Path, columns: list[str], wanted: Iterable[str]) -> str:
    """The first of the wanted columns that is there, case aside."""
    wanted = list(wanted)
    lower = {name.lower(): name for name in columns}
    for name in wanted:
        if name.lower() in lower:
            return lower[name.lower()]
    there = ", ".join(columns)
    raise DataError(f"no column '{wanted[0]}' (columns: {there})", where=path, do=nearest(wanted[0], columns))


def _seconds(line: Line, column: str, where: str) -> float:
    cell: Any = line.cells[column]
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise DataError(
            f"'{column}' is not a time in seconds: '{cell}'", where=where, do="Seconds from the first frame"
        )
    return value
