"""EchoNet-Dynamic: apical four-chamber videos with ejection fraction (Ouyang et al., Nature 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from domains.base import TaskSettings
from domains.layouts.base import Contour, Layout, Notes, Recording, Span, official
from domains.layouts.echo import Point, bare, echo_tasks, keyframes, numbers, percent, table_rows
from domains.layouts.tables import Row, header_of, read_table, whole

VOLUMES = {"EF": "ef", "ESV": "esv", "EDV": "edv"}


class EchoNetDynamic(Layout):
    """`FileList.csv` (FileName without ending), `VolumeTracings.csv` (FileName with .avi), `Videos/*.avi`.

    ef in percent, esv and edv in ml. Each video is of another patient, so the group is the file. The outline of a
    frame is made of its chords; the first row of a frame is the long axis and no part of it. Frames are 0-based. ED
    is the larger outline: the table does not say which is which.
    """

    name = "echonet-dynamic"
    title = "EchoNet-Dynamic"
    domain = "echo"
    grouped_by = "videos"
    suffixes = (".avi",)
    split_names = ("official",)

    @classmethod
    def matches(cls, root: Path) -> bool:
        return {"filename", "ef", "esv", "edv", "split"} <= header_of(root / "FileList.csv")

    def tasks(self) -> dict[str, TaskSettings]:
        return echo_tasks("ef", "esv", "edv")

    @property
    def span_labels(self) -> tuple[str, ...]:
        return ("keyframe",)

    @cached_property
    def _rows(self) -> list[Row]:
        columns = ["FileName", "EF", "ESV", "EDV", "FPS", "Split"]
        return table_rows(read_table(self.root / "FileList.csv", columns), "FileName")

    def _read(self, notes: Notes) -> Iterator[Recording]:
        factors = {"EF": percent(self._rows, "EF", notes, self.root / "FileList.csv")}
        for row in self._rows:
            name = bare(row.cells["FileName"])
            part = row.part("Split")
            yield Recording(
                path=f"Videos/{name}.avi",
                group=f"{self.name}/{name}",
                splits=official(part),
                labels={**numbers(row, VOLUMES, notes, factors), "view": "A4C"},
                fps=row.number("FPS"),
                listed=row.where,
            )

    def _contours(self, present: Mapping[str, Recording], notes: Notes) -> Iterator[Contour]:
        table = self.root / "VolumeTracings.csv"
        if not table.is_file():
            notes.add("no VolumeTracings.csv: no outlines, no keyframes")
            return
        chords: dict[tuple[str, int], list[tuple[Point, Point]]] = {}
        for row in read_table(table, ["FileName", "X1", "Y1", "X2", "Y2", "Frame"]):
            key = f"Videos/{bare(row.cells['FileName'])}.avi", whole(row.cells["Frame"], "'Frame'", row.where)
            ends = (row.needed("X1"), row.needed("Y1")), (row.needed("X2"), row.needed("Y2"))
            chords.setdefault(key, []).append(ends)
        for (path, frame), lines in chords.items():
            if path in present:
                sides = [start for start, _ in lines[1:]], [end for _, end in reversed(lines[1:])]
                yield Contour(path, frame, "left ventricle", (*sides[0], *sides[1]))

    def _spans(self, label: str, present: Mapping[str, Recording], notes: Notes) -> Iterator[Span]:
        rates = {path: recording.fps for path, recording in present.items() if recording.fps}
        return keyframes(self._contours(present, Notes()), present, rates, notes)
