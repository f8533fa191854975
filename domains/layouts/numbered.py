"""Data sets of numbered videos, each with a file of annotation under the same number."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import ClassVar

from domains.errors import DataError
from domains.layouts.base import Layout, Media, Notes, Recording, Span, Value


class NumberedLayout(Layout):
    """A layout whose videos and annotations are told by number. Subclasses say where both lie and what a number's
    annotation says.

    An annotation without video is missing; a video without annotation of a label is noted.
    """

    video: ClassVar[re.Pattern[str]]  # a path of a recording, its number the first group
    video_path: ClassVar[str]  # where a video that is not there would lie
    first_table: ClassVar[str]  # what the table that matters most is called, for people
    annotations: ClassVar[Mapping[str, re.Pattern[str]]]  # label -> path of its table, the number the first group
    media: ClassVar[Media] = "video"
    fps: ClassVar[float | None] = None

    @abstractmethod
    def _group(self, number: int) -> str:
        """The group of a number."""

    @abstractmethod
    def _parts(self, number: int) -> dict[str, str]:
        """Official split -> part of a number."""

    @abstractmethod
    def _spans_of(self, label: str, recording: Recording, table: str) -> list[Span]:
        """The spans of `label` that a table (a relative path) says of a recording."""

    def _labels(self, number: int, notes: Notes) -> dict[str, Value]:
        return {}

    @property
    def span_labels(self) -> tuple[str, ...]:
        return tuple(self.annotations)

    @cached_property
    def _videos(self) -> dict[int, str]:
        """Path by number. Pictures stand for their folder."""
        found: dict[int, str] = {}
        for path in self.files:
            place = path.rsplit("/", 1)[0] if self.media == "frames" and "/" in path else path
            if match := self.video.fullmatch(place):
                found.setdefault(int(match.group(1)), place)
        return found

    @cached_property
    def _tables(self) -> dict[str, dict[int, str]]:
        """Paths of tables by label and number."""
        tables: dict[str, dict[int, str]] = {}
        for label, pattern in self.annotations.items():
            matches = (pattern.fullmatch(path) for path in self.files)
            tables[label] = {int(match.group(1)): match.group(0) for match in matches if match}
        return tables

    def _read(self, notes: Notes) -> Iterator[Recording]:
        annotated = {number for tables in self._tables.values() for number in tables}
        if not annotated:
            do = "Give the folder that holds it beside the videos"
            raise DataError(f"no {self.first_table}", where=self.root, do=do)
        for number in sorted(annotated | set(self._videos)):
            parts = self._parts(number)
            if self.split_names and not parts:
                notes.add("a number that the official splits do not have", f"video {number}")
            tables = [table for tables in self._tables.values() if (table := tables.get(number))]
            yield Recording(
                path=self._videos.get(number, self.video_path.format(number=number)),
                group=self._group(number),
                splits=parts,
                labels=self._labels(number, notes),
                media=self.media,
                fps=self.fps,
                listed=str(self.root / tables[0]) if tables else "",
            )

    def _spans(self, label: str, present: Mapping[str, Recording], notes: Notes) -> Iterator[Span]:
        number_of = {path: number for number, path in self._videos.items()}
        for path, recording in present.items():
            table = self._tables[label].get(number_of[path])
            if table is None:
                notes.add(f"no table of '{label}'", path)
                continue
            yield from self._spans_of(label, recording, table)
