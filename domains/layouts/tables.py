"""Reading the tables of public data sets: every error names file and line, and every missing column those that are
there."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from domains.errors import DataError
from domains.layouts.base import Notes, Span
from domains.schema import nearest
from domains.store.labels import EMPTY

PARTS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table. cells: by column name as asked for, stripped. where: file:line."""

    where: str
    cells: Mapping[str, str]

    def text(self, column: str) -> str:
        """The cell, "" where it is empty or says so (NA, nan, None)."""
        cell = self.cells[column]
        return "" if cell.lower() in EMPTY else cell

    def number(self, column: str) -> float | None:
        """The cell as a finite number, None where it is empty. Raises DataError with the line."""
        cell = self.text(column)
        return number(cell, f"'{column}'", self.where) if cell else None

    def needed(self, column: str) -> float:
        """The cell as a number that must be there."""
        value = self.number(column)
        if value is None:
            raise DataError(f"'{column}' is empty", where=self.where, do="Restore the table as it was downloaded")
        return value

    def one_of(self, column: str, classes: Collection[str]) -> str:
        """The cell as one of the classes, "" where it is empty."""
        cell = self.text(column)
        return known(cell, classes, f"'{column}'", self.where) if cell else ""

    def part(self, column: str) -> str:
        """The cell as "train", "val" or "test"; "" where it is empty."""
        cell = self.text(column).lower()
        return PARTS[known(cell, PARTS, f"'{column}'", self.where)] if cell else ""


def number(cell: str, what: str, where: str) -> float:
    """A finite number. Raises DataError with `where`."""
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{what} is not a number: '{cell}'", where=where, do="Restore the table as it was downloaded")
    return value


def whole(cell: str, what: str, where: str) -> int:
    """A whole number from 0, also written as 3.0. Raises DataError with `where`."""
    value = number(cell, what, where)
    if value < 0 or value != int(value):
        raise DataError(f"{what} is not a whole number from 0: '{cell}'", where=where)
    return int(value)


def known(name: str, classes: Collection[str], what: str, where: str) -> str:
    """`name`, which must be one of the classes. Raises DataError with `where` and the nearest one."""
    if name not in classes:
        raise DataError(f"{what} has an unknown class '{name}'", where=where, do=nearest(name, list(classes)))
    return name


def class_name(cell: str, classes: Sequence[str], what: str, where: str) -> str:
    """The class of a number from 0. Raises DataError with `where` for a number that no class has."""
    index = whole(cell, what, where)
    if index >= len(classes):
        raise DataError(f"{what} has an unknown class {index}", where=where, do=f"Known: 0 to {len(classes) - 1}")
    return classes[index]


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """A table, also packed with gzip, as text in UTF-8 with or without a byte order mark. Raises DataError where that
    fails."""
    try:
        with path.open("rb") as file:
            unpacked = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
            yield io.TextIOWrapper(unpacked, encoding="utf-8-sig", newline="")
    except FileNotFoundError:
        do = "Download it, or give the folder that holds it"
        raise DataError("no such table", where=path, do=do) from None
    except (OSError, UnicodeDecodeError, EOFError, csv.Error) as error:
        raise DataError(f"cannot be read as a table ({error.__class__.__name__})", where=path) from None


def read_table(
    path: Path,
    columns: Sequence[str],
    *,
    delimiter: str = ",",
    optional: Sequence[str] = (),
    notes: Notes | None = None,
) -> Iterator[Row]:
    """Lines of a table with a header, as they are read.

    columns: must be there; optional: may be; matched by name, case aside, and other columns are left out. notes:
    where given, a line with too few or too many cells is passed over with a note; else it is an error. Raises
    DataError for a missing table or column, naming those there.
    """
    with opened(path) as handle:
        reader = csv.reader(handle, delimiter=delimiter)
        header = [name.strip() for name in next(reader, [])]
        at = _columns(path, header, columns, optional)
        for cells in reader:
            if not cells:
                continue
            where = f"{path}:{reader.line_num}"
            if len(cells) != len(header):
                what = f"{len(cells)} cells where the header has {len(header)}"
                if notes is None:
                    raise DataError(what, where=where, do="Restore the table as it was downloaded")
                notes.add("lines with too few or too many cells", f"{path.name}:{reader.line_num}")
                continue
            yield Row(where, {name: cells[index].strip() for name, index in at.items()})


