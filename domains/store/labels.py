"""Labels, joined to a prepared folder on whatever identifies a row of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from domains.base import TaskSettings
from domains.errors import ConfigError, DataError
from domains.prepare.privacy import Pseudonyms, stem
from domains.schema import nearest
from domains.store.prepared import Prepared

# Column names that hold an identifier in the label files people have, in lower case, letters and digits only.
IDENTIFIERS = frozenset({
    "recording", "videoid", "video", "file", "filename", "filepath", "path", "dicomfilepath", "relativepath", "hashedfilename",
    "name", "querykey", "id", "sourcepath", "sourcename", "instance", "instanceid", "instanceuid", "sopinstanceuid",
    "sopuid", "dicomid", "study", "studyid", "studyuid", "studyinstanceuid", "accession", "exam", "examid",
    "patient", "patientid", "pid", "subject", "subjectid", "case", "caseid",
})  # fmt: skip
EMPTY = frozenset({"", "na", "n/a", "nan", "none", "null"})
# Finest first: where a finer identifier matches about as much, it is the one that is meant.
KINDS = ("video_id", "instance", "source_path", "source_name", "study", "patient")
SAID = {
    "video_id": "video pseudonym",
    "instance": "SOP instance UID",
    "source_path": "relative path",
    "source_name": "file name",
    "study": "study",
    "patient": "patient",
}


@dataclass(frozen=True)
class Labels:
    """Labelled videos, in row order of the prepared folder.

    index: (n,) int64, rows. values: (n,) float64 for regression, int64 class numbers for classification.
    classes: class names in order, empty for regression. patients: pseudonym of each of the n.
    unmatched: label rows that match no video. unlabelled: label rows with an empty cell.
    joined_on: the identifier that matched, in words.
    """

    index: NDArray[np.int64]
    values: NDArray[np.float64] | NDArray[np.int64]
    classes: tuple[str, ...]
    patients: list[str]
    unmatched: int
    unlabelled: int
    joined_on: str

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class Line:
    """One line of a label table."""

    number: int
    cells: dict[str, str]


@dataclass(frozen=True)
class Join:
    """One way to join: a column read as one kind of identifier, and the videos of each line."""

    column: str
    kind: str
    videos: list[tuple[int, ...]]

    @property
    def matched(self) -> int:
        return sum(1 for videos in self.videos if videos)


def read_labels(path: str | Path, task: TaskSettings, prepared: Prepared, key: bytes | None) -> Labels:
    """Read a label table (CSV; also ; or tab) and join it. A label of a patient or study holds for all its videos.

    key: needed where the table holds original identifiers instead of pseudonyms.
    Raises DataError, with the line, for values that are no number, outside `task.range`, no class of the task, or
    contradictory; for a missing column, naming those there are; where nothing matches, with three identifiers of each
    side. Raises ConfigError for a task whose labels are of moments (`domains.store.moments`).
    """
    if task.of_moments:
        what = f"'{task.column}' is a label of moments, not of whole recordings"
        raise ConfigError(what, do="Learn it with: vfm finetune --task")
    path = Path(path)
    columns, lines = read_lines(path)
    column = _label_column(path, columns, task)
    names = Pseudonyms(key) if key else None
    join = best_join(path, columns, column, lines, prepared, names)
    found: dict[int, tuple[str | float, int]] = {}
    unlabelled = unmatched = 0
    for line, videos in zip(lines, join.videos, strict=True):
        cell = line.cells[column]
        if cell.lower() in EMPTY:
            unlabelled += 1
            continue
        value = _value(cell, task, f"{path}:{line.number}")
        unmatched += not videos
        for video in videos:
            before = found.setdefault(video, (value, line.number))
            if before[0] != value:
                what = f"'{column}' is {value} here and {before[0]} in line {before[1]} for the same recording"
                raise DataError(what, where=f"{path}:{line.number}", do="Leave one of them")
    if not found:
        raise DataError(f"no recording has a value in '{column}'", where=path, do=f"{unlabelled} cells are empty")
    index = np.array(sorted(found), np.int64)
    classes, values = _encode([found[video][0] for video in index.tolist()], task)
    patients = [prepared.patients[video] for video in index.tolist()]
    return Labels(index, values, classes, patients, unmatched, unlabelled, SAID[join.kind])


def read_lines(path: Path, kind: str = "label") -> tuple[list[str], list[Line]]:
    """Column names and lines; the delimiter is whichever of , ; tab the header holds most of."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            header = handle.readline()
            delimiter = max(",;\t", key=header.count)
            handle.seek(0)
            reader = csv.DictReader(handle, delimiter=delimiter, restval="")
            columns = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            lines = [Line(reader.line_num, {k: (v or "").strip() for k, v in row.items() if k}) for row in reader]
    except FileNotFoundError:
        raise DataError(f"no such {kind} file", where=path) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        do = "Save it as CSV in UTF-8"
        raise DataError(f"cannot be read as a table ({error.__class__.__name__})", where=path, do=do) from None
    if not lines:
        raise DataError(f"the {kind} file holds no rows", where=path)
    return columns, lines


def has_label(path: str | Path, task: TaskSettings) -> bool:
    """Whether a label table has a column of this task. Raises DataError for a table that cannot be read."""
    columns, _ = read_lines(Path(path))
    try:
        _label_column(Path(path), columns, task)
    except DataError:
        return False
    return True


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _label_column(path: Path, columns: list[str], task: TaskSettings) -> str:
    wanted = (task.column, *task.aliases)
    for name in wanted:
        if name in columns:
            return name
    lower = {name.lower(): name for name in columns}
    for name in wanted:
        if name.lower() in lower:
            return lower[name.lower()]
    raise DataError(
        f"no column '{task.column}' (columns: {', '.join(columns)})", where=path, do=nearest(task.column, columns)
    )


