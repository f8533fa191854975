"""EPIC-KITCHENS-100: actions narrated in kitchens, seen by a head-mounted camera (Damen et al., IJCV 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from domains.base import TaskSettings
from domains.errors import DataError
from domains.layouts.base import Layout, Notes, Recording, Span, Text
from domains.layouts.tables import Row, class_name, read_table, seconds, whole

TABLES = {"train": "EPIC_100_train.csv", "val": "EPIC_100_validation.csv", "test": "EPIC_100_test_timestamps.csv"}
OPPOSITES = (("open", "close"), ("turn-on", "turn-off"), ("take", "put"), ("insert", "remove"))
UNSEEN = "EPIC_100_unseen_participant_ids_validation.csv"
CLASSES = {"verb": "EPIC_100_verb_classes.csv", "noun": "EPIC_100_noun_classes.csv"}


class EpicKitchens100(Layout):
    """`EPIC_100_{train,validation,test_timestamps}.csv` and class tables, in the root or a folder of it;
    `**/<video_id>.MP4`.

    Spans: verb, noun (the class's key: 97 verbs, 300 nouns) and action ("verb,noun"); the moment is the narration.
    Texts: the narration. All are located by start_timestamp and stop_timestamp: start_frame and stop_frame count
    frames that were extracted at another rate than many videos have (50 or 60 for 29.97, 47.95, 59.94 and 90). `verb`
    and `noun` are words of the narrator, finer than the classes: verb_class and noun_class are read.
    EPIC_100_noun_classes_v2.csv has 305 nouns, for another task, and is not read. The official split is by video, so
    that a participant stands on both sides; the split "unseen" validates only on participants that never train. The
    test table has no labels. Videos only; folders of frames are not.
    """

    name = "epic-kitchens-100"
    title = "EPIC-KITCHENS-100"
    domain = "egocentric"
    grouped_by = "participants"
    suffixes = (".mp4",)
    split_names = ("official", "unseen")

    @classmethod
    def matches(cls, root: Path) -> bool:
        return _tables_of(root) is not None

    def tasks(self) -> dict[str, TaskSettings]:
        tasks = {
            label: TaskSettings(
                kind="phases", column=label, aliases=(f"{label}_class",), classes=classes,
                opposites=tuple(pair for pair in OPPOSITES if set(pair) <= set(classes)),
            )
            for label, classes in self._classes.items()
        }  # fmt: skip
        return {**tasks, "action": TaskSettings(kind="phases", column="action")}

    @property
    def span_labels(self) -> tuple[str, ...]:
        return ("verb", "noun", "action")

    @cached_property
    def _tables(self) -> Path:
        """The folder of the tables."""
        return _tables_of(self.root) or self.root

    @cached_property
    def _classes(self) -> dict[str, tuple[str, ...]]:
        """Keys of verbs and nouns in order of their number."""
        classes: dict[str, tuple[str, ...]] = {}
        for label, name in CLASSES.items():
            rows = list(read_table(self._tables / name, ["id", "key"]))
            for expected, row in enumerate(rows):
                if whole(row.cells["id"], "'id'", row.where) != expected:
                    raise DataError(f"class {row.cells['id']} where {expected} should be", where=row.where)
            classes[label] = tuple(row.cells["key"] for row in rows)
        return classes

    @cached_property
    def _rates(self) -> dict[str, float]:
        table = self._tables / "EPIC_100_video_info.csv"
        if not table.is_file():
            return {}
        return {row.cells["video_id"]: row.needed("fps") for row in read_table(table, ["video_id", "fps"])}

    @cached_property
    def _unseen(self) -> frozenset[str]:
        table = self._tables / UNSEEN
        if not table.is_file():
            return frozenset()
        return frozenset(row.cells["participant_id"] for row in read_table(table, ["participant_id"]))

    @cached_property
    def _videos(self) -> dict[str, str]:
        """Path by video_id."""
        videos = (path for path in reversed(self.files) if path.lower().endswith(".mp4"))
        return {path.rsplit("/", 1)[-1][:-4]: path for path in videos}

    def _rows(self) -> Iterator[tuple[str, Row]]:
        """part and line of every action. Raises DataError where there is none of the tables."""
        there = {part: name for part, name in TABLES.items() if (self._tables / name).is_file()}
        columns = ["narration_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp"]
        labelled = ["narration", "verb_class", "noun_class"]
        for part, name in (there or {"train": TABLES["train"]}).items():
            wanted = columns if part == "test" else [*columns, *labelled]
            for row in read_table(self._tables / name, wanted):
                yield part, row

    def _read(self, notes: Notes) -> Iterator[Recording]:
        found: dict[str, str] = {}
        for part, row in self._rows():
            video, person = row.cells["video_id"], row.cells["participant_id"]
            if video in found:
                if found[video] != part:
                    raise DataError(f"a video of the part '{found[video]}' again in '{part}'", where=row.where)
                continue
            found[video] = part
            unseen = part == "train" or (part == "val" and person in self._unseen)
            yield Recording(
                path=self._videos.get(video, f"{person}/videos/{video}.MP4"),
                group=f"{self.name}/{person}",
                splits={"official": part, **({"unseen": part} if self._unseen and unseen else {})},
                fps=self._rates.get(video),
                listed=row.where,
            )
        for part, name in TABLES.items():
            if part not in found.values():
                notes.add(f"no {name}: no '{part}'")

    def _stretches(self, present: Mapping[str, Recording], notes: Notes) -> Iterator[tuple[str, float, float, Row]]:
        """path, start and end of every labelled action in a video on disk."""
        for part, row in self._rows():
            path = self._videos.get(row.cells["video_id"], "")
            if part == "test" or path not in present:
                continue
            start = seconds(row.cells["start_timestamp"], row.where)
            end = seconds(row.cells["stop_timestamp"], row.where)
            if end <= start:
                notes.add("an action that ends before it starts", row.where)
                continue
            yield path, start, end, row

    def _spans(self, label: str, present: Mapping[str, Recording], notes: Notes) -> Iterator[Span]:
        for path, start, end, row in self._stretches(present, notes if label == "verb" else Notes()):
            verb, noun = (
                class_name(row.cells[f"{kind}_class"], self._classes[kind], f"'{kind}_class'", row.where)
                for kind in ("verb", "noun")
            )
            value = {"verb": verb, "noun": noun, "action": f"{verb},{noun}"}[label]
            yield Span(path, start, end, label, value, moment=row.cells["narration_id"])

    def _texts(self, present: Mapping[str, Recording], notes: Notes) -> Iterator[Text]:
        for path, start, end, row in self._stretches(present, Notes()):
            yield Text(path, start, end, row.cells["narration"], "narration")


def _tables_of(root: Path) -> Path | None:
    """The folder with EPIC_100_train.csv or another table of actions: the root, or one directly in it."""
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir())] if root.is_dir() else []
    return next((folder for folder in folders if any((folder / name).is_file() for name in TABLES.values())), None)
