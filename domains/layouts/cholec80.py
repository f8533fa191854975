"""Cholec80: 80 laparoscopic cholecystectomies with phases and tools (Twinanda et al., IEEE TMI 2017)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from domains.base import TaskSettings
from domains.layouts.base import Recording, Span
from domains.layouts.cholec import CHOLEC80, PHASES, procedure
from domains.layouts.numbered import NumberedLayout
from domains.layouts.tables import Frame, active, read_table, runs, whole

TOOLS = ("Grasper", "Bipolar", "Hook", "Scissors", "Clipper", "Irrigator", "SpecimenBag")
RATE = 25.0  # of the videos and of the frame numbers in both tables
TOOL_EVERY = 25  # frames between two lines of a tool table


class Cholec80(NumberedLayout):
    """`videos/videoXX.mp4`, `phase_annotations/videoXX-phase.txt` (every frame), `tool_annotations/videoXX-tool.txt`
    (every 25th), tab-separated.

    Frames count from 0 at 25 a second in both tables; a line of tools holds for the second from its frame on. Phases
    go by name. Two official splits: "40/40" (train 1-40, test 41-80) and "40/8/32" (train 1-40, val 41-48, test
    49-80). CholecT45 and T50 show the same procedures: the groups say so.
    """

    name = "cholec80"
    title = "Cholec80"
    domain = "surgical"
    grouped_by = "procedures"
    suffixes = (".mp4",)
    split_names = ("40/40", "40/8/32")
    video = re.compile(r"videos/video(\d\d)\.mp4")
    video_path = "videos/video{number:02d}.mp4"
    fps = RATE
    first_table = "phase_annotations/videoXX-phase.txt"
    annotations = {  # noqa: RUF012  ClassVar by the base
        "phase": re.compile(r"phase_annotations/video(\d\d)-phase\.txt"),
        "tool": re.compile(r"tool_annotations/video(\d\d)-tool\.txt"),
    }

    @classmethod
    def matches(cls, root: Path) -> bool:
        return (root / "phase_annotations").is_dir() and any((root / "phase_annotations").glob("video*-phase.txt"))

    def tasks(self) -> dict[str, TaskSettings]:
        return {
            "phase": TaskSettings(kind="phases", column="phase", classes=PHASES),
            "tool": TaskSettings(kind="presence", column="tool", classes=TOOLS),
        }

    def _group(self, number: int) -> str:
        return procedure(number)

    def _parts(self, number: int) -> dict[str, str]:
        if number not in CHOLEC80:
            return {}
        halves = "train" if number <= 40 else "test"
        return {"40/40": halves, "40/8/32": "val" if 41 <= number <= 48 else halves}

    def _spans_of(self, label: str, recording: Recording, table: str) -> list[Span]:
        read = self._phases if label == "phase" else self._tools
        every = 1 if label == "phase" else TOOL_EVERY
        return runs(recording.path, label, read(self.root / table), RATE, every)

    @staticmethod
    def _phases(table: Path) -> Iterator[Frame]:
        for row in read_table(table, ["Frame", "Phase"], delimiter="\t"):
            frame = whole(row.cells["Frame"], "'Frame'", row.where)
            yield Frame(row.where, frame, (row.one_of("Phase", PHASES),))

    @staticmethod
    def _tools(table: Path) -> Iterator[Frame]:
        for row in read_table(table, ["Frame", *TOOLS], delimiter="\t"):
            frame = whole(row.cells["Frame"], "'Frame'", row.where)
            yield Frame(row.where, frame, active([row.cells[tool] for tool in TOOLS], TOOLS, row.where))
