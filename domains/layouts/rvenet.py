"""RVENet: apical four-chamber DICOM videos with ejection fraction of the right ventricle (Magyar et al., ECCV
workshops 2022)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from domains.base import TaskSettings
from domains.layouts.base import Layout, Notes, Recording, official
from domains.layouts.echo import bare, numbers, percent, table_rows
from domains.layouts.tables import Row, header_of, read_table


class RVENet(Layout):
    """`codebook.csv`: FileName, UltrasoundSystem, RVEF, split and others; DICOM files.

    rvef in percent. The reference abbreviates the columns and does not name one for the patient: `PatientHash` is
    taken where there is one, else a file stands for itself (and a note says so). Files are looked for by name, with
    or without .dcm, in whatever folder.
    """

    name = "rvenet"
    title = "RVENet"
    domain = "echo"
    grouped_by = "patients"
    suffixes = (".dcm",)
    split_names = ("official",)

    @classmethod
    def matches(cls, root: Path) -> bool:
        return {"filename", "ultrasoundsystem", "rvef"} <= header_of(root / "codebook.csv")

    def tasks(self) -> dict[str, TaskSettings]:
        return {"rvef": TaskSettings(kind="regression", column="rvef", aliases=("RVEF",), unit="%", range=(0, 100))}

    @cached_property
    def _rows(self) -> list[Row]:
        columns = ["FileName", "UltrasoundSystem", "RVEF", "split"]
        return table_rows(read_table(self.root / "codebook.csv", columns, optional=["PatientHash"]), "FileName")

    @cached_property
    def _places(self) -> dict[str, str]:
        return {bare(path.rsplit("/", 1)[-1]): path for path in reversed(self.files) if not path.endswith(".csv")}

    def _read(self, notes: Notes) -> Iterator[Recording]:
        factors = {"RVEF": percent(self._rows, "RVEF", notes, self.root / "codebook.csv")}
        for row in self._rows:
            name = bare(row.cells["FileName"])
            patient = row.text("PatientHash") if "PatientHash" in row.cells else ""
            if not patient:
                notes.add("no PatientHash: the file stands for itself", row.where)
            part = row.part("split")
            labels = numbers(row, {"RVEF": "rvef"}, notes, factors)
            if system := row.text("UltrasoundSystem"):
                labels["ultrasound_system"] = system
            yield Recording(
                path=self._places.get(name, f"{name}.dcm"),
                group=f"{self.name}/{patient or name}",
                splits=official(part),
                labels={"view": "A4C", **labels},
                listed=row.where,
            )
