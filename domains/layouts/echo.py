"""What the layouts of echocardiography share: tasks, names of views, file names with and without ending, and
fractions for percent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from domains.base import TaskSettings, load_domain
from domains.errors import DataError
from domains.layouts.base import Contour, Notes, Recording, Span, Value
from domains.layouts.tables import Row

Point = tuple[float, float]


def echo_tasks(*names: str) -> dict[str, TaskSettings]:
    """Tasks as the domain echo declares them, so that ranges and units are said once."""
    domain = load_domain("echo")
    return {name: domain.task(name) for name in names}


def bare(name: str) -> str:
    """A file name without .avi or .dcm: one table of a data set writes the ending, the next leaves it out."""
    return name[:-4] if name.lower().endswith((".avi", ".dcm")) else name


def table_rows(rows: Iterable[Row], column: str) -> list[Row]:
    """All rows of a small table. Raises DataError where a row names no file."""
    held = list(rows)
    unnamed = next((row for row in held if not row.text(column)), None)
    if unnamed is not None:
        raise DataError(f"'{column}' is empty", where=unnamed.where, do="Restore the table as it was downloaded")
    return held


def percent(rows: Sequence[Row], column: str, notes: Notes, table: Path) -> float:
    """What to multiply the column with to have percent: 100 where the whole column holds fractions (none above 1),
    else 1."""
    values = [value for row in rows if (value := row.number(column)) is not None]
    if values and max(values) <= 1.0:
        notes.add(f"'{column}' holds fractions: read as percent", table.name)
        return 100.0
    return 1.0


def numbers(row: Row, columns: Mapping[str, str], notes: Notes, factors: Mapping[str, float]) -> dict[str, Value]:
    """Labels by name from columns that hold numbers; an empty cell is no label, and noted. factors: by column, where
    not 1."""
    labels: dict[str, Value] = {}
    for column, label in columns.items():
        value = row.number(column)
        if value is None:
            notes.add(f"no '{column}'", row.where.rsplit("/", 1)[-1])
        else:
            labels[label] = value * factors.get(column, 1.0)
    return labels


def area(points: Sequence[Point]) -> float:
    """Area inside a closed outline (pixels squared), whichever way round it goes."""
    turned = [*points[1:], points[0]]
    return abs(sum(x * v - u * y for (x, y), (u, v) in zip(points, turned, strict=True))) / 2


def keyframes(
    contours: Iterable[Contour], present: Mapping[str, Recording], rates: Mapping[str, float], notes: Notes
) -> Iterator[Span]:
    """End diastole and end systole: of the two frames with an outline the one with the larger area is ED.

    rates: frames a second by recording. The span of a keyframe is its one frame.
    """
    outlines: dict[str, list[Contour]] = {}
    for contour in contours:
        outlines.setdefault(contour.recording, []).append(contour)
    for path in present:
        pair = sorted(outlines.get(path, []), key=lambda contour: area(contour.points))
        if len(pair) != 2 or pair[0].frame == pair[1].frame:
            notes.add("not two frames with an outline: no keyframes", path)
            continue
        if path not in rates:
            notes.add("no frame rate: no keyframes", path)
            continue
        for contour, value in zip(pair, ("ES", "ED"), strict=True):
            yield frame_span(path, contour.frame, rates[path], value)


def frame_span(path: str, frame: int, rate: float, value: str) -> Span:
    """The span of one frame (0-based) as a keyframe."""
    return Span(path, frame / rate, (frame + 1) / rate, "keyframe", value)
