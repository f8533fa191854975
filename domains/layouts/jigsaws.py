"""JIGSAWS: suturing, knot tying and needle passing on a da Vinci, with gestures and skill (Gao et al., M2CAI 2014)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from domains.base import TaskSettings
from domains.errors import DataError
from domains.layouts.base import Layout, Notes, Recording, Span, Text, Value
from domains.layouts.tables import known, number, read_plain, whole

TASKS = ("Suturing", "Knot_Tying", "Needle_Passing")
SURGEONS = "BCDEFGHI"
GESTURES = {
    "G1": "reaching for needle with right hand", "G2": "positioning needle", "G3": "pushing needle through tissue",
    "G4": "transferring needle from left to right", "G5": "moving to center with needle in grip",
    "G6": "pulling suture with left hand", "G7": "pulling suture with right hand", "G8": "orienting needle",
    "G9": "using right hand to help tighten suture", "G10": "loosening more suture",
    "G11": "dropping suture at end and moving to end points", "G12": "reaching for needle with left hand",
    "G13": "making C loop around right hand", "G14": "reaching for suture with right hand",
    "G15": "pulling suture with both hands",
}  # fmt: skip
SKILLS = {"N": "novice", "I": "intermediate", "E": "expert"}
ELEMENTS = (
    "respect_for_tissue", "suture_needle_handling", "time_and_motion", "flow_of_operation", "overall_performance",
    "quality_of_final_product",
)  # fmt: skip
RATE = 30.0
VIDEO = re.compile(r"(Suturing|Knot_Tying|Needle_Passing)/video/(\1_([A-Z])\d{3})_capture([12])\.avi")
TRANSCRIPTION = re.compile(r"(Suturing|Knot_Tying|Needle_Passing)/transcriptions/(\1_([A-Z])\d{3})\.txt")


class Jigsaws(Layout):
    """`<Task>/video/<trial>_capture{1,2}.avi`, `<Task>/transcriptions/<trial>.txt` (start end Gk),
    `<Task>/meta_file_<Task>.txt`.

    A trial has two synchronous cameras (event: the trial). The group is the surgeon: splits leave one out (out-B
        tests B, the others train). A label of a trial holds for both cameras: skill (self-proclaimed), grs (sum of
        six elements from 1 to 5), the elements. The reference does not say how frames
    count: as kinematics do, at 30 a second, from 1, the end included. Columns of the meta file are apart by any white
        space (some tabs are double).
    """

    name = "jigsaws"
    title = "JIGSAWS"
    domain = "surgical"
    grouped_by = "surgeons"
    suffixes = (".avi",)
    changes = {"out_of_body": "keep", "store": {"rate": 5.0}}  # noqa: RUF012  a bench, no body; gestures of seconds
    split_names = tuple(f"out-{surgeon}" for surgeon in SURGEONS)

    @classmethod
    def matches(cls, root: Path) -> bool:
        return any((root / task / f"meta_file_{task}.txt").is_file() for task in TASKS)

    def tasks(self) -> dict[str, TaskSettings]:
        elements = {name: TaskSettings(kind="regression", column=name, range=(1, 5)) for name in ELEMENTS}
        return {
            "gesture": TaskSettings(kind="phases", column="gesture", classes=tuple(GESTURES)),
            "skill": TaskSettings(kind="classification", column="skill", classes=tuple(SKILLS.values())),
            "grs": TaskSettings(kind="regression", column="grs", range=(6, 30)),
            **elements,
        }

    @property
    def span_labels(self) -> tuple[str, ...]:
        return ("gesture",)

    @cached_property
    def _skill(self) -> dict[str, tuple[str, dict[str, Value]]]:
        """where and labels by trial."""
        found: dict[str, tuple[str, dict[str, Value]]] = {}
        for task in TASKS:
            table = self.root / task / f"meta_file_{task}.txt"
            if not (self.root / task).is_dir():
                continue
            for where, cells in read_plain(table, None):
                if len(cells) != 3 + len(ELEMENTS):
                    what = f"{len(cells)} columns where there should be {3 + len(ELEMENTS)}"
                    raise DataError(f"{what} (trial, skill, GRS, six elements)", where=where)
                trial, skill, *scores = cells
                names = ("grs", *ELEMENTS)
                labels: dict[str, Value] = {"skill": SKILLS[known(skill, SKILLS, "the skill", where)]}
                labels |= {name: number(cell, name, where) for name, cell in zip(names, scores, strict=True)}
                found[trial] = where, labels
        return found

    @cached_property
    def _transcriptions(self) -> dict[str, str]:
        matches = (TRANSCRIPTION.fullmatch(path) for path in self.files)
        return {match.group(2): match.group(0) for match in matches if match}

    def _read(self, notes: Notes) -> Iterator[Recording]:
        if not self._skill:
            raise DataError(
                "no <Task>/meta_file_<Task>.txt", where=self.root, do="Give the folder that holds the tasks"
            )
        cameras = {match.group(0) for path in self.files if (match := VIDEO.fullmatch(path))}
        for trial in [*self._skill, *self._transcriptions]:
            task = next((task for task in TASKS if trial.startswith(f"{task}_")), "")
            cameras |= {f"{task}/video/{trial}_capture{camera}.avi" for camera in "12"}
        for path in sorted(cameras):
            match = VIDEO.fullmatch(path)
            if match is None:
                raise DataError("a trial that is no trial of JIGSAWS", where=self.root / path)
            trial, surgeon, camera = match.group(2), match.group(3), match.group(4)
            where, labels = self._skill.get(trial, ("", {}))
            if not where:
                notes.add("not in the meta file: no skill", path)
            yield Recording(
                path=path,
                group=f"{self.name}/{surgeon}",
                splits={name: "test" if name == f"out-{surgeon}" else "train" for name in self.split_names},
                labels=labels,
                fps=RATE,
                event=trial,
                camera=f"capture{camera}",
                offset=0.0,
                listed=where,
            )

    def _spans(self, label: str, present: Mapping[str, Recording], notes: Notes) -> Iterator[Span]:
        for path, recording in present.items():
            table = self._transcriptions.get(recording.event)
            if table is None:
                notes.add("no transcription", path)
                continue
            for where, cells in read_plain(self.root / table, None):
                if len(cells) != 3:
                    raise DataError(f"{len(cells)} columns where there should be 3 (start end Gk)", where=where)
                first, last = (whole(cell, "the frame", where) for cell in cells[:2])
                if not 1 <= first <= last:
                    raise DataError(f"frames {first} to {last} are no stretch (they count from 1)", where=where)
                value = known(cells[2], GESTURES, "the gesture", where)
                yield Span(path, (first - 1) / RATE, last / RATE, label, value)

    def _texts(self, present: Mapping[str, Recording], notes: Notes) -> Iterator[Text]:
        """What each gesture is called."""
        for span in self._spans("gesture", present, Notes()):
            yield Text(span.recording, span.start, span.end, GESTURES[span.value], "gesture")
