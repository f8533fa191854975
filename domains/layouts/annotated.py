"""A data set of one's own, written down by hand or by a script: videos, and small tables that say what is in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from domains.base import TaskSettings
from domains.errors import ConfigError, DataError
from domains.layouts.base import Layout, Notes, Recording, Span, Text
from domains.layouts.tables import Row, columns_of, header_of, known, read_table
from domains.schema import Strict, parse, read_yaml

ABOUT, RECORDINGS, SPANS, TEXTS, SIGNALS = "dataset.yaml", "recordings.csv", "spans.csv", "texts.csv", "signals.csv"
LEVELS = ("", "clip", "keystep", "abstract")
VIEW_COLUMNS = ("event", "camera", "team", "exo", "offset", "drift")
RECORDING_COLUMNS = ("recording", "group", *VIEW_COLUMNS)  # every other column is an official split


class About(Strict):
    """`dataset.yaml`."""

    title: str
    domain: str = Field(description="a shipped domain, for `vfm data prepare` without --domain")
    grouped_by: str = Field("recordings", description="what a group is: patients, procedures, surgeons")
    changes: dict[str, Any] = Field(
        default_factory=dict,
        description="what its recordings need otherwise than the domain says, e.g. store: {size: 128}",
    )
    tasks: dict[str, TaskSettings] = Field(
        default_factory=dict, description="what labels of spans mean, classes in order"
    )


class Annotated(Layout):
    """`dataset.yaml` (see `About`) and up to four tables, separated by commas, beside the recordings:

        recordings.csv   recording, group, event, camera, team, exo, offset, drift (all but the first optional), then one column an official split:
                         train, val, test, or empty
        spans.csv        recording, start, end (s), label, value, moment (optional): from start up to end the label has the value
        texts.csv        recording, start, end (s), text, source, level (the last two optional)
        signals.csv      recording, name, file: a table of what else was recorded, its first column seconds

    `recording` is a path relative to the folder, with /. Only recordings.csv must be there. A recording without group stands for itself. event and
    camera: recordings that show the same thing; team: whose view it is; exo: 1 for a camera that nobody wears; offset, drift: its clock
    (see `Recording`). A value of a label whose task names classes must be one of them. level: clip (a moment), keystep, abstract (the whole).
    """

    name = "annotated"
    title = "a data set of one's own"
    domain = "surgical"
    grouped_by = "recordings"
    suffixes = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".m4v")

    def __init__(self, root: str | Path) -> None:
        super().__init__(root)
        path = self.root / ABOUT
        if not path.is_file():
            raise DataError("no such file", where=path, do="Write one: docs/layouts.md says what stands in it")
        self._about = parse(About, read_yaml(path), path)
        self.title, self.domain, self.grouped_by = self._about.title, self._about.domain, self._about.grouped_by
        self.changes = self._about.changes
        columns = columns_of(self.root / RECORDINGS)
        self.split_names = tuple(name for name in columns if name.lower() not in RECORDING_COLUMNS)

    @classmethod
    def matches(cls, root: Path) -> bool:
        if not {"recording"} <= header_of(root / RECORDINGS):
            return False
        try:
            return {"title", "domain"} <= set(read_yaml(root / ABOUT))
        except ConfigError:
            return False

    def tasks(self) -> dict[str, TaskSettings]:
        return dict(self._about.tasks)

    @property
    def span_labels(self) -> tuple[str, ...]:
        """In the order of the tasks, then of the table."""
        return tuple(dict.fromkeys([*(name for name in self.tasks() if name in self._labels), *self._labels]))

    @cached_property
    def _labels(self) -> list[str]:
        lines = self._lines(SPANS, ["label"])
        return list(dict.fromkeys(label for row in lines if (label := row.cells["label"])))

    def _lines(self, table: str, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Row]:
        """Of a table that need not be there."""
        if (self.root / table).exists():
            yield from read_table(self.root / table, columns, optional=optional)

    def _read(self, notes: Notes) -> Iterator[Recording]:
        for row in read_table(
            self.root / RECORDINGS, ["recording"], optional=[*RECORDING_COLUMNS[1:], *self.split_names]
        ):
            path = row.cells["recording"]
            group = row.cells.get("group") or path
            parts = {name: part for name in self.split_names if (part := row.part(name))}
            yield Recording(
                path=path, group=f"{self.title}/{group}", splits=parts, signals=self._signals.get(path, {}), listed=row.where, **_view(row)
            )  # fmt: skip

    @cached_property
    def _signals(self) -> dict[str, dict[str, str]]:
        """Recording -> name -> file."""
        found: dict[str, dict[str, str]] = {}
        for row in self._lines(SIGNALS, ["recording", "name", "file"]):
            own = found.setdefault(row.cells["recording"], {})
            if row.cells["name"] in own:
                raise DataError("a second signal of that name", where=row.where, do="Leave one of the two lines")
            own[row.cells["name"]] = row.cells["file"]
        return found

    def _spans(self, label: str, present: Mapping[str, Recording], notes: Notes) -> Iterator[Span]:
        classes = self._about.tasks[label].classes if label in self._about.tasks else ()
        for row in self._lines(SPANS, ["recording", "start", "end", "label", "value"], ["moment"]):
            if row.cells["label"] == label and (times := self._times(row, present, notes)):
                if value := row.one_of("value", classes) if classes else row.text("value"):
                    yield Span(row.cells["recording"], *times, label, value, row.cells.get("moment", ""))
                else:
                    notes.add(f"a line of '{label}' without a value", row.where)

    def _texts(self, present: Mapping[str, Recording], notes: Notes) -> Iterator[Text]:
        for row in self._lines(TEXTS, ["recording", "start", "end", "text"], ["source", "level"]):
            text, level = row.cells["text"], row.cells.get("level", "")
            if text and (times := self._times(row, present, notes)):
                known(level, LEVELS, "'level'", row.where)
                yield Text(row.cells["recording"], *times, text, row.cells.get("source", ""), level)

    def _times(self, row: Row, present: Mapping[str, Recording], notes: Notes) -> tuple[float, float] | None:
        """Start and end; None, with a note, for a line of a recording that is not there, or that ends before it starts."""
        if row.cells["recording"] not in present:
            notes.add("a line about a recording that is not there", row.where)
            return None
        start, end = row.needed("start"), row.needed("end")
        if start < 0 or end < start:
            notes.add("a line that starts before 0, or ends before it starts", row.where)
            return None
        return start, end


def _view(row: Row) -> dict[str, Any]:
    """What a line of recordings.csv says of event, camera and clock. Raises DataError with the line."""
    there = {name: row.text(name) for name in VIEW_COLUMNS if name in row.cells}
    if bool(there.get("event")) != bool(there.get("camera")):
        raise DataError(
            "an event without a camera, or a camera without an event", where=row.where, do="Give both, or neither"
        )
    exo = there.get("exo", "")
    if exo not in ("", "0", "1"):
        raise DataError(f"'exo' is '{exo}', neither 0 nor 1", where=row.where)
    return {
        "event": there.get("event", ""), "camera": there.get("camera", ""), "team": there.get("team", ""), "exo": exo == "1",
        "offset": row.number("offset") if "offset" in there else None, "drift": (row.number("drift") or 0.0) if "drift" in there else 0.0,
    }  # fmt: skip
