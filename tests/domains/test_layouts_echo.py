"""Data sets of echocardiography, in miniature: values by hand, the traps, and one line for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from layout_factory import (
    camus,
    echonet_dynamic,
    echonet_lvh,
    echonet_pediatric,
    mimic_iv_echo,
    rvenet,
    tmed2,
    touch,
    write,
)  # fmt: skip

from domains.errors import DataError
from domains.layouts import Layout, check_disjoint, open_layout


def change(root: Path, name: str, old: str, new: str) -> Layout:
    """The data set with one thing in a table changed."""
    text = (root / name).read_text()
    assert old in text
    write(root, {name: text.replace(old, new)})
    return open_layout(root)


def whats(layout: Layout) -> dict[str, int]:
    return {note.what: note.count for note in layout.notes()}


def test_echonet_dynamic(tmp_path: Path) -> None:
    layout = open_layout(echonet_dynamic(tmp_path))
    first, second = layout.recordings()
    assert first.path == "Videos/0XAAA.avi"
    assert first.labels == {"ef": 55.5, "esv": 40.0, "edv": 90.0, "view": "A4C"}
    assert (first.fps, first.splits, second.splits) == (50.0, {"official": "train"}, {"official": "val"})
    assert layout.missing() == ["Videos/0XCCC.avi"]
    assert layout.unlisted() == ["Videos/0XZZZ.avi"]
    check_disjoint(*layout.split().values())
    assert layout.tasks()["ef"].unit == "%"
    assert whats(layout) == {
        "named by a table, not on disk": 1, "on disk, named by no table": 1,
        "not two frames with an outline: no keyframes": 1,
    }  # fmt: skip


def test_echonet_dynamic_outlines_leave_the_axis_out_and_the_larger_is_ed(tmp_path: Path) -> None:
    layout = open_layout(echonet_dynamic(tmp_path))
    large, _ = layout.contours()
    assert (large.frame, large.points) == (46, ((4, 2), (4, 8), (6, 8), (6, 2)))
    assert [(s.value, s.start, s.end) for s in layout.spans("keyframe")] == [
        ("ES", 61 / 50, 62 / 50),
        ("ED", 46 / 50, 47 / 50),
    ]
    (tmp_path / "VolumeTracings.csv").unlink()
    assert list(layout.contours()) == []
    assert "no VolumeTracings.csv: no outlines, no keyframes" in whats(layout)


def test_fractions_become_percent_but_only_where_all_are(tmp_path: Path) -> None:
    root = echonet_dynamic(tmp_path)
    text = (root / "FileList.csv").read_text()
    for old, new in (("55.5", "0.555"), ("0XBBB,30,", "0XBBB,0.3,"), (",61,", ",0.61,")):
        text = text.replace(old, new)
    write(root, {"FileList.csv": text})
    layout = open_layout(root)
    assert [recording.labels["ef"] for recording in layout.recordings()] == [pytest.approx(55.5), 30.0]
    assert whats(layout)["'EF' holds fractions: read as percent"] == 1
    layout = change(root, "FileList.csv", "0.61", "61")  # a heart at 0.3 % is somebody else's question
    assert [recording.labels["ef"] for recording in layout.recordings()] == [0.555, 0.3]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("55.5", "fifty", r"FileList.csv:2: 'EF' is not a number: 'fifty'"),
        ("FileName,EF,", "FileName,Ejection,", r"no column 'EF' \(columns: FileName, Ejection, ESV, EDV"),
        ("TRAIN", "TRIAN", r"FileList.csv:2: 'Split' has an unknown class 'trian'. Did you mean 'train'"),
        ("0XBBB", "", r"FileList.csv:3: 'FileName' is empty"),
        (",VAL", "", r"FileList.csv:3: 8 cells where the header has 9"),
    ],
)
def test_echonet_dynamic_mistakes(tmp_path: Path, old: str, new: str, message: str) -> None:
    root = echonet_dynamic(tmp_path)
    write(root, {"FileList.csv": (root / "FileList.csv").read_text().replace(old, new, 1)})
    with pytest.raises(DataError, match=message):
        list(open_layout(root, "echonet-dynamic").recordings())


def test_an_empty_cell_is_no_label_and_noted(tmp_path: Path) -> None:
    layout = change(echonet_dynamic(tmp_path), "FileList.csv", "30,80.25", ",80.25")
    assert "ef" not in list(layout.recordings())[1].labels
    assert whats(layout)["no 'EF'"] == 1


def test_echonet_pediatric(tmp_path: Path) -> None:
    layout = open_layout(echonet_pediatric(tmp_path))
    one, two, short = layout.recordings()
    assert one.labels == {"view": "A4C", "ef": 62.5, "age": 3.0, "weight": 14.5, "height": 95.0, "sex": "F"}
    assert "weight" not in two.labels
    assert (one.group, short.group, two.group) == (
        "echonet-pediatric/CR1", "echonet-pediatric/CR1", "echonet-pediatric/CR2",
    )  # fmt: skip
    assert (one.splits["fold0"], one.splits["fold9"], one.splits["fold1"]) == ("test", "val", "train")
    assert (two.splits["fold9"], two.splits["fold8"]) == ("test", "val")
    contour = next(layout.contours())
    assert (contour.recording, contour.frame) == ("A4C/Videos/CR1-CRa-000001.avi", 12)
    assert contour.points == ((1, 1), (3, 1), (3, 4))
    notes = whats(layout)
    assert notes["frame 'No Systolic': no outline"] == 1
    assert notes["no VolumeTracings.csv: no outlines"] == 1
    assert notes["patients on more than one side of the official split 'fold0'"] == 1  # the views were drawn apart
    parts = layout.split("fold0")
    with pytest.raises(DataError, match="1 groups stand on both sides: echonet-pediatric/CR1"):
        check_disjoint(parts["test"], parts["train"])


def test_echonet_pediatric_needs_one_view_only_and_folds_below_ten(tmp_path: Path) -> None:
    root = echonet_pediatric(tmp_path)
    (root / "PSAX/FileList.csv").unlink()
    assert len(list(open_layout(root).recordings())) == 2
    assert open_layout(root).unlisted() == ["PSAX/Videos/CR1-CRc-000007.avi"]
    layout = change(root, "A4C/FileList.csv", ",140,9", ",140,10")
    with pytest.raises(DataError, match=r"FileList.csv:3: 'Split' is 10, not a fold from 0 to 9"):
        list(layout.recordings())


def test_echonet_lvh(tmp_path: Path) -> None:
    layout = open_layout(echonet_lvh(tmp_path))
    one, two = layout.recordings()
    assert (one.path, two.path) == ("Batch1/0XL1.avi", "Batch3/0XL2.avi")
    assert one.labels == {"view": "PLAX", "ivsd": 1.2, "lvidd": 4.5}
    assert (one.splits, two.splits, one.fps) == ({"official": "train"}, {"official": "val"}, 40.0)
    assert layout.missing() == ["0XL3.avi"]
    caliper = next(layout.contours())
    assert (caliper.kind, caliper.frame, caliper.points) == ("IVSd", 10, ((100, 50), (110, 60)))
    assert whats(layout)["a second, other measurement of the same kind: the first holds"] == 1
    layout = change(tmp_path, "MeasurementsList.csv", "768,train\n1", "768,test\n1")
    with pytest.raises(DataError, match=r"MeasurementsList.csv:4: one file in the parts test, train"):
        list(layout.recordings())
    write(
        tmp_path,
        {
            "MeasurementsList.csv": (tmp_path / "MeasurementsList.csv")
            .read_text()
            .replace("768,test\n1", "768,train\n1")
        },
    )
    layout = change(tmp_path, "MeasurementsList.csv", "LVPWd", "LVPWs")
    with pytest.raises(DataError, match=r"MeasurementsList.csv:5: 'Calc' has an unknown class 'LVPWs'. Did you mean"):
        list(layout.recordings())


def test_camus(tmp_path: Path) -> None:
    layout = open_layout(camus(tmp_path))
    two, four, *rest = layout.recordings()
    assert len(rest) == 2
    assert two.path == "patient0001/patient0001_2CH_half_sequence.nii.gz"
    assert two.labels == {"view": "A2C", "ef": 54.0, "age": 56.0, "sex": "F", "image_quality": "Good"}
    assert (two.media, two.fps, two.event, four.labels["view"]) == ("volume", 50.0, four.event, "A4C")
    assert (two.splits, rest[0].splits) == ({"official": "train"}, {"official": "test"})
    assert layout.missing() == layout.unlisted() == []
    spans = [span for span in layout.spans("keyframe") if span.recording == two.path]
    assert [(s.value, s.start, s.end) for s in spans] == [("ED", 0.0, 0.02), ("ES", 19 / 50, 20 / 50)]  # from 1
    assert whats(layout) == {"no FrameRate: no keyframes": 2}
    check_disjoint(*layout.split().values())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("EF: 54", "EF: NaN", r"Info_2CH.cfg:7: 'EF' is not a number: 'NaN'"),
        ("EF: 54\n", "", r"Info_2CH.cfg: no key 'EF' \(keys: ED, ES, NbFrame"),
        ("Good", "Goood", r"Info_2CH.cfg:6: 'ImageQuality' has an unknown class 'Goood'. Did you mean 'Good'"),
        ("Age: 56", "Age 56", r"Info_2CH.cfg:5: 'Age 56' is not 'Key: value'"),
    ],
)
def test_camus_mistakes(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(change(camus(tmp_path), "patient0001/Info_2CH.cfg", old, new).recordings())


def test_camus_older_release_and_a_patient_in_two_subgroups(tmp_path: Path) -> None:
    root = camus(tmp_path / "training").parent  # one folder deeper, LVef, MetaImage, no subgroups
    for path in (root / "training").glob("subgroup_*.txt"):
        path.unlink()
    (root / "training/patient0001/patient0001_2CH_half_sequence.nii.gz").unlink()
    touch(root, "training/patient0001/patient0001_2CH_sequence.mhd")
    layout = change(root, "training/patient0001/Info_2CH.cfg", "EF: 54", "LVef: 54")
    first = next(layout.recordings())
    assert (first.path.endswith("_2CH_sequence.mhd"), first.labels["ef"], first.splits) == (True, 54.0, {})
    assert whats(layout)["no subgroup_*.txt: no official split"] == 1
    write(root, {"subgroup_training.txt": "patient0001\n", "subgroup_testing.txt": "patient0002\npatient0001\n"})
    with pytest.raises(DataError, match=r"subgroup_t\w+ing.txt:\d: a patient of the part '\w+' again"):
        list(open_layout(root).recordings())


def test_mimic_iv_echo_shows_no_patient(tmp_path: Path) -> None:
    layout = open_layout(mimic_iv_echo(tmp_path))
    (recording,) = layout.recordings()
    assert recording.labels == {"ef": 55.0, "lvot_diam": 2.1, "mr_grade": "mild"}
    assert recording.group.startswith("mimic-iv-echo/")
    assert "10002221" not in recording.group + recording.event + str(layout.notes())
    assert len(layout.missing()) == 2
    assert whats(layout) == {"a measurement without a result": 1, "named by a table, not on disk": 2}
    with pytest.raises(DataError, match="no official split"):
        layout.split()
    (tmp_path / "structured-measurement.csv.gz").write_bytes(b"not packed")
    with pytest.raises(DataError, match=r"structured-measurement\.csv\.gz: cannot be read as a table"):
        list(open_layout(tmp_path).recordings())
    (tmp_path / "structured-measurement.csv.gz").unlink()
    assert next(open_layout(tmp_path).recordings()).labels == {}


def test_mimic_iv_echo_mistakes(tmp_path: Path) -> None:
    layout = change(mimic_iv_echo(tmp_path), "echo-record-list.csv", "10009999,95", ",95")
    with pytest.raises(DataError, match=r"echo-record-list.csv:4: a record without file or subject"):
        list(layout.recordings())


def test_tmed2(tmp_path: Path) -> None:
    layout = open_layout(tmed2(tmp_path))
    one, two = layout.recordings()
    assert one.path == "view_and_diagnosis_labeled_set/labeled/10s1_0.png"
    assert (one.labels, two.labels) == ({"view": "PLAX", "diagnosis": "severe_AS"}, {"view": "A4CorA2CorOther"})
    assert (one.group, two.group, one.event, two.event) == ("tmed2/10", "tmed2/10", "tmed2/10s1", "tmed2/10s2")
    assert (one.media, one.splits, two.splits) == ("still", {"official": "train"}, {})
    assert layout.missing() == ["22s1_1.png"]
    touch(tmp_path, "view_labeled_set/labeled/10s1_0.png")
    layout = open_layout(tmp_path)
    assert whats(layout)["several pictures of one name: the first holds"] == 1
    layout = change(tmp_path, "labels_per_image.csv", "severe_AS", "severe")
    with pytest.raises(DataError, match=r"labels_per_image.csv:2: 'diagnosis_label' has an unknown class 'severe'"):
        list(layout.recordings())


def test_rvenet(tmp_path: Path) -> None:
    layout = open_layout(rvenet(tmp_path))
    one, two, three = layout.recordings()
    assert one.path == "dicom/f1.dcm"
    assert one.labels == {"view": "A4C", "rvef": 52.0, "ultrasound_system": "GE"}
    assert (one.group, two.group, three.splits) == ("rvenet/p1", "rvenet/p1", {"official": "test"})
    assert whats(layout) == {"'RVEF' holds fractions: read as percent": 1}
    check_disjoint(*layout.split().values())
    layout = change(tmp_path, "codebook.csv", "PatientHash", "Other")
    assert [recording.group for recording in layout.recordings()][:2] == ["rvenet/f1", "rvenet/f2"]
    assert whats(layout)["no PatientHash: the file stands for itself"] == 3
