"""EchoNet-LVH: parasternal long-axis videos with wall thickness and diameter of the left ventricle (Duffy et al.,
JAMA Cardiology 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

from domains.base import TaskSettings
from domains.errors import DataError
from domains.layouts.base import Contour, Layout, Notes, Recording, Value, official
from domains.layouts.echo import bare, table_rows
from domains.layouts.tables import Row, header_of, read_table, whole

CALCS = ("IVSd", "LVIDd", "LVIDs", "LVPWd")
COLUMNS = ["HashedFileName", "Calc", "CalcValue", "Frame", "X1", "X2", "Y1", "Y2", "FPS", "split"]


class EchoNetLVH(Layout):
    """`MeasurementsList.csv`, one line a measurement, several a file; `Batch1..4/*.avi`.

    Labels ivsd, lvidd, lvids, lvpwd are CalcValue as it is: centimetres by their size, the reference gives no unit.
    The table does not say in which batch a file lies: it is looked for. It names no patient, so a file stands for
    itself. A second, other measurement of the same kind in one file is passed over with a note; the split of all
    lines of a file must agree. Contours are calipers: two ends (pixels) in a frame (0-based).
    """

    name = "echonet-lvh"
    title = "EchoNet-LVH"
    domain = "echo"
    grouped_by = "videos"
    suffixes = (".avi",)
    split_names = ("official",)

    @classmethod
    def matches(cls, root: Path) -> bool:
        return {"hashedfilename", "calc", "calcvalue"} <= header_of(root / "MeasurementsList.csv")

    def tasks(self) -> dict[str, TaskSettings]:
        return {calc.lower(): TaskSettings(kind="regression", column=calc.lower(), unit="cm") for calc in CALCS}

    @cached_property
    def _rows(self) -> dict[str, list[Row]]:
        """Rows by file name without ending."""
        rows: dict[str, list[Row]] = {}
        for row in table_rows(read_table(self.root / "MeasurementsList.csv", COLUMNS), "HashedFileName"):
            rows.setdefault(bare(row.cells["HashedFileName"]), []).append(row)
        return rows

    @cached_property
    def _places(self) -> dict[str, str]:
        """Where a file lies, by name without ending."""
        return {bare(path.rsplit("/", 1)[-1]): path for path in reversed(self.files) if path.lower().endswith(".avi")}

    def _read(self, notes: Notes) -> Iterator[Recording]:
        for name, rows in self._rows.items():
            parts = {part for row in rows if (part := row.part("split"))}
            if len(parts) > 1:
                raise DataError(f"one file in the parts {', '.join(sorted(parts))}", where=rows[-1].where)
            yield Recording(
                path=self._places.get(name, f"{name}.avi"),
                group=f"{self.name}/{name}",
                splits=official("".join(parts)),
                labels={"view": "PLAX", **_measured(rows, notes)},
                fps=rows[0].number("FPS"),
                listed=rows[0].where,
            )

    def _contours(self, present: Mapping[str, Recording], notes: Notes) -> Iterator[Contour]:
        for name, rows in self._rows.items():
            path = self._places.get(name, "")
            if path not in present:
                continue
            for row in rows:
                if not all(row.text(column) for column in ("Frame", "X1", "Y1", "X2", "Y2")):
                    notes.add("a measurement without frame or ends: no caliper", row.where)
                    continue
                ends = (row.needed("X1"), row.needed("Y1")), (row.needed("X2"), row.needed("Y2"))
                yield Contour(path, whole(row.cells["Frame"], "'Frame'", row.where), row.one_of("Calc", CALCS), ends)


def _measured(rows: list[Row], notes: Notes) -> dict[str, Value]:
    labels: dict[str, Value] = {}
    for row in rows:
        calc, value = row.one_of("Calc", CALCS).lower(), row.number("CalcValue")
        if not calc or value is None:
            notes.add("a measurement without kind or value", row.where)
        elif labels.setdefault(calc, value) != value:
            notes.add("a second, other measurement of the same kind: the first holds", row.where)
    return labels
