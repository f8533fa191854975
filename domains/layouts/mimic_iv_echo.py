"""MIMIC-IV-ECHO: half a million DICOM files of 4,579 patients of one hospital (Gow et al., PhysioNet)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from domains.base import TaskSettings
from domains.errors import DataError
from domains.layouts.base import Layout, Notes, Recording, Value, digest
from domains.layouts.echo import echo_tasks
from domains.layouts.tables import header_of, read_table

RECORDS, STUDIES = "echo-record-list.csv", "echo-study-list.csv"
MEASUREMENTS = ("structured-measurement.csv.gz", "structured-measurement.csv")
NAMES = {"lvef": "ef"}  # measurements that have a name of ours


class MimicIvEcho(Layout):
    """`echo-record-list.csv` names `files/pNN/p<subject>/s<study>/<study>_<instance>.dcm`; `echo-study-list.csv`
    leads to measurements.

    Groups and events are digests of subject_id and study_id: no message can show them; paths in `missing` and
    `unlisted` do hold them. Labels are those of the study, by the name of the measurement in lower case (lvef is ef,
    in percent). There is no official split; nothing tells stills (about 42 %) from cines but the file. note_id leads
    to reports in MIMIC-IV-Note, which is another download: no text here. The reference does not list the columns of
    structured-measurement.csv.gz; measurement_id, measurement and result are those of version 1.0.
    """

    name = "mimic-iv-echo"
    title = "MIMIC-IV-ECHO"
    domain = "echo"
    grouped_by = "patients"
    suffixes = (".dcm",)

    @classmethod
    def matches(cls, root: Path) -> bool:
        return {"subject_id", "study_id", "dicom_filepath"} <= header_of(root / RECORDS)

    def tasks(self) -> dict[str, TaskSettings]:
        return echo_tasks("ef")

    def _read(self, notes: Notes) -> Iterator[Recording]:
        measured = self._measured(notes)
        for row in read_table(self.root / RECORDS, ["subject_id", "study_id", "dicom_filepath"]):
            path, study = row.text("dicom_filepath"), row.text("study_id")
            if not path or not row.text("subject_id"):
                raise DataError("a record without file or subject", where=row.where)
            yield Recording(
                path=path.lstrip("/"),
                group=f"{self.name}/{digest(row.cells['subject_id'])}",
                labels=measured.get(study, {}),
                event=f"{self.name}/{digest(study)}" if study else "",
                listed=row.where,
            )

    @cached_property
    def _study_of(self) -> dict[str, str]:
        """measurement_id -> study_id."""
        rows = read_table(self.root / STUDIES, ["study_id", "measurement_id"])
        return {row.text("measurement_id"): row.text("study_id") for row in rows if row.text("measurement_id")}

    def _measured(self, notes: Notes) -> dict[str, dict[str, Value]]:
        """Measurements by study. The table holds those of all studies of the hospital: only the listed ones are
        kept."""
        table = next((self.root / name for name in MEASUREMENTS if (self.root / name).is_file()), None)
        if table is None or not (self.root / STUDIES).is_file():
            notes.add("no structured-measurement.csv.gz or no echo-study-list.csv: no labels")
            return {}
        found: dict[str, dict[str, Value]] = {}
        for row in read_table(table, ["measurement_id", "measurement", "result"]):
            study = self._study_of.get(row.text("measurement_id"))
            name = row.text("measurement").lower()
            if study is None or not name:
                continue
            if not row.text("result"):
                notes.add("a measurement without a result", row.where)
                continue
            name = NAMES.get(name, name)
            value: Value = row.needed("result") if name == "ef" else _number_or_word(row.text("result"))
            labels = found.setdefault(study, {})
            if labels.setdefault(name, value) != value:
                notes.add("a second, other measurement of the same kind: the first holds", row.where)
        return found


def _number_or_word(cell: str) -> Value:
    """Results are widths and grades alike: what reads as a finite number is one."""
    try:
        value = float(cell)
    except ValueError:
        return cell
    return value if math.isfinite(value) else cell
