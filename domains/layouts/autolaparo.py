"""AutoLaparo: phases of 21 laparoscopic hysterectomies (Wang et al., MICCAI 2022)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from domains.base import TaskSettings
from domains.errors import DataError
from domains.layouts.base import Recording, Span, official
from domains.layouts.numbered import NumberedLayout
from domains.layouts.tables import Frame, class_name, header_of, read_table, runs, whole

PHASES = (
    "Preparation", "Dividing Ligament and Peritoneum", "Dividing Uterine Vessels and Ligament",
    "Transecting the Vagina", "Specimen Removal", "Suturing", "Washing",
)  # fmt: skip
RATE = 1.0
PARTS = {"train": range(1, 11), "val": range(11, 15), "test": range(15, 22)}


class AutoLaparo(NumberedLayout):
    """`labels/label_XX.txt` (tab-separated Frame, Phase at 1 fps, frames from 1) and `videos/XX.mp4`.

    Frame n is the second that begins at n - 1. Releases number the phases 1-7 or 0-6: which one it is shows in all
    label files together, since a single video need not have the first or the last phase. The reference names neither
    the phases (those here are of the data set's README) nor the folder of the videos: any .mp4 named by its number is
    taken.
    """

    name = "autolaparo"
    title = "AutoLaparo"
    domain = "surgical"
    grouped_by = "procedures"
    suffixes = (".mp4",)
    split_names = ("official",)
    video = re.compile(r"(?:.*/)?(?:video_?)?(\d\d)\.mp4")
    video_path = "videos/{number:02d}.mp4"
    first_table = "labels/label_XX.txt"
    annotations = {"phase": re.compile(r"labels/label_(\d\d)\.txt")}  # noqa: RUF012

    @classmethod
    def matches(cls, root: Path) -> bool:
        tables = sorted((root / "labels").glob("label_[0-9][0-9].txt"))[:1]  # many sets have such a folder: look inside
        return any({"frame", "phase"} <= header_of(table, "\t") for table in tables)

    def tasks(self) -> dict[str, TaskSettings]:
        return {"phase": TaskSettings(kind="phases", column="phase", classes=PHASES)}

    def _group(self, number: int) -> str:
        return f"{self.name}/{number:02d}"

    def _parts(self, number: int) -> dict[str, str]:
        part = next((part for part, numbers in PARTS.items() if number in numbers), "")
        return official(part)

    @cached_property
    def _first(self) -> int:
        """The number of the first phase in this release: 0 or 1."""
        used = {phase for table in self._tables["phase"].values() for _, _, phase in self._lines(self.root / table)}
        if 0 in used and len(PHASES) in used:
            raise DataError("phases 0 and 7 are both used", where=self.root / "labels", do="Keep files of one release")
        if 0 not in used and len(PHASES) not in used:
            do = "Add the other label files: 0 or 7 must occur"
            raise DataError("phases may count from 0 or from 1", where=self.root / "labels", do=do)
        return 0 if 0 in used else 1

    @staticmethod
    def _lines(table: Path) -> Iterator[tuple[str, int, int]]:
        """where, frame, phase: both as numbered in the file."""
        for row in read_table(table, ["Frame", "Phase"], delimiter="\t"):
            frame, phase = (whole(row.cells[column], f"'{column}'", row.where) for column in ("Frame", "Phase"))
            if frame < 1:
                raise DataError("frame 0; AutoLaparo counts from 1", where=row.where)
            yield row.where, frame, phase

    def _spans_of(self, label: str, recording: Recording, table: str) -> list[Span]:
        lines = self._lines(self.root / table)
        frames = (
            Frame(where, frame - 1, (class_name(str(phase - self._first), PHASES, "'Phase'", where),))
            for where, frame, phase in lines
        )
        return runs(recording.path, label, frames, RATE)
