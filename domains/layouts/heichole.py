"""HeiChole: 24 cholecystectomies with phases, instruments, actions and skill (Wagner et al., Medical Image Analysis
2023)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from domains.base import TaskSettings
from domains.errors import DataError
from domains.layouts.base import Notes, Recording, Span, Value
from domains.layouts.cholec import PHASES
from domains.layouts.numbered import NumberedLayout
from domains.layouts.tables import Frame, active, class_name, number, read_plain, runs, whole
from domains.media import open_reader

UNUSED = "reserved"  # columns of the instrument table that stand for nothing
SHAFT = "undefined instrument shaft"
INSTRUMENTS = ("grasper", "clipper", "coagulation", "scissors", "suction-irrigation", "specimen bag", "stapler")
INSTRUMENT_COLUMNS = (*INSTRUMENTS, *[UNUSED] * 13, SHAFT)  # 21 categories, 0 to 20
ACTIONS = ("grasp", "hold", "cut", "clip")
SKILLS = ("depth_perception", "bimanual_dexterity", "efficiency", "tissue_handling", "case_difficulty")
RATES = (25.0, 50.0)


class HeiChole(NumberedLayout):
    """`Annotations/{Phase,Instrument,Action,Skill}/Hei-CholeN_Annotation_*.csv` without header, and videos named
    Hei-CholeN.mp4 or HeiCholeN.mp4.

    Frames count from 0 at the rate of the video: some have 50 fps, the rest 25, so the rate is read from the video
    itself. There is no official split of the public videos (the challenge's test set is withheld). The reference does
    not say what the columns are; here they are as in the data set's README: phase 0-6 as in CholecT50; 21 instrument
    categories of which 7-19 are reserved; grasp, hold, cut, clip; five skills from 1 to 5 on one line of
    `Hei-CholeN_Annotation_Skill.csv`. The detailed tables and the skill of single phases are not read.
    """

    opens_recordings = True
    name = "heichole"
    title = "HeiChole"
    domain = "surgical"
    grouped_by = "procedures"
    suffixes = (".mp4",)
    video = re.compile(r"(?:.*/)?[Hh]ei-?[Cc]hole(\d+)\.mp4")
    video_path = "Videos/Hei-Chole{number}.mp4"
    first_table = "Annotations/Phase/Hei-CholeN_Annotation_Phase.csv"
    annotations = {  # noqa: RUF012
        kind.lower(): re.compile(rf"Annotations/{kind}/[Hh]ei-[Cc]hole(\d+)_[Aa]nnotation_{kind}\.csv", re.IGNORECASE)
        for kind in ("Phase", "Instrument", "Action")
    }
    skill = re.compile(r"Annotations/Skill/Hei-Chole(\d+)_Annotation_Skill\.csv", re.IGNORECASE)

    @classmethod
    def matches(cls, root: Path) -> bool:
        return (root / "Annotations").is_dir() and any((root / "Annotations").glob("*/[Hh]ei-[Cc]hole*.csv"))

    def tasks(self) -> dict[str, TaskSettings]:
        at_once = {"instrument": (*INSTRUMENTS, SHAFT), "action": ACTIONS}
        spans = {label: TaskSettings(kind="presence", column=label, classes=names) for label, names in at_once.items()}
        phase = {"phase": TaskSettings(kind="phases", column="phase", classes=PHASES)}
        return phase | spans | {name: TaskSettings(kind="regression", column=name, range=(1, 5)) for name in SKILLS}

    def _group(self, number: int) -> str:
        return f"{self.name}/{number}"

    def _parts(self, number: int) -> dict[str, str]:
        return {}

    def _labels(self, number_: int, notes: Notes) -> dict[str, Value]:
        tables = [path for path in self.files if (match := self.skill.fullmatch(path)) and int(match[1]) == number_]
        if not tables:
            notes.add("no Hei-CholeN_Annotation_Skill.csv: no skill", f"video {number_}")
            return {}
        where, cells = next(read_plain(self.root / tables[0]), ("", []))
        if len(cells) != len(SKILLS):
            what = f"{len(cells)} numbers where there should be {len(SKILLS)}"
            raise DataError(what, where=where or self.root / tables[0])
        return {name: number(cell, name, where) for name, cell in zip(SKILLS, cells, strict=True)}

    def _spans_of(self, label: str, recording: Recording, table: str) -> list[Span]:
        return runs(recording.path, label, self._frames(label, self.root / table), self._rate(recording.path))

    @staticmethod
    def _frames(label: str, table: Path) -> Iterator[Frame]:
        for where, (frame, *cells) in read_plain(table):
            at = whole(frame, "the frame", where)
            if label == "phase":
                if len(cells) != 1:
                    raise DataError(f"{len(cells)} columns after the frame where there should be 1", where=where)
                yield Frame(where, at, (class_name(cells[0], PHASES, "the phase", where),))
            else:
                values = active(cells, ACTIONS if label == "action" else INSTRUMENT_COLUMNS, where)
                if UNUSED in values:
                    raise DataError("a reserved category (7 to 19) is on", where=where)
                yield Frame(where, at, values)

    def _rate(self, path: str) -> float:
        """Frames a second of a video, which is what its annotation counts."""
        with open_reader(self.root / path) as reader:
            rate = min(RATES, key=lambda rate: abs(rate - (reader.fps or 0)))
            if reader.fps is None or abs(rate - reader.fps) > 0.1:
                told = "no frame rate" if reader.fps is None else f"{reader.fps:g} frames a second"
                do = "Its annotation counts frames at 25 or 50: use the video as it was downloaded"
                raise DataError(f"the video has {told}", where=self.root / path, do=do)
            return rate
