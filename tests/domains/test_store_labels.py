import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from store_factory import make_prepared

from domains.base import TaskSettings
from domains.errors import DataError
from domains.prepare.privacy import Pseudonyms
from domains.store.labels import read_labels
from domains.store.manifest import INFO, MANIFEST, VideoRow, read_row, write_manifest
from domains.store.prepared import Prepared

KEY = b"k" * 32
EF = TaskSettings(kind="regression", column="ef", aliases=("EF",), unit="%", range=(0, 100))
VIEW = TaskSettings(kind="classification", column="view", aliases=("View",))


def named(row: VideoRow, number: int) -> VideoRow:
    """The row as `prepare` would write it for study<n>/<number>.avi of patient MRN-<patient>."""
    names, patient = Pseudonyms(KEY), number % 3
    return dataclasses.replace(
        row,
        patient=names.token("patient", f"MRN-{patient}"),
        study=names.token("study", f"1.2.{number // 2}"),
        instance=names.token("instance", f"1.2.3.{number}"),
        source_path=names.token("path", f"study{number // 2}/clip{number}.avi"),
        source_name=names.token("name", f"clip{number}"),
    )


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    """Six videos of three patients and three studies, whose pseudonyms come from KEY."""
    folder = tmp_path / "prepared"
    make_prepared(folder, videos=6, patients=3, frames=4, size=16)
    table = pq.read_table(folder / MANIFEST).to_pylist()
    rows = [named(read_row(values), number) for number, values in enumerate(table)]
    write_manifest(folder, rows)
    info = (folder / INFO).read_text()
    key = Prepared.open(folder).info["key"]
    (folder / INFO).write_text(info.replace(key, Pseudonyms(KEY).fingerprint))
    return Prepared.open(folder)


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("column", "spelling", "joined_on"),
    [
        ("FileName", "clip{n}", "file name"),
        ("filename", "clip{n}.avi", "file name"),
        ("path", "study{s}/clip{n}.avi", "relative path"),
        ("dicom_filepath", "/data/all/study{s}/clip{n}.avi", "relative path"),
        ("file", "study{s}\\clip{n}.avi", "relative path"),
        ("SOPInstanceUID", "1.2.3.{n}", "SOP instance UID"),
        ("whatever", "clip{n}", "file name"),
    ],
)
def test_original_identifiers_are_joined_with_the_key(tmp_path, prepared, column, spelling, joined_on):
    lines = "".join(f"{spelling.format(n=n, s=n // 2)},{10 * n}\n" for n in (5, 0, 3))
    labels = read_labels(table(tmp_path, f"{column},EF\n{lines}"), EF, prepared, KEY)
    assert labels.index.tolist() == [0, 3, 5]
    assert labels.values.tolist() == [0.0, 30.0, 50.0]
    assert labels.values.dtype == np.float64
    assert labels.patients == [prepared.patients[0], prepared.patients[0], prepared.patients[2]]
    assert labels.joined_on == joined_on
    assert (labels.unmatched, labels.unlabelled) == (0, 0)


def test_pseudonyms_need_no_key(tmp_path, prepared):
    ids = prepared.column("video_id")
    labels = read_labels(table(tmp_path, f"video_id,ef\n{ids[4]},41.5\n"), EF, prepared, None)
    assert (labels.index.tolist(), labels.values.tolist()) == ([4], [41.5])


def test_a_label_of_a_patient_or_study_holds_for_all_its_videos(tmp_path, prepared):
    labels = read_labels(table(tmp_path, "patient_id,ef\nMRN-1,30\nMRN-0,60\n"), EF, prepared, KEY)
    assert labels.index.tolist() == [0, 1, 3, 4]
    assert labels.values.tolist() == [60, 30, 60, 30]
    labels = read_labels(table(tmp_path, "study,ef\n1.2.2,20\n"), EF, prepared, KEY)
    assert labels.index.tolist() == [4, 5]


def test_the_finer_identifier_wins(tmp_path, prepared):
    text = "patient,file,ef\n" + "".join(f"MRN-{n % 3},clip{n},{n}\n" for n in range(6))
    labels = read_labels(table(tmp_path, text), EF, prepared, KEY)
    assert labels.values.tolist() == [0, 1, 2, 3, 4, 5]
    assert labels.joined_on == "file name"


