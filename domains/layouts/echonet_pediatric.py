"""EchoNet-Pediatric: children's apical four-chamber and short-axis videos with ejection fraction (Reddy et al., JASE
2023)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from domains.base import TaskSettings
from domains.errors import DataError
from domains.layouts.base import Contour, Layout, Notes, Recording, Value
from domains.layouts.echo import Point, bare, echo_tasks, numbers, percent, table_rows
from domains.layouts.tables import Row, header_of, known, read_table, whole

VIEWS = ("A4C", "PSAX")
FOLDS = 10
# CR<patient>-CR<study>-<instance>: the first part is the same in both views and in several studies.
NAME = re.compile(r"(CR[0-9a-z]+)-(CR[0-9a-z]+)-\d+")
UNTRACED = ("No Systolic", "No Diastolic")


class EchoNetPediatric(Layout):
    """`{A4C,PSAX}/{FileList.csv,VolumeTracings.csv,Videos/*.avi}`; FileName with .avi, Split a fold from 0 to 9.

    There are ten official splits, fold0 to fold9: fold f is tested, fold f + 1 validates, the others train. ef in
    percent; age, weight and height are as the table has them (the reference does not give units). Patients are read
    from the first part of the file name, and may appear in both views; the folds of the two views were drawn apart as
    far as the reference says, so notes tell whose recordings stand on several sides. There is no frame rate in the
    tables: an outline is located by its frame (0-based), not in seconds. A frame "No Systolic" or "No Diastolic" has
    none.
    """

    name = "echonet-pediatric"
    title = "EchoNet-Pediatric"
    domain = "echo"
    grouped_by = "patients"
    suffixes = (".avi",)
    split_names = tuple(f"fold{fold}" for fold in range(FOLDS))

    @classmethod
    def matches(cls, root: Path) -> bool:
        return any({"filename", "ef", "split"} <= header_of(root / view / "FileList.csv") for view in VIEWS)

    def tasks(self) -> dict[str, TaskSettings]:
        view = TaskSettings(kind="classification", column="view", classes=VIEWS)
        return {**echo_tasks("ef"), "view": view}

    @cached_property
    def _tables(self) -> dict[str, list[Row]]:
        """Rows by view; one of the two views may not have been downloaded."""
        columns = ["FileName", "EF", "Sex", "Age", "Weight", "Height", "Split"]
        tables = {view: self.root / view / "FileList.csv" for view in VIEWS}
        there = {view: table for view, table in tables.items() if table.is_file()} or tables
        return {view: table_rows(read_table(table, columns), "FileName") for view, table in there.items()}

    def _read(self, notes: Notes) -> Iterator[Recording]:
        for view, rows in self._tables.items():
            factors = {"EF": percent(rows, "EF", notes, self.root / view / "FileList.csv")}
            for row in rows:
                name = bare(row.cells["FileName"])
                match = NAME.fullmatch(name)
                if match is None:
                    notes.add("file name does not tell the patient: the file stands for itself", row.where)
                yield Recording(
                    path=f"{view}/Videos/{name}.avi",
                    group=f"{self.name}/{match.group(1) if match else name}",
                    splits=_splits(row),
                    labels={"view": view, **_labels(row, notes, factors)},
                    event="-".join(match.groups()) if match else name,
                    camera=view,
                    listed=row.where,
                )

    def _contours(self, present: Mapping[str, Recording], notes: Notes) -> Iterator[Contour]:
        for view in self._tables:
            table = self.root / view / "VolumeTracings.csv"
            if not table.is_file():
                notes.add("no VolumeTracings.csv: no outlines", view)
                continue
            points: dict[tuple[str, int], list[Point]] = {}
            for row in read_table(table, ["FileName", "X", "Y", "Frame"]):
                if row.cells["Frame"] in UNTRACED:
                    notes.add(f"frame '{row.cells['Frame']}': no outline", row.where)
                    continue
                key = (
                    f"{view}/Videos/{bare(row.cells['FileName'])}.avi",
                    whole(row.cells["Frame"], "'Frame'", row.where),
                )
                points.setdefault(key, []).append((row.needed("X"), row.needed("Y")))
            for (path, frame), outline in points.items():
                if path in present:
                    yield Contour(path, frame, "left ventricle", tuple(outline))


def _splits(row: Row) -> dict[str, str]:
    if not row.text("Split"):
        return {}
    own = whole(row.cells["Split"], "'Split'", row.where)
    if own >= FOLDS:
        raise DataError(f"'Split' is {own}, not a fold from 0 to {FOLDS - 1}", where=row.where)
    parts = {own: "test", (own - 1) % FOLDS: "val"}
    return {f"fold{fold}": parts.get(fold, "train") for fold in range(FOLDS)}


def _labels(row: Row, notes: Notes, factors: Mapping[str, float]) -> dict[str, Value]:
    columns = {"EF": "ef", "Age": "age", "Weight": "weight", "Height": "height"}
    labels = numbers(row, columns, notes, factors)
    if sex := row.text("Sex"):
        labels["sex"] = known(sex, ("F", "M"), "'Sex'", row.where)
    return labels
