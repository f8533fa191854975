"""Texts from where they lie: tables of one's own, or what came with a public data set."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from domains.errors import DataError
from domains.prepare.privacy import Pseudonyms
from domains.schema import nearest
from domains.store.annotated import texts as brought
from domains.store.clips import Span
from domains.store.labels import IDENTIFIERS, Line, best_join, read_lines
from domains.store.prepared import Prepared
from domains.store.texts import LEVELS, WHOLE, Said, Texts

TEXT, START, END, SOURCE, LEVEL = "text", "start", "end", "source", "level"
YES, NO = frozenset({"1", "true", "yes", "y", "t"}), frozenset({"", "0", "false", "no", "n", "f"})
SLACK = 1.0  # seconds by which a text may end after its recording does: transcripts are timed by ear


def read_texts(
    paths: Sequence[str | Path], prepared: Prepared, key: bytes | None, *, keep: Sequence[str] = ()
) -> Texts:
    """The texts of tables, or (no paths) those that came with the prepared folder. A study's or patient's text is about all its recordings.

    key: needed where a table holds original identifiers. keep: columns that must say yes for a line to count (caption filters).
    Raises DataError, with file and line and never with words, where a column is missing, nothing matches, a time is no number, ends before it starts
    or lies outside the recording, or a level is none; where there is no text at all.
    """
    if not paths:
        texts = Texts(*_brought(prepared))
        if not len(texts):
            do = "Give a CSV with a column that names the recording, and text: --text texts.csv"
            raise DataError("no texts, and none came with the recordings", where=prepared.place, do=do)
        return texts
    passed = Counter[str]()
    said = [one for path in paths for one in _of_table(Path(path), prepared, key, keep, passed)]
    if not said:
        what = f"no line with words is left ({', '.join(f'{count} {why}' for why, count in passed.items())})"
        raise DataError(what, where=", ".join(str(path) for path in paths))
    return Texts(said, passed)


def _brought(prepared: Prepared) -> tuple[list[Said], Counter[str]]:
    """Texts of a public data set. Its times are passed over where they make no sense: nobody here can mend them."""
    said, passed = [], Counter[str]()
    for line in brought(prepared):
        row, start, end, words, source = line[:5]
        level = "".join(line[5:]) or LEVELS[0]
        if not words.strip():
            passed["empty"] += 1
            continue
        length = _seconds(prepared, row)
        if length is None or not 0 <= start <= end or start >= length:
            passed["outside the recording"] += 1
            continue
        said.append(Said((row,), start, min(end, length), words.strip(), source, level))
    return said, passed


def _of_table(
    path: Path, prepared: Prepared, key: bytes | None, keep: Sequence[str], passed: Counter[str]
) -> Iterator[Said]:
    columns, lines = read_lines(path, "text")
    named = {name.lower(): name for name in columns}
    for wanted in (TEXT, *(name.lower() for name in keep)):
        if wanted not in named:
            what = f"no column '{wanted}' (columns: {', '.join(columns)})"
            raise DataError(what, where=path, do=nearest(wanted, columns))
    if (START in named) != (END in named):
        there, lacking = (START, END) if START in named else (END, START)
        raise DataError(f"a column '{there}' and no '{lacking}'", where=path, do="Give both in seconds, or neither")
    identifiers = [name for name in columns if "".join(c for c in name.lower() if c.isalnum()) in IDENTIFIERS]
    if not identifiers:
        what = f"no column names the recording (columns: {', '.join(columns)})"
        raise DataError(what, where=path, do="Add one, e.g. file_name, study_id or patient_id")
    names = Pseudonyms(key) if key else None
    join = best_join(path, identifiers, TEXT, lines, prepared, names)
    for line, rows in zip(lines, join.videos, strict=True):
        words = line.cells.get(named[TEXT], "")
        if not rows:
            passed["of no recording here"] += 1
        elif not words:
            passed["empty"] += 1
        elif not all(_says_yes(path, line, named[name.lower()]) for name in keep):
            passed["filtered"] += 1
        else:
            span = _span(path, line, named, rows, prepared)
            source = line.cells.get(named.get(SOURCE, ""), "") or path.stem
            yield Said(tuple(rows), *span, words, source, _level(path, line, named, span))


def _says_yes(path: Path, line: Line, column: str) -> bool:
    cell = line.cells.get(column, "").lower()
    if cell not in YES | NO:
        raise DataError(f"'{column}' is neither yes nor no", where=f"{path}:{line.number}", do="Write 1 or 0")
    return cell in YES


def _level(path: Path, line: Line, named: dict[str, str], span: Span) -> str:
    cell = line.cells.get(named.get(LEVEL, ""), "").lower()
    if not cell:
        return "abstract" if span == WHOLE else "clip"
    if cell not in LEVELS:
        do = f"Write one of {', '.join(LEVELS)}, or leave the cell empty"
        raise DataError("the level of the text is none that vfm knows", where=f"{path}:{line.number}", do=do)
    return cell


def _span(path: Path, line: Line, named: dict[str, str], rows: Sequence[int], prepared: Prepared) -> Span:
    """Start and end (s) of a line's text; WHOLE where both cells are empty, or there are none."""
    where = f"{path}:{line.number}"
    cells = [line.cells.get(named[name], "") if name in named else "" for name in (START, END)]
    if not any(cells):
        return WHOLE
    try:
        start, end = (float(cell) for cell in cells)
    except ValueError:
        start = end = math.nan
    if not (math.isfinite(start) and math.isfinite(end)):
        raise DataError("start and end are not both a number", where=where, do="Give seconds from the first frame, or leave both empty")  # fmt: skip
    if not 0 <= start <= end:
        raise DataError(f"the text is from {start:g} to {end:g} s", where=where, do="It must start at 0 or later, and end after that")  # fmt: skip
    lengths = [_seconds(prepared, row) for row in rows]
    known = [length for length in lengths if length is not None]
    if len(known) < len(lengths):
        what = "the text has a time, and the frame rate of its recording is not known"
        raise DataError(what, where=where, do="Prepare the recording with its frame rate, or leave start and end empty")
    if start >= min(known) or end > min(known) + SLACK:
        what = f"the text is from {start:g} to {end:g} s, and its recording ends at {min(known):.3g} s"
        raise DataError(what, where=where, do="Times are seconds from the first frame of the recording")
    return start, min(end, min(known))


def _seconds(prepared: Prepared, row: int) -> float | None:
    """Length of a recording; None where its frame rate is not known."""
    fps = prepared.fps(row)
    return prepared.length(row) / fps if fps else None