def _columns(path: Path, header: list[str], columns: Sequence[str], optional: Sequence[str]) -> dict[str, int]:
    lower = [name.lower() for name in header]
    at: dict[str, int] = {}
    for name in (*columns, *optional):
        if name in header:
            at[name] = header.index(name)
        elif name.lower() in lower:
            at[name] = lower.index(name.lower())
        elif name in columns:
            there = ", ".join(name for name in header if name) or "none"
            raise DataError(f"no column '{name}' (columns: {there})", where=path, do=nearest(name, header))
    return at


def columns_of(path: Path, delimiter: str = ",") -> list[str]:
    """Column names as they stand. Raises DataError for a missing or unreadable table."""
    with opened(path) as handle:
        return [name.strip() for name in next(csv.reader(handle, delimiter=delimiter), [])]


def header_of(path: Path, delimiter: str = ",") -> set[str]:
    """Column names in lower case; empty where there is no such table or it cannot be read."""
    try:
        return {name.lower() for name in columns_of(path, delimiter)}
    except DataError:
        return set()


def read_plain(path: Path, delimiter: str | None = ",") -> Iterator[tuple[str, list[str]]]:
    """(file:line, cells) of a table without a header. delimiter None: any white space."""
    with opened(path) as handle:
        for line, text in enumerate(handle, 1):
            if text.strip():
                yield f"{path}:{line}", [cell.strip() for cell in text.strip().split(delimiter)]


def read_json(path: Path) -> Any:
    """A JSON file. Raises DataError with the line of a syntax error."""
    with opened(path) as handle:
        try:
            return json.load(handle)
        except json.JSONDecodeError as error:
            raise DataError(f"not valid JSON: {error.msg}", where=f"{path}:{error.lineno}") from None


def active(cells: Sequence[str], classes: Sequence[str], where: str) -> tuple[str, ...]:
    """The classes whose cell is 1. Raises DataError where a cell is neither 0 nor 1, or their number is not that of
    the classes."""
    if len(cells) != len(classes):
        raise DataError(f"{len(cells)} columns of classes where there should be {len(classes)}", where=where)
    wrong = next((cell for cell in cells if cell not in {"0", "1"}), None)
    if wrong is not None:
        raise DataError(f"'{wrong}' where there should be 0 or 1", where=where)
    return tuple(name for name, cell in zip(classes, cells, strict=True) if cell == "1")


def seconds(text: str, where: str) -> float:
    """Hours:minutes:seconds as seconds. Raises DataError with `where`."""
    parts = text.split(":")
    if len(parts) != 3:
        raise DataError(f"'{text}' is not hours:minutes:seconds", where=where)
    hours, minutes, rest = (number(part, "the time", where) for part in parts)
    return hours * 3600 + minutes * 60 + rest


@dataclass(frozen=True, slots=True)
class Frame:
    """What a table says of one frame (0-based)."""

    where: str
    frame: int
    values: Collection[str]


def runs(recording: str, label: str, frames: Iterable[Frame], rate: float, every: int = 1) -> list[Span]:
    """Spans of frames that follow each other with the same value; several values may be on at a time.

    rate: frames a second of the numbering. every: a line stands for this many frames from its own on; where lines are
    further apart than that a span ends. In order of start. Raises DataError with the line where frames are not in
    ascending order.
    """
    spans: list[Span] = []
    begun: dict[str, int] = {}
    last: int | None = None

    def close(values: Iterable[str], end: int) -> None:
        spans.extend(Span(recording, begun.pop(value) / rate, end / rate, label, value) for value in list(values))

    for entry in frames:
        if last is not None and entry.frame <= last:
            raise DataError(f"frame {entry.frame} after frame {last}", where=entry.where)
        if last is not None and entry.frame > last + every:
            close(begun, last + every)
        close([value for value in begun if value not in entry.values], entry.frame)
        for value in entry.values:
            begun.setdefault(value, entry.frame)
        last = entry.frame
    if last is not None:
        close(begun, last + every)
    return sorted(spans, key=lambda span: (span.start, span.end))
