"""Public data sets into prepared folders: labels, official splits, spans, texts and views come along, under pseudonyms."""

import csv
import shutil
from pathlib import Path

import cv2
import pytest
from layout_factory import (
    PLAYERS,
    cholec80,
    cholect50,
    echonet_dynamic,
    echonet_pediatric,
    egoclip,
    table,
    write,
    x_ego,
)
from source_factory import cine, write_avi

from domains.base import Domain, RegionSettings, StoreSettings, TaskSettings
from domains.errors import ConfigError, DataError
from domains.layouts import open_layout
from domains.prepare.audit import audit
from domains.prepare.ingest import PrepareResult, check, prepare
from domains.prepare.privacy import Pseudonyms
from domains.store import annotated
from domains.store.labels import read_labels
from domains.store.prepared import Prepared

KEY = b"k" * 32
NAMES = Pseudonyms(KEY)
FIELD = Domain(
    name="field",
    title="Field",
    region=RegionSettings(policy="whole", text="keep"),
    store=StoreSettings(size=32),
    tasks={"view": TaskSettings(kind="classification", column="view")},
)


def film(path: Path, seed: int, frames: int = 12, fps: int = 25) -> None:
    write_avi(path, cine(frames, seed=seed)[:, ::4, ::4], fps)


def done(root: Path, out: Path, **options: object) -> tuple[PrepareResult, Prepared]:
    result = prepare(root, out, FIELD, key=KEY, layout=open_layout(root), **options)
    return result, Prepared.open(out)


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {row.pop("video_id"): row for row in csv.DictReader(file)}


def by_path(prepared: Prepared) -> dict[str, int]:
    """Pseudonym of the path -> row."""
    return {token: row for row, token in enumerate(prepared.column("source_path"))}


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PrepareResult, Prepared]:
    root = echonet_dynamic(tmp_path_factory.mktemp("in") / "EchoNet-Dynamic")
    for seed, name in enumerate(("0XAAA", "0XBBB", "0XZZZ")):
        film(root / f"Videos/{name}.avi", seed, fps=50)
    return root, *done(root, root.parent / "prepared")


def test_labels_splits_and_spans_stand_by_video_id(dynamic: tuple[Path, PrepareResult, Prepared]):
    _, result, prepared = dynamic
    assert (result.videos, result.patients, result.patients_from) == (2, 2, {"layout": 2})
    first, second = (by_path(prepared)[NAMES.token("path", f"Videos/{name}.avi")] for name in ("0XAAA", "0XBBB"))
    assert rows_of(prepared.folder / annotated.LABELS)[prepared.video_id(first)] == {
        "ef": "55.5", "esv": "40", "edv": "90", "view": "A4C",
    }  # fmt: skip
    parts = annotated.read_split(prepared, "official")
    assert (parts[first], parts[second]) == ("train", "val")
    # frames 46 (the larger outline: ED) and 61 at 50 a second
    found = annotated.spans(prepared, "keyframe")
    assert sorted((row, round(start, 3), value) for row, start, _, value, _ in found) == [
        (first, 0.92, "ED"),
        (first, 1.22, "ES"),
    ]
    assert not list(annotated.texts(prepared))
    assert prepared.row(first).patient == NAMES.token("patient", "echonet-dynamic/0XAAA")


def test_the_data_sets_frame_rate_wins_and_a_difference_is_noted(dynamic: tuple[Path, PrepareResult, Prepared]):
    prepared = dynamic[2]
    first, second = (by_path(prepared)[NAMES.token("path", f"Videos/{name}.avi")] for name in ("0XAAA", "0XBBB"))
    same, other = prepared.row(first), prepared.row(second)
    assert (same.fps, same.fps_source, same.note) == (50.0, "layout", "")
    assert other.fps == 25.0
    assert "50 frames a second in the file, 25 in the data set's table" in other.note


def test_what_the_tables_leave_out_is_not_prepared_and_is_told(dynamic: tuple[Path, PrepareResult, Prepared]):
    _, result, prepared = dynamic
    assert result.listed is not None
    told = {note.what: note.count for note in result.listed.notes}
    assert sum(told.values()) >= 2, told  # 0XCCC is not on disk, 0XZZZ in no table
    assert prepared.info["layout"]["notes"] == told
    assert not any("0X" in what for what in told)