def _value(cell: str, task: TaskSettings, where: str) -> str | float:
    if task.kind == "classification":
        if task.classes and cell not in task.classes:
            raise DataError(
                f"'{cell}' is no class of '{task.column}'", where=where, do=nearest(cell, list(task.classes))
            )
        return cell
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"'{task.column}' is not a number: '{cell}'", where=where, do="Mend it, or leave the cell empty"
        )
    if task.range and not task.range[0] <= value <= task.range[1]:
        what = f"'{task.column}' is {value:g}, outside {task.range[0]:g} to {task.range[1]:g} {task.unit}".rstrip()
        raise DataError(what, where=where, do="Mend it, or leave the cell empty")
    return value


def _encode(
    found: list[str | float], task: TaskSettings
) -> tuple[tuple[str, ...], NDArray[np.float64] | NDArray[np.int64]]:
    if task.kind == "regression":
        return (), np.array(found, np.float64)
    classes = task.classes or tuple(sorted({str(value) for value in found}))
    return classes, np.array([classes.index(str(value)) for value in found], np.int64)


# --- which column identifies a row, and as what


def best_join(
    path: Path, columns: list[str], label: str, lines: list[Line], prepared: Prepared, names: Pseudonyms | None
) -> Join:
    """The finest way to join that matches at least half as many lines as the best one."""
    others = [name for name in columns if name != label]
    # A column that is called an identifier is asked first; any other column only where none of those matches.
    named = [name for name in others if _plain(name) in IDENTIFIERS]
    for group in (named, [name for name in others if name not in named]):
        joins = [join for name in group for join in _joins(name, lines, prepared, names)]
        best = max((join.matched for join in joins), default=0)
        if best:
            good = [join for join in joins if 2 * join.matched >= best]
            chosen = min(good, key=lambda join: (KINDS.index(join.kind), -join.matched))
            return _unambiguous(chosen, path, lines)
    raise _nothing_matches(path, named or others, lines, prepared, names)


def _unambiguous(join: Join, path: Path, lines: list[Line]) -> Join:
    """A bare file name that several recordings bear (0001.dcm in every study) must not label all of them."""
    if join.kind == "source_name":
        for line, videos in zip(lines, join.videos, strict=True):
            if len(videos) > 1:
                what = f"the file name in '{join.column}' belongs to {len(videos)} recordings"
                raise DataError(what, where=f"{path}:{line.number}", do="Give the path relative to the source folder")
    return join


def _joins(column: str, lines: list[Line], prepared: Prepared, names: Pseudonyms | None) -> Iterable[Join]:
    for kind in KINDS:
        rows: dict[str, tuple[int, ...]] = {}
        for row, pseudonym in enumerate(prepared.column(kind)):
            rows[pseudonym] = (*rows.get(pseudonym, ()), row)
        spell = _spellings(kind, names)
        videos = [next((rows[s] for s in spell(line.cells[column]) if s in rows), ()) for line in lines]
        yield Join(column, kind, videos)


def _spellings(kind: str, names: Pseudonyms | None) -> Callable[[str], Iterable[str]]:
    """What a cell may stand for as this kind of identifier: itself, being a pseudonym, or what the key makes of it."""

    def spell(cell: str) -> Iterable[str]:
        if not cell:
            return
        yield cell
        if names is None or kind == "video_id":
            return
        if kind == "source_path":
            # The table may be written against a folder further up: leading folders are dropped one by one.
            parts = PurePosixPath(cell.replace("\\", "/")).parts
            for start in range(len(parts)):
                yield names.token("path", "/".join(parts[start:]))
        elif kind == "source_name":
            base = cell.replace("\\", "/").rsplit("/", 1)[-1]
            yield names.token("name", stem(base))
            yield names.token("name", base)
        else:
            yield names.token(kind, cell)

    return spell


def written_like(identifier: str) -> str:
    """Its letters as A and a, its digits as 9: "P0017_Meier.dcm" is written like "A9999_Aaaaa.aaa"."""
    kinds = ((str.isdigit, "9"), (str.isupper, "A"), (str.isalpha, "a"))
    return "".join(next((mark for is_one, mark in kinds if is_one(letter)), letter) for letter in identifier)


def _nothing_matches(
    path: Path, columns: list[str], lines: list[Line], prepared: Prepared, names: Pseudonyms | None
) -> DataError:
    if not columns:
        do = "Add one that names the recording, e.g. file_name"
        return DataError("no column beside the label", where=path, do=do)
    column = columns[0]
    # A terminal is kept in logs, and an identifier may be a name: how it is written is enough to see what is wrong.
    theirs = ", ".join(dict.fromkeys(written_like(line.cells[column]) for line in lines[:3]))
    ours = ", ".join(prepared.column("video_id")[:3])
    sides = f"'{column}' is written like {theirs}; prepared video_id: {ours}"
    what = f"0 of {len(lines)} rows match any of {len(prepared)} recordings ({sides})"
    if names is None:
        do = "Original identifiers are matched with the key used by 'vfm data prepare': --key FILE or $VFM_KEY"
    elif names.fingerprint != prepared.info.get("key"):
        do = "The key is not the one that this folder was prepared with: --key FILE or $VFM_KEY"
    else:
        do = "Name recordings by file name, path in the source folder, patient ID, study or SOP instance UID"
    return DataError(what, where=path, do=do)
