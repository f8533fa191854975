"""TMED-2: stills of the heart labelled by view and severity of aortic stenosis (Huang et al., 2022)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from domains.base import TaskSettings
from domains.layouts.base import Layout, Notes, Recording, Value, official
from domains.layouts.tables import PARTS, Row, header_of, known, read_table

VIEWS = ("PLAX", "PSAX", "A4C", "A2C", "A4CorA2CorOther")
DIAGNOSES = ("no_AS", "mild_AS", "mildtomod_AS", "moderate_AS", "severe_AS")
NOT_GIVEN = ("", "Not_Provided", "not_provided")
NAME = re.compile(r"(\d+)s(\d+)_\d+\.png")  # <patient>s<study>_<picture>.png


class Tmed2(Layout):
    """`labels_per_image.csv`: query_key (a picture's file name), view_label, diagnosis_label,
    diagnosis_classifier_split; folders of png.

    Every recording is one still. Not_Provided is no label, and a split that is none of train, val, test is none. The
    patient is the number before the "s" of the name, the study all before the "_". Folders are not in the table: a
    picture is looked for by name; of several with one name that of the column SourceFolder holds, else the first,
    with a note.
    """

    name = "tmed2"
    title = "TMED-2"
    domain = "echo"
    grouped_by = "patients"
    suffixes = (".png",)
    split_names = ("official",)

    @classmethod
    def matches(cls, root: Path) -> bool:
        return {"query_key", "view_label", "diagnosis_label"} <= header_of(root / "labels_per_image.csv")

    def tasks(self) -> dict[str, TaskSettings]:
        return {
            "view": TaskSettings(kind="classification", column="view", aliases=("view_label",), classes=VIEWS),
            "diagnosis": TaskSettings(
                kind="classification", column="diagnosis", aliases=("diagnosis_label",), classes=DIAGNOSES
            ),
        }

    @cached_property
    def _places(self) -> dict[str, list[str]]:
        places: dict[str, list[str]] = {}
        for path in self.files:
            if path.lower().endswith(".png"):
                places.setdefault(path.rsplit("/", 1)[-1], []).append(path)
        return places

    def _read(self, notes: Notes) -> Iterator[Recording]:
        columns = ["query_key", "view_label", "diagnosis_label", "diagnosis_classifier_split"]
        for row in read_table(self.root / "labels_per_image.csv", columns, optional=["SourceFolder"]):
            name = row.cells["query_key"]
            match = NAME.fullmatch(name)
            if match is None:
                notes.add("file name does not tell the patient: the picture stands for itself", row.where)
            part = row.cells["diagnosis_classifier_split"].lower()
            if part not in PARTS:
                notes.add(f"split '{part}' is none of train, val, test", row.where)
            yield Recording(
                path=self._place(name, row, notes),
                group=f"{self.name}/{match.group(1) if match else name}",
                splits=official(PARTS.get(part, "")),
                labels=_labels(row),
                media="still",
                event=f"{self.name}/{name.split('_')[0]}",
                listed=row.where,
            )

    def _place(self, name: str, row: Row, notes: Notes) -> str:
        places = self._places.get(name, [])
        folder = row.cells.get("SourceFolder", "").strip("/")
        if folder:
            places = [path for path in places if path.rsplit("/", 1)[0].endswith(folder)] or [f"{folder}/{name}"]
        if len(places) > 1:
            notes.add("several pictures of one name: the first holds", row.where)
        return places[0] if places else name


def _labels(row: Row) -> dict[str, Value]:
    labels: dict[str, Value] = {}
    for column, label, classes in (("view_label", "view", VIEWS), ("diagnosis_label", "diagnosis", DIAGNOSES)):
        if row.cells[column] not in NOT_GIVEN:
            labels[label] = known(row.cells[column], classes, f"'{column}'", row.where)
    return labels