def test_classes_are_sorted_or_those_of_the_task(tmp_path, prepared):
    path = table(tmp_path, "file;View\nclip1;PLAX\nclip0;A4C\nclip2;A4C\n")  # semicolons, as Excel writes them here
    labels = read_labels(path, VIEW, prepared, KEY)
    assert labels.classes == ("A4C", "PLAX")
    assert labels.values.tolist() == [0, 1, 0]
    assert labels.values.dtype == np.int64
    task = VIEW.model_copy(update={"classes": ("PLAX", "PSAX", "A4C")})
    assert read_labels(path, task, prepared, KEY).values.tolist() == [2, 0, 2]
    with pytest.raises(DataError, match=r"labels.csv:2: 'PLAX' is no class of 'view'"):
        read_labels(path, VIEW.model_copy(update={"classes": ("A4C", "A2C")}), prepared, KEY)


def test_rows_without_video_and_cells_without_value_are_counted(tmp_path, prepared):
    labels = read_labels(table(tmp_path, "file,ef\nclip0,50\nclip1,\nclip2,NaN\nelsewhere,3\n"), EF, prepared, KEY)
    assert (len(labels), labels.unmatched, labels.unlabelled) == (1, 1, 2)


@pytest.mark.parametrize(
    ("cell", "said"),
    [("140", "'ef' is 140, outside 0 to 100 %"), ("fifty", "'ef' is not a number: 'fifty'"), ("inf", "not a number")],
)
def test_impossible_values_are_named_by_line(tmp_path, prepared, cell, said):
    with pytest.raises(DataError) as caught:
        read_labels(table(tmp_path, f"file,ef\nclip0,50\nclip1,{cell}\n"), EF, prepared, KEY)
    assert str(caught.value).startswith(f"{tmp_path / 'labels.csv'}:3: ")
    assert said in str(caught.value)


def test_contradictions_are_named_and_repetitions_are_not(tmp_path, prepared):
    assert len(read_labels(table(tmp_path, "file,ef\nclip0,50\nclip0,50\n"), EF, prepared, KEY)) == 1
    with pytest.raises(DataError, match=r"csv:3: 'ef' is 51.0 here and 50.0 in line 2 for the same recording"):
        read_labels(table(tmp_path, "file,ef\nclip0,50\nclip0,51\n"), EF, prepared, KEY)


def test_a_missing_column_names_those_there_are(tmp_path, prepared):
    with pytest.raises(DataError, match=r"no column 'ef' \(columns: file, eff\). Did you mean 'eff'"):
        read_labels(table(tmp_path, "file,eff\nclip0,50\n"), EF, prepared, KEY)


def test_nothing_matches_says_how_many_and_shows_three_of_each(tmp_path, prepared):
    path = table(tmp_path, "file,ef\nP01_Meier.dcm,1\nP02_Huber.dcm,2\nb/c 3,3\nd,4\n")
    ids = prepared.column("video_id")
    with pytest.raises(DataError) as caught:
        read_labels(path, EF, prepared, KEY)
    said = str(caught.value)
    assert "0 of 4 rows match any of 6 recordings" in said
    assert "'file' is written like A99_Aaaaa.aaa, a/a 9;" in said
    assert not any(name in said for name in ("Meier", "Huber", "P01"))
    assert all(video_id in said for video_id in ids[:3])
    assert ids[3] not in said
    assert "Name recordings by" in said


def test_the_key_is_asked_for_and_a_wrong_one_is_recognised(tmp_path, prepared):
    path = table(tmp_path, "file,ef\nclip0,1\n")
    with pytest.raises(DataError, match="matched with the key used by 'vfm data prepare': --key FILE"):
        read_labels(path, EF, prepared, None)
    with pytest.raises(DataError, match="The key is not the one"):
        read_labels(path, EF, prepared, b"x" * 32)


def test_a_file_name_that_two_recordings_bear_labels_neither(tmp_path, prepared):
    rows = [prepared.row(number) for number in range(6)]
    write_manifest(prepared.folder, [dataclasses.replace(row, source_name=rows[0].source_name) for row in rows])
    with pytest.raises(DataError, match=r"belongs to 6 recordings. Give the path"):
        read_labels(table(tmp_path, "file,ef\nclip0,1\n"), EF, Prepared.open(prepared.folder), KEY)


def test_files_that_are_no_tables(tmp_path, prepared):
    with pytest.raises(DataError, match="no such label file"):
        read_labels(tmp_path / "none.csv", EF, prepared, KEY)
    with pytest.raises(DataError, match="holds no rows"):
        read_labels(table(tmp_path, "file,ef\n"), EF, prepared, KEY)
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_labels(tmp_path / "labels.csv", EF, prepared, KEY)
    with pytest.raises(DataError, match="no column beside the label"):
        read_labels(table(tmp_path, "ef\n50\n"), EF, prepared, KEY)


def test_empty_everywhere_is_an_error(tmp_path, prepared):
    with pytest.raises(DataError, match="no recording has a value in 'ef'"):
        read_labels(table(tmp_path, "file,ef\nclip0,\n"), EF, prepared, KEY)
