"""EgoClip: 3.8 million narrated clips of Ego4D (Lin et al., EgoVLP, NeurIPS 2022; Grauman et al., CVPR 2022)."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from domains.base import TaskSettings
from domains.errors import DataError
from domains.layouts.base import Layout, Notes, Recording, Span, Text
from domains.layouts.tables import Row, header_of, read_table

TABLE = "egoclip.csv"
COLUMNS = ["video_uid", "narration_source", "narration_ind", "clip_start", "clip_end", "clip_text"]
TAGS = {"verb": "tag_verb", "noun": "tag_noun"}


class EgoClip(Layout):
    """`egoclip.csv`, separated by TABS in spite of its name, and `**/<video_uid>.mp4` of Ego4D.

    Texts: clip_text from clip_start to clip_end (s). Spans: verb and noun, the numbers of tag_verb and tag_noun
    (lists; the reference does not name the classes); the moment is the narration. The table is read line by line,
    never held. Lines with too few or too many cells are known in this file: they are passed over with a note, as are
    clips that end before they start; a start before 0 becomes 0. The group is the video: the table names no
    participant. There is no official split. A video cut into chunks (`**/<video_uid>/0.mp4`, `1.mp4`, ... of
    600 s) is one recording, the folder: times are of the whole video.
    """

    name = "egoclip"
    title = "EgoClip (Ego4D)"
    domain = "egocentric"
    grouped_by = "videos"
    suffixes = (".mp4",)

    @classmethod
    def matches(cls, root: Path) -> bool:
        return {"video_uid", "clip_start", "clip_text"} <= header_of(root / TABLE, "\t")

    def tasks(self) -> dict[str, TaskSettings]:
        return {label: TaskSettings(kind="presence", column=label, aliases=(TAGS[label],)) for label in TAGS}

    @property
    def span_labels(self) -> tuple[str, ...]:
        return tuple(TAGS)

    @cached_property
    def _videos(self) -> dict[str, str]:
        """Path by video_uid: of a file, or of the folder of its chunks."""
        found: dict[str, str] = {}
        chunks: dict[str, int] = {}
        for path in reversed(self.files):
            folder, _, name = path.rpartition("/")
            if name.lower().endswith(".mp4") and folder and name[:-4].isdigit():
                chunks[folder] = chunks.get(folder, 0) + 1
                found[folder.rsplit("/", 1)[-1]] = folder if chunks[folder] > 1 else path
            elif name.lower().endswith(".mp4"):
                found[name[:-4]] = path
        return found

    def _read(self, notes: Notes) -> Iterator[Recording]:
        seen: set[str] = set()
        for row in read_table(self.root / TABLE, ["video_uid"], delimiter="\t", notes=notes):
            uid = row.cells["video_uid"]
            if uid not in seen:
                seen.add(uid)
                path = self._videos.get(uid, f"{uid}.mp4")
                yield Recording(path=path, group=f"ego4d/{uid}", listed=row.where)

    def _clips(
        self, columns: list[str], present: Mapping[str, Recording], notes: Notes
    ) -> Iterator[tuple[str, float, float, Row]]:
        """path, start and end of every clip in a video on disk."""
        for row in read_table(self.root / TABLE, columns, delimiter="\t", notes=Notes()):
            path = self._videos.get(row.cells["video_uid"], "")
            if path not in present:
                continue
            start, end = row.needed("clip_start"), row.needed("clip_end")
            if start < 0:
                notes.add("a clip that starts before 0: starts at 0", row.where)
                start = 0.0
            if end <= start:
                notes.add("a clip that ends before it starts", row.where)
                continue
            yield path, start, end, row

    def _texts(self, present: Mapping[str, Recording], notes: Notes) -> Iterator[Text]:
        for path, start, end, row in self._clips(COLUMNS, present, notes):
            yield Text(path, start, end, row.cells["clip_text"], row.cells["narration_source"])

    def _spans(self, label: str, present: Mapping[str, Recording], notes: Notes) -> Iterator[Span]:
        column = TAGS[label]
        for path, start, end, row in self._clips([*COLUMNS, column], present, Notes()):
            moment = "/".join(row.cells[name] for name in ("video_uid", "narration_source", "narration_ind"))
            tags = _tags(row, column)
            if not tags:
                notes.add(f"no '{column}'", row.where)
            for tag in tags:
                yield Span(path, start, end, label, str(tag), moment)


def _tags(row: Row, column: str) -> list[int]:
    """The numbers of a cell such as "[93, 12]"."""
    cell = row.text(column)
    try:
        tags = ast.literal_eval(cell) if cell else []
    except (ValueError, SyntaxError):
        tags = None
    if not isinstance(tags, list) or not all(isinstance(tag, int) for tag in tags):
        raise DataError(f"'{column}' is no list of numbers: '{cell}'", where=row.where)
    return tags