def test_summary_and_tasks_are_the_data_sets(dynamic: tuple[Path, PrepareResult, Prepared]):
    prepared = dynamic[2]
    summary = prepared.summary()
    assert summary["data_set"] == "EchoNet-Dynamic"
    assert annotated.tasks(prepared)["ef"].unit == "%"
    assert annotated.task_of(prepared, "echo", "edv").unit == "ml"
    assert annotated.task_of(prepared, "echo", "view").kind == "classification"
    with pytest.raises(ConfigError, match="ef"):
        annotated.task_of(prepared, "echo", "eff")
    found = read_labels(annotated.labels_of(prepared, None), annotated.tasks(prepared)["ef"], prepared, None)
    assert sorted(found.values.tolist()) == [30.0, 55.5]


def test_no_name_of_the_source_is_left(dynamic: tuple[Path, PrepareResult, Prepared]):
    root, _, prepared = dynamic
    answer = audit(prepared.folder, root)
    names = {check.name: [(one.where, one.what) for one in check.found] for check in answer.checks}
    assert names["identifiers"] == []
    assert names["names of files"] == []
    assert names["manifest"] == []


def test_an_update_looks_at_nothing_again_and_takes_new_labels(tmp_path: Path):
    root = echonet_dynamic(tmp_path / "EchoNet-Dynamic")
    for seed, name in enumerate(("0XAAA", "0XBBB")):
        film(root / f"Videos/{name}.avi", seed)
    done(root, tmp_path / "out")
    listed = root / "FileList.csv"
    listed.write_text(listed.read_text(encoding="utf-8-sig").replace("55.5", "51.5"), encoding="utf-8")
    result, prepared = done(root, tmp_path / "out", update=True)
    assert result.reused == 2
    assert {row["ef"] for row in rows_of(prepared.folder / annotated.LABELS).values()} == {"51.5", "30"}


def test_a_view_that_is_also_the_name_of_a_folder_is_no_finding(tmp_path: Path):
    root = echonet_pediatric(tmp_path / "EchoNet-Pediatric")
    for seed, path in enumerate(sorted(root.rglob("*.avi"))):
        film(path, seed)
    result, prepared = done(root, tmp_path / "out")
    assert (result.videos, result.patients) == (3, 2)
    assert {row["view"] for row in rows_of(prepared.folder / annotated.LABELS).values()} == {"A4C", "PSAX"}
    answer = audit(prepared.folder, root)
    assert [one for check in answer.checks if check.name == "identifiers" for one in check.found] == []


def test_a_patient_on_both_sides_of_an_official_split_is_refused(tmp_path: Path):
    """CR1 stands in fold 0 with one view and in fold 3 with the other."""
    root = echonet_pediatric(tmp_path / "EchoNet-Pediatric")
    for seed, path in enumerate(sorted(root.rglob("*.avi"))):
        film(path, seed)
    _, prepared = done(root, tmp_path / "out")
    with pytest.raises(DataError, match=r"1 of 2 patients stand on more than one side of the official split 'fold0'"):
        annotated.read_split(prepared, "fold0")
    with pytest.raises(ConfigError, match="no official split 'fold10'"):
        annotated.read_split(prepared, "fold10")


def test_a_procedure_is_the_same_one_in_cholec80_and_cholect50(tmp_path: Path):
    first = cholec80(tmp_path / "cholec80", (12, 45))
    for seed, path in enumerate(sorted(first.rglob("*.mp4"))):
        film(path, seed)
    second = cholect50(tmp_path / "CholecT50", (12, 111))
    for number, folder in enumerate(sorted((second / "videos").iterdir())):
        for frame, picture in zip(sorted(folder.iterdir()), cine(11, seed=7 + number)[:, ::4, ::4], strict=True):
            cv2.imwrite(str(frame), picture)
    _, eighty = done(first, tmp_path / "p80")
    _, fifty = done(second, tmp_path / "p50")
    assert set(eighty.patients) & set(fifty.patients) == {NAMES.token("patient", "cholec80/12")}
    row = by_path(eighty)[NAMES.token("path", "videos/video12.mp4")]
    assert [entry[1:4] for entry in annotated.spans(eighty, "phase") if entry[0] == row] == [
        (0.0, 2.0, "Preparation"),
        (2.0, 4.0, "CalotTriangleDissection"),
    ]
    parts = annotated.read_split(eighty, "40/8/32")
    assert sorted(parts) == ["train", "val"]
    assert annotated.split_names(eighty) == ["40/40", "40/8/32"]
    with pytest.raises(ConfigError, match=r"no spans of 'phases'.*phase"):
        list(annotated.spans(eighty, "phases"))


def test_narrations_come_along_with_their_times(tmp_path: Path):
    root = egoclip(tmp_path / "ego")
    film(root / "v2/full_scale/u1.mp4", 3)
    _, prepared = done(root, tmp_path / "out")
    found = list(annotated.texts(prepared))
    assert found[0][0] == 0
    assert found[0][1:3] == pytest.approx((2.97, 3.72))
    assert found[0][3].startswith("#C C picks a cup")
    assert found[0][4] == "narration_pass_1"
    assert prepared.info["layout"]["texts"] == len(found)


def test_cameras_of_one_event_keep_their_offsets_and_lose_their_names(tmp_path: Path):
    root = x_ego(tmp_path / "x-ego")
    for seed, path in enumerate(sorted(root.rglob("*.mp4"))):
        film(path, seed)
    _, prepared = done(root, tmp_path / "out")
    views = rows_of(prepared.folder / annotated.VIEWS)
    assert len(views) == 4
    events = {row["event"] for row in views.values()}
    assert len(events) == 2
    assert len({row["camera"] for row in views.values()}) == 3
    assert sorted(row["offset"] for row in views.values()) == ["", "-0.5", "0.25", "0.25"]
    for path in prepared.folder.glob("*.csv"):
        assert not any(player in path.read_text() for player in PLAYERS)


def test_words_of_no_declared_task_stay_behind(tmp_path: Path):
    """A column of the data set that is free text may say anything about anybody."""
    root = echonet_dynamic(tmp_path / "EchoNet-Dynamic")
    film(root / "Videos/0XAAA.avi", 0)
    layout = open_layout(root)
    told = [one for one in layout.recordings() if one.path.endswith("0XAAA.avi")]
    for one in told:
        object.__setattr__(one, "labels", {**one.labels, "remark": "seen by Dr Miller", "age": 93.0})
    layout.recordings = lambda: iter(told)  # type: ignore[method-assign]
    result = prepare(root, tmp_path / "out", FIELD, key=KEY, layout=layout)
    assert result.listed is not None
    assert result.listed.withheld == {"remark": 1}
    (cells,) = rows_of(tmp_path / "out" / annotated.LABELS).values()
    assert cells["age"] == "90"
    assert "remark" not in cells


def test_tables_whose_recordings_are_not_on_disk_end_in_a_line(tmp_path: Path):
    root = write(tmp_path / "empty", {"FileList.csv": table("FileName,EF,ESV,EDV,FPS,Split", "0XA,50,1,2,50,TRAIN")})
    for run in (lambda: done(root, tmp_path / "out"), lambda: check(root, FIELD, layout=open_layout(root))):
        with pytest.raises(
            DataError, match="none of the 1 recordings that the tables of EchoNet-Dynamic name is on disk"
        ):
            run()
    assert not (tmp_path / "out").exists()


def test_check_looks_only_at_what_the_tables_name(dynamic: tuple[Path, PrepareResult, Prepared]):
    root = dynamic[0]
    looked = check(root, FIELD, layout=open_layout(root))
    assert [(one.source.name, one.row is not None) for one in looked] == [("0XAAA.avi", True), ("0XBBB.avi", True)]


def test_damaged_tables_are_told_from_missing_ones(dynamic: tuple[Path, PrepareResult, Prepared], tmp_path: Path):
    folder = shutil.copytree(dynamic[2].folder, tmp_path / "copy")
    prepared = Prepared.open(folder)
    (folder / annotated.SPLITS).write_text("video_id,official\nnobody,train\n")
    with pytest.raises(DataError, match=r"splits.csv cannot be read"):
        annotated.read_split(prepared, "official")
    (folder / annotated.SPANS).write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"spans.parquet cannot be read"):
        list(annotated.spans(prepared, "keyframe"))
    (folder / annotated.LABELS).unlink()
    with pytest.raises(ConfigError, match="none came with the recordings"):
        annotated.labels_of(prepared, None)
    assert annotated.labels_of(prepared, "x.csv") == Path("x.csv")
